"""What a loss is computed in, where a config and an accelerator both say something of it."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from generative.objective import Batch, Losses, TensorData
from generative.shares import Precision, TrainError, effective
from generative.train import TrainConfig, Trainer


class Seen:
    """An objective that remembers in what type a linear layer multiplied."""

    kind: torch.dtype | None = None

    def loss(self, model: nn.Module, batch: Batch, key: Tensor) -> Losses:
        told = model(batch["x"])[:, 0]
        self.kind = told.dtype
        return Losses(told.float(), {})


@pytest.mark.parametrize("cast", ["no", "bf16"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_it_is_what_a_trainer_computes_in(
    precision: Precision, cast: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The accelerator told by the environment, as `accelerate launch --mixed_precision` does."""
    AcceleratorState._reset_state(reset_partial_state=True)  # a program has one
    request.addfinalizer(lambda: AcceleratorState._reset_state(reset_partial_state=True))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", cast)
    accelerator, seen = Accelerator(cpu=True), Seen()
    config = TrainConfig(steps=1, batch_size=2, precision=precision)
    list(
        Trainer(
            nn.Linear(3, 1), seen, TensorData({"x": torch.ones(2, 3)}), config, seed=0, accelerator=accelerator
        ).run()
    )
    assert seen.kind == {"float32": torch.float32, "bf16": torch.bfloat16}[effective(precision, accelerator)]


def test_a_cast_that_is_not_known_is_refused_unless_the_config_has_its_own() -> None:
    accelerator = create_autospec(Accelerator, instance=True, mixed_precision="fp16")  # a true one needs a GPU
    assert effective("bf16", accelerator) == "bf16"
    with pytest.raises(TrainError, match="the accelerator casts to fp16; expected no or bf16"):
        effective("float32", accelerator)
