"""Episodes in one world, step by step, beside the exact optimum."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

import envs
from lab import streams
from qx import answer
from rl import dp
from rl.explore import sample
from rl.saved import Saved


class Walk:
    """Episodes in one world, and what they brought. As Gymnasium's face of the world, from the same seed."""

    def __init__(self, world: envs.World, seed: int, gamma: float) -> None:
        self.world, self.gamma = world, gamma
        self._worlds = world.simulate(torch.tensor([streams.derive(seed, "world")]), observation="state")
        self.episodes, self.trouble = 0, ""
        self.optimum: answer.Answer | None = None
        try:
            self.optimum = answer.best(world, gamma)
        except dp.DPError as error:
            self.trouble = str(error)
        self.restart()

    def restart(self) -> None:
        """Begin the next episode."""
        self.state = int(self._worlds.reset())
        self.steps, self.returned, self.reward, self.total = 0, 0.0, 0.0, 0.0
        self.ended, self.truncated = False, False
        self.episodes += 1
        self.promised = self.ahead

    def act(self, action: int) -> None:
        """Take an action, if the episode has not ended."""
        if self.ended:
            return
        step = self._worlds.step(torch.tensor([action]))
        self.state, self.reward = int(step.obs), float(step.reward)
        self.returned += self.gamma**self.steps * self.reward
        self.total += self.reward
        self.steps += 1
        self.truncated = bool(step.truncated)
        self.ended = bool(step.terminated) or self.truncated

    @property
    def ahead(self) -> float | None:
        """The most that can be expected from here."""
        if self.optimum is None:
            return None
        return 0.0 if self.ended else float(self.optimum.values[self.state])

    @property
    def best(self) -> list[str]:
        """The best actions here, the first of them the one that a solution takes; none where no optimum is known."""
        if self.optimum is None:
            return []
        names, first = self.world.action_names, int(self.optimum.policy[self.state])
        good = self.optimum.arrows[self.state].nonzero().flatten().tolist()
        return [names[first], *(names[a] for a in good if a != first)]

    def result(self) -> dict[str, Any]:
        """What `--json` prints, of the last episode."""
        return {
            "world": self.world.name,
            "gamma": self.gamma,
            "return": self.returned,
            "rewards": self.total,
            "steps": self.steps,
            "ended": self.ended,
            "episodes": self.episodes,
            "optimal_return": self.optimum and self.optimum.optimal_return,
            "optimal_return_from_this_start": self.promised,
        }

    def summary(self) -> str:
        """The last episode in a line."""
        how = "ended" if self.ended else "was left"
        best = "" if self.promised is None else f"; from this start the best is {self.promised:.6g}"
        summed = f"return {self.returned:.6g}{', discounted' if self.gamma < 1 else ''}"
        return f"{self.world.name}: the episode {how} after {self.steps} steps with {summed}{best}"


class Companion:
    """An agent that watches a walk, and says at each moment what it would do.

    It sees every step of the walk, whoever takes it, and so remembers what there is to remember; what it draws is a
    function of the seed and of how often it looked.
    """

    def __init__(self, saved: Saved, seed: int) -> None:
        self.agent = saved.one().agent
        self._coin = streams.keys(seed, "policy", 1, 1).to(self.agent.device)
        self._looks = 0
        self.begin()

    def begin(self) -> None:
        """Forget: another episode begins."""
        self._memory = self.agent.memory(1)

    @torch.no_grad()
    def look(self, obs: Shaped[Tensor, "*shape"]) -> int:
        """See one observation; returns the action that the agent would take."""
        seen = obs.to(self.agent.device)[None, None]
        policy, self._memory = self.agent.policy(seen, self._memory)
        action: Int64[Tensor, "1 1"] = policy
        if policy.is_floating_point():
            action = sample(policy, streams.uniform(self._coin, self._looks))
        self._looks += 1
        return int(action)
