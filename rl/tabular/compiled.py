"""Many turns of the loop in one call, where agent and worlds are tables on the CPU; the same bits as turn by turn."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

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
A_CALL = 2**21  # steps of all worlds: tens of milliseconds, for which who interrupts has to wait


def stride(agent: Agent, worlds: Worlds) -> Stride | None:
    """What lives many turns of this agent in these worlds at once; None where each is to be lived by itself.

    It is made for `QLearning`, which explores as it was made to and has one step size for all replicas, in a
    `Simulator` of which each state is seen as a row of the table, both on the CPU.
    """
    if type(agent) is not QLearning or type(worlds) is not Simulator:  # another class may do other things
        return None
    if type(agent.explorer) is not EpsilonGreedy or not agent.device.type == worlds.device.type == "cpu":
        return None
    if isinstance(agent.q.alpha, Tensor) or agent.actions != worlds.actions:
        return None
    seen = worlds.observe(torch.arange(worlds.states))
    if seen.dtype != torch.int64 or seen.ndim != 1:
        return None
    # The compiled code asks of no index whether it is there.
    return Stride(agent, worlds, seen) if 0 <= int(seen.min()) <= int(seen.max()) < agent.q.value.shape[1] else None


class Stride:
    """Lives many turns at once; whenever it yields, agent and worlds are as if they had been lived one by one."""

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
    ) -> Iterator[tuple[int, Int64[Tensor, "N"], dict[str, Float[Tensor, "R"]]]]:
        """Live `turns` turns, some after some; what the trainer counts grows in place.

        Yields how many more were lived (`A_CALL` says when that is not all), what the agent sees after them, and what
        it says: means over all turns up to here.
        """
        agent, R = self._agent, self._agent.replicas
        W, N = self._worlds.n // R, self._worlds.n
        epsilon = _epsilon(agent.explorer, agent.step, turns, W)
        error = torch.zeros(R, dtype=torch.float64)
        tally = Tally(*(tensor.numpy() for tensor in (running, reward, finished, ended, error)))
        for done in range(0, turns, most := max(1, A_CALL // N)):
            now = min(turns, done + most)
            self._call(now - done, epsilon[done:now], tally)
            agent.step += (now - done) * W
            said = {"td_error": error / now, "epsilon": order.mean(epsilon[:now]).expand(R)}
            yield now - done, self._worlds.observe(self._worlds.state), said

    def _call(self, turns: int, epsilon: Float32[Tensor, "turns"], tally: Tally) -> None:
        """Live `turns` turns, replicas shared out among threads; none of them still writes afterwards."""
        agent, R = self._agent, self._agent.replicas
        W, table = self._worlds.n // R, agent.q
        learner = Learner(
            q=table.value.view(R, -1).numpy(),
            n=table.n.view(R, -1).numpy(),
            power=table.count_turns(turns).numpy(),
            alpha=float(table.alpha),
            gamma=float(agent.gamma),
            epsilon=epsilon.numpy(),
            coin=self._coin.numpy(),
            step=agent.step,
        )
        _, _, carry = self._worlds.inside()
        carried = Carry(*(tensor.numpy() for tensor in (*carry, *self._roots)))

        def go(low: int) -> None:
            room = None
            if W > 1:
                room = Room(np.empty(W, int), np.empty(W), np.empty(W), np.zeros(learner.q.shape[1], np.int32))
            self._live(turns, low, min(low + size, R), self._world, carried, learner, tally, room)

        size = max(ALONE, -(-R // self._threads))
        others: list[Future[None]] = []
        try:
            for low in range(size, R, size):
                others.append(self._pool.submit(go, low))
            go(0)
        finally:  # an interrupt comes here, too
            wait(others)
        for part in others:
            part.result()


def _or(thresholds: Int[Tensor, "slots"] | None, dtype: torch.dtype) -> Int[np.ndarray, "slots"]:
    """The thresholds of a choice, none where it has none."""
    return (torch.zeros(0, dtype=dtype) if thresholds is None else thresholds).numpy()


def _epsilon(explorer: EpsilonGreedy, step: int, turns: int, worlds: int) -> Float32[Tensor, "turns"]:
    """The chance of a random action, turn by turn."""
    first, last = explorer.epsilon(step), explorer.epsilon(step + (turns - 1) * worlds)
    if first == last:  # on a straight line it is the same in between, and most turns of most runs are there
        return torch.full((turns,), first)
    return torch.tensor([explorer.epsilon(step + t * worlds) for t in range(turns)])
