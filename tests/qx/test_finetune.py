"""`qx diffuse --base`, and the grids of samples that training leaves: what they write, and what they do not change."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from generative.diffusion.data import Images
from generative.diffusion.stock.folder import open_folder
from generative.diffusion.stock.stock import FORCED
from generative.train import TrainConfig
from lab import checkpoint, tree
from qx import diffusion, diffusion_drawn, finetune_report, main
from qx.diffusion_progress import Grids, usual
from qx.finetune import TuneJob
from tests.oracles import pipelines

SHORT = ["--steps", "4", "--batch-size", "4", "--device", "cpu", "--json", "--save-every", "1000"]
TINY = ["--width", "16", "--blocks", "1", "--size", "8"]
FAST = ["--warmup", "1", "--learning-rate", "0.05"]


def pictures(path: Path, side: int, mode: str, names: tuple[str, ...] = ("",)) -> Path:
    """A few pictures of one grey each, in as many folders."""
    for folder, name in enumerate(names):
        (path / name).mkdir(parents=True, exist_ok=True)
        for i in range(6):
            Image.new("L", (side, side), 40 * i + 5 * folder).convert(mode).save(path / name / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("data"), 8, "L")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Of a base its model alone is written, and of a tuned one few pictures are drawn."""

    def model(run: Any, pipeline: Any, *_: Any) -> None:
        pipeline.save(run.path / "model")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion, "write", model)
        patch.setattr(finetune_report, "COLUMNS", 2)
        yield


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ours, with grids."""
    run = tmp_path_factory.mktemp("runs") / "base"
    assert main.main(["diffuse", str(data), *SHORT, *TINY, "--samples-every", "3", "--out", str(run)]) == 0
    return run


@pytest.fixture
def heard() -> Iterator[None]:
    """An interrupt is heard, also where the tests run in the background of a shell, which makes it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def final(run: Path) -> dict[str, torch.Tensor]:
    return tree.split(checkpoint.load(run / "checkpoint").state)[0]


def grids(run: Path) -> list[str]:
    return sorted(file.name for file in (run / "progress").glob("*")) if (run / "progress").exists() else []


