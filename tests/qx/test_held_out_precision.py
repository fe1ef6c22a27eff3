"""What is held out is judged in the precision of the training, whoever casts: the config, or the accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from generative.preference import thick
from generative.shares import Precision
from generative.train import TrainConfig
from qx import prefer_images, reward, sft_pretrained
from tests.qx.test_dpo_pretrained import folder, pairs
from tests.qx.test_first_stages import demonstrations
from tests.qx.test_prefer_images import options, saved


def _sft(home: Path, **given: Any) -> Any:
    told, model = demonstrations(home / "told.jsonl"), folder(home / "model", "llama")
    return sft_pretrained.prepare(sft_pretrained.SftPretrained(data=told, model=model, device="cpu", **given))


def _reward(home: Path, **given: Any) -> Any:
    file, model = pairs(home / "pairs.jsonl"), folder(home / "model", "llama")
    return reward.prepare(reward.Reward(pairs=file, model=model, device="cpu", **given))


STAGES: dict[str, Any] = {
    "sft": _sft,
    "reward": _reward,
    "thick-digits": lambda home, **given: prefer_images.prepare(options(saved(home / "base"), **given)),
}


@pytest.mark.parametrize(("precision", "cast"), [("float32", "no"), ("float32", "bf16"), ("bf16", "no")])
@pytest.mark.parametrize("stage", STAGES)
def test_layers_multiply_alike_in_an_update_and_for_what_is_held_out(
    stage: str,
    precision: Precision,
    cast: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """The accelerator told by the environment, as `accelerate launch --mixed_precision` does."""
    AcceleratorState._reset_state(reset_partial_state=True)  # a program has one
    request.addfinalizer(lambda: AcceleratorState._reset_state(reset_partial_state=True))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", cast)
    monkeypatch.setattr(thick, "POOL", 80)
    monkeypatch.setattr(thick, "PAIRS", 60)
    train = TrainConfig(steps=1, batch_size=4, warmup=1, precision=precision)
    job, seen = STAGES[stage](tmp_path, train=train, held_out=0.5), set[torch.dtype]()
    for module in job.trainer.bare.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, __, told: seen.add(told.dtype))
    list(job.trainer.run())
    learned = seen.copy()
    seen.clear()
    assert job.watch()
    assert seen == learned == {torch.float32 if (precision, cast) == ("float32", "no") else torch.bfloat16}
