"""Many turns of the loop in one call, where agent and worlds are tables on the CPU; the same bits as turn by turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int64
from torch import Tensor

from envs.simulator import Simulator
from envs.types import Worlds
from rl import order
from rl.explore import EpsilonGreedy, world_keys
from rl.tabular.arrays import Carry, Learner, Room, Tally, World
from rl.tabular.q_learning import QLearning
from rl.types import Agent

ALONE = 16  # replicas that are not worth a thread


def stride(agent: Agent, worlds: Worlds) -> Stride | None:
    """What lives many turns of this agent in these worlds at once; None where each is to be lived by itself.

    It is made for `QLearning`, which explores as it was made to, in a `Simulator`, both on the CPU.
    """
    if type(agent) is not QLearning or type(worlds) is not Simulator:  # another class may do other things
        return None
    if type(agent.explorer) is not EpsilonGreedy or not agent.device.type == worlds.device.type == "cpu":
        return None
    seen = worlds.observe(torch.arange(worlds.states))
    fits = seen.dtype == torch.int64 and seen.ndim == 1 and int(seen.max()) < agent.q.value.shape[1]
    return Stride(agent, worlds, seen) if fits and agent.actions == worlds.actions else None


class Stride:
    """Lives many turns at once; between two calls agent and worlds are as if they had been lived one by one."""

    def __init__(self, agent: QLearning, worlds: Simulator, seen: Int64[Tensor, "S"]) -> None:
        from rl.tabular.kernel import live  # a second: a compiler, for which nobody waits who does not get here

        self._agent, self._worlds, self._live = agent, worlds, live
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads)
        tables, roots, carry = worlds.inside()
        self._world = World(
            actions=(0,) * worlds.actions,
            width=tables.outcome.width,
            last=_or(tables.outcome.last, torch.int32),
            successor=tables.successor.numpy(),
            reward=tables.reward.numpy(),
            limit=tables.limit,
            first_width=tables.first.width,
            first_last=_or(tables.first.last, torch.int64),
            start=tables.start.numpy(),
            seen=seen.numpy(),
        )
        self._roots = roots.stream, torch.zeros_like(carry.state) if roots.block is None else roots.block
        self._coin = world_keys(agent.explorer.key, worlds.n // agent.replicas).flatten()

    def __call__(
        self,
        turns: int,
        running: Float64[Tensor, "2 N"],
        reward: Float64[Tensor, "R"],
        finished: Float64[Tensor, "2 R"],
        ended: Int64[Tensor, "R"],
    ) -> tuple[dict[str, Float[Tensor, "R"]], Int64[Tensor, "N"]]:
        """Live `turns` turns; what the trainer counts grows in place.

        Returns what the agent says, means over the turns, and what it sees after them.
        """
        agent, R = self._agent, self._agent.replicas
        W, table = self._worlds.n // R, agent.q
        epsilon = _epsilon(agent.explorer, agent.step, turns, W)
        error = torch.zeros(R, dtype=torch.float64)
        learner = Learner(
            q=table.value.view(R, -1).numpy(),
            n=table.n.view(R, -1).numpy(),
            power=table.foreseen(turns).numpy(),
            alpha=float(table.alpha),
            gamma=float(agent.gamma),
            epsilon=epsilon.numpy(),
            coin=self._coin.numpy(),
            step=agent.step,
        )
        _, _, carry = self._worlds.inside()
        carried = Carry(*(tensor.numpy() for tensor in (*carry, *self._roots)))
        tally = Tally(*(tensor.numpy() for tensor in (running, reward, finished, ended, error)))

        def go(low: int) -> None:
            room = None
            if W > 1:
                room = Room(np.empty(W, int), np.empty(W), np.empty(W), np.zeros(learner.q.shape[1], np.int32))
            self._live(turns, low, min(low + size, R), self._world, carried, learner, tally, room)

        size = max(ALONE, -(-R // self._threads))
        others = [self._pool.submit(go, low) for low in range(size, R, size)]
        go(0)
        for part in others:
            part.result()
        agent.step += turns * W
        said = {"td_error": error / turns, "epsilon": order.mean(epsilon).expand(R)}
        return said, self._worlds.observe(self._worlds.state)


def _or(thresholds: Int[Tensor, "slots"] | None, dtype: torch.dtype) -> Int[np.ndarray, "slots"]:
    """The thresholds of a choice, none where it has none."""
    return (torch.zeros(0, dtype=dtype) if thresholds is None else thresholds).numpy()


def _epsilon(explorer: EpsilonGreedy, step: int, turns: int, worlds: int) -> Float32[Tensor, "turns"]:
    """The chance of a random action, turn by turn."""
    first, last = explorer.epsilon(step), explorer.epsilon(step + (turns - 1) * worlds)
    if first == last:  # on a straight line it is the same in between, and most turns of most runs are there
        return torch.full((turns,), first)
    return torch.tensor([explorer.epsilon(step + t * worlds) for t in range(turns)])
