"""Any table, N worlds at a time, on any device: a step is a handful of gathers.

World n is a function of keys[n] and its own actions, never of its neighbours nor of how long they have been at it: see
`envs.simulator.stepping`, where also a step is. Worlds are stepped by `step` and `reset`, or many times in one call by
`rollout` and `run`, which begin ended episodes anew; both may be mixed.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor

from envs.mdp import TabularMDP
from envs.simulator.rollout import Rollout, Totals, Walker
from envs.simulator.stepping import Carry, Policy, Roots, Tables, policy_of, tables_of
from envs.types import Step
from lab import streams


class Simulator:
    """N copies of a `TabularMDP` (see `envs.types.Worlds`).

    A world that ended and was not reset goes on as its table says, which for worlds of this house is to stay put. An
    outcome is drawn with 24 bits: its frequency is its probability to within 6e-8.

    Args:
        mdp: the dynamics.
        keys: one key for each world; N is their number.
        observation: what each state looks like, see `envs.observation`.
        time_limit: steps after which an episode is truncated, None for never.
        blocks: M blocks of S / M states that are worlds of their own; world n lives in block n % M.
        device: where states and tables live.

    Raises:
        ValueError: when there are no M even blocks with a start each, or the tables are too large for int32.
    """

    def __init__(
        self,
        mdp: TabularMDP,
        keys: Int64[Tensor, "N"],
        *,
        observation: Shaped[Tensor, "S ..."],
        time_limit: int | None = None,
        blocks: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.n, self.states, self.actions = len(keys), mdp.states, mdp.actions
        self.obs_shape = tuple(observation.shape[1:])
        self.time_limit, self.device = time_limit, torch.device(device)
        self._tables = tables_of(mdp, time_limit=time_limit, blocks=blocks, device=self.device)
        block = (torch.arange(self.n) % blocks).int().to(self.device) if blocks > 1 else None
        self._roots = Roots(streams.bits(keys.to(self.device), -1), block)
        self._walker = Walker(self._tables, self._roots)
        self._table = observation.to(self.device)
        state = torch.zeros(self.n, dtype=torch.int32, device=self.device)
        self._carry = Carry(state, state.clone(), state.long(), state.long())
        self._begun = False

    @property
    def state(self) -> Int64[Tensor, "N"]:
        """Where each world is."""
        return self._carry.state.long()

    def observe(self, state: Int[Tensor, "*batch"]) -> Shaped[Tensor, "*batch ..."]:
        """What states look like, such as those of a `Rollout`."""
        return self._table.index_select(0, state.flatten()).view(*state.shape, *self.obs_shape)

    def reset(self, mask: Bool[Tensor, "N"] | None = None) -> Shaped[Tensor, "N ..."]:
        """Begin a new episode in the worlds of `mask` (None: in all). Returns the observations of all N worlds."""
        if mask is None:
            self._carry = self._tables.renewed(self._carry, torch.ones_like(self._carry.state).bool(), self._roots)
            self._begun = True
            return self._table.index_select(0, self._carry.state)
        self._begun = self._begun or bool(mask.all())
        if self.device.type == "cpu":  # draw for the worlds that begin, and only for them
            which = mask.nonzero().squeeze(1)
            if len(which):
                self._tables.renew(self._carry, which, self._roots)
        else:  # draw for all: to ask which worlds begin would wait for the device
            self._carry = self._tables.renewed(self._carry, mask, self._roots)
        return self._table.index_select(0, self._carry.state)

    def reseed(self, keys: Int64[Tensor, "N"], mask: Bool[Tensor, "N"]) -> None:
        """Give the worlds of `mask` their keys of `keys`; their next reset begins the first episode of those."""
        mask, stream = mask.to(self.device), streams.bits(keys.to(self.device), -1)
        self._roots.stream.copy_(torch.where(mask, stream, self._roots.stream))  # in place: the walker holds it too
        self._carry.episode.masked_fill_(mask, 0)

    def step(self, action: Int64[Tensor, "N"]) -> Step:
        """Take one action in each world.

        Raises:
            RuntimeError: before the first `reset()` of all worlds.
            ValueError: for another number of actions; on the CPU also for an action that is none (elsewhere the check
                would wait for the device, and the step goes astray).
        """
        self._check_begun("step")
        if action.shape != (self.n,):
            raise ValueError(f"actions have shape {list(action.shape)}, expected [{self.n}], one a world")
        if self.device.type == "cpu" and self.n:
            low, high = (int(bound) for bound in action.aminmax())
            if low < 0 or high >= self.actions:
                raise ValueError(f"an action is {low if low < 0 else high}, expected 0 to {self.actions - 1}")
        self._carry, move = self._tables.move(self._carry, action.int())
        obs = self._table.index_select(0, move.state)
        return Step(obs, move.reward, move.terminated.bool(), (move.ended ^ move.terminated).bool())

    def rollout(
        self, steps: int, policy: Int64[Tensor, "S"] | Float[Tensor, "S A"] | None = None, *, mode: str = "eager"
    ) -> Rollout:
        """Take `steps` steps in each world, begin ended episodes anew, and record everything.

        The same as `step` with the recorded actions and `reset` of the ended, in each of its modes, bit for bit.

        Args:
            steps: how many, T.
            policy: None for uniformly random actions, one action a state, or probabilities.
            mode: "eager"; "compile" (faster from the second call on); or "cudagraph" (on CUDA, for any N).

        Raises:
            RuntimeError: before the first `reset()` of all worlds.
            ValueError: for another mode, or a policy that is none.
        """
        self._check_begun("rollout")
        record, self._carry = self._walker.rollout(self._carry, self._policy(policy), steps, mode)
        return record

    def run(
        self, steps: int, policy: Int64[Tensor, "S"] | Float[Tensor, "S A"] | None = None, *, mode: str = "eager"
    ) -> Totals:
        """The same as `rollout`, and raises the same, but keeps only sums."""
        self._check_begun("run")
        totals, self._carry = self._walker.totals(self._carry, self._policy(policy), steps, mode)
        return totals

    def inside(self) -> tuple[Tables, Roots, Carry]:
        """What the worlds are made of, for who steps them himself, and writes in place what they carry."""
        self._check_begun("inside")
        return self._tables, self._roots, self._carry

    def state_dict(self) -> dict[str, Any]:
        """Everything but the keys; a tree of tensors and numbers."""
        state, elapsed, episode, _ = self._carry
        return {"state": state.clone(), "elapsed": elapsed.clone(), "episode": episode.clone(), "begun": self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            ValueError: when that was of another number of worlds, of a world with more states, or of another version.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"the saved state holds {', '.join(state)}, expected {', '.join(self.state_dict())}")
        if len(state["state"]) != self.n:
            raise ValueError(f"the saved state is of {len(state['state'])} worlds, expected {self.n}")
        if self.n and int(state["state"].max()) >= self.states:
            raise ValueError(f"a saved state is {int(state['state'].max())}, expected below {self.states}")
        at, elapsed, episode = (state[name].to(self.device, copy=True) for name in ("state", "elapsed", "episode"))
        self._carry = self._tables.resumed(at, elapsed, episode, self._roots)
        self._begun = state["begun"]

    def _policy(self, policy: Tensor | None) -> Policy:
        return policy_of(policy, self.states, self.actions, self.device)

    def _check_begun(self, verb: str) -> None:
        if not self._begun:
            raise RuntimeError(f"the worlds have not begun: call reset() before {verb}()")
