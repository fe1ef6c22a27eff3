"""R networks that learn: their weights, their optimiser, a step size that falls, a gradient clipped for each by itself.

    weights [R, P]    one row a network (`backbones.replicas`), so one elementwise optimiser is R separate ones

Source: Kingma & Ba, "Adam", ICLR 2015; clipping by norm: Pascanu, Mikolov & Bengio, ICML 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from backbones.replicas import Replicas
from lab import pages, streams
from rl.explore import linear

MakeOptimizer = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]  # (weights, step size)


def adam(weights: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Adam with its usual constants."""
    return torch.optim.Adam(weights, lr=rate, fused=True)


class Learner:
    """R networks and what trains them.

    Args:
        network: constructs one.
        seeds: one for each replica, for its first weights.
        rate: (start, end) of the step size, linear over `rate_steps` steps of each replica.
        clip: largest norm of a replica's gradient.
        name: of the stream that the weights are drawn from; two networks of one agent want two.
        optimizer: elementwise, as Adam is.
        device: where all of it lies.
    """

    def __init__(
        self,
        network: Callable[[], nn.Module],
        seeds: Sequence[int],
        *,
        rate: tuple[float, float],
        rate_steps: int,
        clip: float,
        name: str = "network",
        optimizer: MakeOptimizer = adam,
        device: torch.device | str = "cpu",
    ) -> None:
        if torch.device(device).type == "cpu":
            pages.keep()
        self.network = Replicas(network, [streams.generator(seed, name) for seed in seeds]).to(device)
        self.rate, self.rate_steps, self.clip = rate, rate_steps, clip
        self.optimizer = optimizer([self.network.weights], rate[0])

    def __call__(self, x: Shaped[Tensor, "R B *shape"], *more: Shaped[Tensor, "R *_"] | None) -> Any:
        """Network r on x[r]."""
        return self.network(x, *more)

    @property
    def weights(self) -> nn.Parameter:
        """[R, P]."""
        return self.network.weights

    def step(self, loss: Float[Tensor, "R"], at: int) -> Float[Tensor, "R"]:
        """One step of the optimiser on each replica's own loss, `at` that step. Returns the gradients' norms."""
        for group in self.optimizer.param_groups:
            group["lr"] = linear(*self.rate, self.rate_steps, at)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, torch.ones_like(loss))
        norm = clip_each(self.weights, self.clip)
        self.optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        moments = self.optimizer.state.get(self.weights, {})
        return {
            "weights": self.weights.detach().clone(),
            "moments": {name: m.clone() if isinstance(m, Tensor) else m for name, m in moments.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights.copy_(state["weights"])
        self.optimizer.state.clear()
        if state["moments"]:
            moments = {name: m.clone() if isinstance(m, Tensor) else m for name, m in state["moments"].items()}
            groups = self.optimizer.state_dict()["param_groups"]
            # It knows which moments belong to the weights' device, and which count steps on the host.
            self.optimizer.load_state_dict({"state": {0: moments}, "param_groups": groups})


@torch.no_grad()
def clip_each(weights: Float[Tensor, "R P"], clip: float) -> Float[Tensor, "R"]:
    """Scale each row of `weights.grad` to a norm of at most `clip` (inf: as it is). Returns the norms before."""
    assert weights.grad is not None
    norm = torch.linalg.vector_norm(weights.grad, dim=1)
    if clip < math.inf:
        weights.grad.mul_((clip / norm.clamp(min=clip)).unsqueeze(1))  # exactly 1 where nothing is clipped
    return norm
