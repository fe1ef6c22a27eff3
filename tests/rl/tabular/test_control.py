"""Each learner against a plain loop over numbers that follows its box in the book; one replica, one world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lab import streams
from rl.tabular.control import Control
from rl.tabular.double_q import DoubleQLearning
from rl.tabular.dyna import DynaQ, DynaQPlus
from rl.tabular.expected_sarsa import ExpectedSarsa
from rl.tabular.sarsa import Sarsa
from rl.tabular.sarsa_lambda import SarsaLambda
from rl.tabular.table import Table
from rl.tabular.watkins import WatkinsQLambda
from rl.types import Transition

GAMMA, ALPHA, OMEGA, EPSILON, LAM, S, A, SEED = 0.9, 0.7, 0.3, 0.4, 0.7, 4, 3, 5


@dataclass(frozen=True)
class Lived:
    """One step: from s by a to after, earning r; `ended` by the world, `cut` by a time limit."""

    s: int
    a: int
    r: float
    after: int
    ended: bool
    cut: bool

    @property
    def discount(self) -> float:
        return 0.0 if self.ended else GAMMA


def life(steps: int, chance: bool = True) -> list[Lived]:
    """Episodes that follow each other, some ended, some cut; the last step is the last of its episode.

    Without `chance` a pair always leads to the same.
    """
    rng = np.random.default_rng(3)
    fixed = {(s, a): (int(rng.integers(S)), float(rng.normal()), s == 2 and a == 1) for s in range(S) for a in range(A)}
    lived, s = [], 0
    for t in range(steps):
        a = int(rng.integers(A))
        after, r, ended = fixed[s, a]
        if chance:
            after, r, ended = int(rng.integers(S)), float(rng.normal()), bool(rng.random() < 0.15)
        cut = not ended and (bool(rng.random() < 0.15) or t == steps - 1)
        lived.append(Lived(s, a, float(np.float32(r)), after, ended, cut))
        s = int(rng.integers(S)) if ended or cut else after
    return lived


def feed(learner: Control, lived: list[Lived]) -> np.ndarray:
    """What the learner's table is after these steps."""
    for step in lived:
        learner.update(
            Transition(
                obs=torch.tensor([[step.s]]),
                memory=torch.zeros(1, 1, 0),
                action=torch.tensor([[step.a]]),
                reward=torch.tensor([[step.r]]),
                next_obs=torch.tensor([[step.after]]),
                discount=torch.tensor([[float(not step.ended)]]),
                last=torch.tensor([[step.ended or step.cut]]),
            )
        )
    return learner.q.value[0].numpy()


def made(kind: type[Control], **own: object) -> Control:
    epsilon = {"epsilon": (EPSILON, EPSILON), "epsilon_steps": 1}
    return kind(S, A, [SEED], gamma=GAMMA, alpha=ALPHA, omega=OMEGA, **epsilon, **own)


class Steps:
    """How far the visits of each pair so far let it move."""

    def __init__(self) -> None:
        self.n = np.zeros((S, A))

    def visit(self, s: int, a: int) -> float:
        self.n[s, a] += 1
        return self.all()[s, a]

    def all(self) -> np.ndarray:
        return ALPHA / np.maximum(self.n, 1) ** OMEGA


def odds(q: np.ndarray) -> np.ndarray:
    best = q == q.max()
    return EPSILON / A + (1 - EPSILON) * best / best.sum()


def follows(q: np.ndarray, lived: list[Lived], t: int) -> float:
    """What Sarsa takes to follow step t: the next action's value; at a time limit its expectation."""
    here = lived[t]
    return float(odds(q[here.after]) @ q[here.after]) if here.cut or here.ended else q[here.after, lived[t + 1].a]


def coin(name: str, index: int) -> float:
    """The number in [0, 1) that world 0 draws from the stream `name`."""
    key = streams.bits_of(streams.derive(SEED, name), 0)
    return ((streams.bits_of(key, index) >> 40) & 0xFFFFFF) * 2.0**-24


def test_sarsa_is_the_box() -> None:
    lived, q, steps = life(300), np.zeros((S, A)), Steps()
    for t, x in enumerate(lived):
        q[x.s, x.a] += steps.visit(x.s, x.a) * (x.r + x.discount * follows(q, lived, t) - q[x.s, x.a])
    np.testing.assert_allclose(feed(made(Sarsa), lived), q, rtol=1e-12, atol=1e-12)


def test_sarsa_bootstraps_from_an_expectation_at_a_time_limit_and_from_nothing_at_an_end() -> None:
    """q(1, .) = 4, 8, 2 and epsilon 0.4 on 3 actions: .6 8 + .4 14 / 3 = 6.6667; a step of .7 from 0 with reward 1."""
    for ended, expected in ((True, 0.7 * 1), (False, 0.7 * (1 + 0.9 * (0.6 * 8 + 0.4 * 14 / 3)))):
        learner = made(Sarsa)
        learner.q.value[0, 1] = torch.tensor([4.0, 8.0, 2.0])
        q = feed(learner, [Lived(0, 2, 1.0, 1, ended, not ended)])
        assert q[0, 2] == pytest.approx(expected, abs=1e-12)


