"""Deep Q-networks that remember: replayed sequences, the state they began with, a burn-in, and returns along them.

    b_0 ... b_(n-1)   burn-in: looks that only bring the state up to date with the weights of today: no gradient
    l_0 ... l_L       looks of L steps that are learnt from, and the one after them

    q, q-                 of l_0 ... l_L by the online and by the target network, each from its own burn-in
    v_t    = q-(l_(t+1), argmax_a q(l_(t+1), a))                                       double Q-learning
    lam_t  = lam where the action taken at l_(t+1) is that argmax, else 0              Watkins's Q(lambda)
    G_t    = r_t + discount_t [(1 - lam_t) v_t + lam_t G_(t+1)],  v_t in place of G_(t+1) where t is cut
    loss   = huber(G_t - q(l_t, a_t)), the mean over all steps l_0 ... l_(L-1) that were steps

What a network remembers is stored when it acts, and grows stale as its weights change: the burn-in is to mend that.

Source: Hausknecht & Stone, "Deep recurrent Q-learning for partially observable MDPs", 2015; Kapturowski et al.,
"Recurrent experience replay in distributed reinforcement learning" (R2D2), ICLR 2019, sec. 2.3 and 3 (stored state,
burn-in); van Hasselt et al. 2016, eq. 4; Watkins 1989, ch. 7 (the trace is cut where an action was not greedy).
Departures from R2D2: lambda-returns in place of 5 steps, no rescaling of values, uniform replay, sequences that may
hold the ends of episodes, one epsilon for all worlds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from rl import state, td
from rl.deep.described import described
from rl.deep.learner import Learner
from rl.deep.losses import huber
from rl.deep.sequence_replay import SequenceReplay, Sequences
from rl.deep.sequences import SequenceNetwork
from rl.explore import EpsilonGreedy, stream_keys
from rl.returns import lambda_returns
from rl.types import Transition

STATE = ("online", "target_weights", "replay", "step", "updates")


def sequence_targets(
    q: Float[Tensor, "R B T A"], q_target: Float[Tensor, "R B T A"], looks: Sequences, gamma: float, lam: float
) -> Float[Tensor, "R B steps"]:
    """G of the T - 1 steps between T looks, without a gradient; of no meaning where none was taken.

    Args:
        q: by the online network.
        q_target: by the target network.
        looks: what was seen and done, of the same T looks.
        gamma: discount.
        lam: in [0, 1]. 0 looks one step ahead; 1 as far as the actions taken were the best.
    """
    best = q.detach().argmax(-1)  # [R, B, T]
    v = td.of(q_target, best).detach()
    follows = lam * (looks.action == best)[..., 1:]
    r, discount, last = looks.reward[..., :-1], gamma * looks.discount[..., :-1], looks.last[..., :-1]
    return lambda_returns(r, discount, v[..., 1:], last, follows)


class DRQN:
    """R deep Q-networks that read histories.

    Args:
        network: constructs one (see `rl.deep.sequences`).
        seeds: one for each replica; all that replica r draws is from seeds[r].
        gamma: discount.
        lam: of the returns along a sequence.
        learning_rate: (start, end) of Adam's step size, linear over `learning_rate_steps` steps of each replica.
        batch_size: B, sequences in an update, for each replica.
        burn_in: looks before those that are learnt from.
        length: L, looks of a sequence that are learnt from.
        stride: looks between the starts of two sequences.
        capacity: looks that each replica remembers, in all its worlds.
        learning_starts: steps of each replica before the first update; not before every world holds a sequence.
        train_every: steps of each replica between two rounds of updates.
        gradient_steps: updates in a round.
        target_every: updates between two copies of the online network to the target network.
        epsilon: (start, end) of the chance of a random action, linear over `epsilon_steps` steps of each replica.
        clip: largest norm of a replica's gradient.
        device: where all of it lies.
    """

    def __init__(
        self,
        network: Callable[[], SequenceNetwork],
        seeds: Sequence[int],
        *,
        gamma: float,
        lam: float,
        learning_rate: tuple[float, float],
        learning_rate_steps: int,
        batch_size: int,
        burn_in: int,
        length: int,
        stride: int,
        capacity: int,
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
        self.gamma, self.lam, self.batch_size, self.burn_in = gamma, lam, batch_size, burn_in
        self.learning_starts, self.train_every = learning_starts, train_every
        self.gradient_steps, self.target_every = gradient_steps, target_every
        rates: dict[str, Any] = {"rate": learning_rate, "rate_steps": learning_rate_steps, "clip": clip}
        self.online = Learner(network, seeds, **rates, device=device)
        self.target = copy.deepcopy(self.online.network).requires_grad_(False)
        keys = stream_keys(seeds, "replay").to(device)
        self.replay = SequenceReplay(capacity, burn_in + length + 1, stride, keys)
        self.explorer = EpsilonGreedy(seeds, epsilon, epsilon_steps, device)
        blank: Any = self.online.network.template  # knows what is remembered before anything was seen
        self.initial, self.obs_shape = blank.initial, blank.shape
        self.step = 0  # steps of each replica seen
        self.updates = 0  # updates of each network made

    def memory(self, worlds: int) -> Float32[Tensor, "R W *memory"]:
        blank = self.initial(self.replicas * worlds)
        return blank.view(self.replicas, worlds, *blank.shape[1:]).to(self.device)

    @torch.no_grad()
    def act(
        self, obs: Shaped[Tensor, "R W *shape"], memory: Float32[Tensor, "R W *memory"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W *memory"]]:
        q, memory = self.q_values(obs, memory)
        return self.explorer.act(q, self.step), memory

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Remember the step; every `train_every` steps, learn: in several rounds where W worlds take so many at once.

        Returns `epsilon`, and after learning the mean `loss` and mean `gradient_norm` (before clipping), and what the
        last batch looked like: mean and extremes of `batch_reward`, `q` (of the actions taken) and `target`.
        """
        self.replay.add(transition)
        metrics = {"epsilon": torch.full((self.replicas,), self.explorer.epsilon(self.step), device=self.device)}
        former, self.step = self.step, self.step + transition.action.shape[1]
        due = self.step // self.train_every - former // self.train_every
        if due and self.step >= self.learning_starts and self.replay.ready:
            metrics |= self._learn(due)
        return metrics

    def _learn(self, rounds: int) -> dict[str, Tensor]:
        losses, norms = [], []
        seen: dict[str, Tensor] = {}
        for _ in range(rounds * self.gradient_steps):
            looks = self.replay.sample(self.batch_size, self.updates)
            loss, seen = self.loss(looks)
            norms.append(self.online.step(loss, self.step))
            losses.append(loss.detach())
            self.updates += 1
            if self.updates % self.target_every == 0:
                self._sync()
        return {"loss": torch.stack(losses).mean(0), "gradient_norm": torch.stack(norms).mean(0)} | seen

    def loss(self, looks: Sequences) -> tuple[Float[Tensor, "R"], dict[str, Float[Tensor, "R"]]]:
        """The mean over each replica's steps, after the burn-in; and what went into it."""
        with torch.no_grad():
            q_target = self.unrolled(self.target, looks)
        q, n = self.unrolled(self.online, looks), self.burn_in
        part = Sequences(**{k: v if k == "memory" else v[:, :, n:] for k, v in vars(looks).items()})
        target, counts = sequence_targets(q, q_target, part, self.gamma, self.lam), part.counts[..., :-1]
        taken = td.of(q, part.action)[..., :-1]
        loss = (huber(target - taken) * counts).sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)
        seen = {"batch_reward": part.reward[..., :-1], "q": taken, "target": target}
        return loss, described(seen, counts)

    def unrolled(self, network: Callable[..., Any], looks: Sequences) -> Float[Tensor, "R B T A"]:
        """Action values of the looks after the burn-in, with a gradient through them alone."""
        n, memory = self.burn_in, looks.memory
        if n:
            with torch.no_grad():
                memory = network(looks.obs[:, :, :n], memory, looks.begins[:, :, :n])[1]
        q: Tensor = network(looks.obs[:, :, n:], memory, looks.begins[:, :, n:])[0]
        return q

    @property
    def target_weights(self) -> Tensor:
        """[R, P]."""
        return self.target.weights

    @torch.no_grad()
    def _sync(self) -> None:
        self.target.weights.copy_(self.online.weights)

    @torch.no_grad()
    def q_values(
        self, obs: Shaped[Tensor, "R M *shape"], memory: Float32[Tensor, "R M *memory"]
    ) -> tuple[Float[Tensor, "R M A"], Float32[Tensor, "R M *memory"]]:
        """Action values of one look each, after what is remembered; and what to remember then."""
        begins = torch.zeros(*obs.shape[:2], 1, dtype=torch.bool, device=obs.device)  # the memory is zero already
        q, memory = self.online(obs.unsqueeze(2), memory, begins)
        return q.squeeze(2), memory

    def policy(
        self, obs: Shaped[Tensor, "R M *shape"], memory: Float32[Tensor, "R M *memory"]
    ) -> tuple[Int64[Tensor, "R M"], Float32[Tensor, "R M *memory"]]:
        q, memory = self.q_values(obs, memory)
        return q.argmax(-1), memory

    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M"]:
        shape = self.obs_shape
        if obs.ndim == len(shape) + 1:
            obs = obs.expand(self.replicas, *obs.shape)
        return self.q_values(obs, self.memory(obs.shape[1]))[0].amax(-1)

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, STATE, saved)
