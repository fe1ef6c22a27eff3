"""A network that is shown its own last estimate: what it found at the noisier level is not lost at the next.

In training a coin for each sample decides whether it is told an estimate of its own, made in a first pass and not
differentiated, or zeros (Chen et al. 2023, "Analog Bits", sec. 3.2 and alg. 1). In sampling it is told the estimate of
the step before, and zeros at the first. The network takes 2C channels: the noisy sample, then the estimate.

Departure: the paper throws one coin for the batch, which spares the first pass half of the time; here every sample's
own key decides, so a sample's loss does not depend on its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from generative.diffusion.noise.denoiser import column
from generative.diffusion.training.objective import DDPM
from generative.train import Batch, Losses
from lab import streams

COIN = -1  # where in a sample's stream the coin stands: before all that `objective` draws


@dataclass(frozen=True, eq=False)
class SelfConditioned:
    """An objective for a network that takes its own estimate beside its input.

    Args:
        objective: what it is trained for.
        share: of the samples that are told their estimate. Larger suits sampling, smaller the first step.
        clip: bound on the estimate that is told; the one that samples are to be drawn with.
    """

    objective: DDPM
    share: float = 0.5
    clip: float = torch.inf

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """The objective's own error, of the second pass."""
        noised = self.objective.noised(batch, key)
        with torch.no_grad():
            first = self.objective.ask(model, noised, torch.zeros_like(noised.x0))
            estimate = self.objective.estimate(noised, first).clamp(-self.clip, self.clip)
        told = column((streams.uniform(key, COIN) < self.share).float(), noised.x0).bool()
        output = self.objective.ask(model, noised, torch.where(told, estimate, 0))
        return Losses(self.objective.error(noised, output))
