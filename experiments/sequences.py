"""What the experiments on sequences share: tasks drawn by index, readers of tokens, one objective and one loop.

A task is a function from keys to a batch: sample i of a seed is always the same, whatever else is drawn with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones import cost
from backbones.recurrent import Kind, Recurrent
from backbones.transformer import Transformer
from experiments.claim import Setting
from generative.train import Batch, Data, Losses, Objective, TrainConfig, Trainer
from lab import streams

Task = Callable[[Int64[Tensor, "B"]], Batch]


@dataclass(frozen=True)
class Drawn:
    """Samples without end, each made from its own key (`generative.train.Data`).

    Attributes:
        task: makes a batch: "tokens" [B, T] and "target" [B, T], the token to predict there, or -1 where none is.
        seed: the root of the keys.
        name: of their stream, which tells training and test apart.
        samples: how many there are; by default more than anybody trains on.
    """

    task: Task
    seed: int
    name: str = "train"
    samples: int = 1 << 20

    def __len__(self) -> int:
        return self.samples

    def batch(self, index: Int64[Tensor, "B"]) -> Batch:
        return self.task(streams.bits(torch.tensor(streams.derive(self.seed, self.name)), index))


class Predict:
    """Cross-entropy of the tokens to predict, each row's mean (`generative.train.Objective`). It draws nothing."""

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """Metrics: `accuracy`, the share that is predicted."""
        logits, target = model(batch["tokens"]), batch["target"]  # [B, T, V], [B, T]
        asked = target >= 0
        each = functional.cross_entropy(logits.transpose(1, 2), target, ignore_index=-1, reduction="none")
        right = ((logits.argmax(-1) == target) & asked).sum(1) / asked.sum(1)
        return Losses(each.sum(1) / asked.sum(1), {"accuracy": right})


class TransformerReader(nn.Module):
    """Tokens to logits, by a Transformer."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        return self.transformer.logits(self.transformer(tokens))


class RecurrentReader(nn.Module):
    """Tokens to logits: embedding, recurrent layers and a linear head, all of one width."""

    def __init__(self, kind: Kind, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.recurrent = Recurrent(kind, width, width, layers)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        return self.head(self.recurrent(self.embedding(tokens))[0])


def as_large(make: Callable[[int], nn.Module], parameters: int) -> int:
    """The width at which `make(width)` has the number of parameters that is nearest; they grow with the width."""
    with torch.device("meta"):
        width = 1
        while cost.parameters(make(width)) < parameters:
            width += 1
        return min((width - 1, width), key=lambda w: abs(cost.parameters(make(w)) - parameters)) if width > 1 else 1


def trainer(
    model: nn.Module, data: Data, config: TrainConfig, setting: Setting, objective: Objective | None = None
) -> Trainer:
    """The one loop of `generative.train`, on the setting's device, by default for `Predict`."""
    accelerator = Accelerator(cpu=setting.device.type == "cpu")
    return Trainer(model, objective or Predict(), data, config, seed=setting.seed, accelerator=accelerator)


def followed(
    run: Trainer, setting: Setting, part: tuple[float, float], note: str
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The updates of `run`, reported as the `part` (begin, end) of all the work."""
    begin, end = part
    for step, metrics in run.run():
        if step % 20 == 0 or step == run.config.steps:
            setting.report(begin + (end - begin) * step / run.config.steps, f"{note}, step {step}")
        yield step, metrics


@torch.no_grad()
def predicted(model: nn.Module, batch: Batch) -> Tensor:
    """Which of the tokens to predict are: bool [B, T], on the CPU; False where none is to predict."""
    model.eval()
    device = next(model.parameters()).device
    return (model(batch["tokens"].to(device)).argmax(-1).cpu() == batch["target"]) & (batch["target"] >= 0)
