"""Undiscounted worlds where one may wait for nothing, or gain and lose in a circle: the best policy there is."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from envs.mdp import TabularMDP
from rl import dp
from rl.homeward import earns
from rl.prioritised import prioritised_sweeping
from rl.rest import rest
from rl.truncated import truncated_policy_iteration
from tests.oracles.dp import Array, dense, one_hot, table

Rows = list[list[tuple[int, float, bool]]]
F, T = False, True
METHODS: dict[str, Callable[[TabularMDP], dp.Solution]] = {
    "policy iteration": lambda mdp: dp.policy_iteration(mdp, 1.0),
    "value iteration": lambda mdp: dp.value_iteration(mdp, 1.0, sweeps=100),
    "truncated": lambda mdp: truncated_policy_iteration(mdp, 1.0, improvements=40),
    "prioritised": lambda mdp: prioritised_sweeping(mdp, 1.0, most=200),
}


def small_world(rng: np.random.Generator, outcomes: int) -> TabularMDP:
    """4 states, 2 or 3 actions; chances are quarters, half the rewards 0, one outcome in seven ends."""
    S, A = 4, int(rng.integers(2, 4))
    first = rng.integers(0, 5, (S, A, 1)) / 4 if outcomes == 2 else np.ones((S, A, 1))
    reward = rng.choice([-5.0, -1.0, 0.0, 0.0, 0.0, 1.0], (S, A, 1)).repeat(outcomes, 2)
    return TabularMDP(
        next_state=torch.from_numpy(rng.integers(0, S, (S, A, outcomes), dtype=np.int32)),
        prob=torch.from_numpy(np.concatenate([first, 1 - first], 2)[:, :, :outcomes].copy()),
        reward=torch.from_numpy(reward),
        terminated=torch.from_numpy(rng.random((S, A, outcomes)) < 1 / 7),
        start=torch.full((S,), 1 / S, dtype=torch.float64),
    )


def worth(mdp: TabularMDP, policies: Array) -> tuple[Array, Array]:
    """What each policy [N, S] earns in 2^14 steps, -inf where rewards never cease, and its gain a step, both [N, S].

    Steps are doubled, sum_2n = sum_n + P^n sum_n. What comes for ever is seen by one who half the time stays where he
    is, and so takes part in every circle's states alike.
    """
    each = [dense(mdp, one_hot([a] * mdp.states, mdp.actions)) for a in range(mdp.actions)]
    state = np.arange(mdp.states)
    P, r = (np.stack(one)[policies, state] for one in zip(*each, strict=True))
    total, power, lazy = r[:, :, None], P, (P + np.eye(mdp.states)) / 2
    for _ in range(14):
        total, power, lazy = total + power @ total, power @ power, lazy @ lazy
    recurring = (lazy @ np.abs(r)[:, :, None])[:, :, 0] > 1e-9
    return np.where(recurring, -np.inf, total[:, :, 0]), (lazy @ r[:, :, None])[:, :, 0]


@pytest.mark.parametrize("outcomes", [1, 2])
def test_small_worlds_have_the_best_of_all_policies_and_a_policy_that_earns_it(outcomes: int) -> None:
    """Policy iteration solves just those where it is finite; sweeps may go in circles, but what they say is right."""
    rng = np.random.default_rng(outcomes)
    solved, refused = dict.fromkeys(METHODS, 0), 0
    for _ in range(80):
        mdp = small_world(rng, outcomes)
        policies = np.array(list(itertools.product(range(mdp.actions), repeat=4)))
        values, gains = worth(mdp, policies)
        best = values.max(0)
        finite = bool(np.isfinite(best).all() and gains.max() < 1e-9)
        refused += not finite
        for name, method in METHODS.items():
            try:
                found = method(mdp)
            except dp.DPError:
                assert not finite or name != "policy iteration"
                continue
            assert finite, name
            solved[name] += 1
            np.testing.assert_allclose(found.values.numpy(), best, rtol=0, atol=1e-8, err_msg=name)
            chosen = (policies == found.policy.numpy()).all(1)
            np.testing.assert_allclose(values[chosen][0], best, rtol=0, atol=1e-9, err_msg=name)
            np.testing.assert_allclose(dp.evaluate_exactly(mdp, found.policy, 1.0), best, rtol=0, atol=1e-9)
    assert refused >= 15
    assert min(solved.values()) >= 0.8 * (80 - refused)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("rows", "best"),
    [
        # wait for nothing, or gain 1 and then pay 5: waiting keeps the 1
        ([[(0, 0, F), (1, 1, F)], [(1, -5, T), (1, -5, T)]], [0, -5]),
        # 2 earns 1 on the way to 1, where one rests: no action ends for nothing
        ([[(0, -5, T), (1, 0, F)], [(1, 0, F), (1, 0, F)], [(2, 0, F), (0, 1, F)]], [0, 0, 1]),
        # 0 ends at a cost, or goes on to 1 and back for nothing
        ([[(0, -1, T), (1, 0, F)], [(0, 0, F), (1, -2, F)]], [0, 0]),
    ],
)
def test_a_rest_is_a_home(name: str, rows: Rows, best: list[float]) -> None:
    mdp = table(rows, [1 / len(rows)] * len(rows))
    found = METHODS[name](mdp)
    assert found.values.tolist() == best
    assert dp.evaluate_exactly(mdp, found.policy, 1.0).tolist() == best


def test_policy_iteration_is_not_caught_in_a_circle_of_a_gain_and_a_loss() -> None:
    """1 -> 3 pays 1 and 3 -> 1 earns it back, as good as going once, but without a value."""
    rows: Rows = [[(0, 0, F), (2, 0, F)], [(3, -1, F), (1, 0, F)], [(2, -5, F), (3, 1, F)], [(1, 1, F), (3, 0, T)]]
    found = dp.policy_iteration(table(rows, [0.25] * 4), 1.0)
    assert found.values.tolist() == [2, 0, 2, 1]


def test_no_policy_to_be_found_is_said() -> None:
    """A coin decides between gaining 1 and losing 1, for ever: sweeps come to rest at 1 and -1, which nothing earns."""
    half = torch.full((2, 1, 2), 0.5, dtype=torch.float64)
    to = torch.tensor([[[0, 1]], [[0, 1]]], dtype=torch.int32)
    reward = torch.tensor([[[1.0, 1.0]], [[-1.0, -1.0]]], dtype=torch.float64)
    mdp = TabularMDP(to, half, reward, torch.zeros(2, 1, 2, dtype=torch.bool), half[0, 0])
    for method in METHODS.values():
        with pytest.raises(dp.DPError, match="no finite value"):
            method(mdp)


def test_what_a_policy_earns_is_seen_without_solving() -> None:
    """Waiting in 0 earns 0, whatever its value is said to be; a circle of 1 and -1 earns nothing that can be said."""
    mdp = table([[(0, 0, F), (0, 2, T)], [(2, 1, F), (2, 0, F)], [(1, -1, F), (1, 0, F)]], [1.0, 0.0, 0.0])
    for policy, values, sure in (
        ([0, 1, 1], [0.0, 0.0, 0.0], True),
        ([0, 1, 1], [2.0, 0.0, 0.0], False),
        ([1, 1, 1], [2.0, 0.0, 0.0], True),
        ([1, 1, 1], [2.0, 1.0, 1.0], False),
        ([1, 0, 0], [2.0, 0.0, -1.0], False),
    ):
        assert earns(mdp, torch.tensor(policy), torch.tensor(values, dtype=torch.float64)) == sure


def test_a_rest_is_the_largest_set_that_one_need_not_leave() -> None:
    """All sets of states of small worlds, by their definition; a fair bet of 1 costs nothing on average."""
    rng = np.random.default_rng(3)
    for _ in range(60):
        mdp = small_world(rng, 2)
        among = torch.from_numpy(rng.random((4, mdp.actions)) < 0.8)

        def stays(s: int, a: int, kept: set[int], mdp: TabularMDP = mdp, among: torch.Tensor = among) -> bool:
            outcomes = [k for k in range(2) if mdp.prob[s, a, k] > 0]
            free = all(mdp.reward[s, a, k] == 0 and not mdp.terminated[s, a, k] for k in outcomes)
            return bool(among[s, a]) and free and all(int(mdp.next_state[s, a, k]) in kept for k in outcomes)

        largest: set[int] = set()
        for kept in itertools.chain.from_iterable(itertools.combinations(range(4), n) for n in range(1, 5)):
            if all(any(stays(s, a, set(kept)) for a in range(mdp.actions)) for s in kept):
                largest |= set(kept)
        found, action = rest(mdp, among)
        assert set(found.nonzero()[:, 0].tolist()) == largest
        assert all(stays(s, int(action[s]), largest) for s in largest)
    twice = torch.zeros(1, 1, 2, dtype=torch.int32)
    coin = torch.tensor([[[0.5, 0.5]]], dtype=torch.float64)
    bet = TabularMDP(twice, coin, torch.tensor([[[1.0, -1.0]]]).double(), twice.bool(), torch.ones(1).double())
    assert rest(bet)[0].all()


def test_a_corridor_without_a_rest_is_struck_out_from_its_end() -> None:
    """20,000 states that lead to the next for nothing; the last ends, or from the middle one on all may wait."""
    n = 20_000
    on = np.minimum(np.arange(n) + 1, n - 1)
    next_state = torch.from_numpy(np.stack([on, np.arange(n)], 1)[:, :, None].astype(np.int32))
    free = torch.zeros(n, 2, 1, dtype=torch.float64)
    ends = torch.zeros(n, 2, 1, dtype=torch.bool)
    ends[-1], ends[:, 1] = True, True
    mdp = TabularMDP(next_state, torch.ones_like(free), free, ends, free[:, 0, 0] + 1 / n)
    assert not rest(mdp)[0].any()
    ends[n // 2, 1] = False
    waits = rest(TabularMDP(next_state, torch.ones_like(free), free, ends, mdp.start))[0]
    assert waits.tolist() == [s <= n // 2 for s in range(n)]
