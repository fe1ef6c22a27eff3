"""How good are R replicas? Interquartile mean, its 95% interval, and the gap to the exact optimum where there is one.

On a world that is a table nothing is sampled: the value of each replica's greedy policy is a linear solve (`rl.dp`),
and the optimum is known. On any other, episodes are played.

Source: Agarwal, Schwarzer, Castro, Courville & Bellemare, "Deep reinforcement learning at the edge of the statistical
precipice", NeurIPS 2021, sec. 4; the bootstrap: Efron & Tibshirani 1993, ch. 13 (percentile interval).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from envs.gymworlds import GymWorld
from envs.world import World
from lab import streams
from rl import dp
from rl.types import Agent

ENDLESS = 1000  # steps after which a simulated episode is cut where the world sets no limit
STATES = 4096  # observations in one call


@dataclass(frozen=True)
class Evaluation:
    """Returns of R greedy policies; higher is better."""

    returns: Float64[Tensor, "R"]
    """What `measure` says, one for each replica."""
    measure: str
    iqm: float
    ci95: tuple[float, float]
    optimal_return: float | None
    """The most that any policy can have in this measure; None where no table tells."""
    episode_returns: Float64[Tensor, "R"] | None
    """Mean undiscounted return of the episodes played; None where none were."""

    @property
    def gap(self) -> float | None:
        """Optimum minus interquartile mean, >= 0 up to rounding."""
        return None if self.optimal_return is None else self.optimal_return - self.iqm


def iqm(scores: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Mean of the middle half: a quarter of the n scores, rounded down, falls away at each end."""
    cut = scores.shape[-1] // 4
    return scores.sort(-1).values[..., cut : scores.shape[-1] - cut].mean(-1)


def ci95(scores: Float[Tensor, "R"] | Float[Tensor, "R M"], seed: int, resamples: int = 5000) -> tuple[float, float]:
    """95% percentile bootstrap interval of the interquartile mean.

    Scores of R runs, or of R runs on each of M tasks: then the runs of each task are drawn again by themselves
    (stratified) and the mean is over all R M. A single run gives an interval without width: it says nothing.
    """
    columns = scores.reshape(len(scores), -1)  # [R, M]
    R, M = columns.shape
    index = torch.randint(R, (resamples, R, M), generator=streams.generator(seed, "bootstrap"))
    again = columns.cpu().gather(0, index.view(-1, M)).view(resamples, R * M)
    low, high = torch.quantile(iqm(again), torch.tensor([0.025, 0.975], dtype=scores.dtype), interpolation="nearest")
    return float(low), float(high)


def evaluate(
    agent: Agent, world: World | GymWorld, *, gamma: float, observation: str, seed: int, episodes: int = 20
) -> Evaluation:
    """Judge the greedy policies of all replicas.

    Args:
        agent: R learners.
        world: a table (judged exactly, from its start distribution) or a Gymnasium world (judged by its episodes).
        gamma: the discount of the exact value. At 1 the value is that under the world's time limit, if it has one.
        observation: what the agent sees of a table (see `envs.observation`).
        seed: root of the episodes' and the bootstrap's draws.
        episodes: played by each replica; 0 plays none on a table.

    Raises:
        ValueError: when there is nothing to judge by, no table and no episode.
    """
    played = play(agent, world, observation=observation, seed=seed, episodes=episodes) if episodes else None
    optimal: float | None = None
    if isinstance(world, World):
        returns, optimal, measure = exact_returns(agent, world, gamma=gamma, observation=observation)
    elif played is None:
        raise ValueError(f"{world.name} has no table, expected episodes >= 1 to judge by, not {episodes}")
    else:
        returns, measure = played, f"mean undiscounted return of {episodes} greedy episodes"
    return Evaluation(
        returns=returns,
        measure=measure,
        iqm=float(iqm(returns)),
        ci95=ci95(returns, seed),
        optimal_return=optimal,
        episode_returns=played,
    )


def exact_returns(
    agent: Agent, world: World, *, gamma: float, observation: str
) -> tuple[Float64[Tensor, "R"], float, str]:
    """The value of each replica's greedy policy from the start, the most that can be had, and what this measures."""
    seen = world.observe(observation)
    parts = [seen[i : i + STATES] for i in range(0, len(seen), STATES)]
    policy = torch.cat([agent.q_values(obs.to(agent.device)).argmax(-1) for obs in parts], dim=1).cpu()  # [R, S]
    start = world.mdp.start
    if gamma == 1 and world.time_limit is not None:
        values = dp.policy_evaluation(world.mdp, policy, gamma, sweeps=world.time_limit)
        best = dp.finite_horizon(world.mdp, world.time_limit, gamma).values[-1]
        measure = f"exact undiscounted value within {world.time_limit} steps"
    else:
        values = dp.evaluate_exactly(world.mdp, policy, gamma)
        best = dp.value_iteration(world.mdp, gamma, tolerance=1e-12).values
        measure = f"exact value from the start at discount {gamma:g}"
    # Where a start is impossible its value does not count, not even if infinite.
    possible = start > 0
    returns = (values[:, possible] * start[possible]).sum(-1)
    return returns, float((best * start).sum()), f"{measure} of the greedy policy"


@torch.no_grad()
def play(agent: Agent, world: World | GymWorld, *, observation: str, seed: int, episodes: int) -> Float64[Tensor, "R"]:
    """Mean undiscounted return of `episodes` greedy episodes of each replica.

    Where the world sets no time limit an episode is cut after 1,000 steps.
    """
    R, E = agent.replicas, episodes
    keys = streams.keys(seed, "evaluate", R, E).flatten()
    seen = {"observation": observation} if isinstance(world, World) else {}
    worlds = world.simulate(keys, **seen, device=agent.device)
    obs = worlds.reset()
    total = torch.zeros(R * E, dtype=torch.float64, device=agent.device)
    alive = torch.ones(R * E, dtype=torch.bool, device=agent.device)
    for _ in range(world.time_limit or ENDLESS):
        step = worlds.step(agent.act(obs.view(R, E, *obs.shape[1:]), explore=False).flatten())
        total += step.reward.double() * alive
        last = step.terminated | step.truncated
        alive &= ~last
        if not alive.any():
            break
        obs = worlds.reset(last)
    return total.view(R, E).mean(1).cpu()
