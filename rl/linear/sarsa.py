"""Sarsa(lambda) with linear features: q(s, a) = w_a . x(s), and a trace for every weight.

    delta = r + gamma q(s', a') - q(s, a);    z <- gamma lambda z, and in the action's part, z_a:

    z_a <- z_a + x(s)                                       w <- w + alpha delta z                  accumulating
    z_a <- x(s) where x(s) is not 0                         w <- w + alpha delta z                  replacing
    z_a <- z_a + (1 - alpha z_a . x(s)) x(s)                w <- w + alpha [(delta + q - u) z - (q - u) x]    dutch

u is what q(s, a) was before the update that came between. With dutch traces this is true online Sarsa(lambda): exactly
the online lambda-return algorithm. Replacing traces suit features of 0 and 1. With a feature for every state the
accumulating ones give the tabular method.

Source: Sutton & Barto 2018, sec. 12.7: its box (binary features), eq. 12.11; sec. 12.8, its box; Singh & Sutton 1996
(replacing); van Seijen et al., "True online temporal-difference learning", JMLR 2016, algorithm 3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from rl import state, td
from rl.explore import EpsilonGreedy, linear
from rl.linear.features import Active, Features, read
from rl.tabular.on_policy import Former
from rl.tabular.traces import met, shares
from rl.types import Transition, nothing

Mark = Callable[[Float64[Tensor, "R W E"], Int64[Tensor, "R W k"], Float64[Tensor, "R W k"]], Tensor]


def accumulating(
    z: Float64[Tensor, "R W E"], entry: Int64[Tensor, "R W k"], strength: Float64[Tensor, "R W k"]
) -> Float64[Tensor, "R W E"]:
    """z + x, in place; a strength of 0 leaves its entry as it is."""
    return z.scatter_add_(-1, entry, strength)


def replacing(
    z: Float64[Tensor, "R W E"], entry: Int64[Tensor, "R W k"], strength: Float64[Tensor, "R W k"]
) -> Float64[Tensor, "R W E"]:
    """x where it is not 0, else z, in place; the other actions' traces stay."""
    return z.scatter_(-1, entry, torch.where(strength != 0, strength, z.gather(-1, entry)))


