"""An MDP laid out for stepping many worlds: what one step does to all of them, on whatever device.

Everything a world does follows from its key, the number of its episode and its actions since (h, u and i are the bits
that `lab.streams` draws):

    its episode e, from 0, has the stream            eps = bits(bits(key, -1), e)
    the episode's first state is chosen by           u = the top 53 bits of bits(eps, 0)
    its step j, from 0, by                           h = bits(eps, j + 1): the outcome by the top 24 bits of h,
                                                     and the action, in a rollout that draws it, by the lowest 24

Instead of eps and j each world carries its *clock*, eps + (j + 1) golden, which is all that the next draw needs: the
step adds golden to it and mixes. A successor is kept with its end in the sign bit, so that one gather finds both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64
from torch import Tensor

from envs.mdp import TabularMDP
from envs.simulator.sampling import Choice, choice, lay, search
from lab import streams

NO_LIMIT = 2**31 - 1
LOW24, LOW31, LOW53 = 2**24 - 1, 2**31 - 1, 2**53 - 1
END = -(2**31)  # the sign bit


class Carry(NamedTuple):
    """What each of N worlds takes along from step to step."""

    state: Int32[Tensor, "N"]
    elapsed: Int32[Tensor, "N"]
    """Steps since the episode began."""
    episode: Int64[Tensor, "N"]
    """Episodes begun."""
    clock: Int64[Tensor, "N"]


class Roots(NamedTuple):
    """What each of N worlds is for ever."""

    stream: Int64[Tensor, "N"]
    """bits(key, -1), from which the streams of its episodes come."""
    block: Int32[Tensor, "N"] | None
    """The block of states it lives in; None where there is but one."""


class Move(NamedTuple):
    """What one step did; the ends are -1 or 0, for a comparison costs more than the arithmetic that yields them."""

    action: Int32[Tensor, "N"]
    state: Int32[Tensor, "N"]
    """The true successor."""
    reward: Float32[Tensor, "N"]
    terminated: Int32[Tensor, "N"]
    ended: Int32[Tensor, "N"]
    """Terminated, or at the time limit."""


@dataclass(frozen=True, eq=False)
class Policy:
    """What is done in each state: a choice among the actions, or one action; made by `policy_of`."""

    choice: Choice | None
    whole: bool
    """The choice is the same in every state."""
    action: Int32[Tensor, "S"] | None
    """The one action of each state."""

    @property
    def form(self) -> str:
        """Policies of one form differ in nothing but their `table`."""
        kind = "one" if self.action is not None else f"whole {self.whole}"
        return kind if self.choice is None else f"{kind} {self.choice.width} {self.choice.last is None}"

    @property
    def table(self) -> Tensor | None:
        """The numbers of this policy, where it has any."""
        return self.action if self.choice is None else self.choice.last

    def filled(self, table: Tensor) -> Policy:
        """A policy of the same form with other numbers."""
        if self.choice is None:
            return replace(self, action=table)
        return replace(self, choice=replace(self.choice, last=table))

    def act(self, state: Int32[Tensor, "N"], h: Int64[Tensor, "N"] | None) -> Int32[Tensor, "N"]:
        """The action in each state."""
        if self.action is not None:
            return self.action.index_select(0, state)
        if self.choice is None or h is None:
            return torch.zeros_like(state)
        slot = self.choice.slot(None if self.whole else state, h.int().bitwise_and_(LOW24))
        return slot if self.whole else slot - state * self.choice.width


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of M blocks of states, slot by slot, on one device; made by `tables_of`."""

    actions: int
    limit: int
    """Steps after which an episode is truncated."""
    outcome: Choice
    successor: Int32[Tensor, "slots"]
    """The sign bit says that the world ends there."""
    reward: Float32[Tensor, "slots"]
    first: Choice
    start: Int32[Tensor, "starts"]

    def move(self, carry: Carry, action: Int32[Tensor, "N"] | Policy) -> tuple[Carry, Move]:
        """One step, without any new episode. Changes nothing."""
        clock = carry.clock + streams.GOLDEN
        chooses = isinstance(action, Policy) and action.choice is not None
        h = None if self.outcome.certain and not chooses else streams.mix(clock)
        act = action.act(carry.state, h) if isinstance(action, Policy) else action
        at = torch.add(act, carry.state, alpha=self.actions)  # s A + a
        if h is not None and not self.outcome.certain:
            at = self.outcome.slot(at, (h >> 40).int().bitwise_and_(LOW24))
        successor = self.successor.index_select(0, at)
        elapsed = carry.elapsed + 1
        terminated = successor >> 31
        ended = ((self.limit - 1) - elapsed).bitwise_right_shift_(31).bitwise_or_(terminated)
        state = successor.bitwise_and_(LOW31)
        move = Move(act, state, self.reward.index_select(0, at), terminated, ended)
        return Carry(state, elapsed, carry.episode, clock), move

    def renew(self, carry: Carry, which: Int64[Tensor, "n"], roots: Roots) -> None:
        """Begin the next episode of the worlds `which`, in place."""
        episode = carry.episode.index_select(0, which)
        block = None if roots.block is None else roots.block.index_select(0, which)
        state, clock = self._begin(roots.stream.index_select(0, which), episode, block)
        carry.state.scatter_(0, which, state.expand(len(which)))  # the fastest way to write by index
        carry.elapsed.scatter_(0, which, 0)
        carry.episode.scatter_(0, which, episode + 1)
        carry.clock.scatter_(0, which, clock)

    def renewed(self, carry: Carry, over: Bool[Tensor, "N"], roots: Roots) -> Carry:
        """The same for the worlds that are `over`, without asking the device which they are. Changes nothing."""
        state, clock = self._begin(roots.stream, carry.episode, roots.block)
        return Carry(
            torch.where(over, state, carry.state),
            torch.where(over, 0, carry.elapsed),
            carry.episode + over,
            torch.where(over, clock, carry.clock),
        )

    def resumed(self, state: Tensor, elapsed: Tensor, episode: Tensor, roots: Roots) -> Carry:
        """What worlds carry in the given step of the given episode (counted from 1, as `Carry` does)."""
        stream = streams.mix(roots.stream + episode * streams.GOLDEN)
        return Carry(state, elapsed, episode, stream + (elapsed + 1).long() * streams.GOLDEN)

    def _begin(self, stream: Tensor, episode: Tensor, block: Tensor | None) -> tuple[Tensor, Tensor]:
        """First states (one for all, where there is but one) and clocks of the given episodes, from 0."""
        clock = streams.mix(stream + (episode + 1) * streams.GOLDEN) + streams.GOLDEN
        if self.first.certain:
            return self.start if block is None else self.start.index_select(0, block), clock
        u = (streams.mix(clock) >> 11).bitwise_and_(LOW53)
        return self.start.index_select(0, self.first.slot(block, u)), clock


