"""A backup of some states is those rows of the backup of all; a sweep by changes is a sweep of everything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.mdp import TabularMDP
from rl import sweeps
from rl.backup import Backup
from rl.sweeps import Sweeps
from tests.oracles.dp import random_mdp


def by_loops(mdp: TabularMDP, gamma: float, values: np.ndarray) -> np.ndarray:
    """q [S, A], one product after another, in the order of the tables."""
    S, A, K = mdp.next_state.shape
    q = np.zeros((S, A))
    for s in range(S):
        for a in range(A):
            for k in range(K):
                if not mdp.terminated[s, a, k]:
                    q[s, a] += float(mdp.prob[s, a, k]) * gamma * values[int(mdp.next_state[s, a, k])]
    return q + mdp.expected_reward().numpy()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), outcomes=st.integers(1, 4))
def test_a_backup_is_the_loops_and_does_not_depend_on_the_company(seed: int, outcomes: int) -> None:
    mdp = random_mdp(seed, states=9, actions=3, outcomes=outcomes)
    rng = np.random.default_rng(seed)
    values, states = rng.normal(size=9), rng.permutation(9)[: rng.integers(1, 9)]
    backup = Backup(mdp, 0.9)
    whole = backup(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(whole, by_loops(mdp, 0.9, values), rtol=1e-14, atol=1e-14)
    assert (backup.best(values) == whole.max(1)).all()
    assert (backup.rows(states, values) == whole[states]).all()


def test_two_threads_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    mdp = random_mdp(5, states=101, actions=3, outcomes=2)
    values = np.random.default_rng(0).normal(size=101)
    alone = Backup(mdp, 0.9)
    monkeypatch.setattr("rl.backup.PART", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = Backup(mdp, 0.9)
    assert len(together._parts) == 3
    assert (together.best(values) == alone.best(values)).all()
    assert torch.equal(together(torch.from_numpy(values)), alone(torch.from_numpy(values)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_predecessors_are_all_states_that_may_lead_there_once(seed: int) -> None:
    mdp = random_mdp(seed, states=12, actions=2, outcomes=2)
    states = np.unique(np.random.default_rng(seed).integers(0, 12, 3))
    found = Backup(mdp, 0.9).predecessors(states)
    leads = np.isin(mdp.next_state.numpy(), states).any((1, 2))
    assert sorted(found.tolist()) == np.flatnonzero(leads).tolist()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sparse=st.booleans(), gamma=st.sampled_from([0.5, 0.99, 1.0]))
def test_sweeps_by_changes_are_bit_for_bit_those_of_everything(seed: int, sparse: bool, gamma: float) -> None:
    """On worlds where news travels: a ring of states with few rewards, and some jumps."""
    rng = np.random.default_rng(seed)
    S = 60
    next_state = np.stack([(np.arange(S) + 1) % S, np.arange(S), rng.integers(0, S, S)], 1)[:, :, None]
    reward = np.zeros((S, 3, 1))
    reward[rng.integers(0, S, 2), 0] = rng.normal(size=(2, 1))
    mdp = TabularMDP(
        next_state=torch.from_numpy(next_state.astype(np.int32)),
        prob=torch.ones(S, 3, 1, dtype=torch.float64),
        reward=torch.from_numpy(reward),
        terminated=torch.from_numpy(reward != 0),
        start=torch.full((S,), 1 / S, dtype=torch.float64),
    )
    few = sweeps.FEW
    try:
        sweeps.FEW = 1 if sparse else 10**9  # follow the changes always, or never
        ours, backup, truth = Sweeps(Backup(mdp, gamma)), Backup(mdp, gamma), np.zeros(S)
        for _ in range(80):
            ours.sweep()
            before, truth = truth, backup.best(truth)
            assert (ours.values == truth).all()
            assert ours.change == np.abs(truth - before).max()
            assert sorted(ours.changed.tolist()) == np.flatnonzero(truth - before).tolist()
    finally:
        sweeps.FEW = few