def test_grids_are_left_on_the_way_and_change_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    assert main.main(["diffuse", str(data), *SHORT, *TINY, "--samples-every", "0", "--out", str(plain)]) == 0
    assert grids(base) == ["000003.png", "000004.png"]
    assert (base / "progress.png").is_file()
    assert grids(plain) == []
    assert not (plain / "progress.png").exists()
    ours, theirs = final(base), final(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert (base / "metrics.jsonl").read_bytes() == (plain / "metrics.jsonl").read_bytes()
    with Image.open(base / "progress" / "000004.png") as opened:
        assert opened.size == (8 * (64 + 4) + 4, 64 + 8)


def test_grids_of_a_usual_run_are_few_and_cheap() -> None:
    """The network sees 8 guided samples in each of 10 steps: 160 a grid, beside three passes of a batch an update."""
    for steps, batch in ((1000, 128), (1000, 8), (40, 128), (20000, 4)):
        every = usual(TrainConfig(steps=steps, batch_size=batch))
        assert steps / every <= 20
        assert 160 * (steps // every) <= 0.02 * 3 * batch * steps
    due = Grids(30, TrainConfig(steps=100), 0, 1.0).due
    assert [step for step in range(-5, 101) if due(step)] == [30, 60, 90, 100]
    assert not any(Grids(every, TrainConfig(steps=100), 0, 1.0).due(100) for every in (0, 101))


def test_a_run_of_ours_is_tuned_and_a_killed_tuning_ends_the_same(
    base: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    heard: None,
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    tune = ["diffuse", str(data), *SHORT, *FAST, "--base", str(base), "--rank", "2", "--samples-every", "2"]
    assert main.main([*tune, "--out", str(whole)]) == 0
    left = {path.name for path in whole.iterdir()}
    assert {"model", "diffusers", "report.png", "samples.png", "before.png", "real.png", "progress.png"} <= left
    assert "adapters" not in left  # diffusers reads them of networks with prompts alone
    assert "no file of adapters for diffusers" in capsys.readouterr().err
    assert grids(whole) == ["000002.png", "000004.png"]
    look = TuneJob.look

    def interrupted(job: TuneJob, run: Any, step: int) -> None:
        look(job, run, step)
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TuneJob, "look", interrupted)
    assert main.main([*tune, "--out", str(cut)]) == 1
    monkeypatch.undo()
    assert checkpoint.steps(cut / "checkpoint") == [3]
    monkeypatch.chdir(tmp_path)  # a run goes on from anywhere
    assert main.main(["resume", str(cut)]) == 0
    ours, theirs = final(whole), final(cut)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert (whole / "samples.png").read_bytes() == (cut / "samples.png").read_bytes()
    few = ["--n", "2", "--steps", "2", "--ways", "plain", "--device", "cpu"]
    drawn = []
    for run in (base, whole, whole / "diffusers"):
        assert main.main(["sample", str(run), *few, "--out", str(tmp_path / run.name)]) == 0
        drawn.append(np.load(tmp_path / run.name / "samples.npz")["images"])
    assert np.abs(drawn[0] - drawn[1]).max() > 2e-5  # drawn twice by one network they are the same
    np.testing.assert_allclose(drawn[1], drawn[2], atol=1e-4)


class FakeJudge:
    """Takes every image for class 1. The real one takes seconds to train (`measures/test_metrics.py`)."""

    accuracy, made = 0.5, 0

    def __init__(self, train: Images, test: Images) -> None:
        FakeJudge.made += 1

    def recognised(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert len(images) == len(labels)
        return labels == 1


def test_classes_are_judged_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(diffusion_drawn, "JUDGED", 5)
    monkeypatch.setattr(diffusion_drawn, "Judge", FakeJudge)
    data = pictures(tmp_path / "data", 8, "L", ("a", "b"))
    first, then = tmp_path / "first", tmp_path / "then"
    assert main.main(["diffuse", str(data), *SHORT, *TINY, "--out", str(first)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["recognised"] == pytest.approx(0.4)  # 0 1 0 1 0
    assert main.main(["diffuse", str(data), *SHORT, "--base", str(first), "--out", str(then)]) == 0
    assert FakeJudge.made == 2  # both are judged by the same
    said = capsys.readouterr().out
    result = json.loads(said.splitlines()[-1])
    alike = {
        "recognised": pytest.approx(0.4),
        "judge_accuracy": 0.5,
        "samples": 5,
        "guidance": 1.5,
        "solver": "dpmpp-2m",
        "steps": 20,
    }
    assert result["before"] == alike
    assert alike.items() <= result.items()
    assert "before  40.0% of 5 samples" in said


def test_a_folder_of_diffusers_is_tuned_into_one(tmp_path: Path) -> None:
    """With prompts: latents, captions that its own tokenizer reads, and adapters that its pipeline loads."""
    scheduler = diffusers.DDIMScheduler(**pipelines.V, **FORCED)
    pipelines.stable_diffusion(scheduler).save_pretrained(tmp_path / "base")
    data, run = pictures(tmp_path / "data", 20, "RGB"), tmp_path / "run"
    lines = [json.dumps({"file_name": f"{i}.png", "text": ("red cat", "dog")[i % 2]}) for i in range(6)]
    (data / "metadata.jsonl").write_text("\n".join(lines))
    tune = ["diffuse", str(data), *SHORT, "--base", str(tmp_path / "base"), "--rank", "2", "--samples-every", "4"]
    assert main.main([*tune, "--out", str(run)]) == 0
    assert not (run / "model").exists()
    assert (run / "captions.png").is_file()
    tuned, before = open_folder(run / "diffusers"), open_folder(tmp_path / "base")
    changed = [
        name
        for name, weight in tuned.network.state_dict().items()
        if not torch.equal(weight, before.network.state_dict()[name])
    ]
    assert changed
    assert all(".stack.blocks." in name for name in changed)  # the attention, nothing else
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "base")
    theirs.load_lora_weights(run / "adapters")
    theirs.fuse_lora()
    there = {name: w for name, w in theirs.unet.state_dict().items() if "base_layer.weight" in name}
    merged = diffusers.StableDiffusionPipeline.from_pretrained(run / "diffusers").unet.state_dict()
    assert there
    for name, weight in there.items():
        torch.testing.assert_close(weight, merged[name.replace(".base_layer", "")], rtol=1e-5, atol=1e-6)
    pages = []
    for name in (run, run / "diffusers"):  # the run is as good a name as what it made
        few = ["--n", "1", "--steps", "2", "--prompt", "dog", "--device", "cpu", "--out", str(tmp_path / "page")]
        assert main.main(["sample", str(name), *few]) == 0
        pages.append((tmp_path / "page" / "samples.png").read_bytes())
    assert pages[0] == pages[1]
    assert main.main([*tune[:-2], "--base", str(run), "--out", str(tmp_path / "again")]) == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--width", "16"], "--width: the network and what stands around it are those of --base"),
        (["--latent"], "--latent: the network and what stands around it are those of --base"),
        (["--size", "9"], "--size 9: the model in --base"),
        (["--targets", "nothing"], "no layer's name ends with any of nothing"),
        (["--rank", "0"], "a rank of 1 or more"),
    ],
)
def test_what_does_not_fit_a_base_is_one_line(
    args: list[str], words: str, base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["diffuse", str(data), *SHORT, "--base", str(base), *args, "--out", str(tmp_path / "run")]
    assert main.main(asked) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_what_is_no_base_is_one_line(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text('{"command": "diffuse"}')
    np.savez(tmp_path / "large.npz", images=np.zeros((6, 9, 9, 3), np.uint8))
    out = ["--out", str(tmp_path / "run")]
    for args, words in (
        ([str(data), "--base", str(tmp_path / "nowhere")], "nowhere"),
        ([str(data), "--base", str(tmp_path / "begun")], "this run is not finished; `qx resume"),
        ([str(data), "--rank", "2"], "--rank: adapters are put into a trained model; expected a --base"),
        ([str(tmp_path / "large.npz"), "--base", str(base)], "images are 9 x 9 pixels of 1 channel; the base draws 8"),
    ):
        assert main.main(["diffuse", *args, *SHORT, *out]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "run").exists()
