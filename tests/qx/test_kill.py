"""`kill -9` at a random moment, `qx resume`, and the final weights are those of a run that nothing interrupted.

For each trainer one run goes undisturbed to its end. Another, of equal config and seed, is killed at a moment drawn
anew for every test run, after its first checkpoint and before its end; it is resumed, killed again, and resumed to its
end. The final checkpoints, networks, optimisers, buffers and worlds included, and every logged line must be equal bit
for bit. A third is killed before it has any checkpoint.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab import checkpoint, tree

QX = [sys.executable, "-m", "qx.main"]
SMALL_MODEL = ["--width", "32", "--depth", "2", "--heads", "2"]
COMMANDS = {
    "q-learning": ["train", "q-learning", "zhao-5x5", "--steps", "4000000", "--replicas", "3"],
    "dqn": ["train", "dqn", "FrozenLake-v1", "--steps", "6000", "--replicas", "2"],
    "dqn on Gymnasium": ["train", "dqn", "CartPole-v1", "--steps", "6000", "--replicas", "2"],
    "diffuse": ["diffuse", "digits", "--steps", "150", "--batch-size", "32", "--width", "16"],
    "sft": ["sft", "mazes", "--steps", "300", "--batch-size", "32", "--examples", "500", *SMALL_MODEL],
    "dpo": ["dpo", "PAIRS", "--model", "MODEL", "--steps", "300", "--batch-size", "16"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A preference file and a model to start DPO from."""
    folder = tmp_path_factory.mktemp("made")
    qx("pairs", "mazes", str(folder / "pairs.jsonl"), "--count", "300")
    qx("sft", "mazes", "--steps", "20", "--examples", "200", "--out", str(folder / "sft"), *SMALL_MODEL)
    return {"PAIRS": str(folder / "pairs.jsonl"), "MODEL": str(folder / "sft")}


@pytest.mark.parametrize("what", COMMANDS)
def test_a_killed_run_ends_bit_for_bit_as_an_undisturbed_one(what: str, made: dict[str, str], tmp_path: Path) -> None:
    args = [made.get(word, word) for word in COMMANDS[what]] + ["--save-every", "0.1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    qx(*args, "--out", str(whole))
    total = checkpoint.steps(whole / "checkpoint")[-1]
    moments = [random.uniform(0.0, 0.8) for _ in range(2)]
    kill_while_it_trains(cut, 0, moments[0], *args, "--out", str(cut))
    first = checkpoint.steps(cut / "checkpoint")[-1]
    assert 0 < first < total, "killed too late: make the run longer"
    kill_while_it_trains(cut, first, moments[1], "resume", str(cut), "--save-every", "0.1")
    assert not (cut / "result.json").exists(), "killed too late: make the run longer"
    qx("resume", str(cut))
    same_end(whole, cut, f"killed {moments} s after a checkpoint, first at step {first} of {total}")


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    args = COMMANDS["q-learning"]
    qx(*args, "--out", str(tmp_path / "whole"))
    command = [*QX, *args, "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: (tmp_path / "cut" / "config.json").exists(), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not checkpoint.steps(tmp_path / "cut" / "checkpoint")
    qx("resume", str(tmp_path / "cut"))
    same_end(tmp_path / "whole", tmp_path / "cut", "killed before the first checkpoint")


def same_end(whole: Path, cut: Path, how: str) -> None:
    expected, found = final(whole), final(cut)
    assert expected.keys() == found.keys(), how
    differing = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert not differing, f"{how}: {differing} differ"
    assert (whole / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text(), how


def kill_while_it_trains(run: Path, known: int, seconds: float, *args: str) -> None:
    """Start the command, wait for a checkpoint beyond `known` and some seconds more, and kill it with SIGKILL."""
    process = subprocess.Popen([*QX, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: any(step > known for step in checkpoint.steps(run / "checkpoint")), process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Look every few milliseconds, until it happened or the process ended."""
    while not happened() and process.poll() is None:
        time.sleep(0.005)


def qx(*args: str) -> None:
    done = subprocess.run([*QX, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def final(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor and number of the newest checkpoint, by path."""
    tensors, numbers = tree.split(checkpoint.load(run / "checkpoint").state)
    return {**tensors, "numbers": torch.tensor(list(repr(numbers).encode()))}
