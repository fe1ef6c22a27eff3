"""How good are R replicas? Interquartile mean, its 95% interval, and the gap to the exact optimum where there is one.

On a world that is a table nothing is sampled: the value of each replica's policy is a linear solve (`rl.dp`), and
the optimum is known; a predictor's values are compared with the exact ones. On any other world, and where the agent
remembers what it saw, episodes are played.

Source: Agarwal, Schwarzer, Castro, Courville & Bellemare, "Deep reinforcement learning at the edge of the statistical
precipice", NeurIPS 2021, sec. 4; the bootstrap: Efron & Tibshirani 1993, ch. 13 (percentile interval).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from envs.gymworlds import GymWorld
from envs.world import World
from lab import streams
from rl import dp
from rl.explore import sample
from rl.train import forget
from rl.types import Agent, Predictor

ENDLESS = 1000  # steps after which a simulated episode is cut where the world sets no limit
STATES = 4096  # observations in one call
PREDICTION = "minus the root mean square error of the values, against the exact ones of the given policy"


@dataclass(frozen=True)
class Evaluation:
    """Returns of R policies; higher is better."""

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
    """Judge the policies of all replicas (of predictors, the values).

    Args:
        agent: R learners.
        world: a table (judged exactly, from its start distribution) or a Gymnasium world (judged by its episodes).
        gamma: the discount of the exact value. At 1 the value is that under the world's time limit, if it has one.
        observation: what the agent sees of a table (see `envs.observation`).
        seed: root of the episodes' and the bootstrap's draws.
        episodes: played by each replica; 0 plays none on a table.

    Raises:
        ValueError: when there is nothing to judge by, no table (that tells) and no episode.
    """
    played = (
        play(agent, world, gamma=gamma, observation=observation, seed=seed, episodes=episodes) if episodes else None
    )
    optimal: float | None = None
    exactly = judged(agent, world, gamma=gamma, observation=observation) if isinstance(world, World) else None
    if exactly is not None:
        returns, optimal, measure = exactly
    elif played is None:
        why = "the agent remembers what it saw, which no table tells" if isinstance(world, World) else "it has no table"
        raise ValueError(f"{world.name}: {why}; expected episodes >= 1 to judge by, not {episodes}")
    elif isinstance(world, World):
        returns, (optimal, measure) = played.discounted.mean(1), optimum(world, gamma)
        measure = f"mean over {episodes} episodes of the return at discount {gamma:g}; the optimum knows the state"
    else:
        returns, measure = played.total.mean(1), f"mean undiscounted return of {episodes} episodes"
    return Evaluation(
        returns=returns,
        measure=measure,
        iqm=float(iqm(returns)),
        ci95=ci95(returns, seed),
        optimal_return=optimal,
        episode_returns=None if played is None else played.total.mean(1),
    )


def judged(
    agent: Agent, world: World, *, gamma: float, observation: str
) -> tuple[Float64[Tensor, "R"], float, str] | None:
    """What no episode needs to be played for: each replica's score, the best there is, and what this measures.

    None for an agent that remembers what it saw: what it does is no function of the state.
    """
    if isinstance(agent, Predictor):
        return -prediction_errors(agent, world, gamma=gamma, observation=observation), 0.0, PREDICTION
    if agent.memory(1).numel():
        return None
    return exact_returns(agent, world, gamma=gamma, observation=observation)


def exact_returns(
    agent: Agent, world: World, *, gamma: float, observation: str
) -> tuple[Float64[Tensor, "R"], float, str]:
    """The value of each replica's policy from the start, the most that can be had, and what this measures."""
    policy = policy_of(agent, world, observation)
    start = world.mdp.start
    if gamma == 1 and world.time_limit is not None:
        values = dp.policy_evaluation(world.mdp, policy, gamma, sweeps=world.time_limit)
    else:
        values = dp.evaluate_exactly(world.mdp, policy, gamma)
    # Where a start is impossible its value does not count, not even if infinite.
    possible = start > 0
    returns = (values[:, possible] * start[possible]).sum(-1)
    best, measure = optimum(world, gamma)
    return returns, best, f"{measure} of the {'learned' if policy.is_floating_point() else 'greedy'} policy"


