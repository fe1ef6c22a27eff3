"""Diffusion-DPO: a denoiser learns from pairs, by a surrogate for their log-probabilities (Wallace et al. 2023).

The likelihood of a sample is out of a denoiser's reach; of its bound one term is drawn, as in training. Of a pair,

    u ~ uniform(0, 1),  (alpha, sigma) the schedule's level at u,  eps ~ N(0, I):    drawn once, for both samples
    x = alpha x_0 + sigma eps
    log pi(x_0) ~ -T/2 w |network(c_in x, told, label) - target|^2                   the surrogate, in place of nats

of the policy and of the reference, a frozen copy of what the policy was. These are the four vectors of every preference
loss; "sigmoid" of them is eq. 14 of the paper, with its omega = w/2.

Key: |.|^2 sums over the D values of a sample; T = 1000; w the weight of the squared error of what the network says
(`diffusion.training.weight`), by default 1, as in the training of the network. What the paper leaves open:

* T. The paper takes it into beta, and the authors' code has the mean over values: its beta_dpo is beta T D. Its 5000,
  of SDXL's latents with D = 65,536, is a beta of 7.6e-5; of digits with D = 64 it would be one of .08. A schedule
  without timesteps has no T, and is given the same, so that one beta means one thing.
* omega. The bound's own is (SNR(t-1) - SNR(t)) / 2 on the error of x_0 (Kingma et al. 2021, eq. 13), the paper's a
  constant on the error of eps. That is w = 1 for a network that says eps; for another w = 1 is on what it says.
* eps. The paper's formula has a noise of each sample, the authors' code one of both, as here: what the pair does not
  differ in then cancels in the errors.

Departures: the null label is never shown, where the authors' code leaves out some prompts; so what guidance leads away
from is not taught. Losses per token take a value of the sample for a token.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64
from torch import Tensor, nn

from generative.diffusion.noise.schedule import Level
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.training.objective import DDPM, Noised
from generative.objective import Batch, Data, Losses
from generative.preference.dpo import DPO, PLAIN
from generative.preference.four import Four
from generative.preference.losses import PreferenceConfig
from generative.train import TrainConfig, Trainer

STEPS = 1000
"""T."""


class DenoisingDPO:
    """The objective, over batches {"chosen", "rejected": [B, *shape], "label": int64 [B]}; "label" may be absent.

    Args:
        denoising: what the network was trained for: levels, prediction and weight. Its dropout is not taken over.
        reference: the network before it learns. A copy is kept, which does not learn.
        config: which losses, and how strongly the reference holds.

    Raises ValueError as `losses.Preference` does, for a configuration that asks for what there is not.

    Metrics are those of `dpo.DPO`, of the surrogates.
    """

    def __init__(self, denoising: DDPM, reference: nn.Module, config: PreferenceConfig = PLAIN) -> None:
        self.dpo = DPO(config)
        self.denoising = dataclasses.replace(denoising, dropout=0.0)
        self.reference = copy.deepcopy(reference).requires_grad_(False).eval()

    @property
    def whole(self) -> str:
        """As `dpo.DPO.whole`."""
        return self.dpo.whole

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """f - anchor log pi(chosen) [B], level and noise of each pair drawn from its key."""
        noised = self.noised(batch, key)
        chosen, rejected = self.surrogate(model, noised).chunk(2)  # [B] each
        with torch.no_grad():
            four = Four(chosen, rejected, *self.surrogate(self.reference, noised).chunk(2))
        values = torch.full_like(key, batch["chosen"][0].numel())
        return self.dpo.told(four, values, values)

    def noised(self, batch: Batch, key: Int64[Tensor, "B"]) -> Noised:
        """The chosen of all pairs, then the rejected, at the level and with the noise of their pair: 2B samples."""
        one = self.denoising.noised({**batch, "image": batch["chosen"]}, key)
        return Noised(
            torch.cat([one.x0, batch["rejected"]]),
            torch.cat([one.eps, one.eps]),
            Level(*(value.repeat(2) for value in one.level)),
            None if one.label is None else one.label.repeat(2),
        )

    def surrogate(self, model: nn.Module, noised: Noised) -> Float[Tensor, "N"]:
        """-T/2 w |network - target|^2 of each sample."""
        error = self.denoising.error(noised, self.denoising.ask(model, noised))  # [N], the mean over values
        return -0.5 * STEPS * noised.x0[0].numel() * error


def denoising_of(pipeline: Pipeline) -> DDPM:
    """What a pipeline's network was trained for, without dropout.

    Raises ValueError for one that reads prompts, is shown its own estimate or says a variance.
    """
    denoising = pipeline.objective(dropout=0.0)
    if pipeline.text is not None:
        raise ValueError("the model reads prompts; expected one that is told labels, or nothing")
    if not isinstance(denoising, DDPM):
        raise ValueError("the model was trained with self_conditioning or learned_variance; expected one without")
    return denoising


def trainer(
    pipeline: Pipeline,
    pairs: Data,
    preference: PreferenceConfig,
    train: TrainConfig,
    *,
    seed: int,
    accelerator: Accelerator | None = None,
) -> Trainer:
    """What trains a copy of a pipeline's network on pairs of its samples; `pipeline.using(trainer.result)` draws.

    Args:
        pipeline: told labels, or nothing. It is moved to the device, and stays as it is otherwise.
        pairs: batches as `DenoisingDPO` reads them: images, or of a pipeline of latents latents.
        preference: which losses, and how strongly the reference holds.
        train: length, rate and averaging; a batch is so many pairs.
        seed: the root of every draw.
        accelerator: device, precision and processes; by default what `accelerate` finds.

    Raises:
        ValueError: as `denoising_of`, and as `Preference`.
        TrainError: as `Trainer`.
    """
    denoising, accelerator = denoising_of(pipeline), accelerator or Accelerator()
    network = pipeline.to(accelerator.device).network
    policy = copy.deepcopy(network).requires_grad_(True)  # an averaged one is frozen
    objective = DenoisingDPO(denoising, network, preference)
    return Trainer(policy, objective, pairs, train, seed=seed, accelerator=accelerator)
