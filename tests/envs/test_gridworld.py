"""What a described grid means: hand-worked tables, random maps against a slow oracle, and known worlds."""

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.gridworld import build
from envs.gridworld.grid import KINDS, Grid
from envs.language import read
from envs.lift import lift
from envs.mdp import TabularMDP
from tests.oracles import gridworlds


def test_a_small_world_worked_by_hand():
    # states: 0 1 2 on top; 3 4 below the wall's left and right        S . H
    #                                                                  x # G
    grid = read(
        """
        map = '''
S.H
x#G'''
        actions = ["right", "down", "stay"]
        [reward]
        step = -1
        bump = -2
        forbidden = -3
        goal = 10
        hole = -20
        [slip]
        forward = 0.75
        right = 0.25
        """,
        "hand.toml",
    )
    mdp = build(grid, "hand").mdp
    #        right: forward, then slipped down        down: forward, then slipped left    stay
    assert mdp.next_state.tolist() == [
        [[1, 3], [3, 0], [0, 0]],
        [[2, 1], [1, 0], [1, 1]],
        [[2, 2], [2, 2], [2, 2]],
        [[3, 3], [3, 3], [3, 3]],
        [[4, 4], [4, 4], [4, 4]],
    ]
    assert mdp.reward.tolist() == [
        [[-1, -3], [-3, -2], [-1, -1]],
        [[-20, -2], [-2, -1], [-1, -1]],
        [[0, 0], [0, 0], [0, 0]],
        [[-2, -2], [-2, -2], [-3, -3]],
        [[0, 0], [0, 0], [0, 0]],
    ]
    moves, over = [[0.75, 0.25], [0.75, 0.25], [1, 0]], [[1, 0]] * 3
    assert mdp.prob.tolist() == [moves, moves, over, moves, over]
    ends = [[True, True]] * 3
    never = [[False, False]] * 3
    assert mdp.terminated.tolist() == [never, [[True, False], *never[1:]], ends, never, ends]
    assert mdp.start.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ["FrozenLake-v1", "FrozenLake8x8-v1"])
def test_our_frozen_lake_is_gymnasiums_entry_by_entry(name: str):
    ours = envs.load({"FrozenLake-v1": "frozenlake-4x4", "FrozenLake8x8-v1": "frozenlake-8x8"}[name])
    lifted = lift(gymnasium.make(name))
    for field in ("next_state", "reward", "terminated", "start"):
        assert torch.equal(getattr(ours.mdp, field), getattr(lifted, field)), field
    torch.testing.assert_close(ours.mdp.prob, lifted.prob, rtol=0, atol=1e-15)  # 1/3 and (1 - 1/3) / 2
    assert ours.time_limit == gymnasium.spec(name).max_episode_steps
    assert ours.action_names == envs.load(name).action_names


def test_our_cliff_is_gymnasiums_where_an_agent_can_stand():
    ours, lifted = envs.load("cliff").mdp, lift(gymnasium.make("CliffWalking-v1"))
    stands = torch.arange(48) < 37  # all above the cliff, and the start; beyond are the cliff and the goal
    for field in ("next_state", "prob", "reward", "terminated"):
        assert torch.equal(getattr(ours, field)[stands], getattr(lifted, field)[stands]), field
    assert torch.equal(ours.start, lifted.start)


@pytest.mark.parametrize("name", sorted({*envs.names()} - {"car-rental"}))  # which is no grid, and slow
def test_a_named_world_has_the_optimum_that_its_source_states(name: str):
    world = envs.load(name)
    mdp, known = world.mdp, world.optimum
    tables = (t.numpy() for t in (mdp.next_state, mdp.prob, mdp.reward, mdp.terminated))
    values = gridworlds.optimal_values(*tables, known.discount)
    assert float(mdp.start.numpy() @ values) == pytest.approx(known.value, abs=known.tolerance)
    if known.values:
        mapped = np.where(world.layout.state >= 0, values[world.layout.state], np.nan)
        np.testing.assert_allclose(mapped, known.values, atol=0.05 + 1e-9)


