"""Any table, N worlds at a time, on any device: a step is a handful of gathers.

The step draws one number u a world and takes the outcome k whose share of the cumulative probabilities holds it.
Tables are kept outcome by outcome, [K, S A], so the flat index of (s, a, k) is k S A + s A + a.

World n is a function of keys[n] and its own actions: its t-th step draws `uniform(key, t)`, its e-th episode begins
with a draw from a second stream, `bits(bits(key, -1), e)`. Worlds step together, so t is one number for all of them
and a block of steps is drawn in one call. A world with one outcome to every action draws nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from envs.mdp import TabularMDP
from envs.types import Step
from lab import streams

BLOCK = 2**14  # draws made in one call, at least one step's


class Simulator:
    """N copies of a `TabularMDP` (see `envs.types.Worlds`).

    A world that ended and was not reset goes on as its table says, which for worlds of this house is to stay put.

    Args:
        mdp: the dynamics.
        keys: one key for each world; N is their number.
        observation: what each state looks like, see `envs.observation`.
        time_limit: steps after which an episode is truncated, None for never.
        device: where states and tables live.
    """

    def __init__(
        self,
        mdp: TabularMDP,
        keys: Int64[Tensor, "N"],
        *,
        observation: Shaped[Tensor, "S ..."],
        time_limit: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n, self.actions, self.obs_shape = len(keys), mdp.actions, tuple(observation.shape[1:])
        self.time_limit, self.device = time_limit, torch.device(device)
        self._keys = keys.to(self.device)
        self._start_keys = streams.bits(self._keys, -1)
        self._pairs = mdp.states * mdp.actions
        self._next = _by_outcome(mdp.next_state).flatten().to(self.device)  # int32 [K S A]
        self._reward = _by_outcome(mdp.reward).flatten().float().to(self.device)
        self._terminated = _by_outcome(mdp.terminated).flatten().to(self.device)
        # thresholds[k][s A + a]: the outcome is beyond k if u is at least this. Never beyond the last possible one.
        total = _by_outcome(mdp.prob).cumsum(0)
        beyond = torch.where(total > 1 - 1e-8, torch.inf, total)[:-1]
        self._thresholds = beyond.float().to(self.device).unbind(0)
        self._starts = mdp.start.nonzero().squeeze(1).int().to(self.device)
        self._start_total = mdp.start[mdp.start > 0].cumsum(0).to(self.device)
        self._table = observation.to(self.device)
        self._never = torch.zeros(self.n, dtype=torch.bool, device=self.device)
        self._state = self._starts[:1].repeat(self.n)  # int32 [N]
        self._elapsed = torch.zeros(self.n, dtype=torch.int32, device=self.device)
        self._episode = torch.zeros(self.n, dtype=torch.int64, device=self.device)  # episodes begun
        self._time = 0  # steps taken, by each world
        self._draws: tuple[Tensor, ...] = ()  # of the steps from _drawn on
        self._drawn = 0
        self._begun = False

    @property
    def state(self) -> Int64[Tensor, "N"]:
        """Where each world is."""
        return self._state.long()

    def reset(self, mask: Bool[Tensor, "N"] | None = None) -> Shaped[Tensor, "N ..."]:
        """Begin a new episode in the worlds of `mask` (None: in all). Returns the observations of all N worlds."""
        if mask is None:
            self._state = self._first(self._start_keys, self._episode)
            self._elapsed.zero_()
            self._episode += 1
            self._begun = True
        elif self.device.type == "cpu":  # draw for the worlds that begin, and only for them
            which = mask.nonzero().squeeze(1)
            if len(which):
                first = self._first(self._start_keys[which], self._episode[which])
                self._state = self._state.index_copy(0, which, first)
                self._elapsed.masked_fill_(mask, 0)
                self._episode += mask
        else:  # draw for all: to ask which worlds begin would wait for the device
            self._state = torch.where(mask, self._first(self._start_keys, self._episode), self._state)
            self._elapsed.masked_fill_(mask, 0)
            self._episode += mask
        return self._table.index_select(0, self._state)

    def step(self, action: Int64[Tensor, "N"]) -> Step:
        """Take one action in each world. Raises RuntimeError before the first `reset()` of all worlds."""
        if not self._begun:
            raise RuntimeError("the worlds have not begun: call reset() before step()")
        index = torch.add(action, self._state, alpha=self.actions)  # s A + a
        if self._thresholds:
            u = self._draw()
            outcome = index
            for threshold in self._thresholds:
                outcome = torch.add(outcome, u >= threshold.index_select(0, index), alpha=self._pairs)
            index = outcome  # k S A + s A + a
        self._time += 1
        self._state = self._next.index_select(0, index)
        self._elapsed += 1
        terminated = self._terminated.index_select(0, index)
        truncated = self._never
        if self.time_limit is not None:
            truncated = (self._elapsed >= self.time_limit) > terminated  # and not terminated
        reward = self._reward.index_select(0, index)
        return Step(self._table.index_select(0, self._state), reward, terminated, truncated)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the keys; a tree of tensors and numbers."""
        return {
            "state": self._state.clone(),
            "elapsed": self._elapsed.clone(),
            "episode": self._episode.clone(),
            "time": self._time,
            "begun": self._begun,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises ValueError when that was of another number of worlds."""
        if len(state["state"]) != self.n:
            raise ValueError(f"the saved state is of {len(state['state'])} worlds, expected {self.n}")
        self._state = state["state"].to(self.device, copy=True)
        self._elapsed = state["elapsed"].to(self.device, copy=True)
        self._episode = state["episode"].to(self.device, copy=True)
        self._time, self._begun = state["time"], state["begun"]

    def _draw(self) -> Tensor:
        """u [N] of the present step, from a block that is drawn when the last one does not hold it."""
        row = self._time - self._drawn
        if not 0 <= row < len(self._draws):
            steps = torch.arange(self._time, self._time + max(1, BLOCK // self.n), device=self.device)
            self._draws = streams.uniform(self._keys, steps.unsqueeze(1)).unbind(0)
            self._drawn, row = self._time, 0
        return self._draws[row]

    def _first(self, keys: Tensor, episode: Tensor) -> Tensor:
        """The first state of the given episodes, int32."""
        if len(self._starts) == 1:
            return self._starts.repeat(len(keys))
        u = ((streams.bits(keys, episode) >> 11) & (2**53 - 1)).double() * 2.0**-53  # [0, 1), fine enough for any S
        return self._starts[torch.searchsorted(self._start_total, u, right=True).clamp(max=len(self._starts) - 1)]


def _by_outcome(table: Tensor) -> Tensor:
    """[S, A, K] -> [K, S A]."""
    return table.flatten(0, 1).t().contiguous()