class LinearSarsa(ABC):
    """R learners side by side; the policy they are judged by is greedy.

    They learn from a step when the next action is known, one turn later (see `rl.tabular.on_policy`); where a time
    limit cut the episode what follows is worth its expectation under the epsilon-greedy policy. How worlds of a replica
    share its weights says `rl.tabular.traces`.

    Args:
        features: of an observation.
        actions: A.
        seeds: one for each replica; all that replica r draws is from seeds[r].
        gamma: discount.
        lam: lambda, in [0, 1].
        alpha: (start, end) of the step size, linear over `alpha_steps` steps of each replica; times `features.rates`.
        epsilon: (start, end) of the chance of a random action, linear over `epsilon_steps` steps of each replica.
        device: where it learns.
    """

    STATE: ClassVar[tuple[str, ...]] = ("w", "z", "share", "rate", "former", "step")

    def __init__(
        self,
        features: Features,
        actions: int,
        seeds: Sequence[int],
        *,
        gamma: float,
        lam: float,
        alpha: tuple[float, float],
        alpha_steps: int,
        epsilon: tuple[float, float],
        epsilon_steps: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.replicas, self.device = len(seeds), torch.device(device)
        self.features, self.actions, self.gamma, self.lam = features, actions, gamma, lam
        self.alpha, self.alpha_steps = alpha, alpha_steps
        self.explorer = EpsilonGreedy(seeds, epsilon, epsilon_steps, device)
        self.w = torch.zeros(self.replicas, features.size, actions, dtype=torch.float64, device=device)
        self.z = torch.zeros(0, dtype=torch.float64, device=device)  # [R, W, n A] from the first step on
        self.share = torch.zeros(0, dtype=torch.float64, device=device)  # [R, n A], of the latest visit
        self.rate = alpha[0]  # the step size of the latest visit
        self.former = Former(self.device)
        self.step = 0  # steps of each replica learnt from

    @abstractmethod
    def mark(self, entry: Int64[Tensor, "R W k"], strength: Float64[Tensor, "R W k"]) -> None:
        """Mark the features at hand, of these weights, in the traces."""

    @abstractmethod
    def learn(self, x: Active, t: Transition, q: Tensor, after: Tensor, when: Bool[Tensor, "R W"]) -> Tensor:
        """Learn from the step that was visited last, in the worlds `when`; the errors [R, W].

        Args:
            x: the features at hand.
            t: the step.
            q, after: what its pair and the next are worth now.
        """

    def memory(self, worlds: int) -> Float32[Tensor, "R W 0"]:
        return nothing(self.replicas, worlds, self.device)

    def act(
        self, obs: Shaped[Tensor, "R W *shape"], memory: Float32[Tensor, "R W 0"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W 0"]]:
        return self.explorer.act(self.q_values(obs), self.step), memory

    def policy(
        self, obs: Shaped[Tensor, "R M *shape"], memory: Float32[Tensor, "R M 0"]
    ) -> tuple[Int64[Tensor, "R M"], Float32[Tensor, "R M 0"]]:
        return self.q_values(obs).argmax(-1), memory

    def q_values(self, obs: Shaped[Tensor, "R M *shape"]) -> Float64[Tensor, "R M A"]:
        """Action values of each replica's own observations."""
        return read(self.w, self.features(obs))

    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float64[Tensor, "R M"]:
        x = self.features(obs)
        each = [part.expand(self.replicas, *part.shape[-2:]) for part in x]  # [R, M, k]
        return read(self.w, Active(*each)).amax(-1)

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn from the step before, and where the episode is over from this one too.

        Returns `td_error`, the mean absolute error, and `epsilon` at this step.
        """
        t, before = transition, self.former.transition
        if not self.z.numel():
            self.z = self.w.new_zeros(*t.action.shape, self.w[0].numel())
        learnt = torch.zeros_like(t.reward, dtype=torch.float64)
        if before is not None:
            x = self.features(before.obs)
            after = td.of(self.q_values(t.obs), t.action)  # where an episode went on, t.obs is what came after
            error = self.learn(x, before, td.of(read(self.w, x), before.action), after, ~before.last)
            learnt += error.abs() * ~before.last
        x = self.features(t.obs)
        self.visit(x, t)
        if t.last.any():
            after = self.q_values(t.next_obs)
            after = (self.explorer.odds(after, self.step) * after).sum(-1)
            error = self.learn(x, t, td.of(read(self.w, x), t.action), after, t.last)
            learnt += error.abs() * t.last
            self.z *= ~t.last.unsqueeze(-1)
        self.former.transition = t
        epsilon = torch.full((self.replicas,), self.explorer.epsilon(self.step), device=self.device)
        self.step += t.action.shape[1]
        return {"td_error": learnt.mean(1), "epsilon": epsilon}

    def visit(self, x: Active, t: Transition) -> None:
        """Every world is at a new pair, with these features; all is learnt about the one before.

        What the visit may move is settled here, whenever its errors come to be known (see `rl.tabular.on_policy`).
        """
        self.rate = linear(*self.alpha, self.alpha_steps, self.step)
        self.z *= self.gamma * self.lam
        self.mark(self.entries(x, t), x.strength)
        self.share = shares(self.z)

    def entries(self, x: Active, t: Transition) -> Int64[Tensor, "R W k"]:
        """Where the weights of the features stand that the action taken has: i A + a."""
        return x.which * self.actions + t.action.unsqueeze(-1)

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, self.STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, self.STATE, saved)


class LinearSarsaLambda(LinearSarsa):
    """Sarsa(lambda).

    Args:
        trace: `accumulating` or `replacing`; the others as in `LinearSarsa`.
    """

    def __init__(self, *arguments: Any, trace: Mark, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.trace = trace

    def mark(self, entry: Int64[Tensor, "R W k"], strength: Float64[Tensor, "R W k"]) -> None:
        self.trace(self.z, entry, strength)

    def learn(self, x: Active, t: Transition, q: Tensor, after: Tensor, when: Bool[Tensor, "R W"]) -> Tensor:
        error = td.td_learning(q, t.reward.double(), self.gamma * t.discount.double(), after)
        rates = self.features.rates
        if isinstance(rates, float):
            self.w += met((self.rate * rates * error * when).unsqueeze(-1) * self.z, self.share).view_as(self.w)
        else:
            change = met((error * when).unsqueeze(-1) * self.z, self.share).view_as(self.w)
            self.w += self.rate * rates[:, None] * change
        return error


class TrueOnlineSarsaLambda(LinearSarsa):
    """True online Sarsa(lambda); arguments as `LinearSarsa`, of features with one rate for all."""

    STATE = (*LinearSarsa.STATE, "u")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        assert isinstance(self.features.rates, float)
        self.scale: float = self.features.rates  # that a step size of 1 corrects
        self.u = torch.zeros(0, dtype=torch.float64, device=self.device)  # [R, W] from the first step on

    def mark(self, entry: Int64[Tensor, "R W k"], strength: Float64[Tensor, "R W k"]) -> None:
        along = (self.z.gather(-1, entry) * strength).sum(-1, keepdim=True)  # z . x
        self.z.scatter_add_(-1, entry, (1 - self.rate * self.scale * along) * strength)

    def learn(self, x: Active, t: Transition, q: Tensor, after: Tensor, when: Bool[Tensor, "R W"]) -> Tensor:
        if not self.u.numel():
            self.u = q.clone()
        error = td.td_learning(q, t.reward.double(), self.gamma * t.discount.double(), after)
        moved = ((q - self.u) * when).unsqueeze(-1)  # of another episode where one begins: there it cancels
        change = (error * when).unsqueeze(-1) * self.z + moved * self.z
        change.scatter_add_(-1, self.entries(x, t), -moved * x.strength)
        self.w += self.rate * self.scale * met(change, self.share).view_as(self.w)
        self.u = torch.where(when, after, self.u)
        return error
