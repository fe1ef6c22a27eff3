"""The estimators' means against the exact policy gradient: finite differences of exact values, and the theorem's sum.

All replicas have the same weights and never move. The mean gradient of 4,000 episodes is to be the exact one within 4
standard errors in each of 12 coordinates: by chance that fails once in a thousand seeds, and the seed is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.mlp import MLP
from envs.mdp import TabularMDP
from envs.simulator import Simulator
from rl import dp
from rl.backup import Backup
from rl.gradient import losses
from rl.gradient.reinforce import Reinforce, ReinforceBaseline
from rl.occupancy import visits
from rl.train import world_keys
from rl.types import Transition
from tests.oracles.dp import random_mdp

S, A, GAMMA, EPISODES = 4, 3, 0.8, 4000
RANDOM = random_mdp(3, states=S, actions=A, outcomes=2, ending=0.3)
MDP = replace(RANDOM, reward=RANDOM.reward + 1)  # all states are worth something: what a baseline takes away
WEIGHTS = torch.randn(A, S, generator=torch.Generator().manual_seed(0))  # the logits of state s are WEIGHTS[:, s]
POLICY = WEIGHTS.T.double().softmax(-1)


def start_value(weights: Tensor) -> float:
    """The exact value of the start under a softmax of `weights` [A, S]."""
    return float(dp.evaluate_exactly(MDP, weights.T.softmax(-1), GAMMA) @ MDP.start)


def finite_differences(width: float = 1e-4) -> Tensor:
    """d start_value / d weights [A, S], from both sides."""
    gradient = torch.zeros(A, S, dtype=torch.float64)
    for a in range(A):
        for s in range(S):
            shift = torch.zeros(A, S, dtype=torch.float64)
            shift[a, s] = width
            gradient[a, s] = (start_value(WEIGHTS.double() + shift) - start_value(WEIGHTS.double() - shift)) / (
                2 * width
            )
    return gradient


def theorem(frequency: Tensor) -> Tensor:
    """sum_s d(s) sum_a grad pi(a | s) q(s, a) [A, S]: Sutton & Barto eq. 13.5, d the visits."""
    q = Backup(MDP, GAMMA)(dp.evaluate_exactly(MDP, POLICY, GAMMA))
    v = (POLICY * q).sum(-1, keepdim=True)
    return (frequency[:, None] * POLICY * (q - v)).T  # the softmax's gradient: pi (q - v)


def linear(outputs: int) -> Callable[[], MLP]:
    return lambda: MLP(S, [], outputs)


def agent(kind: type[Reinforce], replicas: int) -> Any:
    arguments: dict[str, Any] = {"gamma": GAMMA, "rate": (0.0, 0.0), "rate_steps": 1, "clip": 1e9, "horizon": 400}
    if kind is ReinforceBaseline:
        arguments |= {"critic": linear(1), "critic_rate": (0.0, 0.0)}
    made = kind(linear(A), (S,), list(range(replicas)), **arguments)
    with torch.no_grad():
        made.actor.weights[:, : A * S] = WEIGHTS.flatten()
        if isinstance(made, ReinforceBaseline):
            made.critic.weights[:, :S] = dp.evaluate_exactly(MDP, POLICY, GAMMA).float()
    return made


def gradients(kind: type[Reinforce], worlds: int = 20) -> Tensor:
    """Minus the gradient of the agent's own loss, the mean over 20 worlds' first episodes [EPISODES / 20, A, S]."""
    R = EPISODES // worlds
    made = agent(kind, R)
    total = torch.zeros_like(made.actor.weights)

    def capture(loss: Tensor, at: int) -> Tensor:
        total.sub_(torch.autograd.grad(loss.sum(), made.actor.weights)[0])
        return loss.detach()

    made.actor.step = capture
    played = Simulator(MDP, world_keys(5, R, worlds), observation=torch.eye(S))
    obs, alive = played.reset(), torch.ones(R, worlds, dtype=torch.bool)
    while alive.any():
        seen = obs.view(R, worlds, S)
        action = made.act(seen, made.memory(worlds))[0]
        step = played.step(action.flatten())
        ended = step.terminated.view(R, worlds)
        made.update(
            Transition(
                obs=seen,
                memory=made.memory(worlds),
                action=action,
                reward=step.reward.view(R, worlds),
                next_obs=step.obs.view(R, worlds, S),
                discount=(~ended).float(),
                last=ended & alive,  # what comes after the first episode is never learnt from: it does not end
            )
        )
        obs, alive = step.obs, alive & ~ended
    return total[:, : A * S].view(R, A, S).double() / worlds


def assert_mean(samples: Tensor, exact: Tensor) -> None:
    error = samples.std(0) / len(samples) ** 0.5
    assert ((samples.mean(0) - exact).abs() < 4 * error + 1e-6).all()
    assert (exact.abs() > 10 * error).sum() >= 4  # enough of it stands out of the noise for this to say something


def test_the_theorem_gives_the_exact_gradient() -> None:
    torch.testing.assert_close(theorem(visits(MDP, POLICY, GAMMA)), finite_differences(), rtol=1e-5, atol=1e-7)


def test_reinforce_climbs_the_exact_gradient_and_an_exact_baseline_only_takes_variance_away() -> None:
    exact = finite_differences()
    plain, with_baseline = gradients(Reinforce), gradients(ReinforceBaseline)
    assert_mean(plain, exact)
    assert_mean(with_baseline, exact)
    assert with_baseline.var(0).sum() < 0.8 * plain.var(0).sum()


@pytest.mark.parametrize("late", ["fades", "counts in full"])
def test_advantages_by_an_exact_critic_climb_the_theorem_s_gradient(late: str) -> None:
    """With gamma^t that of the start's value; without, as an actor-critic has it, visits count undiscounted."""
    q = Backup(MDP, GAMMA)(dp.evaluate_exactly(MDP, POLICY, GAMMA))
    advantage = q - (POLICY * q).sum(-1, keepdim=True)
    state, action, alive = _episodes(MDP, steps=60)
    fade = GAMMA ** torch.arange(60, dtype=torch.float64) if late == "fades" else torch.ones(60, dtype=torch.float64)
    logits = WEIGHTS.double().expand(EPISODES, A, S).clone().requires_grad_()
    seen = logits.mT[torch.arange(EPISODES)[:, None], state]  # [E, T, A]
    loss = losses.policy_gradient(losses.log_prob(seen, action), advantage[state, action] * fade) * alive
    loss.sum().backward()
    assert logits.grad is not None
    assert_mean(-logits.grad, theorem(visits(MDP, POLICY, GAMMA if late == "fades" else 1.0)))


def _episodes(mdp: TabularMDP, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """(states, actions, whether the first episode lasts) of EPISODES worlds [E, T], acting by POLICY."""
    worlds = Simulator(mdp, world_keys(6, EPISODES, 1), observation=torch.arange(S))
    obs, g = worlds.reset(), torch.Generator().manual_seed(2)
    alive, columns = torch.ones(EPISODES, dtype=torch.bool), []
    for _ in range(steps):
        action = torch.multinomial(POLICY[obs], 1, generator=g).squeeze(1)
        columns.append((obs, action, alive))
        step = worlds.step(action)
        obs, alive = step.obs, alive & ~step.terminated
    return tuple(torch.stack(column, 1) for column in zip(*columns, strict=True))  # type: ignore[return-value]
