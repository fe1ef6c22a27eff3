"""Wind, teleports, gates, turned moves, rewards by cell left, weighted starts: each worked by hand."""

import numpy as np
import pytest
import torch

from envs.gridworld import entries
from envs.language import read, world
from envs.language.document import WorldError
from envs.makers import MAKERS
from envs.makers.maze import perfect_maze
from envs.world import World

WINDY = '''
map = """
..........
..........
..........
S......G..
..........
..........
..........
"""
discount = 1
[reward]
step = -1
[wind]
up = [0, 0, 0, 1, 1, 1, 2, 2, 1, 0]
'''


def made(text: str) -> World:
    return world(text, "here.toml", "here")


def ends(found: World, action: str) -> list[int]:
    """Where each state's action leads, in a world without chance."""
    return found.mdp.next_state[:, found.action_names.index(action), 0].tolist()


def steps_to_the_goal(found: World) -> int:
    """The fewest steps from the start, by breadth-first search over the table."""
    seen = {int(found.mdp.start.argmax())}
    for steps in range(1, found.mdp.states):
        outcomes = [(s, a) for s in seen for a in range(found.mdp.actions)]
        if any(found.mdp.terminated[s, a, 0] for s, a in outcomes):
            return steps
        seen |= {int(found.mdp.next_state[s, a, 0]) for s, a in outcomes}
    raise AssertionError("there is no way")


@pytest.mark.parametrize(
    ("moves", "steps"),
    [
        (["up", "right", "down", "left"], 15),  # Sutton & Barto (2018), example 6.5
        (["up", "right", "down", "left", "up-right", "down-right", "down-left", "up-left"], 7),  # exercise 6.9
    ],
)
def test_the_windy_grid_takes_as_many_steps_as_in_the_book(moves: list[str], steps: int):
    assert steps_to_the_goal(made(f"actions = {moves}\n" + WINDY)) == steps


def test_the_edge_cuts_a_move_off_in_the_wind_and_stops_it_without():
    head = 'map = "...\\n.S.\\n..."\nactions = ["up-right", "up", "stay"]\n[reward]\nbump = -1\n'
    calm, windy = made(head), made(head + "[wind]\nup = [0, 0, 2]\n")
    assert ends(calm, "up-right") == [0, 1, 2, 1, 2, 5, 4, 5, 8]
    assert ends(windy, "up-right") == [1, 2, 2, 1, 2, 2, 4, 5, 2]
    assert ends(windy, "up") == [0, 1, 2, 0, 1, 2, 3, 4, 2]
    assert ends(windy, "stay") == [0, 1, 2, 3, 4, 2, 6, 7, 2]
    bumps = windy.mdp.reward[:, :, 0] == -1  # only where the edge leaves nothing of the move
    assert bumps.nonzero().tolist() == [[0, 1], [1, 1], [2, 0], [2, 1], [2, 2]]


def test_wind_blows_into_walls_and_over_them():
    assert ends(made('map = ".\\n#\\nS"\n[wind]\nup = [1]'), "right") == [0, 1]
    assert ends(made('map = ".\\n#\\nS"\n[wind]\nup = [2]'), "right") == [0, 0]
    assert ends(made('map = "S\\n#\\n."\n[wind]\nup = [-2]'), "right") == [1, 1]


def test_gusts_are_added_only_where_it_blows():
    found = made(
        'map = "..\\n..\\n..\\nSx"\nactions = ["left", "stay"]\n[slip]\nforward = "1/2"\nback = "1/2"\n'
        '[wind]\nup = [0, 1]\nvaries = { "-1" = "1/4", "1" = "3/4" }'
    )
    mdp, calm, windy = found.mdp, 6, 7  # the last row
    assert mdp.next_state[calm].tolist() == [[6, 6, 7, 7], [6, 6, 6, 6]]
    assert mdp.next_state[windy].tolist() == [[6, 2, 7, 3], [7, 3, 7, 3]]
    assert mdp.prob[windy].tolist() == [[0.125, 0.375, 0.125, 0.375], [0.25, 0.75, 0, 0]]


