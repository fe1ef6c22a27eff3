"""Worlds of a replica that meet in one entry: what they bring is averaged, and does not count by when it comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from envs.mdp import TabularMDP
from envs.simulator import Simulator
from rl import dp
from rl.linear.features import one_hot
from rl.linear.sarsa import LinearSarsaLambda, TrueOnlineSarsaLambda, accumulating, replacing
from rl.tabular.expected_sarsa import ExpectedSarsa
from rl.tabular.model import Model
from rl.tabular.n_step import NStepExpectedSarsa, NStepSarsa
from rl.tabular.q_learning import QLearning
from rl.tabular.sarsa import Sarsa
from rl.tabular.sarsa_lambda import SarsaLambda
from rl.tabular.table import Table
from rl.tabular.traces import Traces
from rl.tabular.tree_backup import TreeBackup
from rl.tabular.watkins import WatkinsQLambda
from rl.train import TrainConfig, Trainer, world_keys
from rl.types import Transition
from tests.rl.tabular.walks import walk

GAMMA, EPSILON = 0.9, 0.4
LINEAR = {"alpha": (0.3, 0.003), "alpha_steps": 15_000}
TABLE = {"alpha": 1.0, "omega": 0.7}


def once() -> TabularMDP:
    """One state, one action: in one step of ten it ends and pays 10, else nothing happens."""
    return TabularMDP(
        next_state=torch.zeros(1, 1, 2, dtype=torch.int32),
        prob=torch.tensor([[[0.1, 0.9]]], dtype=torch.float64),
        reward=torch.tensor([[[10.0, 0.0]]], dtype=torch.float64),
        terminated=torch.tensor([[[True, False]]]),
        start=torch.ones(1, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (Sarsa, TABLE),
        (ExpectedSarsa, TABLE),
        (SarsaLambda, TABLE | {"lam": 0.5}),
        (NStepSarsa, TABLE | {"n": 1}),
        (NStepSarsa, TABLE | {"n": 3}),
        (NStepExpectedSarsa, TABLE | {"n": 3}),
        (TreeBackup, TABLE | {"n": 3}),
        (WatkinsQLambda, TABLE | {"lam": 0.5}),
        (LinearSarsaLambda, LINEAR | {"lam": 0.5, "trace": accumulating}),
        (LinearSarsaLambda, LINEAR | {"lam": 0.5, "trace": replacing}),
        (TrueOnlineSarsaLambda, LINEAR | {"lam": 0.5}),
    ],
)
def test_an_outcome_counts_by_how_often_it_comes_and_not_by_when(kind: Any, own: dict[str, Any]) -> None:
    """The mean of 4 replicas of 50 worlds, 300 turns, discount 0.5: q = .1 10 + .9 .5 q = 1.818.

    An error has deviation 3, of 50 worlds and 4 replicas 0.2; a step size of n^-0.7 that ends at 0.02 leaves a tenth of
    that: 0.02, six times of which is the margin. Those that ended are known a turn before the others: a mean of each
    turn's own gives 6.7.
    """
    mdp = once()
    assert dp.value_iteration(mdp, 0.5).q.item() == pytest.approx(1 / 0.55)
    shared = {"gamma": 0.5, "epsilon": (1.0, 1.0), "epsilon_steps": 1, **own}
    first = one_hot(1) if "trace" in own or kind is TrueOnlineSarsaLambda else 1
    agent = kind(first, 1, [0, 1, 2, 3], **shared)
    worlds = Simulator(mdp, world_keys(1, 4, 50), observation=torch.arange(1))
    list(Trainer(agent, worlds, TrainConfig(steps=15_000, worlds=50, report_every=15_000)).run())
    assert agent.values(torch.arange(1)).mean().item() == pytest.approx(1 / 0.55, abs=0.12)


def test_sarsa_equals_a_plain_loop_over_numbers_where_worlds_meet() -> None:
    """2 replicas x 6 worlds on 3 states x 2 actions: a visit is counted once, its step shared by all that are there."""
    R, W, S, A = 2, 6, 3, 2
    experience = walk(3, 60, R, W, S, A)
    learner = Sarsa(S, A, [1, 2], gamma=GAMMA, alpha=1.0, omega=0.7, epsilon=(EPSILON, EPSILON), epsilon_steps=1)
    for transition in experience.transitions():
        learner.update(transition)
    s, a, after = experience.s, experience.a, experience.after
    q, n = np.zeros((R, S, A)), np.zeros((R, S, A))
    for i in range(R):
        share = np.zeros(W)
        for t in range(len(s)):
            late = [w for w in range(W) if t and not experience.last[t - 1, i, w]]
            q[i] += changes(q[i], share, [(w, t - 1, q[i, s[t, i, w], a[t, i, w]]) for w in late], experience, i)
            pairs = [(s[t, i, w], a[t, i, w]) for w in range(W)]
            for pair in set(pairs):
                n[i][pair] += 1
            share = np.array([n[i][pair] ** -0.7 / pairs.count(pair) for pair in pairs])
            over = [w for w in range(W) if experience.last[t, i, w]]
            values = {w: q[i, after[t, i, w]] for w in over}
            best = {w: v == v.max() for w, v in values.items()}
            odds = {w: EPSILON / A + (1 - EPSILON) * b / b.sum() for w, b in best.items()}
            follow = {w: 0.0 if experience.ended[t, i, w] else float(odds[w] @ values[w]) for w in over}
            q[i] += changes(q[i], share, [(w, t, follow[w]) for w in over], experience, i)
    np.testing.assert_allclose(learner.q.value.numpy(), q, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(learner.q.n.numpy(), n)


def changes(q: np.ndarray, share: np.ndarray, due: list[tuple[int, int, float]], lived: Any, i: int) -> np.ndarray:
    """What the worlds that are due do to q; (world, its step, what follows is worth) each."""
    change = np.zeros_like(q)
    for w, t, follow in due:
        pair = lived.s[t, i, w], lived.a[t, i, w]
        change[pair] += share[w] * (float(lived.r[t, i, w]) + GAMMA * follow - q[pair])
    return change


def test_traces_without_reach_are_one_step_methods_however_many_worlds_meet() -> None:
    """Lambda 0, 2 replicas x 5 worlds on 3 states: Sarsa(0) is Sarsa, Q(0) Q-learning, steps that decay included."""

    rng = np.random.default_rng(0)
    arguments = {"gamma": GAMMA, "alpha": 1.0, "omega": 0.7, "epsilon": (EPSILON, EPSILON), "epsilon_steps": 1}
    one = [Sarsa(3, 2, [1, 2], **arguments), QLearning(3, 2, [1, 2], **arguments)]
    traced = [SarsaLambda(3, 2, [1, 2], lam=0.0, **arguments), WatkinsQLambda(3, 2, [1, 2], lam=0.0, **arguments)]
    for _ in range(40):
        ended, cut = rng.random((2, 5)) < 0.2, rng.random((2, 5)) < 0.2
        transition = Transition(
            obs=torch.from_numpy(rng.integers(0, 3, (2, 5))),
            memory=torch.zeros(2, 5, 0),
            action=torch.from_numpy(rng.integers(0, 2, (2, 5))),
            reward=torch.from_numpy(rng.normal(size=(2, 5)).astype(np.float32)),
            next_obs=torch.from_numpy(rng.integers(0, 3, (2, 5))),
            discount=torch.from_numpy(1 - ended.astype(np.float32)),
            last=torch.from_numpy(ended | cut),
        )
        for learner in (*one, *traced):
            learner.update(transition)
    for plain, reaching in zip(one, traced, strict=True):
        torch.testing.assert_close(reaching.q.value, plain.q.value, rtol=1e-12, atol=1e-12)
        assert torch.equal(reaching.q.n, plain.q.n)


def test_worlds_that_meet_under_traces_share_by_their_traces() -> None:
    """Two worlds, traces 1 and .5 on one pair, errors 2 and -4: (1 2 - .5 4) / 1.5 times the largest trace, 1."""

    table, traces = Table(1, (2, 1), alpha=1.0, omega=0.0), Traces(1, 2)
    first, second = torch.tensor([[0, 0]]), torch.tensor([[0, 1]])
    always = torch.tensor([[True, True]])
    decay = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    traces.visit(table, first, decay)
    traces.forget(torch.tensor([[True, False]]))  # world 1 alone was at pair 0
    traces.visit(table, second, decay)  # then world 0 is there, and world 1 at pair 1
    traces.correct(table, torch.tensor([[2.0, -4.0]], dtype=torch.float64), always)
    assert traces.e[0].tolist() == [[1, 0], [0.5, 1]]
    assert table.value[0, :, 0].tolist() == pytest.approx([(2 - 0.5 * 4) / 1.5, -4])


def test_of_worlds_that_meet_the_last_speaks_for_the_model() -> None:
    """Three worlds take pair (1, 0) and go to 0, 2 and 1: remembered is the third, with its reward and its end."""
    model = Model(1, 3, 2)
    model.learn(
        Transition(
            obs=torch.tensor([[1, 1, 1]]),
            memory=torch.zeros(1, 3, 0),
            action=torch.tensor([[0, 0, 0]]),
            reward=torch.tensor([[5.0, 6.0, 7.0]]),
            next_obs=torch.tensor([[0, 2, 1]]),
            discount=torch.tensor([[1.0, 1.0, 0.0]]),
            last=torch.tensor([[False, False, True]]),
        ),
        step=9,
    )
    assert model.successor.tolist() == [[0, 0, 1, 1, 2, 2]]
    assert model.reward.tolist() == [[0, 0, 7, 0, 0, 0]]
    assert model.discount.tolist() == [[1, 1, 0, 1, 1, 1]]
    assert model.when.tolist() == [[0, 0, 9, 0, 0, 0]]
    assert model.known().tolist() == [[[False, False], [True, False], [False, False]]]
