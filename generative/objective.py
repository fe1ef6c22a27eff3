"""What is trained, and on what: an objective turns a model and a batch into one loss per sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor, nn

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
class Whole(Protocol):
    """An objective that may look at a batch as a whole, so that the losses of its parts are other ones. Most objectives
    look at each sample by itself, and are none of these.
    """

    @property
    def whole(self) -> str:
        """What looks at what of the whole batch, in words for a person; empty where nothing does."""
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
