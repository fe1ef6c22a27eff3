"""Mazes are trees, the gambler plays boldly, the cars add up one by one, the biased maximum has a normal's moments."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import sparse, stats
from scipy.sparse import csgraph

from envs.makers import MAKERS, MapMaker, TableMaker
from envs.makers.car_rental import car_rental
from envs.makers.made import Made
from envs.makers.maze import perfect_maze, t_maze
from envs.makers.textbook import gambler, maximization_bias
from rl import dp


def test_every_default_lies_in_its_range_and_makes_a_world():
    for name, maker in MAKERS.items():
        given = {}
        for key, p in maker.parameters.items():
            assert p.low <= p.default <= p.high, (name, key)
            assert not p.whole or float(p.default).is_integer(), (name, key)
            given[key] = int(p.default) if p.whole else float(p.default)
        if isinstance(maker, MapMaker):
            assert len({len(row) for row in maker.draw(**given)}) == 1
        else:
            assert isinstance(maker, TableMaker)
            made = maker.make(**given)
            assert made.mdp.actions == len(made.action_names) == len(set(made.action_names))
            assert made.layout.state.flatten().tolist() == list(range(made.mdp.states))


# Mazes


def graph(rows: tuple[str, ...]) -> tuple[sparse.csr_array, dict[tuple[int, int], int]]:
    """Open cells of a map as an undirected graph, found cell by cell."""
    number = {(r, c): -1 for r, row in enumerate(rows) for c, glyph in enumerate(row) if glyph != "#"}
    number = {cell: i for i, cell in enumerate(number)}
    pairs = [(i, number[n]) for (r, c), i in number.items() for n in ((r + 1, c), (r, c + 1)) if n in number]
    here, there = np.array(pairs).T
    return sparse.csr_array((np.ones(len(pairs)), (here, there)), shape=(len(number),) * 2), number


@pytest.mark.parametrize(("size", "seed"), [(2, 0), (2, 1), (3, 7), (5, 0), (12, 3), (31, 2**40)])
def test_a_maze_is_a_tree_of_all_its_rooms(size: int, seed: int):
    rows = perfect_maze(size, seed)
    assert {len(rows), *map(len, rows)} == {2 * size + 1}
    edges, number = graph(rows)
    assert all((r, c) in number for r in range(1, 2 * size, 2) for c in range(1, 2 * size, 2))
    assert len(number) == 2 * size * size - 1  # the rooms, and one opening less
    assert edges.nnz == len(number) - 1
    assert csgraph.connected_components(edges, directed=False)[0] == 1
    assert (rows[1][1], rows[-2][-2], "".join(rows).count("S"), "".join(rows).count("G")) == ("S", "G", 1, 1)
    assert all(
        cell not in number for i in range(2 * size + 1) for cell in ((0, i), (i, 0), (2 * size, i), (i, 2 * size))
    )


def test_a_maze_is_its_seeds_own():
    drawn = [perfect_maze(6, seed) for seed in range(30)]
    assert drawn == [perfect_maze(6, seed) for seed in range(30)]
    assert len(set(drawn)) == 30
    opened = np.mean([[[glyph != "#" for glyph in row] for row in rows] for rows in drawn], 0)
    walls = np.concatenate([opened[1::2, 2:-1:2].ravel(), opened[2:-1:2, 1::2].ravel()])  # 60 of them, 35 opened a maze
    assert walls.mean() == pytest.approx(35 / 60)
    assert 0 < walls.min() < walls.max()  # every wall opens in some maze: none is drawn always


def test_a_t_maze_has_its_corridor():
    assert t_maze(3) == ("######", "####n#", "#S..+#", "####s#", "######")
    edges, number = graph(t_maze(40))
    steps = csgraph.shortest_path(edges, directed=False, unweighted=True, indices=number[2, 1])
    assert (steps[number[2, 41]], steps[number[1, 41]], steps[number[3, 41]]) == (40, 41, 41)
    assert t_maze(1)[2] == "#S+#"


# The gambler


def bold(capital: Fraction, p: float, depth: int = 0) -> float:
    """Chance of reaching 1 by always staking all that is useful (Dubins & Savage 1965): it reads capital's bits."""
    if capital in (0, 1) or depth > 60:
        return float(capital >= 1)
    if capital < Fraction(1, 2):
        return p * bold(2 * capital, p, depth + 1)
    return p + (1 - p) * bold(2 * capital - 1, p, depth + 1)


