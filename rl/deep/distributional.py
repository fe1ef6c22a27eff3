"""Networks that learn the distribution of the return: a histogram (C51), or its quantiles (QR-DQN).

    Z(s, a)    the return, a random variable;  Z = R + discount Z(S', a*) in distribution
    z_i        N fixed returns, evenly from low to high;   p_i = softmax(logits)_i their probabilities      (C51)
    theta_i    N quantiles of the return, at the levels tau_i = (i + 1/2) / N                                (QR-DQN)

Source: Bellemare, Dabney & Munos, "A distributional perspective on reinforcement learning", ICML 2017, algorithm 1;
Dabney, Rowland, Bellemare & Munos, "Distributional reinforcement learning with quantile regression", AAAI 2018,
eq. 9, 10 and algorithm 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rl.deep.losses import Method, huber


class Categorical(Method):
    """C51: logits of N returns. The target is moved, then split between the two nearest of them.

    The loss is the divergence KL(y || p), whose gradient is that of the paper's cross-entropy; it is 0 where nothing is
    to be learnt, and what Rainbow ranks its memories by (Hessel et al. 2018, "Prioritized replay").

    Args:
        atoms: N. More resolve finer; the work of the projection grows with N^2.
        low, high: smallest and largest return that can be said. What is beyond is counted as the end.

    Raises:
        ValueError: for fewer than 2 atoms, or no room between low and high.
    """

    def __init__(self, atoms: int, low: float, high: float, device: torch.device | str = "cpu") -> None:
        if atoms < 2 or not low < high:
            raise ValueError(f"{atoms} atoms from {low} to {high}: expected 2 or more, and low below high")
        self.atoms, self.low, self.high = atoms, low, high
        self.z = torch.linspace(low, high, atoms, device=device)  # [N]

    def mean(self, said: Float[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
        return said.softmax(-1) @ self.z

    def target(
        self, reward: Float[Tensor, "*b"], discount: Float[Tensor, "*b"], successor: Float[Tensor, "*b N"]
    ) -> Float[Tensor, "*b N"]:
        """Probabilities of the N returns: y_i = sum_j p_j max(0, 1 - |clip(r + discount z_j) - z_i| / dz)."""
        moved = self._moved(reward, discount).clamp(self.low, self.high)
        gap = (self.high - self.low) / (self.atoms - 1)
        share = (1 - (moved.unsqueeze(-1) - self.z).abs() / gap).clamp(min=0)  # [*b, from, to]
        return (successor.softmax(-1).unsqueeze(-2) @ share).squeeze(-2)

    def noted(
        self, reward: Float[Tensor, "*b"], discount: Float[Tensor, "*b"], successor: Float[Tensor, "*b N"]
    ) -> dict[str, Float[Tensor, "*b"]]:
        """`target_clipped`: the probability of returns beyond low and high, by more than a hundredth of the range."""
        moved, slack = self._moved(reward, discount), (self.high - self.low) / 100
        beyond = (moved < self.low - slack) | (moved > self.high + slack)
        return {"target_clipped": (successor.softmax(-1) * beyond).sum(-1)}

    def _moved(self, reward: Float[Tensor, "*b"], discount: Float[Tensor, "*b"]) -> Float[Tensor, "*b N"]:
        return reward.unsqueeze(-1) + discount.unsqueeze(-1) * self.z

    def loss(self, said: Float[Tensor, "*b N"], y: Float[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
        return (torch.xlogy(y, y) - y * said.log_softmax(-1)).sum(-1)

    def target_mean(self, y: Float[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
        return y @ self.z

    def surprise(self, loss: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return loss.clamp(min=0)  # a divergence is never negative, but for rounding


class Quantiles(Method):
    """QR-DQN: N quantiles, by the asymmetric Huber loss of every pair of quantile and target (kappa = 1).

    Raises:
        ValueError: for fewer than 1 quantile.
    """

    def __init__(self, atoms: int, device: torch.device | str = "cpu") -> None:
        if atoms < 1:
            raise ValueError(f"{atoms} quantiles: expected 1 or more")
        self.atoms = atoms
        self.tau = (torch.arange(atoms, device=device) + 0.5) / atoms  # [N]

    def mean(self, said: Float[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
        return said.mean(-1)

    def target(
        self, reward: Float[Tensor, "*b"], discount: Float[Tensor, "*b"], successor: Float[Tensor, "*b N"]
    ) -> Float[Tensor, "*b N"]:
        return reward.unsqueeze(-1) + discount.unsqueeze(-1) * successor

    def loss(self, said: Float[Tensor, "*b N"], y: Float[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
        """sum_i mean_j |tau_i - [u_ij < 0]| huber(u_ij), u_ij = y_j - theta_i: eq. 10."""
        u = y.unsqueeze(-2) - said.unsqueeze(-1)  # [*b, quantile i, target j]
        weight = (self.tau.unsqueeze(-1) - (u.detach() < 0).to(u.dtype)).abs()
        return (weight * huber(u)).mean(-1).sum(-1)

    def target_mean(self, y: Float[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
        return y.mean(-1)

    def surprise(self, loss: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return loss
