"""Prioritised sweeping: the optimum, in the order that its name says, and little work where there is little news."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.catalog import load
from envs.world import World
from rl import dp
from rl.backup import Backup
from rl.prioritised import prioritised_sweeping
from rl.sweeps import Sweeps
from tests.oracles.dp import best_of_all, random_mdp, table


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gamma=st.sampled_from([0.0, 0.5, 0.9, 0.99]), outcomes=st.integers(1, 3))
def test_it_finds_the_best_of_all_policies_within_its_bound(seed: int, gamma: float, outcomes: int) -> None:
    mdp = random_mdp(seed, states=4, actions=3, outcomes=outcomes)
    truth = best_of_all(mdp, gamma)
    rounding = 1e-14 * np.abs(truth).max() / (1 - gamma)
    for tolerance in (1e-2, 1e-10):
        found = prioritised_sweeping(mdp, gamma, tolerance)
        assert np.abs(found.values.numpy() - truth).max() <= tolerance + rounding
        assert np.abs(found.values.numpy() - truth).max() <= found.error + rounding


@pytest.mark.parametrize("name", ["zhao-5x5", "cliff", "gambler", "windy-stochastic", "maze", "key-door", "Taxi-v4"])
def test_named_worlds(name: str) -> None:
    world = load(name)
    assert isinstance(world, World)
    found = prioritised_sweeping(world.mdp, world.discount)
    truth = dp.policy_iteration(world.mdp, world.discount).values.numpy()
    np.testing.assert_allclose(found.values.numpy(), truth, rtol=1e-8, atol=1e-9)
    followed = dp.evaluate_exactly(world.mdp, found.policy, world.discount)
    np.testing.assert_allclose(followed.numpy(), truth, rtol=1e-8, atol=1e-9)


def test_each_state_of_a_corridor_is_moved_once() -> None:
    """0 <- 1 <- ... with a reward at the end: news that travels 50 states is 50 moves; sweeps take 50 each."""
    n = 50
    rows = [[(max(s - 1, 0), 0.0, False), (s + 1 if s < n - 1 else s, float(s == n - 1), s == n - 1)] for s in range(n)]
    mdp = table(rows, [1 / n] * n)
    found = prioritised_sweeping(mdp, 0.9)
    np.testing.assert_allclose(found.values.numpy(), 0.9 ** np.arange(n - 1, -1, -1), rtol=1e-14)
    assert found.iterations == n
    sweeps = dp.value_iteration(mdp, 0.9)
    assert sweeps.iterations > n
    # every q at the start and at the end, and for each move of s those of s - 1 that goes up and s + 1 that goes down
    assert found.backups == pytest.approx(2 * 2 * n + 2 * n, abs=3)


def test_the_most_wrong_state_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each move seen through its call for predecessors, and checked against Bellman errors computed afresh."""
    mdp = random_mdp(4, states=15, actions=3, outcomes=2, ending=0.1)
    order: list[int] = []
    plain = Backup.predecessors
    monkeypatch.setattr(Backup, "predecessors", lambda self, s: (order.extend(s.tolist()), plain(self, s))[1])
    found = prioritised_sweeping(mdp, 0.9, 1e-6)
    assert len(order) == found.iterations > 100
    backup, v = Backup(mdp, 0.9), np.zeros(15)
    for s in order:
        error = np.abs(backup.rows(np.arange(15), v).max(1) - v)
        assert error[s] >= error.max() / 1.1 - 1e-12
        v[s] = backup.rows(np.array([s]), v).max()
    np.testing.assert_allclose(v, found.values.numpy(), rtol=0, atol=2e-6)


def test_causes_are_the_entries_of_the_transposed_matrix() -> None:
    """Outcomes that meet in one state add up; ends, chances of 0 and a discount of 0 lead nowhere."""
    mdp = random_mdp(2, states=5, actions=2, outcomes=4, ending=0.4)
    begin, pair, weight = Backup(mdp, 0.7).causes()
    found = np.zeros((10, 5))
    for s in range(5):
        found[pair[begin[s] : begin[s + 1]], s] = weight[begin[s] : begin[s + 1]]
    truth = np.zeros((10, 5))
    for s in range(5):
        for a in range(2):
            for k in range(4):
                if not mdp.terminated[s, a, k]:
                    truth[2 * s + a, int(mdp.next_state[s, a, k])] += 0.7 * float(mdp.prob[s, a, k])
    np.testing.assert_allclose(found, truth, atol=1e-15)
    assert len(pair) == (truth > 0).sum()
    assert len(Backup(mdp, 0.0).causes()[1]) == 0


def test_a_world_that_pays_for_ever_is_given_up() -> None:
    with pytest.raises(dp.DPError, match=r"gamma 1.0 still changes by 1 after 50 moves"):
        prioritised_sweeping(table([[(0, 1.0, False)]], [1.0]), 1.0, most=50)


def test_at_gamma_one_free_waiting_keeps_no_gain_whose_price_comes_later() -> None:
    """Wait for 0, or gain 1 and pay 5: sweeps alone keep the 1, which no policy earns; the solution does not."""
    mdp = table([[(0, 0.0, False), (1, 1.0, False)], [(1, -5.0, True), (1, -5.0, True)]], [1.0, 0.0])
    sweeps = Sweeps(Backup(mdp, 1.0))
    for _ in range(10):
        sweeps.sweep()
    assert sweeps.values.tolist() == [1.0, -5.0]
    for found in (dp.policy_iteration(mdp, 1.0), dp.value_iteration(mdp, 1.0), prioritised_sweeping(mdp, 1.0)):
        assert found.values.tolist() == [0.0, -5.0]
        assert found.policy[0] == 0