def policy_of(agent: Agent, world: World, observation: str) -> Int64[Tensor, "R S"] | Float64[Tensor, "R S A"]:
    """What each replica does in every state of a world, on the CPU."""
    seen = world.observe(observation).to(agent.device)
    parts = []
    for obs in torch.split(seen, STATES):
        own = obs.expand(agent.replicas, *obs.shape)
        parts.append(agent.policy(own, agent.memory(len(obs)))[0].cpu())
    policy = torch.cat(parts, dim=1)
    return policy.double() if policy.is_floating_point() else policy


def optimum(world: World, gamma: float) -> tuple[float, str]:
    """The most that can be had from the start, and what this measures; at gamma 1 under the time limit, if any."""
    if gamma == 1 and world.time_limit is not None:
        best = dp.finite_horizon(world.mdp, world.time_limit, gamma).values[-1]
        measure = f"exact undiscounted value within {world.time_limit} steps"
    else:
        best = dp.value_iteration(world.mdp, gamma, tolerance=1e-12).values
        measure = f"exact value from the start at discount {gamma:g}"
    return float((best * world.mdp.start).sum()), measure


def prediction_errors(agent: Predictor, world: World, *, gamma: float, observation: str) -> Float64[Tensor, "R"]:
    """Root mean square error of each replica's values, over the states in which something is decided."""
    truth = dp.evaluate_exactly(world.mdp, agent.target_policy.cpu(), gamma)
    learned = agent.values(world.observe(observation).to(agent.device)).cpu().double()
    lived = world.mdp.lived()
    return (learned - truth)[:, lived].square().mean(1).sqrt()


@dataclass(frozen=True)
class Played:
    """E episodes of each of R replicas."""

    total: Float64[Tensor, "R E"]
    """Undiscounted return."""
    discounted: Float64[Tensor, "R E"]
    length: Int64[Tensor, "R E"]
    """Steps."""
    terminated: Bool[Tensor, "R E"]
    """The world ended, and was not cut."""


@torch.no_grad()
def play(agent: Agent, world: World | GymWorld, *, gamma: float, observation: str, seed: int, episodes: int) -> Played:
    """`episodes` episodes of each replica, by the policy that it is judged by.

    Where the world sets no time limit an episode is cut after 1,000 steps.
    """
    R, E = agent.replicas, episodes
    keys = streams.keys(seed, "evaluate", R, E).flatten()
    seen = {"observation": observation} if isinstance(world, World) else {}
    worlds = world.simulate(keys, **seen, device=agent.device)
    coins = streams.keys(seed, "policy", R, E).to(agent.device)
    obs, memory = worlds.reset(), agent.memory(E)
    total, discounted = torch.zeros(2, R * E, dtype=torch.float64, device=agent.device)
    length = torch.zeros(R * E, dtype=torch.int64, device=agent.device)
    alive, terminated = torch.ones_like(length).bool(), torch.zeros_like(length).bool()
    for t in range(world.time_limit or ENDLESS):
        policy, memory = agent.policy(obs.view(R, E, *obs.shape[1:]), memory)
        action = sample(policy, streams.uniform(coins, t)) if policy.is_floating_point() else policy
        step = worlds.step(action.flatten())
        total += step.reward.double() * alive
        discounted += gamma**t * step.reward.double() * alive
        length += alive
        terminated |= step.terminated & alive
        last = step.terminated | step.truncated
        alive &= ~last
        if not alive.any():
            break
        obs, memory = worlds.reset(last), forget(memory, last.view(R, E))
    return Played(*(column.view(R, E).cpu() for column in (total, discounted, length, terminated)))
