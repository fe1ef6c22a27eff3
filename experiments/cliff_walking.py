"""Cliff walking: Sarsa knows that it explores and keeps away from the edge; Q-learning learns the edge and falls off.

    Q-learning's target is the best action: it learns the shortest path, which runs along the cliff, and its epsilon
    throws it off. Sarsa's is the action it takes: it learns the best path for one who slips with chance epsilon.

What each would earn is known exactly (`rl.dp`): that of the epsilon-greedy policy around the shortest path, and that of
the best of all epsilon-greedy policies. With a constant step size of 1/2 the learners stay a little below them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from envs.catalog import load
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from experiments.episodes import interval, learn, part, path
from lab import plots
from rl import dp
from rl.evaluate import policy_of
from rl.recipes.tabular import ExpectedSarsaConfig, QLearningConfig, SarsaConfig, TabularConfig

ALPHA, EPSILON = 0.5, 0.1
AGENTS: dict[str, tuple[str, type[TabularConfig]]] = {
    "Sarsa": ("sarsa", SarsaConfig),
    "Q-learning": ("q-learning", QLearningConfig),
    "Expected Sarsa": ("expected-sarsa", ExpectedSarsaConfig),
}

CLAIM = Claim(
    claim="On the cliff Q-learning learns the optimal path and earns less while it explores than Sarsa, which learns "
    "the safe one.",
    source="Sutton & Barto 2018, example 6.6 and the figure beside it; Expected Sarsa: fig. 6.3; numbers read off",
    stated={
        "reward an episode: Sarsa": "-25 +- 5",
        "reward an episode: Q-learning": "-50 +- 10",
        "reward an episode: Expected Sarsa": "> Q-learning's + 10",
        "greedy path, median: Q-learning": "-13",
        "greedy path, median: Sarsa": "< -13",
    },
)


@dataclass(frozen=True)
class Learnt:
    """Of one learner, R replicas.

    Attributes:
        gained: undiscounted return of each episode while it learns.
        greedy: exact return of each replica's greedy policy in the end (-inf where it goes round in circles).
    """

    gained: Float64[Tensor, "R E"]
    greedy: Float64[Tensor, "R"]

    def late(self, share: float = 0.2) -> Float64[Tensor, "R"]:
        """Each replica's mean return of the last fifth of its episodes."""
        return self.gained[:, -max(1, round(share * self.gained.shape[1])) :].mean(1)


def run(setting: Setting) -> Finding:
    """300 episodes of 100 replicas of each: the book's figure has 500, and is level long before."""
    return compare(setting, replicas=100, episodes=300)


def compare(setting: Setting, replicas: int, episodes: int) -> Finding:
    """The experiment at any size."""
    world = load("cliff")
    assert isinstance(world, World)
    found: dict[str, Learnt] = {}
    for i, (name, (agent, config)) in enumerate(AGENTS.items()):
        settings = config(alpha=ALPHA, omega=0.0, epsilon=EPSILON, final_epsilon=EPSILON)
        gained, _, learner = learn(
            agent, world, settings, replicas=replicas, episodes=episodes, seed=setting.seed,
            report=part(setting, i, len(AGENTS), name),
        )  # fmt: skip
        values = dp.evaluate_exactly(world.mdp, policy_of(learner, world, "index"), 1.0)
        found[name] = Learnt(gained, values[:, world.mdp.start > 0][:, 0])
    edge, safe = exact(world)
    numbers = [
        *(float(learnt.late().mean()) for learnt in found.values()),
        *(float(found[name].greedy.median()) for name in ("Q-learning", "Sarsa")),
    ]
    return Finding(
        found=dict(zip(CLAIM.stated, [*numbers[:3], *map(path, numbers[3:])], strict=True)),
        holds=judge(*numbers),
        verdict=f"in the last fifth of {episodes} episodes Sarsa earns {numbers[0]:.1f}, Q-learning {numbers[1]:.1f}; "
        f"exactly, the best epsilon-greedy policy earns {safe:.1f}, the shortest path with the same slips {edge:.1f} "
        f"({replicas} replicas)",
        figure=_picture(found, edge, safe),
        header=("learner", "reward an episode, late [95%]", "greedy path, median", "replicas on a path of 13"),
        rows=[
            [
                name,
                interval(learnt.late(), setting.seed),
                str(path(float(learnt.greedy.median()))),
                f"{float((learnt.greedy == -13).double().mean()):.0%}",
            ]
            for name, learnt in found.items()
        ],
    )


def judge(sarsa: float, q_learning: float, expected: float, greedy_q: float, greedy_sarsa: float) -> bool:
    """The rule, on the numbers of the claim in their order; margins are what one can read off the book's figure.

    A greedy path that never arrives (-inf) is no safe path: that Sarsa's must be finite was added after a review.
    """
    online = abs(sarsa + 25) <= 5 and abs(q_learning + 50) <= 10 and expected > q_learning + 10
    return online and greedy_q == -13 and -math.inf < greedy_sarsa < -13


def exact(world: World, epsilon: float = EPSILON) -> tuple[float, float]:
    """What an episode earns: by the shortest path with slips, and by the best policy that slips as often."""
    mdp = world.mdp
    shortest = dp.soft(dp.policy_iteration(mdp, 1.0).policy, mdp.actions, epsilon)
    edge = dp.evaluate_exactly(mdp, shortest, 1.0)
    safe = dp.policy_iteration(mdp, 1.0, epsilon=epsilon).values
    return float((edge * mdp.start).sum()), float((safe * mdp.start).sum())


def _picture(found: dict[str, Learnt], edge: float, safe: float) -> Figure:
    figure, [ax] = plots.figure(width=6.4, height=3.8)
    for i, (name, learnt) in enumerate(found.items()):
        mean = plots.smooth(learnt.gained.mean(0).numpy(), 10)
        plots.curve(ax, torch.arange(1, len(mean) + 1).numpy(), mean, name, i)
    ax.axhline(safe, color=plots.INK, linewidth=1, linestyle=(0, (4, 3)), label=f"best with slips, exact: {safe:.1f}")
    ax.axhline(edge, color=plots.INK, linewidth=1, linestyle=(0, (1, 2)), label=f"edge with slips, exact: {edge:.1f}")
    ax.set_ylim(-110, -5)
    late = {name: float(learnt.late().mean()) for name, learnt in found.items()}
    plots.label(
        ax,
        f"Sarsa keeps away from the cliff: {late['Sarsa']:.0f} an episode, Q-learning {late['Q-learning']:.0f}",
        "episode",
        "sum of rewards in the episode",
    )
    plots.legend(ax, "lower right")
    return figure
