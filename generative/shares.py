"""An update in shares: of several processes, and of the parts in which each computes its own.

The loss of a batch is a mean over samples. A share gives the sum over its samples, divided by the size of the whole
batch: so shares may be of unequal size, and adding them up gives what the whole batch would give.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedType
from jaxtyping import Float
from torch import Tensor, nn

from generative.objective import Batch, Losses

Precision = Literal["float32", "bf16"]
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
"""Ways of accelerate that leave no process with the whole model."""


class TrainError(ValueError):
    """A training that cannot be done as it is asked for; the message says why, and what can."""


class Loss(nn.Module):
    """Model and objective as one module. What wraps it (DDP, a cast) wraps the whole loss, and the objective meets the
    model itself: it may call any part of it, as often as it likes.

    Args:
        model: what is trained.
        precision: what the loss is computed in.
    """

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.model, self.precision = model, precision

    def forward(self, compute: Callable[..., Losses], batch: Batch, key: Tensor) -> tuple[Tensor, Batch]:
        """One loss for each sample, and the metrics: as plain tensors, which every wrapper can pass on.

        Args:
            compute: the objective's `loss`. Weights of its own are not part of this module.
            batch: the samples.
            key: of each.
        """
        with cast(self.precision, key.device.type):
            found = compute(self.model, batch, key)
        return found.value, found.metrics


def cast(precision: Precision, device: str) -> Any:
    """A context in which models compute in that precision. Not accelerate's, which is one for all of a program."""
    if precision == "float32":
        return nullcontext()  # and not "autocast off", which would switch off that of an accelerator
    # without a cache: torch 2.9 and before keep there what a pass without gradients cast, for one with them
    return torch.autocast(device, torch.bfloat16, cache_enabled=False)


def effective(precision: Precision, accelerator: Accelerator) -> Precision:
    """What a loss is computed in where `precision` is asked for, and the accelerator may cast, too.

    Whoever computes beside the trainer what is compared with its losses, does it in this precision.

    Raises:
        TrainError: for a cast of the accelerator that is not known here, as fp16.
    """
    if precision == "bf16" or accelerator.mixed_precision == "no":
        return precision
    if accelerator.mixed_precision != "bf16":
        raise TrainError(f"the accelerator casts to {accelerator.mixed_precision}; expected no or bf16")
    return "bf16"


def total(value: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """The sum over samples, in float32 at least."""
    return value.sum(dtype=torch.promote_types(value.dtype, torch.float32))


def check(size: int, parts: int, accelerator: Accelerator) -> None:
    """Raises TrainError where a batch of `size` cannot be shared among the processes, each of them in `parts`."""
    ranks, divided = accelerator.num_processes, accelerator.gradient_accumulation_steps
    if parts < 1:
        raise TrainError(f"accumulate is {parts}; expected at least 1")
    if size < ranks:
        each = ", a sample for each process" if ranks > 1 else ""
        raise TrainError(f"a batch of {size} is too small; expected at least {ranks}{each}")
    if parts > 1 and size % (ranks * parts):
        among = f" in each of {ranks} processes" if ranks > 1 else ""
        raise TrainError(
            f"a batch of {size} does not fall into {parts} equal parts{among}; expected a multiple of {ranks * parts}"
        )
    if divided != 1:
        raise TrainError(
            f"the accelerator was told to accumulate {divided} parts; tell it the loop, accumulate={divided}"
        )
    if accelerator.distributed_type in SHARDED:
        raise TrainError(
            f"{accelerator.distributed_type.value} shards what is saved and averaged here as a whole; expected DDP, or "
            "one process"
        )
