"""Two processes at one run: it is the run of one process, one of them speaks and writes, and none is left waiting.

What every test run tries starts as `starter` says, which is quicker; what kills or interrupts, by the launcher itself.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import distributed

from lab import checkpoint, tree
from qx import processes
from qx.main import main

QX = [sys.executable, "-m", "qx.main"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "qx.main"]
MODEL = ["--width", "16", "--depth", "1", "--heads", "2", "--batch-size", "8", "--device", "cpu"]
PICTURES = ["--size", "8", "--width", "16", "--blocks", "1", "--batch-size", "8", "--steps", "6", "--device", "cpu"]
LATENT = ["--latent", "--halvings", "1", "--autoencoder-width", "8", "--autoencoder-steps", "6"]
PROMPTS = ["--prompts", "--text-width", "8", "--text-layers", "1"]
SOON = 60  # seconds after which a process is taken to be stuck


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums to learn."""
    file = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(8) for b in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def sft(data: Path, out: Path, steps: int, *more: str) -> list[str]:
    return ["sft", str(data), *MODEL, "--steps", str(steps), "--out", str(out), *more]


def two(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*TWO, *args], env=environment, capture_output=True, text=True, check=False, timeout=2 * SOON)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def final(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor and number of the newest checkpoint, by path."""
    tensors, numbers = tree.split(checkpoint.load(run / "checkpoint").state)
    return {**tensors, "numbers": torch.tensor(list(repr(numbers).encode()))}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark ones, and captions."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(24):
        noise = draw.integers(0, 50, (8, 8, 3))
        Image.fromarray((200 * (i % 2) + noise).astype(np.uint8)).save(folder / f"{i}.png")
    rows = [{"file_name": f"{i}.png", "text": f"a {('dark', 'bright')[i % 2]} picture"} for i in range(24)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def diffuse(pictures: Path, out: Path) -> list[str]:
    """A Transformer that reads prompts and draws latents."""
    kind = ["--backbone", "dit", "--patch", "1"]
    return ["diffuse", str(pictures), *PICTURES, *kind, *LATENT, *PROMPTS, "--out", str(out)]


def started(folder: Path, *jobs: list[str]) -> None:
    """Run each by two processes; what they say is in `folder`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(Path(__file__).with_name("starter.py")), str(folder), json.dumps(jobs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=4 * SOON)
    assert done.returncode == 0, done.stderr + "".join(file.read_text() for file in sorted(folder.glob("*.err")))


def same_run(both: Path, one: Path) -> None:
    """Losses, weights and all else that is kept, as near as a sum in another order leaves them."""
    for ours, theirs in zip(metrics(both), metrics(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    found, expected = final(both), final(one)
    assert found.keys() == expected.keys()
    for name in set(found) - {"numbers"}:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5)
    assert [json.loads((run / "config.json").read_text())["processes"] for run in (one, both)] == [1, 2]
    assert (both / "report.png").exists()


def said_once(folder: Path, run: Path, steps: int) -> None:
    """The first tells the result and that it is done; the second nothing at all."""
    said = [line for line in (folder / "0-0.out").read_text().splitlines() if line.startswith("{")]
    assert [json.loads(line) for line in said] == [json.loads((run / "result.json").read_text())]
    assert (folder / "0-0.err").read_text().count(f"{steps} done") == 1
    assert (folder / "0-1.out").read_text() == ""


def test_two_processes_leave_the_run_of_one(data: Path, tmp_path: Path) -> None:
    one, both = tmp_path / "one", tmp_path / "both"
    started(tmp_path, sft(data, both, 30, "--json"))
    assert main(sft(data, one, 30)) == 0
    assert len(metrics(both)) == 30
    same_run(both, one)
    said_once(tmp_path, both, 30)


@pytest.mark.slow
def test_two_processes_train_autoencoder_encoder_and_transformer_as_one(pictures: Path, tmp_path: Path) -> None:
    one, both = tmp_path / "one", tmp_path / "both"
    started(tmp_path, [*diffuse(pictures, both), "--json"])
    assert main(diffuse(pictures, one)) == 0
    assert len(metrics(both)) == 12
    same_run(both, one)
    said_once(tmp_path, both, 12)


@pytest.mark.slow
def test_the_launcher_starts_them_so(data: Path, tmp_path: Path) -> None:
    one, both = tmp_path / "one", tmp_path / "both"
    assert main(sft(data, one, 30)) == 0
    done = two(*sft(data, both, 30, "--json"))
    assert done.returncode == 0, done.stderr
    same_run(both, one)
    said = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert [json.loads(line) for line in said] == [json.loads((both / "result.json").read_text())]
    assert done.stderr.count("30 done") == 1


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = two(*sft(data, run, 400))
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_the_run_goes_on_bit_for_bit(
    rank: int, whole: Path, data: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    launcher = begun(sft(data, cut, 400, "--save-every", "0.1"))
    wait_until(lambda: bool(checkpoint.steps(cut / "checkpoint")), launcher)
    worker(launcher, rank).send_signal(signal.SIGKILL)
    said = ended(launcher)
    assert launcher.returncode != 0
    assert not (cut / "result.json").exists(), f"killed too late: make the run longer\n{said}"
    done = two("resume", str(cut))
    assert done.returncode == 0, done.stderr
    same_end(whole, cut)


@pytest.mark.slow
def test_an_interrupt_leaves_a_checkpoint_of_both(whole: Path, data: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    launcher = begun(sft(data, cut, 400))
    wait_until(lambda: (cut / "metrics.jsonl").exists() and len(metrics(cut)) > 3, launcher)
    launcher.send_signal(signal.SIGINT)
    said = ended(launcher)
    assert launcher.returncode != 0
    assert said.count("interrupted; go on with") == 1
    assert len(checkpoint.steps(cut / "checkpoint")) == 1
    assert not (cut / "result.json").exists(), "interrupted too late: make the run longer"
    done = two("resume", str(cut))
    assert done.returncode == 0, done.stderr
    same_end(whole, cut)


@pytest.mark.slow
def test_a_loss_that_is_lost_ends_both(data: Path, tmp_path: Path) -> None:
    done = two(*sft(data, tmp_path / "run", 400, "--learning-rate", "1e30"))
    assert done.returncode != 0
    assert done.stderr.count("is not finite at step") == 1
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_a_run_that_stands_there_is_refused_by_both(data: Path, whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    done = two(*sft(data, whole, 400))
    assert done.returncode != 0
    assert done.stderr.count("a run stands here already") == 1
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_model_of_images_and_its_judge(tmp_path: Path) -> None:
    """What is trained beside the run, such as the judge of its samples, waits for nobody."""
    small = ["--steps", "10", "--batch-size", "8", "--width", "16", "--device", "cpu"]
    one, both = tmp_path / "one", tmp_path / "both"
    assert main(["diffuse", "digits", *small, "--out", str(one)]) == 0
    done = two("diffuse", "digits", *small, "--out", str(both))
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(metrics(both), metrics(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert "recognised" in json.loads((both / "result.json").read_text())


def test_what_one_process_does_is_refused_to_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["train", "q-learning", "zhao-5x5"]) == 2
    assert "qx train: one process does this, and 2 were started" in capsys.readouterr().err


def test_processes_that_each_trained_alone_would_be_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """accelerate's state is that of this one process, whatever a launcher is said to have started."""
    assert main(sft(data, tmp_path / "first", 1)) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(sft(data, tmp_path / "second", 1)) == 2
    assert "2 processes were started, and accelerate sees 1; on CPUs: --device cpu" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


@pytest.fixture
def group() -> Iterator[weakref.ref[Any]]:
    """The process group of one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield weakref.ref(distributed.group.WORLD)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def test_who_leaves_lets_go_of_the_group_at_the_very_end(
    group: weakref.ref[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And after the model, though that is reached by cycles alone: it would join gloo's threads holding the interpreter
    that one of them waits for. Of ten runs of two processes one hung so, its work done.
    """
    at_exit = list[Callable[[], object]]()
    monkeypatch.setattr(processes.atexit, "register", lambda *call: at_exit.append(functools.partial(*call)))
    second: Any = SimpleNamespace(
        num_processes=2,
        is_main_process=False,
        device=torch.device("cpu"),
        mixed_precision="no",
        wait_for_everyone=distributed.barrier,
    )
    with pytest.raises(SystemExit):
        processes.Crew(second).part()
    assert not distributed.is_initialized()
    assert group() is not None
    model, seen = torch.nn.Linear(1, 1), list[bool]()
    model.forward = model.__call__  # a cycle
    weakref.finalize(model, lambda: seen.append(group() is not None))
    gc.disable()
    try:
        del model
        assert seen == []
        for call in reversed(at_exit):
            call()
    finally:
        gc.enable()
    assert seen == [True]
    assert group() is None


def test_who_is_given_one_process_for_two_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "0")
    assert main(["sft", "no such file"]) == 2
    assert "one process: `accelerate launch --cpu` starts no more" in capsys.readouterr().err
    processes.begin("worlds")  # which is no work for several
    assert capsys.readouterr().err == ""


def begun(args: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*TWO, *args], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def worker(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    """The process of that rank."""
    among = psutil.Process(launcher.pid).children(recursive=True)
    return next(process for process in among if process.environ().get("RANK") == str(rank))


def ended(launcher: subprocess.Popen[str]) -> str:
    """What was said on standard error by the end, which is to come soon, and of all processes."""
    workers = psutil.Process(launcher.pid).children(recursive=True)
    try:
        said = launcher.communicate(timeout=SOON)[1]
        assert not psutil.wait_procs(workers, timeout=5)[1]
        return said
    finally:
        for process in [launcher, *workers]:
            if process.is_running() if isinstance(process, psutil.Process) else process.poll() is None:
                process.kill()


def wait_until(happened: Callable[[], bool], launcher: subprocess.Popen[str]) -> None:
    """Look every few milliseconds, until it happened or the launcher ended."""
    while not happened() and launcher.poll() is None:
        time.sleep(0.005)


def same_end(whole: Path, cut: Path) -> None:
    expected, found = final(whole), final(cut)
    assert expected.keys() == found.keys()
    differing = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert not differing, f"{differing} differ"
    assert (whole / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text()