@pytest.mark.parametrize(("p", "goal"), [(0.4, 100), (0.25, 37), (0.49, 8)])
def test_the_gambler_is_worth_bold_play_when_the_coin_is_against_him(p: float, goal: int):
    solution = dp.value_iteration(gambler(p, goal).mdp, 1.0, tolerance=1e-14)
    expected = [0.0, *(bold(Fraction(s, goal), p) for s in range(1, goal)), 0.0]
    np.testing.assert_allclose(solution.values, expected, atol=1e-12)


def test_the_gambler_has_the_books_values():
    values = dp.value_iteration(gambler(0.4, 100).mdp, 1.0, tolerance=1e-14).values
    assert values[[25, 50, 75]].tolist() == pytest.approx([0.16, 0.4, 0.64], abs=1e-12)


def test_timid_play_is_the_gamblers_ruin():
    """Staking 1 is a random walk with a drift: (1 - (q/p)^s) / (1 - (q/p)^goal); with a fair coin, s / goal."""
    ones = torch.ones(21, dtype=torch.int64)
    values = dp.evaluate_exactly(gambler(0.55, 20).mdp, ones, 1.0)
    ratio = 0.45 / 0.55
    assert values[1:20].tolist() == pytest.approx([(1 - ratio**s) / (1 - ratio**20) for s in range(1, 20)], abs=1e-12)
    fair = dp.evaluate_exactly(gambler(0.5, 20).mdp, ones, 1.0)
    assert fair[1:20].tolist() == pytest.approx([s / 20 for s in range(1, 20)], abs=1e-12)


def test_a_stake_is_cut_to_what_is_there_and_what_is_missing():
    mdp = gambler(0.4, 10).mdp
    assert mdp.next_state[3].tolist() == [[3, 3], [4, 2], [5, 1], [6, 0], [6, 0], [6, 0]]
    assert mdp.next_state[8].tolist() == [[8, 8], [9, 7], *[[10, 6]] * 4]
    assert mdp.reward[8, 2].tolist() == [1, 0]
    assert mdp.terminated[8, 2].tolist() == [True, False]
    assert (mdp.next_state[10] == 10).all()
    assert not mdp.reward[10].any()
    assert mdp.start.tolist() == [0, *[1 / 9] * 9, 0]


# Jack's cars

DEFAULTS = {"max_cars": 20, "max_moved": 5, "rent": 10.0, "move_cost": 2.0}
MEANS = {"requests_1": 3.0, "requests_2": 4.0, "returns_1": 3.0, "returns_2": 2.0}


def day(cars: int, most: int, requests: float, returns: float) -> dict[tuple[int, int], float]:
    """Chance of (cars in the evening, cars rented), request by request and return by return, as far as any matter."""
    chances: dict[tuple[int, int], float] = {}
    for wanted in range(60):
        for back in range(60):
            p = math.exp(-requests - returns) * requests**wanted * returns**back
            p /= math.factorial(wanted) * math.factorial(back)
            key = (min(cars - min(wanted, cars) + back, most), min(wanted, cars))
            chances[key] = chances.get(key, 0.0) + p
    return chances


