"""`qx dpo thick-digits`: it writes what `qx sample` reads, goes on after a kill, and refuses other models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generative.diffusion.measures.metrics import Judge
from generative.diffusion.model import DiffusionConfig, Subject
from generative.diffusion.pipeline import Pipeline
from generative.preference import thick
from generative.train import TrainConfig
from lab import checkpoint, streams, tree
from lab.run import Run
from qx import jobs, prefer_images
from qx.dpo import Dpo
from qx.main import main
from qx.usage import UsageError, to_tree


class Reads(Judge):
    """Takes everything for a three."""

    def __init__(self, *_: Any) -> None:
        self.accuracy = 1.0

    def recognised(self, image: Tensor, label: Tensor) -> Tensor:
        return label == 3


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thick, "POOL", 80)
    monkeypatch.setattr(thick, "JUDGED", 100)
    monkeypatch.setattr(thick, "PAIRS", 60)
    monkeypatch.setattr(prefer_images, "Judge", Reads)


def saved(path: Path, **changes: Any) -> Path:
    """As a run of `qx diffuse digits` leaves it, untrained."""
    config = DiffusionConfig(**{"backbone": "mlp", "width": 16, "blocks": 1, **changes})
    made = Pipeline.build(config, Subject((1, 8, 8), 10), streams.generator(0))
    draws = streams.generator(0, "weights")
    for weight in made.network.parameters():
        nn.init.normal_(weight, std=0.1, generator=draws)
    made.save(path / "model")
    return path


def options(model: Path, **changes: Any) -> Dpo:
    train = TrainConfig(steps=4, batch_size=8, warmup=1, learning_rate=1e-2)
    given = {"preference": thick.PREFERENCE, "train": train, "held_out": 0.5, "device": "cpu", "save_every": 1000.0}
    return Dpo(pairs=Path(prefer_images.NAME), model=model, **(given | changes))


def done(asked: Dpo) -> dict[str, Any]:
    return jobs.start(prefer_images.prepare(asked), to_tree(asked), asked)[1]


def final(run: Path) -> dict[str, Tensor]:
    return tree.split(checkpoint.load(run / "checkpoint").state)[0]


def test_what_it_leaves_is_what_samples_are_drawn_from(tmp_path: Path) -> None:
    base, run = saved(tmp_path / "base"), tmp_path / "run"
    result = done(options(base, out=run))
    assert {
        "ink",
        "stroke",
        "ink_by_class",
        "recognised",
        "before",
        "ink_gained",
        "loss",
        "rewards/accuracies",
    } <= result.keys()
    assert result["recognised"] == result["before"]["recognised"] == pytest.approx(0.1)
    assert result["ink"] - result["before"]["ink"] == pytest.approx(result["ink_gained"], abs=1e-6)
    assert result["ink_gained"] != 0
    assert 0 < result["held_out"] <= 30
    left = {path.name for path in run.iterdir()}
    assert {"model", "report.png", "before.png", "samples.png", "metrics.jsonl", "result.json"} <= left
    lines = Run.open(run).metrics()
    assert lines[0]["rewards/margins"] == 0  # the first update's, before it learned
    assert lines[-1]["held_out/loss"] > 0
    few = ["--n", "10", "--steps", "20", "--ways", "plain", "--rows", "64", "--device", "cpu"]
    assert main(["sample", str(run), *few, "--out", str(tmp_path / "drawn")]) == 0
    with np.load(tmp_path / "drawn" / "samples.npz") as drawn:
        amount = thick.ink(torch.from_numpy(drawn["images"]))
    job = prefer_images.prepare(options(base))
    job.trainer.load_state_dict(checkpoint.load(run / "checkpoint").state)
    expected = job.policy.sample(list(range(10)), seed=0, steps=20, guidance=1.5)
    torch.testing.assert_close(amount, thick.ink(expected), rtol=0, atol=1e-5)


def test_a_run_that_was_cut_ends_the_same(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    whole, cut = options(base, out=tmp_path / "whole"), options(base, out=tmp_path / "cut")
    expected = done(whole)
    job = prefer_images.prepare(cut)
    run = Run.create(tmp_path / "cut", job.command, to_tree(cut), cut.seed, inputs=job.inputs)
    for step, metrics in job.trainer.run(2):
        run.log(step, metrics)
    run.save(2, job.trainer.state_dict())
    found = jobs.carry_on(prefer_images.prepare(cut), Run.open(tmp_path / "cut"), 1000.0)
    ours, theirs = final(tmp_path / "whole"), final(tmp_path / "cut")
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert {**found, "seconds": 0, "run": ""} == {**expected, "seconds": 0, "run": ""}


def test_pairs_held_out_are_of_other_drawings(tmp_path: Path) -> None:
    job = prefer_images.prepare(options(saved(tmp_path / "base")))
    assert job.held is not None
    held, learned = (
        {each.numpy().tobytes() for side in ("chosen", "rejected") for each in data.tensors[side]}
        for data in (job.held, job.learned)
    )
    assert held
    assert learned
    assert not held & learned
    assert prefer_images.prepare(options(tmp_path / "base", held_out=0.0)).watch() == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_rank": 4}, "--lora-rank: of language models"),
        ({"checkpointing": True}, "--checkpointing: of language models"),
        ({"limit": 7}, "--limit: of language models"),
    ],
)
def test_options_of_language_models_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        prefer_images.prepare(options(saved(tmp_path / "base"), **changes))


def test_other_models_are_refused(tmp_path: Path) -> None:
    other = Pipeline.build(DiffusionConfig("mlp", 16), Subject((3, 4, 4), 2), streams.generator(0))
    other.save(tmp_path / "other" / "model")
    with pytest.raises(UsageError, match="expected a run of `qx diffuse digits`"):
        prefer_images.prepare(options(tmp_path / "other"))
    saved(tmp_path / "shown", backbone="unet", self_conditioning=True)
    with pytest.raises(UsageError, match="self_conditioning or learned_variance"):
        prefer_images.prepare(options(tmp_path / "shown"))
    assert prefer_images.prepare(options(saved(tmp_path / "base"))).name == "thick-digits"
