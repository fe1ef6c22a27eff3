"""Learners of a given policy's values: against plain loops over numbers, against each other, and against v_pi."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rl.tabular.lambda_return import OfflineLambdaReturn
from rl.tabular.n_step_td import NStepTD
from rl.tabular.prediction import TD0, Prediction
from rl.tabular.td_lambda import TDLambda, TrueOnlineTDLambda
from tests.rl.tabular.walks import Walk, walk

S, A, GAMMA, ALPHA, OMEGA, LAM = 4, 2, 0.9, 0.5, 0.3, 0.7
Episode = list[tuple[int, int, float, int, bool]]
Loop = Callable[[list[Episode]], np.ndarray]


def uniform(states: int = S, actions: int = A) -> torch.Tensor:
    return torch.full((states, actions), 1 / actions, dtype=torch.float64)


def agent(kind: type[Prediction], seeds: list[int] | None = None, **changes: Any) -> Prediction:
    policy = changes.pop("policy", uniform())
    arguments = {"gamma": GAMMA, "alpha": ALPHA, "omega": OMEGA, "initial": 0.25} | changes
    return kind(policy, seeds or [1], **arguments)


class Numbers:
    """A table of numbers and its step sizes."""

    def __init__(self) -> None:
        self.v, self.n = np.full(S, 0.25), np.zeros(S)

    def rate(self, s: int) -> float:
        self.n[s] += 1
        return ALPHA / self.n[s] ** OMEGA


def td0(episodes: list[Episode]) -> np.ndarray:
    it = Numbers()
    for episode in episodes:
        for s, _, r, after, ended in episode:
            it.v[s] += it.rate(s) * (r + (0 if ended else GAMMA * it.v[after]) - it.v[s])
    return it.v


def n_step(n: int) -> Loop:
    def loop(episodes: list[Episode]) -> np.ndarray:
        """The book's box, with S_T's value where a limit cut the episode."""
        it = Numbers()
        for number, episode in enumerate(episodes):
            over = number < len(episodes) - 1  # the last one is still under way
            T = len(episode) if over else 10**9
            for t in range(len(episode) + n):
                tau = t - n + 1
                if tau < 0 or tau >= len(episode) or (not over and t >= len(episode)):
                    continue
                end = min(tau + n, T)
                G = sum(GAMMA ** (i - tau) * episode[i][2] for i in range(tau, end))
                if not episode[end - 1][4]:
                    G += GAMMA ** (end - tau) * it.v[episode[end - 1][3]]
                s = episode[tau][0]
                it.v[s] += it.rate(s) * (G - it.v[s])
        return it.v

    return loop


def td_lambda(episodes: list[Episode]) -> np.ndarray:
    it = Numbers()
    for episode in episodes:
        z = np.zeros(S)
        for s, _, r, after, ended in episode:
            delta = r + (0 if ended else GAMMA * it.v[after]) - it.v[s]
            z *= GAMMA * LAM
            z[s] += 1
            it.rate(s)
            it.v += ALPHA / np.maximum(it.n, 1) ** OMEGA * delta * z
    return it.v


def forward(episode: Episode, t: int, h: int, value: Callable[[int, int], float]) -> float:
    """G_(t:h)^lambda by its definition (eq. 12.9); value(k, s) is what s was worth when step k had been seen."""

    def bundle(n: int) -> float:
        rewards = sum(GAMMA**i * episode[t + i][2] for i in range(n))
        ended, after = episode[t + n - 1][4], episode[t + n - 1][3]
        return rewards + (0 if ended else GAMMA**n * value(t + n - 1, after))

    return (1 - LAM) * sum(LAM ** (n - 1) * bundle(n) for n in range(1, h - t)) + LAM ** (h - t - 1) * bundle(h - t)


def offline(episodes: list[Episode]) -> np.ndarray:
    it = Numbers()
    for episode in episodes[:-1]:
        held = it.v.copy()
        G = [forward(episode, t, len(episode), lambda k, s, held=held: held[s]) for t in range(len(episode))]
        for (s, *_), g in zip(episode, G, strict=True):
            it.v[s] += it.rate(s) * (g - it.v[s])
    return it.v


def online(episodes: list[Episode]) -> np.ndarray:
    """The online lambda-return algorithm (sec. 12.4): for every horizon h all updates anew, from the first step on."""
    it = Numbers()
    for episode in episodes:
        begin = it.v.copy()
        rates = [it.rate(s) for s, *_ in episode]
        at = [begin]  # at[k]: the weights when k steps were seen
        for h in range(1, len(episode) + 1):
            v = begin.copy()
            for t in range(h):
                g = forward(episode, t, h, lambda k, s, at=at: at[k][s])
                v[episode[t][0]] += rates[t] * (g - v[episode[t][0]])
            at.append(v)
        it.v = at[-1]
    return it.v


CASES: list[tuple[str, type[Prediction], dict[str, Any], Loop]] = [
    ("TD(0)", TD0, {}, td0),
    ("1 step", NStepTD, {"n": 1}, td0),
    ("3 steps", NStepTD, {"n": 3}, n_step(3)),
    ("50 steps", NStepTD, {"n": 50}, n_step(50)),
    ("TD(lambda)", TDLambda, {"lam": LAM}, td_lambda),
    ("lambda 0", TDLambda, {"lam": 0.0}, td0),
    ("true online", TrueOnlineTDLambda, {"lam": LAM}, online),
    ("true online, lambda 0", TrueOnlineTDLambda, {"lam": 0.0}, td0),
    ("offline", OfflineLambdaReturn, {"lam": LAM}, offline),
]


def feed(learner: Prediction, experience: Walk) -> np.ndarray:
    for transition in experience.transitions():
        learner.update(transition)
    return learner.v.value.numpy()


@pytest.mark.parametrize(("kind", "extra", "loop"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_it_equals_a_plain_loop_over_numbers(kind: type[Prediction], extra: dict[str, Any], loop: Loop) -> None:
    """3 replicas of one world each, 60 steps with ends and time limits: the loop knows nothing of traces or rings."""
    experience = walk(0, 60, 3, 1, S, A)
    assert (experience.last & ~experience.ended).sum() > 5 < experience.ended.sum()
    found = feed(agent(kind, [1, 2, 3], **extra), experience)
    expected = [loop(experience.episodes(r, 0)) for r in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


CROWDS = [case[:3] for case in CASES if case[0] != "offline"]  # it learns from one episode after another


@pytest.mark.parametrize(("kind", "extra"), [case[1:] for case in CROWDS], ids=[case[0] for case in CROWDS])
def test_worlds_that_meet_correct_by_their_mean(kind: type[Prediction], extra: dict[str, Any]) -> None:
    """Four worlds that live the same teach what one of them does; and four that live apart teach apart."""
    one = walk(1, 40, 2, 1, S, A)
    crowd = Walk(*(np.repeat(column, 4, axis=2) for column in vars(one).values()))
    np.testing.assert_allclose(feed(agent(kind, [1, 2], **extra), crowd), feed(agent(kind, [1, 2], **extra), one))
    apart = Walk(*(column.transpose(0, 2, 1) for column in vars(walk(2, 40, 2, 1, S, A)).values()))  # [T, 1, 2]
    both = Walk(**vars(apart) | {"s": apart.s + S * np.arange(2), "after": apart.after + S * np.arange(2)})
    found = feed(agent(kind, policy=uniform(2 * S), **extra), both).reshape(2, S)
    alone = Walk(*(column.transpose(0, 2, 1) for column in vars(apart).values()))
    np.testing.assert_allclose(found, feed(agent(kind, [1, 2], **extra), alone), rtol=1e-12, atol=1e-12)


def test_lambda_1_offline_is_monte_carlo_where_episodes_end() -> None:
    """Each visit in order, towards the return that followed it: no value of any other state enters."""
    experience = walk(3, 80, 1, 1, S, A, cut=0.0)
    it = Numbers()
    for episode in experience.episodes(0, 0)[:-1]:
        G, targets = 0.0, []
        for s, _, r, _, _ in reversed(episode):
            G = r + GAMMA * G
            targets.append((s, G))
        for s, g in reversed(targets):
            it.v[s] += it.rate(s) * (g - it.v[s])
    np.testing.assert_allclose(feed(agent(OfflineLambdaReturn, lam=1.0), experience)[0], it.v, rtol=1e-12)
    cut = experience.episodes(0, 0)[-1]  # under way: n steps have not passed, so nothing of it is learnt
    assert 0 < len(cut) < 100
    np.testing.assert_allclose(feed(agent(NStepTD, n=100), experience)[0], it.v, rtol=1e-12)


def test_an_end_and_a_limit_worked_by_hand() -> None:
    """Two steps 0 -> 1 -> 2 with rewards 1 and 2, discount 0.5, all values 8, step size 1/2.

    The world ends:  G_1 = 2,  G_0 = 1 + 1 = 2.       A limit cuts:  G_1 = 2 + .5 8 = 6,  G_0 = 1 + .5 6 = 4.
    """
    s, after = np.array([0, 1]).reshape(2, 1, 1), np.array([1, 2]).reshape(2, 1, 1)
    r, last = np.array([1, 2], np.float32).reshape(2, 1, 1), np.array([False, True]).reshape(2, 1, 1)
    for ended, expected in ((last, [5, 5, 8, 8]), (last & False, [6, 7, 8, 8])):
        for kind, extra in (
            (NStepTD, {"n": 2}),
            (OfflineLambdaReturn, {"lam": 1.0}),
            (TrueOnlineTDLambda, {"lam": 1.0}),
        ):
            steps = Walk(s, 0 * s, r, after, ended, last)
            found = feed(agent(kind, gamma=0.5, alpha=0.5, omega=0.0, initial=8.0, **extra), steps)
            assert found.tolist() == [expected], (kind, ended)


def test_actions_follow_the_policy_each_world_with_its_own_coin() -> None:
    policy = torch.tensor([[0.2, 0.8], [1.0, 0.0]], dtype=torch.float64)
    learner = agent(TD0, [3, 4], policy=policy)
    obs = torch.arange(4000).remainder(2).repeat(2, 1)
    action, _ = learner.act(obs, learner.memory(4000))
    assert (action[:, 1::2] == 0).all()
    assert action[:, ::2].double().mean() == pytest.approx(0.8, abs=0.02)  # 4,000 coins: a deviation of 0.006
    assert not torch.equal(action[0], action[1])
    other = agent(TD0, [4], policy=policy)
    alone, _ = other.act(obs[1:, :100], other.memory(100))
    assert torch.equal(alone[0], action[1, :100])


def test_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="n = 0, expected 1 or more"):
        agent(NStepTD, n=0)
