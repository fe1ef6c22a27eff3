"""The dueling head: how good a state is, and how much better than the rest each action, learnt apart.

    q(s, a) = v(s) + adv(s, a) - mean_a' adv(s, a')

The subtraction makes the two identifiable: adv's mean counts for nothing, so that v is the mean of q over actions. With
N numbers for each action (a distribution's logits or quantiles) the same holds of each of them.

Source: Wang et al., "Dueling network architectures for deep reinforcement learning", ICML 2016, eq. 9; with
distributions: Hessel et al., "Rainbow", AAAI 2018. Departure: the streams part at the last layer, and not one hidden
layer before it, so that any network can have the head; the gradient into what they share is not scaled by 1/sqrt(2).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Dueling(nn.Module):
    """Values and advantages from one network.

    Args:
        body: gives (1 + actions) * atoms numbers: first the state's, then those of each action.
        actions: A.
        atoms: N, numbers for each action.
    """

    def __init__(self, body: nn.Module, actions: int, atoms: int = 1) -> None:
        super().__init__()
        self.stacks = bool(getattr(body, "stacks", False))
        self.noise = int(getattr(body, "noise", 0))
        """What the body takes of it (see `backbones.noisy`)."""
        self.body, self.actions, self.atoms = body, actions, atoms

    def forward(self, x: Float[Tensor, "B *shape"], *noise: Float[Tensor, "... z"]) -> Float[Tensor, "B *out"]:
        """`[B, *shape]` -> `[B, A N]`, the N numbers of an action side by side; held R times with a leading R."""
        both = self.body(x, *noise).unflatten(-1, (1 + self.actions, self.atoms))  # [.., 1 + A, N]
        v, adv = both[..., :1, :], both[..., 1:, :]
        return (v + adv - adv.mean(-2, keepdim=True)).flatten(-2)