def tables_of(
    mdp: TabularMDP, *, time_limit: int | None, blocks: int = 1, device: torch.device | str = "cpu"
) -> Tables:
    """Lay an MDP out. Raises ValueError for uneven blocks, one without a start, or what outgrows int32."""
    if time_limit is not None and not 1 <= time_limit <= NO_LIMIT:
        raise ValueError(f"time_limit is {time_limit}, expected 1 to {NO_LIMIT} steps")
    outcome, slots = choice(mdp.prob.flatten(0, 1))
    if mdp.states * mdp.actions * outcome.width >= 2**31:
        size = f"{mdp.states} states, {mdp.actions} actions and {outcome.width} outcomes"
        raise ValueError(f"a world of {size} is too large to be stepped, expected a product below 2^31")
    ends = mdp.terminated.int() * END
    start, weight = _starts(mdp, blocks)
    first = search(weight, bits=53)
    start = torch.nn.functional.pad(start, (0, first.width - start.shape[1]))  # no draw reaches these
    return Tables(
        actions=mdp.actions,
        limit=NO_LIMIT if time_limit is None else time_limit,
        outcome=outcome.to(device),
        successor=lay((mdp.next_state + ends).flatten(0, 1), slots).to(device),
        reward=lay(mdp.reward.float().flatten(0, 1), slots).to(device),
        first=first.to(device),
        start=start.flatten().to(device),
    )


def policy_of(
    chosen: Int64[Tensor, "S"] | Float[Tensor, "S A"] | None, states: int, actions: int, device: torch.device | str
) -> Policy:
    """A policy: None for uniformly random actions, one action a state, or probabilities.

    Raises ValueError for another shape, an action or a probability that is none, or probabilities that do not sum to 1.
    """
    if chosen is None:
        uniform, _ = choice(torch.full((1, actions), 1 / actions, dtype=torch.float64))
        return Policy(None if uniform.certain else uniform.to(device), whole=True, action=None)
    if chosen.is_floating_point():
        prob = chosen.detach().cpu().double()
        if prob.shape != (states, actions):
            raise ValueError(f"policy has shape {list(prob.shape)}, expected {[states, actions]}: probabilities")
        wrong = (~(prob >= 0)).any(1) | ~((prob.sum(1) - 1).abs() < 1e-5)
        if wrong.any():
            state = int(wrong.nonzero()[0])
            raise ValueError(f"policy in state {state} is {prob[state].tolist()}, expected probabilities that sum to 1")
        return Policy(search(prob).to(device), whole=False, action=None)
    if chosen.shape != (states,):
        raise ValueError(f"policy has shape {list(chosen.shape)}, expected {[states]}: one action a state")
    low, high = int(chosen.min()), int(chosen.max())
    if low < 0 or high >= actions:
        raise ValueError(f"policy holds action {low if low < 0 else high}, expected 0 to {actions - 1}")
    return Policy(None, whole=False, action=chosen.int().to(device))


def _starts(mdp: TabularMDP, blocks: int) -> tuple[Int32[Tensor, "M W"], Float64[Tensor, "M W"]]:
    """The states in which an episode of each block can begin, and how probably; rows are padded."""
    if blocks < 1 or mdp.states % blocks:
        raise ValueError(f"{mdp.states} states in {blocks} blocks, expected blocks of equal size")
    start = mdp.start.view(blocks, -1)
    count = (start > 0).sum(1)
    if not count.all():
        raise ValueError(f"block {int((count == 0).nonzero()[0])} has no state to start from")
    order = (start == 0).int().sort(dim=1, stable=True).indices[:, : int(count.max())]  # the possible ones first
    weight = start.gather(1, order)
    state = order + torch.arange(blocks).unsqueeze(1) * start.shape[1]
    return state.int(), weight / weight.sum(1, keepdim=True) if blocks > 1 else weight
