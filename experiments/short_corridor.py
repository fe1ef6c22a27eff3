"""A corridor in which all states look alike: the best policy is a coin, and a policy gradient finds how to weigh it.

    S <-> ~ <-> . -> G      -1 a step; in ~ left and right are exchanged; p    the chance of going right
    v(p) = -(4 - 2p) / (p (1 - p)), at most -(6 + 4 sqrt 2) = -11.66 where p = 2 - sqrt 2 = 0.586

A greedy policy never arrives, an epsilon-greedy one at epsilon 0.1 (p = 0.05 or 0.95) takes 82 or 44 steps. The
learners begin at p = 0.05. Their value is exact (`rl.dp`), of the policy that every tenth episode leaves behind.

The actors' step sizes are half the book's: its preferences are single numbers, ours a weight and a bias that move
together, so a preference moves by as much. The baseline steps along the mean over an episode (`rl.gradient.reinforce`),
a quarter of the way; the book's, by 2^-6 at each of its steps, 17% of the way in 12 steps and 72% in 82.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from envs.catalog import load
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from experiments.episodes import endless, interval
from lab import plots
from rl import dp
from rl.gradient.softmax import Softmax
from rl.recipes.gradient import ReinforceBaselineConfig, ReinforceConfig

FIRST = 0.05  # chance of right that the learners begin with
EVERY = 10  # episodes between two exact values
ARRIVED = -15.0  # a mean value above this counts as having found it

CLAIM = Claim(
    claim="Where all states look alike REINFORCE finds the best policy, which is a coin; a learned baseline gets it "
    "there much sooner.",
    source="Sutton & Barto 2018, example 13.1; fig. 13.1 (alpha 2^-13) and fig. 13.2 (alpha 2^-9), the first half of "
    "their 1,000 episodes",
    stated={
        "value of the best policy": "-11.6 +- 0.1",
        "its chance of right": "0.59 +- 0.01",
        "value after 500 episodes: REINFORCE": "-11.6 +- 1.5",
        "value after 500 episodes: with baseline": "-11.6 +- 1",
        "chance of right after 500 episodes: with baseline": "0.59 +- 0.05",
        "episodes to a value of -15: with baseline over without": "< 0.5",
    },
    minutes=3.0,
)


@dataclass(frozen=True)
class Learnt:
    """Of R replicas, before the first episode and after every tenth."""

    right: Float64[Tensor, "R E"]
    """Chance of going right."""
    value: Float64[Tensor, "R E"]
    """Exact value of the start."""

    @property
    def arrival(self) -> float:
        """Episodes until the mean value over replicas is above `ARRIVED` for good; inf if it never is."""
        below = (self.value.mean(0) < ARRIVED).nonzero().flatten()
        first = int(below[-1]) + 1 if len(below) else 0
        return float(EVERY * first) if first < self.value.shape[1] else math.inf


def run(setting: Setting) -> Finding:
    """Both at 100 replicas, 500 episodes each."""
    return compare(setting, replicas=100, episodes=500)


def compare(setting: Setting, replicas: int, episodes: int) -> Finding:
    """The experiment at any size."""
    p = torch.linspace(0.02, 0.98, 961, dtype=torch.float64)
    v = values(p)
    best = int(v.argmax())
    size = {"replicas": replicas, "episodes": episodes}
    plain = learnt(setting, "reinforce", ReinforceConfig(learning_rate=2**-14, clip=1e9), **size, share=0.0)
    config = ReinforceBaselineConfig(learning_rate=2**-10, critic_rate=2**-3, clip=1e9)
    helped = learnt(setting, "reinforce-baseline", config, **size, share=0.5)
    both = {"REINFORCE": plain, "with baseline": helped}
    ends = [it.value[:, -1] for it in both.values()]
    coin = float(helped.right[:, -1].mean())
    found = [
        float(v[best]),
        float(p[best]),
        *(float(end.mean()) for end in ends),
        coin,
        sooner(helped.arrival, plain.arrival),
    ]
    rows = []
    for name, it in both.items():
        right = float(it.right[:, -1].mean())
        rows.append([name, interval(it.value[:, -1], setting.seed), f"{right:.3f}", f"{it.arrival:g}"])
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=judge(*found),
        verdict=f"with the baseline the mean value passes {ARRIVED:g} after {helped.arrival:g} episodes, without after "
        f"{plain.arrival:g}; after {episodes} they are at {found[3]:.2f} and {found[2]:.2f}, the best is "
        f"{found[0]:.2f}; {replicas} replicas",
        figure=_picture(p, v, plain, helped),
        header=("learner", "mean value [95%]", "chance of right", f"episodes to {ARRIVED:g}"),
        rows=rows,
    )


def sooner(helped: float, plain: float) -> float:
    """Episodes with baseline over those without; inf where either never arrives, and there is nothing to compare."""
    return helped / plain if math.isfinite(helped) and math.isfinite(plain) else math.inf


def judge(best: float, right: float, plain: float, helped: float, coin: float, ratio: float) -> bool:
    """The rule, on the numbers of the claim in their order."""
    exact = abs(best + 11.6) <= 0.1 and abs(right - 0.59) <= 0.01
    return exact and abs(plain + 11.6) <= 1.5 and abs(helped + 11.6) <= 1 and abs(coin - 0.59) <= 0.05 and ratio < 0.5


def corridor() -> World:
    """The world."""
    world = load("short-corridor")
    assert isinstance(world, World)
    return world


def values(right: Float64[Tensor, "M"]) -> Float64[Tensor, "M"]:
    """The exact value of the start for each chance of right, the same in all states."""
    world = corridor()
    policy = torch.stack([1 - right, right], 1)[:, None].expand(-1, world.mdp.states, -1)
    return dp.evaluate_exactly(world.mdp, policy.contiguous(), 1.0) @ world.mdp.start


def learnt(setting: Setting, name: str, config: ReinforceConfig, replicas: int, episodes: int, share: float) -> Learnt:
    """What R replicas learn in so many episodes each, begun at p = `FIRST`; each goes on until all have had theirs."""
    world = corridor()
    trainer = endless(name, world, config, replicas=replicas, seed=setting.seed, device=setting.device)
    agent = trainer.agent
    assert isinstance(agent, Softmax)
    begin(agent, FIRST)
    look = world.observe(config.observation)[:1].to(setting.device).expand(replicas, 1, -1)
    right = torch.full((replicas, episodes // EVERY + 1), torch.nan, dtype=torch.float64)
    right[:, 0] = agent.policy(look, agent.memory(1))[0][:, 0, 1].cpu()
    assert torch.allclose(right[:, 0], torch.tensor(FIRST, dtype=torch.float64), atol=1e-6), "it begins elsewhere"
    had = torch.zeros(replicas, dtype=torch.int64)
    for _, metrics in trainer.run():
        now = metrics["episodes"].long().cpu()
        due = ((now > had) & (now % EVERY == 0) & (now <= episodes)).nonzero().flatten()
        if len(due):
            right[due, now[due] // EVERY] = agent.policy(look, agent.memory(1))[0][due, 0, 1].cpu()
            setting.report(share + 0.5 * min(1.0, float(now.min()) / episodes), f"{name}, {int(now.min())} episodes")
        had = now
        if int(now.min()) >= episodes:
            break
    return Learnt(right, values(right.flatten()).view_as(right))


@torch.no_grad()
def begin(agent: Softmax, right: float) -> None:
    """Give the actor, which is linear, the biases at which it goes right with this chance."""
    *before, biases, _ = agent.actor.network.sizes  # the last is padding
    bias = agent.actor.weights[:, sum(before) :][:, :biases]
    bias.copy_(torch.tensor([1 - right, right], device=bias.device).log())


def _picture(p: Float64[Tensor, "M"], v: Float64[Tensor, "M"], plain: Learnt, helped: Learnt) -> Figure:
    """The value of every coin with those that were found, and the values while they were learnt."""
    figure, (left, right) = plots.figure(1, 2, width=5.0, height=3.8)
    best = float(v.max())
    plots.curve(left, p, v, "exact value", colour=5)
    for colour, found in ((1, plain), (0, helped)):
        left.plot(
            found.right[:, -1], found.value[:, -1], "o", color=plots.COLOURS[colour], markersize=4, alpha=0.35,
            label=("with baseline", "REINFORCE")[colour],
        )  # fmt: skip
    left.plot([0.05, 0.95], values(torch.tensor([0.05, 0.95], dtype=torch.float64)), "x", color=plots.INK, markersize=7)
    left.annotate("epsilon-greedy", (0.05, -82), xytext=(0.1, -84), color=plots.INK, fontsize=8, va="center")
    left.set_ylim(-100, 0)
    share = float(p[int(v.argmax())])
    plots.label(
        left, f"The best policy is a coin: right with {share:.2f}, {best:.1f}", "chance of right", "value of the start"
    )
    plots.legend(left, "lower center")
    x = EVERY * np.arange(plain.value.shape[1])
    for colour, found in ((1, plain), (0, helped)):
        mean, error = found.value.mean(0), 1.96 * found.value.std(0) / len(found.value) ** 0.5
        name = ("with baseline, the book's $\\alpha = 2^{-9}$", "REINFORCE, the book's $\\alpha = 2^{-13}$")[colour]
        plots.curve(right, x, mean, name, colour, mean - error, mean + error)
    plots.level(right, best, "best policy")
    right.set_ylim(-90, -5)
    title = f"To {ARRIVED:g}: {helped.arrival:g} episodes with a baseline, {plain.arrival:g} without"
    plots.label(right, title, "episode", f"value of the policy, mean of {len(plain.value)}")
    plots.legend(right, "lower right")
    return figure
