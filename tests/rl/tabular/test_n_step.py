"""n-step learners of action values: against plain loops of the book's boxes, and against exact values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from envs.catalog import load
from envs.simulator import Simulator
from envs.world import World
from rl import dp
from rl.tabular.control import Control
from rl.tabular.n_step import NStepExpectedSarsa, NStepSarsa
from rl.tabular.q_learning import QLearning
from rl.tabular.tree_backup import TreeBackup
from rl.train import TrainConfig, Trainer, world_keys
from tests.oracles.dp import random_mdp
from tests.rl.tabular.walks import Walk, walk

S, A, GAMMA, ALPHA, EPSILON = 4, 3, 0.9, 0.3, 0.4
Episode = list[tuple[int, int, float, int, bool]]


def agent(kind: type[Control], seeds: list[int], states: int = S, actions: int = A, **changes: Any) -> Control:
    arguments = {"gamma": GAMMA, "alpha": ALPHA, "omega": 0.0, "epsilon": (EPSILON, EPSILON), "epsilon_steps": 1}
    return kind(states, actions, seeds, **(arguments | changes))


def soft(q: np.ndarray, epsilon: float) -> np.ndarray:
    """Epsilon-greedy odds, equals sharing."""
    best = q == q.max()
    return epsilon / len(q) + (1 - epsilon) * best / best.sum()


def box(n: int, learn: Callable[[np.ndarray, Episode, int, int, int | None], float], delay: int) -> Callable[..., Any]:
    """The book's loop: at each t, the pair of tau = t - n + 1; where the episode is over, all that are left."""

    def loop(episodes: list[Episode]) -> np.ndarray:
        q = np.zeros((S, A))
        for number, episode in enumerate(episodes):
            over = number < len(episodes) - 1  # the last one is still under way
            for tau in range(len(episode)):
                end = tau + n
                if not over and end + delay > len(episode):
                    break
                after = episode[end][1] if end < len(episode) else None
                s, a = episode[tau][:2]
                q[s, a] += ALPHA * (learn(q, episode, tau, min(end, len(episode)), after) - q[s, a])
        return q

    return loop


def sarsa(q: np.ndarray, episode: Episode, tau: int, end: int, after: int | None) -> float:
    """Eq. 7.4; where a limit cut the episode, the expectation under the acting policy."""
    if after is None:
        return expected(q, episode, tau, end, after)
    rewards = sum(GAMMA ** (i - tau) * episode[i][2] for i in range(tau, end))
    return rewards + GAMMA ** (end - tau) * q[episode[end][0], after]


def expected(q: np.ndarray, episode: Episode, tau: int, end: int, after: int | None) -> float:
    """Eq. 7.7."""
    rewards = sum(GAMMA ** (i - tau) * episode[i][2] for i in range(tau, end))
    values = q[episode[end - 1][3]]
    ended = episode[end - 1][4]
    return rewards + (0 if ended else GAMMA ** (end - tau) * float(soft(values, EPSILON) @ values))


def tree(q: np.ndarray, episode: Episode, tau: int, end: int, after: int | None) -> float:
    """The box of sec. 7.5: from the last step backwards."""
    _, _, r, s, ended = episode[end - 1]
    G = r + (0 if ended else GAMMA * float(soft(q[s], 0.0) @ q[s]))
    for k in range(end - 1, tau, -1):
        s, a = episode[k][:2]
        pi = soft(q[s], 0.0)
        rest = sum(pi[b] * q[s, b] for b in range(A) if b != a)
        G = episode[k - 1][2] + GAMMA * (rest + pi[a] * G)
    return float(G)


CASES = [
    *((f"Sarsa, n = {n}", NStepSarsa, n, box(n, sarsa, 1)) for n in (1, 3, 50)),
    *((f"Expected Sarsa, n = {n}", NStepExpectedSarsa, n, box(n, expected, 0)) for n in (1, 3, 50)),
    *((f"tree backup, n = {n}", TreeBackup, n, box(n, tree, 0)) for n in (1, 3, 8)),
]


def feed(learner: Control, experience: Walk) -> np.ndarray:
    for transition in experience.transitions():
        learner.update(transition)
    return learner.q.value.numpy()


