"""MC Basic: policy iteration whose evaluation is replaced by episodes. No learner in a world, but the idea of them all.

    q_k(s, a) = mean return of episodes of L steps that begin with (s, a) and follow pi_k        pi_(k+1) greedy on q_k

An episode is cut after L steps and nothing is bootstrapped, so q_k is the value within L steps in the mean: it differs
from the endless one by at most gamma^L max|r| / (1 - gamma).

Source: Zhao 2025, alg. 5.1 and sec. 5.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from envs.mdp import TabularMDP
from envs.simulator import Simulator
from rl.explore import stream_keys, world_keys

CLOSE = 1e-12  # of equal returns, which rounding may tell apart


def mc_basic(
    mdp: TabularMDP, gamma: float, policy: Int64[Tensor, "R S"], seeds: Sequence[int], *, length: int, episodes: int = 1
) -> Iterator[tuple[Float64[Tensor, "R S A"], Int64[Tensor, "R S"]]]:
    """R runs side by side, every pair of each at once: R S A `episodes` worlds. It goes on for ever.

    Where the action of the policy is as good as any other it stays.

    Args:
        mdp: the world; where it ends, an episode does.
        gamma: discount.
        policy: the first one of each run.
        seeds: one for each run.
        length: L, steps of an episode.
        episodes: for each pair; 1 is enough where nothing is left to chance.

    Yields:
        q_k and the policy that is greedy on it.

    Raises:
        ValueError: for a length or a number of episodes below 1.
    """
    if length < 1 or episodes < 1:
        raise ValueError(f"{episodes} episodes of {length} steps for each pair, expected at least 1 of 1")
    S, A, R = mdp.states, mdp.actions, len(seeds)
    each = S * A * episodes
    worlds = Simulator(mdp, world_keys(stream_keys(seeds, "mc-basic"), each).flatten(), observation=torch.arange(S))
    pair = torch.arange(S * A).repeat_interleave(episodes).repeat(R)  # [N]
    run = torch.arange(R).repeat_interleave(each)
    at = {"state": (pair // A).int(), "elapsed": torch.zeros_like(pair).int(), "begun": True}
    iteration = 0
    while True:
        iteration += 1
        worlds.load_state_dict({**at, "episode": torch.full_like(pair, iteration)})  # chance of its own each time
        action, alive = pair % A, torch.ones(len(pair), dtype=torch.float64)
        total = torch.zeros_like(alive)
        for t in range(length):
            step = worlds.step(action)
            total += gamma**t * alive * step.reward.double()
            alive *= ~step.terminated
            action = policy[run, step.obs]
        q = total.view(R, S, A, episodes).mean(-1)
        stays = q.gather(-1, policy[..., None])[..., 0] >= q.amax(-1) - CLOSE
        policy = torch.where(stays, policy, q.argmax(-1))
        yield q, policy