@pytest.mark.parametrize(
    ("n1", "n2", "wish", "moved"), [(0, 0, 5, 0), (20, 20, -3, -3), (20, 3, 5, 5), (2, 17, 5, 2), (9, 1, -4, -1)]
)
def test_a_night_and_a_day_of_car_rental_add_up(n1: int, n2: int, wish: int, moved: int):
    mdp = car_rental(**DEFAULTS, **MEANS).mdp
    first = day(min(n1 - moved, 20), 20, 3.0, 3.0)
    second = day(min(n2 + moved, 20), 20, 4.0, 2.0)
    chance, income = np.zeros(441), np.zeros(441)
    for (e1, k1), p1 in first.items():
        for (e2, k2), p2 in second.items():
            chance[e1 * 21 + e2] += p1 * p2
            income[e1 * 21 + e2] += p1 * p2 * (10 * (k1 + k2) - 2 * abs(wish))
    s, a = n1 * 21 + n2, wish + 5
    ours, paid = np.zeros(441), np.zeros(441)
    np.add.at(ours, mdp.next_state[s, a].numpy(), mdp.prob[s, a].numpy())
    np.add.at(paid, mdp.next_state[s, a].numpy(), (mdp.prob * mdp.reward)[s, a].numpy())
    np.testing.assert_allclose(ours, chance, atol=2e-12)
    np.testing.assert_allclose(paid, income, atol=5e-10)  # 400 dollars by the chance left out
    assert not mdp.terminated[s, a].any()


def test_the_best_action_is_never_to_move_cars_that_are_not_there():
    mdp = car_rental(**DEFAULTS, **MEANS).mdp
    first, second = np.divmod(np.arange(441), 21)
    best = dp.ties(dp.policy_iteration(mdp, 0.9).q).numpy()  # [S, A], every best action
    wish = np.arange(11) - 5
    assert not (best & ((wish > first[:, None]) | (-wish > second[:, None]))).any()
    assert best.sum() == 441


def test_car_rental_takes_other_numbers():
    made = car_rental(**(DEFAULTS | {"max_cars": 2, "max_moved": 1, "rent": 3.0}), **MEANS)
    assert made.mdp.next_state.shape == (9, 3, 9)
    assert made.action_names == ("-1", "0", "+1")
    chances = day(1, 2, 4.0, 2.0)
    gone = stats.poisson.sf(0, 3.0)  # a single car at the first is rented if anyone asks
    expected = 3.0 * (gone + sum(p * k for (_, k), p in chances.items()))
    assert float(made.mdp.expected_reward()[1 * 3 + 1, 1]) == pytest.approx(expected, abs=1e-12)
    quiet = car_rental(**DEFAULTS, **dict.fromkeys(MEANS, 0.0)).mdp
    assert (quiet.outcomes, float(quiet.expected_reward().max())) == (1, 0.0)


# The biased maximum


def test_rewards_in_b_have_the_moments_of_a_normal():
    mdp = maximization_bias(10, -0.1, 1.0).mdp
    x, p = mdp.reward[1], mdp.prob[1]
    mean = (p * x).sum(-1, keepdim=True)
    assert mean[:, 0].tolist() == pytest.approx([-0.1] * 10, abs=1e-14)
    for order, moment in enumerate([1, 0, 1, 0, 3, 0, 15, 0, 105]):
        found = (p * (x - mean) ** order).sum(-1)
        np.testing.assert_allclose(found, np.full(10, moment), atol=1e-11)
    wide = maximization_bias(2, 3.0, 2.0).mdp
    assert float((wide.prob[1] * (wide.reward[1] - 3) ** 2).sum(-1)[0]) == pytest.approx(4.0)


def test_a_random_action_in_a_goes_left_half_the_time():
    mdp = maximization_bias(10, -0.1, 1.0).mdp
    entered = mdp.next_state[2, :, 0]
    assert sorted(entered.tolist()) == [1] * 5 + [3] * 5
    assert mdp.terminated[2].all(-1).tolist() == (entered == 3).tolist()
    assert mdp.terminated[1].all()
    assert not mdp.reward[2].any()
    assert mdp.start.tolist() == [0, 0, 1, 0]
    uniform = torch.full((4, 10), 0.1, dtype=torch.float64)
    assert dp.evaluate_exactly(mdp, uniform, 1.0).tolist() == pytest.approx([0, -0.1, -0.05, 0], abs=1e-14)


def test_what_is_made_has_a_map():
    made: Made = maximization_bias(2, 0.0, 1.0)
    assert made.layout.glyphs == ("HBAG",)
    assert made.layout.cell.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert gambler(0.4, 4).layout.shows("goal").tolist() == [[False, False, False, False, True]]
    assert car_rental(**(DEFAULTS | {"max_cars": 3}), **MEANS).layout.cell[7].tolist() == [1, 3]  # one car, three cars
