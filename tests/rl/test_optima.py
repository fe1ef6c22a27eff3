"""Epsilon-greedy optima, far and tiny values, ties at gamma 1, bounds: each against another way to the same number."""

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order

from envs.mdp import TabularMDP
from rl import dp
from tests.oracles.dp import best_of_all, dense, dense_value, one_hot, random_mdp, table


def trembling(mdp: TabularMDP, epsilon: float) -> TabularMDP:
    """The world in which, with chance epsilon, a random action happens instead of the one chosen."""
    S, A, K = mdp.next_state.shape
    share = epsilon / A + (1 - epsilon) * torch.eye(A, dtype=torch.float64)  # [chosen, happens]
    every = [getattr(mdp, name)[:, None].expand(S, A, A, K) for name in ("next_state", "prob", "reward", "terminated")]
    next_state, prob, reward, terminated = every
    prob = share[None, :, :, None] * prob
    flat = [t.reshape(S, A, A * K).contiguous() for t in (next_state, prob, reward, terminated)]
    return TabularMDP(*flat, mdp.start)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), epsilon=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_the_best_epsilon_greedy_policy_is_the_best_policy_of_the_trembling_world(seed: int, epsilon: float) -> None:
    mdp = random_mdp(seed, states=3, actions=3, outcomes=2)
    found = dp.policy_iteration(mdp, 0.9, epsilon)
    np.testing.assert_allclose(found.values, best_of_all(trembling(mdp, epsilon), 0.9), atol=1e-9)
    soft = dp.soft(found.policy, 3, epsilon)
    np.testing.assert_allclose(found.values, dense_value(mdp, soft.numpy(), 0.9), atol=1e-9)
    *_, (within, _) = (step for step, _ in zip(dp.backward(mdp, 0.9, epsilon), range(400), strict=False))
    np.testing.assert_allclose(found.values, within, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_optimum_is_that_of_the_linear_program(seed: int) -> None:
    """min sum v  such that  v(s) >= r(s, a) + gamma sum p v  for all s, a  (Puterman 1994, sec. 6.9.1)."""
    mdp = random_mdp(seed, states=6, actions=3, outcomes=2)
    sides = [dense(mdp, one_hot([a] * 6, 3)) for a in range(3)]
    found = linprog(
        np.ones(6),
        A_ub=np.concatenate([0.95 * P - np.eye(6) for P, _ in sides]),
        b_ub=np.concatenate([-r for _, r in sides]),
        bounds=(None, None),
    )
    for solution in (dp.value_iteration(mdp, 0.95), dp.policy_iteration(mdp, 0.95)):
        np.testing.assert_allclose(solution.values, found.x, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tolerance=st.sampled_from([1e-1, 1e-3, 1e-6]))
def test_no_value_is_further_from_the_truth_than_the_bound_says(seed: int, tolerance: float) -> None:
    mdp = random_mdp(seed, states=4, actions=2, outcomes=2, ending=0.05)
    truth = best_of_all(mdp, 0.9)
    for found in (dp.value_iteration(mdp, 0.9, tolerance), dp.policy_iteration(mdp, 0.9)):
        assert found.error <= tolerance
        assert np.abs(found.values.numpy() - truth).max() <= found.error + 1e-12
    assert np.isnan(dp.value_iteration(table([[(0, 1.0, True)]], [1.0]), 1.0).error)


@pytest.mark.parametrize("price", [0.0, -0.1])
def test_news_of_a_goal_travels_a_corridor_of_twenty_thousand_steps(price: float) -> None:
    """Actions: back, on, stay (at a price, which changes nothing). The value is 0.99^distance, 1e-87 at the far end."""
    S = 20_000
    here = np.arange(S)
    next_state = np.stack([np.maximum(here - 1, 0), np.minimum(here + 1, S - 1), here], 1)[:, :, None]
    terminated = next_state == S - 1
    mdp = TabularMDP(
        next_state=torch.from_numpy(next_state.astype(np.int32)),
        prob=torch.ones(S, 3, 1, dtype=torch.float64),
        reward=torch.from_numpy(terminated + [[0.0], [0.0], [price]] * ~terminated),
        terminated=torch.from_numpy(terminated),
        start=torch.from_numpy((here == 0).astype(float)),
    )
    found = dp.value_iteration(mdp, 0.99)
    np.testing.assert_allclose(found.values[:-1].numpy(), 0.99 ** (S - 2.0 - here[:-1]), rtol=1e-9)
    assert (found.policy[:-1] == 1).all()
    if price == 0:  # beside a price of 0.1 all else is equal but for rounding
        assert (found.ties()[:-1] == torch.tensor([0.0, 1.0, 0.0])).all()


def test_a_value_that_cancels_out_does_not_keep_value_iteration_going() -> None:
    """0 earns 1, then 1 pays 1 / gamma; from 2 one may only go to 0 or wait: all are worth 0 in the end."""
    rows = [[(1, 1.0, False)] * 2, [(3, -1 / 0.9, False)] * 2, [(0, 0.0, False), (2, 0.0, False)], [(3, 0.0, True)] * 2]
    found = dp.value_iteration(table(rows, [0.25] * 4), 0.9)
    np.testing.assert_allclose(found.values.tolist(), [0, -1 / 0.9, 0, 0], atol=1e-9)
    assert found.iterations < 300


def test_undiscounted_ties_are_broken_towards_the_end() -> None:
    """Waiting (action 0) and turning back (1) are as good as going on (2), but not for ever; 3 goes on at a cost."""
    on = [(0, 0.0, False), (0, 0.0, False), (1, 0.0, False), (1, -1.0, False)]
    rows = [
        on,
        [(1, 0.0, False), (0, 0.0, False), (2, 0.0, False), (2, -1.0, False)],
        [(2, 0.0, False), (1, 0.0, False), (2, 1.0, True), (2, 0.0, True)],
    ]
    mdp = table(rows, [1.0, 0.0, 0.0])
    for found in (dp.value_iteration(mdp, 1.0), dp.policy_iteration(mdp, 1.0)):
        assert found.policy.tolist() == [2, 2, 2]
        assert dp.evaluate_exactly(mdp, found.policy, 1.0).tolist() == [1.0, 1.0, 1.0]


@settings(max_examples=150, deadline=None)
@given(
    to=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    reward=st.lists(st.sampled_from([0.0, 0.0, 0.0, -1.0, -2.0]), min_size=12, max_size=12),
    ends=st.lists(st.sampled_from([False, False, True]), min_size=12, max_size=12),
)
def test_undiscounted_an_end_that_costs_may_be_worse_than_going_on(
    to: list[int], reward: list[float], ends: list[bool]
) -> None:
    """Four states, three actions without chance: each of the 81 policies is walked for 40 steps from each state."""
    pairs = list(zip(to, reward, ends, strict=True))
    mdp = table([pairs[3 * s : 3 * s + 3] for s in range(4)], [0.25] * 4)
    best = np.full(4, -np.inf)
    for policy in np.ndindex(3, 3, 3, 3):
        for first in range(4):
            s, total, over = first, [0.0], False
            while not over and len(total) <= 40:
                s, r, over = pairs[3 * s + policy[s]]
                total.append(total[-1] + r)
            if total[-1] == total[max(-5, -len(total))] or over:  # at rest, as every circle has four states at most
                best[first] = max(best[first], total[-1])
    try:
        found = dp.policy_iteration(mdp, 1.0)
    except dp.DPError:  # where even random steps never end
        reject()
    np.testing.assert_allclose(found.values, best, atol=1e-9)


@pytest.mark.parametrize("gamma", [0.99, 1.0])
def test_the_policy_of_a_maze_is_the_tree_of_a_breadth_first_search(gamma: float) -> None:
    """A random tree of 3,000 rooms with the goal at its root: there is one way home from everywhere."""
    rng = np.random.default_rng(1)
    S = 3000
    parent = np.array([0, *(rng.integers(max(0, s - 40), s) for s in range(1, S))])
    doors: list[list[int]] = [[] for _ in range(S)]
    for s in range(1, S):
        doors[s].append(int(parent[s]))
        doors[parent[s]].append(s)
    A = max(map(len, doors))
    ways = np.array([[*rng.permutation(d), *[s] * (A - len(d))] for s, d in enumerate(doors)])[:, :, None]
    mdp = TabularMDP(
        next_state=torch.from_numpy(ways.astype(np.int32)),
        prob=torch.ones(S, A, 1, dtype=torch.float64),
        reward=torch.from_numpy((ways == 0).astype(float)),
        terminated=torch.from_numpy(ways == 0),
        start=torch.full((S,), 1 / S, dtype=torch.float64),
    )
    found = dp.value_iteration(mdp, gamma)
    graph = csr_matrix((np.ones(S * A), (ways.ravel(), np.repeat(np.arange(S), A))), shape=(S, S))
    _, tree = breadth_first_order(graph, 0, return_predecessors=True)
    assert (ways[np.arange(S), found.policy.numpy(), 0][1:] == tree[1:]).all()


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, float("nan")])
def test_an_epsilon_that_is_no_chance_is_refused(epsilon: float) -> None:
    with pytest.raises(dp.DPError, match="expected a chance from 0 to 1"):
        dp.policy_iteration(table([[(0, 1.0, True)]], [1.0]), 0.9, epsilon)
