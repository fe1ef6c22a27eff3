"""The one training loop of every generative model: objective <-> optimiser <-> moving average.

    trainer = Trainer(model, objective, data, TrainConfig(steps=2000), seed=0)
    for step, metrics in trainer.run():
        ...                      # log, plot, evaluate, checkpoint or stop: the loop is at rest at every yield

The loop knows nothing of images or words. An `Objective` turns a model and a batch into one loss per sample, and
the loop reduces it, once. Randomness reaches the objective as one key per sample, derived from (seed, step,
position in the global batch): the draws of a sample do not depend on how many processes share the batch.
So training n steps, being killed and resuming for n more equals training 2n, bit for bit on one kind of machine.

accelerate (https://huggingface.co/docs/accelerate) moves, shards and casts; this file only says what to compute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64
from torch import Tensor, nn

from generative.average import Average
from lab import streams

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Losses:
    """What an objective says of a batch: a loss for each sample, and numbers to log, also one for each sample."""

    value: Float[Tensor, "B"]
    metrics: dict[str, Float[Tensor, "B"]] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """What a model is trained for. It holds what stays fixed (schedule, reference); the model is an argument."""

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """One loss for each sample; `key` seeds each sample's own draws (`lab.streams.uniform`, `normal`)."""
        ...


@runtime_checkable
class Data(Protocol):
    """Samples by index, in memory or not."""

    def __len__(self) -> int: ...

    def batch(self, index: Int64[Tensor, "B"]) -> Batch:
        """The samples at `index`, every tensor with leading dimension B."""
        ...


@dataclass(frozen=True)
class TensorData:
    """Data held in memory: named tensors of equal length."""

    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def batch(self, index: Int64[Tensor, "B"]) -> Batch:
        return {name: tensor[index] for name, tensor in self.tensors.items()}


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to learn."""

    steps: int = 2000
    """Updates in all. The learning rate decays over them, so a longer run also anneals more slowly."""
    batch_size: int = 128
    """Samples an update, over all processes. Larger: smoother gradients, more work a step."""
    learning_rate: float = 1e-3
    """Peak of the learning rate. Larger learns faster until it diverges."""
    warmup: int = 50
    """Updates over which the learning rate rises linearly from zero. More is safer for Transformers."""
    final_rate: float = 0.05
    """Share of the peak that the cosine decay ends at; 1 keeps the rate constant."""
    weight_decay: float = 0.0
    """AdamW's decoupled decay of matrices. Larger regularises more."""
    beta2: float = 0.99
    """AdamW's memory of squared gradients. Larger is smoother and slower to adapt."""
    clip: float = 1.0
    """Largest norm of the gradient. Smaller is safer and slower."""
    ema: float = 0.0
    """Width of the moving average of the weights that is sampled and saved, as a share of the training (see
    `generative.average`); 0 keeps none. Larger averages longer: up to 0.28, 0.05 to 0.1 is usual."""


class Trainer:
    """Trains one model for one objective; everything it holds is in `state_dict`.

    Args:
        model: the module to train. It is moved to the accelerator's device.
        objective: gives one loss per sample.
        data: samples by index; drawn without replacement, reshuffled every epoch from (seed, epoch).
        config: length, rate and averaging.
        seed: the root of every draw.
        accelerator: device, precision and processes; by default what `accelerate` finds.

    Raises:
        ValueError: when there are fewer samples than one, or the average has no such width.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        data: Data,
        config: TrainConfig,
        *,
        seed: int,
        accelerator: Accelerator | None = None,
    ) -> None:
        if len(data) == 0:
            raise ValueError("there is no sample to train on")
        self.objective, self.data, self.config, self.seed = objective, data, config, seed
        self.accelerator = accelerator or Accelerator()
        decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, config.beta2),
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.average = Average(self.bare, config.ema) if config.ema else None
        self.step = 0
        self._shuffled = (-1, torch.empty(0, dtype=torch.int64))

    @property
    def bare(self) -> nn.Module:
        """The model as it was given, without the wrappers of a distributed run."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def result(self) -> nn.Module:
        """The model to use: the moving average where one is kept."""
        return self.bare if self.average is None else self.average.model

    def run(self, until: int | None = None) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Update until `until` (by default all of `config.steps`) and yield (step, mean metrics) after each update."""
        for step in range(self.step, self.config.steps if until is None else until):
            yield step + 1, self._update(step)

    def _update(self, step: int) -> dict[str, Tensor]:
        self.model.train()
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        position = torch.arange(self.config.batch_size)[rank::ranks]
        batch = self.data.batch(self._draw(step, position))
        batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
        root = torch.tensor(streams.derive(self.seed, "sample", step))
        key = streams.bits(root, position).to(self.accelerator.device)  # [B]
        losses = self.objective.loss(self.model, batch, key)
        loss = losses.value.mean()
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.step = step + 1
        if self.average is not None:
            self.average.follow(self.bare, self.step)
        means = {name: value.detach().mean() for name, value in losses.metrics.items()}
        return {"loss": loss.detach(), **means, "gradient_norm": norm, "learning_rate": torch.tensor(rate)}

    def _draw(self, step: int, position: Tensor) -> Int64[Tensor, "B"]:
        """Indices of the samples at `position` of the step's global batch: epoch after epoch, each a permutation."""
        drawn = step * self.config.batch_size + position
        epoch, within = drawn // len(self.data), drawn % len(self.data)
        index = torch.empty_like(position)
        for e in sorted(set(epoch.tolist())):
            index[epoch == e] = self._order(e)[within[epoch == e]]
        return index

    def _order(self, epoch: int) -> Int64[Tensor, "samples"]:
        """The permutation of an epoch; the last one is kept at hand."""
        if self._shuffled[0] != epoch:
            generator = streams.generator(self.seed, "epoch", epoch)
            self._shuffled = (epoch, torch.randperm(len(self.data), generator=generator))
        return self._shuffled[1]

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to `final_rate` of the peak (Loshchilov & Hutter 2017, eq. 5)."""
        c = self.config
        warm = min(1.0, (step + 1) / max(c.warmup, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / max(c.steps, 1), 1.0)))
        return c.learning_rate * warm * (c.final_rate + (1 - c.final_rate) * cosine)

    def state_dict(self) -> dict[str, Any]:
        """A tree of tensors and numbers (see `lab.tree`); together with config and seed it is the whole run."""
        state: dict[str, Any] = {
            "step": self.step,
            "model": self.bare.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.average is not None:
            state["average"] = self.average.model.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.step = state["step"]
        self.bare.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