def test_suttons_two_jumps():
    rows = [".A.B.", ".....", "...b.", ".....", ".a..."]  # Sutton & Barto (2018), example 3.5
    jumps = "".join(f'[cell.{n}]\nglyph = "{n}"\nexit = "{n}{n}"\n[cell.{n}{n}]\nglyph = "{n.lower()}"\n' for n in "AB")
    found = made(
        f"map = '''\n{chr(10).join(rows)}\n'''\nstart = \"uniform\"\n[reward]\nbump = -1\n[leave]\nA = 10\nB = 5\n"
        + jumps
    )
    # the random policy's values, as figure 3.2 prints them
    P = np.zeros((25, 25))
    for action in found.action_names:
        P[np.arange(25), ends(found, action)] += 0.25
    r = found.mdp.reward[:, :, 0].mean(1).numpy()
    values = np.linalg.solve(np.eye(25) - 0.9 * P, r).reshape(5, 5)
    assert np.round(values[0], 1).tolist() == [3.3, 8.8, 4.4, 5.3, 1.5]
    assert np.round(values[4], 1).tolist() == [-1.9, -1.3, -1.2, -1.4, -2.0]
    assert found.layout.shows("portal").nonzero().tolist() == [[0, 1], [0, 3]]
    assert found.mdp.start.tolist() == [1 / 25] * 25


def test_an_exit_takes_no_chances():
    found = made(
        'map = "SA.a"\n[slip]\nforward = "1/2"\nleft = "1/2"\n[cell.spring]\nglyph = "A"\nexit = "far"\n'
        '[cell.far]\nglyph = "a"\n[reward]\nfar = 3\nbump = -1\n'
    )
    assert found.mdp.next_state[1].tolist() == [[3, 3]] * 4
    assert found.mdp.prob[1].tolist() == [[1, 0]] * 4
    assert found.mdp.reward[1].tolist() == [[3, 3]] * 4


def test_a_portal_carries_on_and_may_end_the_episode():
    found = made('map = "SP#G"\n[cell.portal]\nglyph = "P"\nto = "goal"\n[reward]\nportal = 2\ngoal = 5\n')
    right = 1
    assert (found.mdp.next_state[0, right, 0], found.mdp.terminated[0, right, 0]) == (2, True)
    assert found.mdp.reward[0, right, 0] == 2


def test_a_gate_is_a_state_that_cannot_be_entered_until_it_is_opened():
    text = 'map = "S=G"\n[reward]\nbump = -1\n[cell.gate]\nglyph = "="\nsolid = true\n'
    shut, opened = made(text), world(text, "here.toml", "here", {"cell.gate.solid": "false"})
    assert ends(shut, "right") == [0, 2, 2]
    assert ends(opened, "right") == [1, 2, 2]
    assert shut.mdp.reward[0, 1, 0] == -1
    assert shut.layout.shows("wall").tolist() == [[False, True, False]]
    assert world(text, "here.toml", "here", {"start": "uniform"}).mdp.start.tolist() == [1, 0, 0]


def test_moves_can_be_turned():
    found = made('map = "S~.G"\nactions = ["left", "right"]\n[cell.switched]\nglyph = "~"\nturn = "back"\n')
    assert ends(found, "right") == [1, 0, 3, 3]  # Sutton & Barto (2018), example 13.1
    assert ends(found, "left") == [0, 2, 1, 3]
    quarter = made('map = "...\\n.S.\\n..."\n[cell.start]\nturn = "left"\n')
    assert [ends(quarter, action)[4] for action in ("up", "right", "down", "left")] == [3, 1, 5, 7]
    slipped = made('map = "...\\n.S.\\n..."\n[cell.start]\nturn = "left"\n[slip]\nleft = 1\n')
    assert ends(slipped, "up")[4] == 7


