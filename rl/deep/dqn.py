"""Deep Q-networks: Q-learning on a network, stabilised by replay and by a target network that lags behind.

    theta, theta-                  weights of the online network, and older ones: the target network
    y = r + discount q(s', a*; theta-)          the target: no gradient, discount 0 only at a true end
    loss(y, q(s, a; theta))        one for each sample; Adam on each replica's weighted mean over its batch

What is learnt is a composition of parts that do not know each other:

    method       what the network's numbers mean, and the loss: `Expected`, `Categorical` (C51), `Quantiles` (QR-DQN)
    successor    who chooses a*: `target_chooses`, or `online_chooses` (double)
    network      any; with `backbones.dueling` over it, or `backbones.noisy`, which explores by itself
    replay       `Replay`, or `PrioritisedReplay`
    n            steps in a return (`rl.deep.n_step`)

All of the second kind at once are Rainbow (Hessel et al. 2018).

R replicas of network, optimiser and buffer are one program: the weights are a matrix `[R, P]` (`backbones.replicas`),
each replica's gradient is clipped by its own norm, and a replica's draws come from its own key. So replica r learns the
same whichever others ride along.

Source: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015. Departures: Adam (Kingma &
Ba 2015) in place of RMSProp, as has become usual; the gradient's norm is clipped besides the error (Huber's loss is
their clipping of the error to [-1, 1]).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor, nn

from rl import state
from rl.deep.described import described
from rl.deep.learner import Learner
from rl.deep.losses import Method, Successor, of
from rl.deep.n_step import NStep
from rl.deep.noise import Drawn, Noise
from rl.deep.replay import Batch, Memories
from rl.explore import EpsilonGreedy
from rl.types import Transition, nothing

STATE = ("online", "target_weights", "steps", "replay", "step", "updates")


class DQN:
    """R deep Q-networks; observations are whatever the network reads.

    Args:
        network: constructs one Q-network, `[B, *shape]` -> `[B, A N]`, N as the method has it.
        obs_shape: shape of one observation.
        seeds: one for each replica; all that replica r draws is from seeds[r].
        method: what the network's output means.
        successor: who chooses the successor's action.
        replay: of R rings, empty.
        gamma: discount.
        n: steps in a return.
        learning_rate: (start, end) of Adam's step size, linear over `learning_rate_steps` steps of each replica.
        batch_size: B, for each replica.
        learning_starts: steps of each replica before the first update.
        train_every: steps of each replica between two rounds of updates.
        gradient_steps: updates in a round.
        target_every: updates between two copies of the online network to the target network.
        epsilon: (start, end) of the chance of a random action, linear over `epsilon_steps` steps of each replica.
        clip: largest norm of a replica's gradient.
        device: where all of it lies.
    """

    def __init__(
        self,
        network: Callable[[], nn.Module],
        obs_shape: tuple[int, ...],
        seeds: Sequence[int],
        *,
        method: Method,
        successor: Successor,
        replay: Memories,
        gamma: float,
        n: int,
        learning_rate: tuple[float, float],
        learning_rate_steps: int,
        batch_size: int,
        learning_starts: int,
        train_every: int,
        gradient_steps: int,
        target_every: int,
        epsilon: tuple[float, float],
        epsilon_steps: int,
        clip: float,
        device: torch.device | str = "cpu",
    ) -> None:
        self.replicas, self.device = len(seeds), torch.device(device)
        self.obs_shape, self.gamma, self.batch_size = obs_shape, gamma, batch_size
        self.method, self.successor = method, successor
        self.learning_starts, self.train_every = learning_starts, train_every
        self.gradient_steps, self.target_every = gradient_steps, target_every
        rates: dict[str, Any] = {"rate": learning_rate, "rate_steps": learning_rate_steps, "clip": clip}
        self.online = Learner(network, seeds, **rates, device=device)
        self.target = copy.deepcopy(self.online.network).requires_grad_(False)
        self.noise = Noise(seeds, int(getattr(self.target.template, "noise", 0)), device)
        self.steps, self.replay = NStep(n, gamma, device), replay
        self.explorer = EpsilonGreedy(seeds, epsilon, epsilon_steps, device)
        self.step = 0  # steps of each replica seen
        self.updates = 0  # updates of each network made

    def memory(self, worlds: int) -> Float32[Tensor, "R W 0"]:
        return nothing(self.replicas, worlds, self.device)

    @torch.no_grad()
    def act(
        self, obs: Shaped[Tensor, "R W *shape"], memory: Float32[Tensor, "R W 0"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W 0"]]:
        q = self.method.q(self.online(obs, *self.noise.act(obs.shape[1], self.step)))
        return self.explorer.act(q, self.step), memory

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Remember the step; every `train_every` steps, learn: in several rounds where W worlds take so many at once.

        Returns `epsilon`, and after learning the mean `loss` and mean `gradient_norm` (before clipping), and what the
        last batch looked like: mean and extremes of `batch_reward` (n steps), `q` (of the actions taken), `target`,
        `weight`, and what the method says besides (`rl.deep.losses.Method.noted`).
        """
        remembered = self.steps.add(transition)
        if remembered is not None:
            self.replay.add(remembered)
        metrics = {"epsilon": torch.full((self.replicas,), self.explorer.epsilon(self.step), device=self.device)}
        former, self.step = self.step, self.step + transition.action.shape[1]
        due = self.step // self.train_every - former // self.train_every
        if due and self.step >= self.learning_starts and len(self.replay):
            metrics |= self.learn(due)
        return metrics

    def learn(self, rounds: int = 1) -> dict[str, Float[Tensor, "R"]]:
        """Rounds of updates from what is remembered; what `update` says of them."""
        losses, norms = [], []
        seen: dict[str, Tensor] = {}
        for batch in self._batches(rounds):
            loss, seen = self.losses(batch, self.updates)
            norms.append(self.online.step((batch.weight * loss).mean(1), self.step))
            losses.append(loss.detach())
            if self.replay.asks:
                self.replay.learned(batch, self.method.surprise(losses[-1]))
            self.updates += 1
            if self.updates % self.target_every == 0:
                self._sync()
        mean = {"loss": torch.stack(losses).mean((0, 2)), "gradient_norm": torch.stack(norms).mean(0)}
        return mean | described(seen)

    def _batches(self, rounds: int) -> Iterator[Batch]:
        for _ in range(rounds):
            yield from self.replay.sample(self.gradient_steps, self.batch_size, self.updates)

    def losses(self, batch: Batch, draw: int) -> tuple[Float[Tensor, "R B"], dict[str, Float[Tensor, "R B"]]]:
        """The loss of each sample, by the `draw`-th noise; and what went into it, by name."""
        online, lagging = self._with(self.noise.learn(3 * draw + 1)), self._lagging(self.noise.learn(3 * draw + 2))
        with torch.no_grad():
            follows = self.successor(self.method, online, lagging, batch.next_obs)
            y = self.method.target(batch.reward, batch.discount, follows)
        said = of(self.method.apart(self._with(self.noise.learn(3 * draw))(batch.obs)), batch.action)
        loss = self.method.loss(said, y)
        q, target = self.method.mean(said.detach()), self.method.target_mean(y)
        seen = {"batch_reward": batch.reward, "q": q, "target": target, "weight": batch.weight}
        return loss, seen | self.method.noted(batch.reward, batch.discount, follows)

    def _with(self, noise: Drawn) -> Callable[[Tensor], Tensor]:
        return lambda obs: self.online(obs, *noise)

    def _lagging(self, noise: Drawn) -> Callable[[Tensor], Tensor]:
        return lambda obs: self.target(obs, *noise)

    @property
    def target_weights(self) -> Tensor:
        """[R, P]."""
        return self.target.weights

    @torch.no_grad()
    def _sync(self) -> None:
        self.target.weights.copy_(self.online.weights)

    @torch.no_grad()
    def q_values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M A"]:
        """Action values of observations `[M, *shape]`, or of each replica's own `[R, M, *shape]`; without noise."""
        if obs.ndim == len(self.obs_shape) + 1:
            obs = obs.expand(self.replicas, *obs.shape)
        return self.method.q(self.online(obs, *self.noise.none()))

    def policy(
        self, obs: Shaped[Tensor, "R M *shape"], memory: Float32[Tensor, "R M 0"]
    ) -> tuple[Int64[Tensor, "R M"], Float32[Tensor, "R M 0"]]:
        return self.q_values(obs).argmax(-1), memory

    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M"]:
        return self.q_values(obs).amax(-1)

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, STATE, saved)