def test_expected_sarsa_is_its_equation() -> None:
    lived, q, steps = life(300), np.zeros((S, A)), Steps()
    for x in lived:
        q[x.s, x.a] += steps.visit(x.s, x.a) * (x.r + x.discount * odds(q[x.after]) @ q[x.after] - q[x.s, x.a])
    np.testing.assert_allclose(feed(made(ExpectedSarsa), lived), q, rtol=1e-12, atol=1e-12)


def test_double_q_learning_is_the_box() -> None:
    lived, q, steps = life(300), np.zeros((2, S, A)), (Steps(), Steps())
    heads = 0
    for t, x in enumerate(lived):
        i = 0 if coin("coin", t) < 0.5 else 1
        heads += i == 0
        value = q[1 - i, x.after, q[i, x.after].argmax()]
        q[i, x.s, x.a] += steps[i].visit(x.s, x.a) * (x.r + x.discount * value - q[i, x.s, x.a])
    learner = made(DoubleQLearning)
    np.testing.assert_allclose(feed(learner, lived), q[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(learner.other.value[0].numpy(), q[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(learner.q_values(torch.arange(S))[0].numpy(), q.mean(0), rtol=1e-12)
    assert 120 < heads < 180


def test_sarsa_lambda_is_the_box() -> None:
    lived, q, e, steps = life(300), np.zeros((S, A)), np.zeros((S, A)), Steps()
    for t, x in enumerate(lived):
        delta = x.r + x.discount * follows(q, lived, t) - q[x.s, x.a]
        e[x.s, x.a] += 1
        steps.visit(x.s, x.a)
        q += steps.all() * delta * e
        e *= 0 if x.ended or x.cut else GAMMA * LAM
    np.testing.assert_allclose(feed(made(SarsaLambda, lam=LAM), lived), q, rtol=1e-12, atol=1e-12)


def test_watkins_q_lambda_is_the_box() -> None:
    lived, q, e, steps = life(300), np.zeros((S, A)), np.zeros((S, A)), Steps()
    for x in lived:
        if q[x.s, x.a] < q[x.s].max():
            e[:] = 0
        e[x.s, x.a] += 1
        delta = x.r + x.discount * q[x.after].max() - q[x.s, x.a]
        steps.visit(x.s, x.a)
        q += steps.all() * delta * e
        e *= 0 if x.ended or x.cut else GAMMA * LAM
    np.testing.assert_allclose(feed(made(WatkinsQLambda, lam=LAM), lived), q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kappa", [None, 0.05])
def test_dyna_is_the_box(kappa: float | None) -> None:
    """n = 4; with `kappa` Dyna-Q+. A pair never tried leads back to where it is, earns nothing, and waits since 0."""
    n, lived, q, steps = 4, life(120, chance=False), np.zeros((S, A)), Steps()
    model: dict[tuple[int, int], tuple[float, int, float]] = {}
    tried: dict[tuple[int, int], int] = {}

    def learn(s: int, a: int, r: float, after: int, discount: float) -> None:
        q[s, a] += steps.visit(s, a) * (r + discount * q[after].max() - q[s, a])

    for t, x in enumerate(lived, 1):
        learn(x.s, x.a, x.r, x.after, x.discount)
        model[x.s, x.a], tried[x.s, x.a] = (x.r, x.after, x.discount), t
        for j in range(n):
            seen = sorted({s for s, _ in model})
            s = seen[int(coin("planning", 2 * (n * t + j)) * len(seen))]
            choice = sorted(a for state, a in model if state == s) if kappa is None else range(A)
            a = choice[int(coin("planning", 2 * (n * t + j) + 1) * len(choice))]
            r, after, discount = model.get((s, a), (0.0, s, GAMMA))
            learn(s, a, r + (kappa or 0) * np.sqrt(t - tried.get((s, a), 0)), after, discount)
    learner = made(DynaQ, planning=n) if kappa is None else made(DynaQPlus, planning=n, kappa=kappa)
    np.testing.assert_allclose(feed(learner, lived), q, rtol=1e-10, atol=1e-10)


def test_step_sizes_are_looked_up_as_far_as_counts_go() -> None:
    """600 corrections by an error of 1, the last half after a resume: the sum of n^-0.6."""
    table = Table(1, (1,), alpha=1.0, omega=0.6)
    for i in range(600):
        if i == 300:
            saved, table = table.state_dict(), Table(1, (1,), alpha=1.0, omega=0.6)
            table.load_state_dict(saved)
        table.move(torch.tensor([[0]]), torch.ones(1, 1, dtype=torch.float64))
    assert float(table.value) == pytest.approx(sum(n**-0.6 for n in range(1, 601)), rel=1e-12)