def test_a_move_earns_the_first_number_that_is_given():
    text = 'map = "Sx."\nactions = ["right"]\nstart = "uniform"\n[reward]\nstep = 1\n'
    assert made(text).mdp.reward.flatten().tolist() == [1, 1, 1]
    text += "forbidden = 2\n"
    assert made(text).mdp.reward.flatten().tolist() == [2, 1, 1]
    text += "bump = 3\nfloor = 0\n"
    assert made(text).mdp.reward.flatten().tolist() == [2, 0, 3]
    assert made(text + "[leave]\nstart = 0\nfloor = 4\n").mdp.reward.flatten().tolist() == [0, 0, 4]


def test_starts_are_weighed_by_kind_and_shared_by_cell():
    found = made('map = "S.x.."\n[start]\nstart = 1\nfloor = "3/2"\nforbidden = 0\n')
    torch.testing.assert_close(found.mdp.start, torch.tensor([0.4, 0.2, 0, 0.2, 0.2], dtype=torch.float64))


def test_what_a_kind_is_given_puts_aside_what_it_did():
    ending = read('map = "SC"\n[cell.cliff]\nterminal = true', "here.toml").kinds["cliff"]
    leading = read('map = "SG"\n[cell.goal]\nexit = "start"', "here.toml").kinds["goal"]
    assert (ending.terminal, ending.to) == (True, "")
    assert (leading.terminal, leading.exit) == (False, "start")


def test_the_size_is_known_before_the_tables_are():
    keys = '[cell.k]\nglyph = "k"\nkey = "r"\n[cell.D]\nglyph = "D"\ndoor = "r"\n'
    text = 'map = "SkD."\n[slip]\nforward = 0.5\nleft = 0.5\n' + keys
    assert entries(read(text, "here.toml")) == made(text).mdp.next_state.numel() == 4 * 3 * 4 * 2


def test_a_maker_draws_the_map_and_the_language_does_the_rest():
    rules = "discount = 0.5\n[reward]\ngoal = 1\nstep = -1\n"
    drawn = world(f'make = "maze"\n{rules}[maze]\nsize = 4\n', "here.toml", "here", {"maze.seed": "3"})
    by_hand = made("map = '''\n" + "\n".join(perfect_maze(4, 3)) + f"\n'''\n{rules}")
    assert torch.equal(drawn.mdp.next_state, by_hand.mdp.next_state)
    assert torch.equal(drawn.mdp.reward, by_hand.mdp.reward)
    assert (drawn.layout.glyphs, drawn.discount) == (by_hand.layout.glyphs, 0.5)


def test_a_count_of_seeds_makes_a_mixture():
    text = 'make = "maze"\n[maze]\nsize = 3\nseed = 5\ncount = 3\n'
    mixed = made(text)
    S = mixed.mdp.states // 3
    for m in range(3):
        alone = world(text, "here.toml", "here", {"maze.count": "1", "maze.seed": 5 + m}).mdp
        block = slice(m * S, (m + 1) * S)
        assert torch.equal(mixed.mdp.next_state[block] - m * S, alone.next_state)
        assert torch.equal(mixed.mdp.terminated[block], alone.terminated)
    torch.testing.assert_close(mixed.mdp.start.view(3, S).sum(1), torch.full((3,), 1 / 3, dtype=torch.float64))
    with pytest.raises(WorldError, match=r"override maze\.count=9999: the world has \d.* expected at most 268,435,456"):
        world(text, "here.toml", "here", {"maze.count": "9999", "maze.size": 100})


def test_a_maker_of_tables_makes_them_all():
    text = 'source = "a book"\nmake = "gambler"\ndiscount = 1\ntime_limit = 9\n[gambler]\np = "1/4"\n'
    found = world(text, "here.toml", "bets", {"gambler.goal": "8"})
    truth = MAKERS["gambler"].make(p=0.25, goal=8)
    for field in ("next_state", "prob", "reward", "terminated", "start"):
        assert torch.equal(getattr(found.mdp, field), getattr(truth.mdp, field))
    assert (found.name, found.source, found.discount, found.time_limit) == ("bets", "a book", 1.0, 9)
    assert found.action_names == truth.action_names
    with pytest.raises(WorldError, match=r"^here\.toml:2:1: gambler makes tables, expected a world with a map"):
        read(text, "here.toml")
