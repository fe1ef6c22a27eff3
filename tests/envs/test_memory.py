"""Keys, doors and cues: what the states remember, worked by hand."""

import math

import pytest
import torch

from envs.language import world
from envs.world import World

DOORS = """
[cell.fetch]
glyph = "k"
key = "red"
[cell.gate]
glyph = "D"
door = "red"
"""
CUES = """
[cue.north]
chance = "1/4"
reward = { goal = 4, hole = -2 }
[cue.south]
chance = "3/4"
reward = { goal = -1 }
"""


def walk(found: World, moves: str, state: int = 0) -> tuple[list[int], list[float]]:
    """States and rewards along a way of l, r, u, d through a world without chance."""
    states, rewards = [state], []
    for move in moves:
        a = found.action_names.index({"l": "left", "r": "right", "u": "up", "d": "down"}[move])
        rewards.append(found.mdp.reward[states[-1], a, 0].item())
        states.append(int(found.mdp.next_state[states[-1], a, 0]))
    return states, rewards


def test_a_key_opens_a_door_once_and_for_good():
    found = world(
        f'map = "kSDG"\n{DOORS}[reward]\nstep = -1\nbump = -2\nfetch = 3\ngate = 5\ngoal = 9\nfloor = 7\n', "f", "f"
    )
    layout = found.layout
    assert layout.modes == ("", "red key", "red door open")
    assert found.mdp.states == 12
    states, rewards = walk(found, "rlrlrrlr", state=1)  # three modes of four cells
    #                     bump, key, S, where the key was, S, door, S, door
    assert states == [1, 1, 4, 5, 4, 5, 10, 9, 10]
    assert rewards == [-2, 3, -1, 7, -1, 5, -1, 7]
    assert found.mdp.terminated[10, 1, 0]
    badge = layout.badges[:, 0].tolist()
    assert layout.badge_names == ("red key",)
    assert badge == [0] * 4 + [1] * 4 + [0] * 4
    looks = [["key", "start", "door"], ["floor", "start", "door"], ["floor", "start", "floor"]]
    for mode, row in enumerate(looks):
        assert all(layout.shows(look, mode)[0, col] for col, look in enumerate(row))
    assert layout.alike is None


def test_two_doors_take_two_keys():
    found = world('map = "SkkDDG"' + DOORS, "f", "f")
    layout = found.layout
    ways = {tuple(labels.split(", ")) for labels in layout.modes}
    assert ways == {
        ("",),
        *((f"red key {i}",) for i in (1, 2)),
        ("red key 1", "red key 2"),
        *((f"red key {i}", f"red door {j} open") for i in (1, 2) for j in (1, 2)),
        *(("red key 1", "red key 2", f"red door {j} open") for j in (1, 2)),
        ("red key 1", "red key 2", "red door 1 open", "red door 2 open"),
    }
    states, _ = walk(found, "rrrrr")
    shares = [layout.badges[s, 0].item() for s in states]
    assert shares == [0, 0.5, 1, 0.5, 0, 0]
    assert layout.cell[states, 1].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("keys", range(4))
@pytest.mark.parametrize("doors", range(4))
def test_no_more_doors_are_open_than_keys_are_taken(keys: int, doors: int):
    found = world(f'map = "S{"k" * keys}{"D" * doors}"' + DOORS, "f", "f")
    ways = sum(
        math.comb(keys, taken) * math.comb(doors, opened) for taken in range(keys + 1) for opened in range(taken + 1)
    )
    assert len(found.layout.modes) == len(set(found.layout.modes)) == ways
    assert found.mdp.states == ways * (1 + keys + doors)


def test_a_door_without_its_key_on_the_map_stays_shut():
    found = world('map = "SDG"' + DOORS, "f", "f")
    assert walk(found, "rr")[0] == [0, 0, 0]
    assert (found.layout.modes, found.layout.badges) == (("",), None)


def test_another_colour_opens_nothing():
    blue = '[cell.other]\nglyph = "b"\nkey = "blue"\n'
    states, _ = walk(world('map = "Sb.DG"' + DOORS + blue, "f", "f"), "rrrr")
    assert states[-1] == states[-2]


def test_a_cue_is_drawn_kept_and_seen_only_where_it_is_shown():
    found = world('map = "S.GH"\n[reward]\nhole = -5\nstep = -1\n' + CUES, "f", "f")
    layout, mdp = found.layout, found.mdp
    assert layout.modes == ("cue north", "cue south")
    assert mdp.start.tolist() == [0.25, 0, 0, 0, 0.75, 0, 0, 0]
    assert walk(found, "rr", 0) == ([0, 1, 2], [-1, 4])
    assert walk(found, "rr", 4) == ([4, 5, 6], [-1, -1])
    assert layout.badge_names == ("cue north", "cue south")
    assert layout.badges.tolist() == [[1, 0], *[[0, 0]] * 3, [0, 1], *[[0, 0]] * 3]
    assert layout.alike.tolist() == [0, 1, 2, 3, 4, 1, 2, 3]


def test_a_cue_leaves_the_rewards_that_it_does_not_name():
    found = world('map = "SH."\nstart = "uniform"\n[reward]\nhole = -5\n' + CUES, "f", "f")
    left = found.action_names.index("left")
    assert found.mdp.reward[[2, 5], left, 0].tolist() == [-2, -5]


def test_other_cells_can_show_the_cue():
    shown = '[cell.start]\ncue = false\n[cell.sign]\nglyph = "!"\ncue = true\n'
    layout = world('map = "S.!"\n' + CUES + shown, "f", "f").layout
    assert layout.alike.tolist() == [0, 1, 2, 0, 1, 5]
    assert layout.badges[:, 1].tolist() == [0, 0, 0, 0, 0, 1]


def test_cells_that_look_alike_share_their_first():
    layout = world('map = ".S..x"\nalike = ["floor", "forbidden"]', "f", "f").layout
    assert layout.alike.tolist() == [0, 1, 0, 0, 0]


def test_keys_cues_and_alike_cells_go_together():
    found = world('map = "S.k"\nalike = ["floor"]' + DOORS + CUES, "f", "f")
    layout = found.layout
    assert layout.modes == ("cue north", "cue south", "red key, cue north", "red key, cue south")
    #                 S . k: the cue at S, the key's cell is floor once it is taken
    assert layout.alike.view(4, 3).tolist() == [[0, 1, 2], [3, 1, 2], [6, 7, 7], [9, 7, 7]]
    assert torch.equal(layout.badges[:, 0].view(4, 3)[:, 0], torch.tensor([0.0, 0, 1, 1]))
    assert walk(found, "rrll", 3)[0] == [3, 4, 11, 10, 9]


def test_an_episode_begins_with_nothing_in_hand():
    found = world('map = "S.kD"\nstart = "uniform"' + DOORS, "f", "f")
    assert found.mdp.start.tolist() == [0.5, 0.5] + [0] * 10  # not where a key lies or a door is shut