def test_zhao_has_the_printed_values():
    mdp = envs.load("zhao-5x5").mdp
    tables = (t.numpy() for t in (mdp.next_state, mdp.prob, mdp.reward, mdp.terminated))
    values = gridworlds.optimal_values(*tables, 0.9).reshape(5, 5)
    assert [" ".join(f"{v:.1f}" for v in row) for row in values] == [
        "5.8 5.6 6.2 6.5 5.8",
        "6.5 7.2 8.0 7.2 6.5",
        "7.2 8.0 10.0 8.0 7.2",
        "8.0 10.0 10.0 10.0 8.0",
        "7.2 9.0 10.0 9.0 8.1",
    ]


def test_a_cell_of_ones_own_kind_and_an_override():
    text = 'map = "SL"\n[cell.lava]\nglyph = "L"\nlike = "hole"\nterminal = true\n[reward]\nlava = -5\n'
    mdp = build(read(text, "lava.toml"), "lava").mdp
    right = 1
    assert (mdp.reward[0, right, 0].item(), mdp.terminated[0, right, 0].item()) == (-5, True)
    milder = build(read(text, "lava.toml", {"reward.lava": "-1/2", "cell.lava.terminal": "false"}), "lava")
    assert (milder.mdp.reward[0, right, 0].item(), milder.mdp.terminated[0, right, 0].item()) == (-0.5, False)
    assert milder.layout.shows("hole").tolist() == [[False, True]]


def test_a_uniform_start_covers_the_cells_where_an_episode_can_go_on():
    start = envs.load("cliff", {"start": "uniform"}).mdp.start  # 48 cells, 10 of them cliff, 1 goal
    assert start[:37].tolist() == [1 / 37] * 37
    assert start[37:].sum() == 0


def test_eight_moves_go_where_they_say():
    king = build(
        read('map = "...\\n.S.\\n..."\nactions = ["up-right", "down-right", "down-left", "up-left"]', "k"), "k"
    )
    assert king.mdp.next_state[4, :, 0].tolist() == [2, 8, 6, 0]


maps = st.integers(1, 5).flatmap(
    lambda cols: st.lists(st.text("..#xGH", min_size=cols, max_size=cols), min_size=1, max_size=5)
)
chances = st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any)
numbers = st.integers(-9, 9).map(float)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), rows=maps, weights=chances, goal_ends=st.booleans())
def test_any_grid_means_what_the_slow_oracle_says(data, rows, weights, goal_ends):
    at = data.draw(st.integers(0, len(rows) * len(rows[0]) - 1))
    r, c = divmod(at, len(rows[0]))
    rows[r] = rows[r][:c] + "S" + rows[r][c + 1 :]
    if data.draw(st.booleans()):
        rows.append("C" * len(rows[0]))
    slip = {t: w / sum(weights) for t, w in zip(("left", "forward", "back", "right"), weights, strict=True) if w}
    named = data.draw(st.sets(st.sampled_from(["step", "bump", "forbidden", "goal", "hole", "cliff"])))
    reward = {name: data.draw(numbers) for name in sorted(named)}
    actions = tuple(data.draw(st.permutations(["up", "right", "down", "left", "stay"])))
    kinds = dict(KINDS)
    kinds["goal"] = type(kinds["goal"])("G", "goal", terminal=goal_ends)
    world = build(Grid(tuple(rows), kinds=kinds, actions=actions, reward=reward, slip=slip), "random")
    mdp, cell = world.mdp, [tuple(pair) for pair in world.layout.cell.tolist()]
    assert all(rows[r][c] != "#" for r, c in cell)  # no state, so nothing is ever in a wall
    assert len(cell) == sum(glyph != "#" for row in rows for glyph in row)
    torch.testing.assert_close(mdp.prob.sum(-1), torch.ones(mdp.states, mdp.actions, dtype=torch.float64))
    for s, place in enumerate(cell):
        for a, action in enumerate(actions):
            expected = gridworlds.outcomes(rows, place, action, slip, reward, "HG" if goal_ends else "H")
            found: dict = {}
            for k in range(mdp.outcomes):
                what = (cell[mdp.next_state[s, a, k]], mdp.reward[s, a, k].item(), mdp.terminated[s, a, k].item())
                found[what] = found.get(what, 0.0) + mdp.prob[s, a, k].item()
            assert {k: p for k, p in found.items() if p} == pytest.approx(expected)


def test_tables_of_a_large_map_are_linear_in_its_cells():
    side = 300
    world = build(Grid(("S" + "." * (side - 1),) + ("." * side,) * (side - 1)), "large")
    assert isinstance(world.mdp, TabularMDP)
    assert world.mdp.next_state.shape == (side * side, 4, 1)
