"""The one training loop of every generative model: objective <-> optimiser <-> moving average.

    trainer = Trainer(model, objective, data, TrainConfig(steps=2000), seed=0)
    for step, metrics in trainer.run():
        ...                      # log, plot, evaluate, checkpoint or stop: the loop is at rest at every yield

The loop knows nothing of images or words. An `Objective` turns a model and a batch into one loss per sample, and
the loop reduces it, once. Randomness reaches the objective as one key per sample, derived from (seed, step,
position in the global batch): the draws of a sample do not depend on how many processes share the batch.
So training n steps, being killed and resuming for n more equals training 2n, bit for bit on one kind of machine.

accelerate (https://huggingface.co/docs/accelerate) moves the batches and reduces the gradients; this file only says
what to compute. Tested: one process, and two under `torchrun` and `accelerate launch` (DDP on CPUs, gloo). Not run:
several CUDA devices; nor more than two processes, whose gradients DDP groups anew after its first update, so that a
sum of three may round otherwise after a resume. FSDP is refused: accelerate has it for CUDA devices and the like only,
where it could not be tried, and `state_dict` and the average would have to gather what it shards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Int64
from torch import Tensor, nn

from generative import shares
from generative.average import Average
from generative.objective import Batch as Batch
from generative.objective import Data as Data
from generative.objective import Losses as Losses
from generative.objective import Objective as Objective
from generative.objective import TensorData as TensorData
from generative.objective import Whole
from generative.shares import Precision
from generative.shares import TrainError as TrainError
from lab import streams


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
    accumulate: int = 1
    """Equal parts in which each process computes its share of an update, one after the other. More need less memory,
    and take longer; the update is the same but for rounding (not with batch normalisation, which sees a part).
    Losses that look at the whole batch cannot be had in parts."""
    precision: Precision = "float32"
    """What model and loss compute in. bf16 has 8 bits of precision and is faster on hardware that knows it; weights,
    their gradients, the optimiser and the average stay in float32."""


class Trainer:
    """Trains one model for one objective; everything it holds is in `state_dict`.

    Under several processes each has its share of every batch, the positions rank, rank + ranks, ...; gradients and
    metrics are those of the whole batch, on every process. Processes may have unequally many samples.

    Args:
        model: the module to train. It is moved to the accelerator's device.
        objective: gives one loss per sample.
        data: samples by index; drawn without replacement, reshuffled every epoch from (seed, epoch).
        config: length, rate and averaging.
        seed: the root of every draw.
        accelerator: device and processes; by default what `accelerate` finds. One that casts to bf16 does so here, too.

    Raises:
        TrainError: when there are fewer samples than one, when the batch cannot be shared among the processes, for a
            batch that does not fall into equal parts, where the model would be sharded, and for an objective that looks
            at the whole batch (`generative.objective.Whole`) where parts or processes would share it.
        ValueError: when the average has no such width.
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
            raise TrainError("there is no sample to train on")
        self.model, self.objective, self.data, self.config, self.seed = model, objective, data, config, seed
        self.accelerator = accelerator or Accelerator()
        check_update(objective, config, self.accelerator)
        decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, config.beta2),
            fused=True,
        )
        loss = shares.Loss(model, config.precision)
        self._loss, self.optimizer = self.accelerator.prepare(loss, optimizer)
        self.average = Average(self.bare, config.ema) if config.ema else None
        self.step = 0
        self._shuffled = (-1, torch.empty(0, dtype=torch.int64))

    @property
    def bare(self) -> nn.Module:
        """The model as it was given, without the wrappers of a distributed run."""
        return self.model

    @property
    def result(self) -> nn.Module:
        """The model to use: the moving average where one is kept."""
        return self.bare if self.average is None else self.average.model

    def run(self, until: int | None = None) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Update until `until` (by default all of `config.steps`) and yield (step, mean metrics) after each update."""
        for step in range(self.step, self.config.steps if until is None else until):
            yield step + 1, self._update(step)

    def _update(self, step: int) -> dict[str, Tensor]:
        self._loss.train()
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = torch.arange(self.config.batch_size)[rank::ranks]
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums, names, parts = [], ["loss"], share.tensor_split(self.config.accumulate)
        for part in parts:
            with nullcontext() if part is parts[-1] else self.accelerator.no_sync(self._loss):  # reduce once, at last
                value, metrics = self._loss(self.objective.loss, *self._seen(step, part))
                total = shares.total(value)
                # DDP takes the mean over processes, each of which has the sum over its samples
                self.accelerator.backward(total * (ranks / self.config.batch_size))
            sums.append(torch.stack([total.detach(), *(shares.total(each).detach() for each in metrics.values())]))
            names = ["loss", *metrics]
        norm = self.accelerator.clip_grad_norm_(self._loss.parameters(), self.config.clip)
        self.optimizer.step()
        self.step = step + 1
        if self.average is not None:
            self.average.follow(self.bare, self.step)
        means = self.accelerator.reduce(sum(sums[1:], sums[0])) / self.config.batch_size
        return {**dict(zip(names, means, strict=True)), "gradient_norm": norm, "learning_rate": torch.tensor(rate)}

    def _seen(self, step: int, position: Int64[Tensor, "B"]) -> tuple[Batch, Int64[Tensor, "B"]]:
        """The samples at `position` of the step's global batch and their keys, on the device."""
        device = self.accelerator.device
        batch = {name: tensor.to(device) for name, tensor in self.data.batch(self._draw(step, position)).items()}
        root = torch.tensor(streams.derive(self.seed, "sample", step))
        return batch, streams.bits(root, position).to(device)

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
        """A tree of tensors and numbers (see `lab.tree`); with config, seed and the given model the whole run.

        Weights that do not learn are the given model's, and not in it.
        """
        state: dict[str, Any] = {
            "step": self.step,
            "model": self._kept(self.bare),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.average is not None:
            state["average"] = self._kept(self.average.model)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.step = state["step"]
        self._put(self.bare, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self._put(self.average.model, state["average"])

    def _frozen(self) -> set[str]:
        """The weights that do not learn, which the run's inputs have."""
        return {name for name, weight in self.bare.named_parameters(remove_duplicate=False) if not weight.requires_grad}

    def _kept(self, module: nn.Module) -> dict[str, Any]:
        frozen = self._frozen()
        return {name: value for name, value in module.state_dict().items() if name not in frozen}

    def _put(self, module: nn.Module, state: Mapping[str, Any]) -> None:
        """Raises RuntimeError for a state of another module."""
        missing, unknown = module.load_state_dict(state, strict=False)
        if unknown or set(missing) - self._frozen():
            raise RuntimeError(f"weights that are {'unknown' if unknown else 'missing'}: {(unknown or missing)[0]}")


def check_update(objective: Objective, config: TrainConfig, accelerator: Accelerator) -> None:
    """Raises TrainError where an update cannot be shared so, as `Trainer` does; for whoever has work to do before."""
    shares.check(config.batch_size, config.accumulate, accelerator)
    parts, ranks = config.accumulate, accelerator.num_processes
    if parts * ranks > 1 and isinstance(objective, Whole) and objective.whole:
        raise TrainError(
            f"{objective.whole} of a batch, and its parts have another loss: accumulate is {parts}, processes are "
            f"{ranks}; expected 1 and 1, with a smaller batch_size where memory is short, or another loss"
        )