@pytest.mark.parametrize(("kind", "n", "loop"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_it_equals_a_plain_loop_of_the_book(kind: type[Control], n: int, loop: Callable[..., Any]) -> None:
    """3 replicas of one world each, 80 steps, with episodes that end and episodes that a limit cuts."""
    experience = walk(4, 80, 3, 1, S, A)
    assert (experience.last & ~experience.ended).sum() > 5 < experience.ended.sum()
    found = feed(agent(kind, [1, 2, 3], n=n), experience)
    expected_tables = [loop(experience.episodes(r, 0)) for r in range(3)]
    np.testing.assert_allclose(found, expected_tables, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [NStepSarsa, NStepExpectedSarsa, TreeBackup])
def test_worlds_that_meet_correct_by_their_mean(kind: type[Control]) -> None:
    one = walk(1, 40, 2, 1, S, A)
    crowd = Walk(*(np.repeat(column, 3, axis=2) for column in vars(one).values()))
    np.testing.assert_allclose(feed(agent(kind, [1, 2], n=3), crowd), feed(agent(kind, [1, 2], n=3), one))


def test_a_tree_of_one_step_is_q_learning() -> None:
    experience = walk(2, 60, 2, 5, S, A)
    changes = {"omega": 0.6, "alpha": 1.0}
    found = feed(agent(TreeBackup, [1, 2], n=1, **changes), experience)
    np.testing.assert_allclose(found, feed(agent(QLearning, [1, 2], **changes), experience), atol=1e-12)


def test_an_end_and_a_limit_worked_by_hand() -> None:
    """Two steps, (0, 0) -> (1, 0) -> state 2, rewards 1 and 2, discount 0.5; all q are 0 but q(2, .) = 8, 8, 8.

    The world ends:  q(1, 0) = 2 / 2,  q(0, 0) = (1 + .5 2) / 2.  A limit cuts: (2 + .5 8) / 2 and (1 + 1 + .25 8) / 2.
    In tree backup the second step's odds count: all of q(1, .) are 0, so the tree goes on with a third of its weight,
    (1 + .5 / 3 2) / 2 and (1 + .5 / 3 (2 + .5 8)) / 2.
    """
    s, after = np.array([0, 1]).reshape(2, 1, 1), np.array([1, 2]).reshape(2, 1, 1)
    r, last = np.array([1, 2], np.float32).reshape(2, 1, 1), np.array([False, True]).reshape(2, 1, 1)
    for kind, ended, cut in (
        (NStepSarsa, (1, 1), (2, 3)),
        (NStepExpectedSarsa, (1, 1), (2, 3)),
        (TreeBackup, (2 / 3, 1), (1, 3)),
    ):
        for flag, found in ((last, ended), (last & False, cut)):
            learner = agent(kind, [1], n=2, gamma=0.5, alpha=0.5)
            learner.q.value[0, 2] = 8
            q = feed(learner, Walk(s, 0 * s, r, after, flag, last))
            assert q[0, :2, 0].tolist() == pytest.approx(found), (kind, flag)


def learnt(learner: Control, turns: int, worlds: int, mdp: Any, limit: int | None = None) -> torch.Tensor:
    table = Simulator(
        mdp, world_keys(1, learner.replicas, worlds), observation=torch.arange(mdp.states), time_limit=limit
    )
    length = TrainConfig(steps=turns * worlds, worlds=worlds, report_every=turns * worlds)
    list(Trainer(learner, table, length).run())
    return learner.q.value


@pytest.mark.parametrize("kind", [NStepSarsa, NStepExpectedSarsa])
def test_on_policy_it_reaches_the_best_epsilon_soft_policys_values(kind: type[Control]) -> None:
    """A random world, discount 0.5, epsilon 0.4 for good: 8 replicas of 40 worlds, 500 turns, a limit of 5 steps.

    Step sizes 1 / n^0.7, a pair visited by about three worlds in a turn: deviations near 1 / sqrt(3) sqrt(500^-0.7 / 2)
    = 0.06 with what other pairs' bring along, of the replicas' mean 0.02. The greedy optimum q*, which is not to be
    reached, is 0.26 away.
    """
    mdp = random_mdp(7, states=4, actions=3, outcomes=2, ending=0.15)
    truth = dp.policy_iteration(mdp, 0.5, epsilon=EPSILON).q
    assert (dp.value_iteration(mdp, 0.5).q - truth).abs().amax() > 0.25
    learner = agent(kind, list(range(8)), n=3, gamma=0.5, alpha=1.0, omega=0.7)
    error = learnt(learner, 500, 40, mdp, limit=5) - truth
    assert error.mean(0).abs().amax() < 0.12
    assert error.abs().amax() < 0.3


def test_tree_backup_reaches_q_star_whatever_acts() -> None:
    """The same world, all actions at random: q* of the greedy policy, a third as noisy."""
    mdp = random_mdp(7, states=4, actions=3, outcomes=2, ending=0.15)
    learner = agent(TreeBackup, list(range(8)), n=3, gamma=0.5, alpha=1.0, omega=0.7, epsilon=(1.0, 1.0))
    truth = dp.value_iteration(mdp, 0.5).q
    error = learnt(learner, 500, 40, mdp, limit=5) - truth
    assert error.mean(0).abs().amax() < 0.12
    assert error.abs().amax() < 0.3


def test_tree_backup_solves_zhao_5x5() -> None:
    """No chance in this world, a constant step size: q* exactly, up to what 400 turns leave (values reach 10)."""
    zhao = load("zhao-5x5")
    assert isinstance(zhao, World)
    learner = agent(TreeBackup, [0, 1, 2, 3], 25, 5, n=4, alpha=0.7, epsilon=(1.0, 1.0))
    q = learnt(learner, 400, 100, zhao.mdp)
    assert (q - dp.value_iteration(zhao.mdp, GAMMA).q).abs().amax() < 0.01


def test_no_step_is_refused() -> None:
    for kind in (NStepSarsa, TreeBackup):
        with pytest.raises(ValueError, match="n = 0, expected 1 or more"):
            agent(kind, [1], n=0)
