"""`kill -9` at a random moment, `qx resume`, and the final weights are those of a run that nothing interrupted.

For each trainer one run goes undisturbed to its end. Another, of equal config and seed, is killed at a moment drawn
anew for every test run (the moment is printed when the test fails), resumed, killed again, and resumed to its end.
The final checkpoints, networks, optimisers, buffers and worlds included, must be equal bit for bit.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lab import checkpoint, tree

QX = [sys.executable, "-m", "qx.main"]
SMALL_MODEL = ["--width", "32", "--depth", "2", "--heads", "2"]
COMMANDS = {
    "q-learning": ["train", "q-learning", "zhao-5x5", "--steps", "20000", "--replicas", "3"],
    "dqn": ["train", "dqn", "FrozenLake-v1", "--steps", "3000", "--replicas", "2"],
    "dqn on Gymnasium": ["train", "dqn", "CartPole-v1", "--steps", "3000", "--replicas", "2"],
    "diffuse": ["diffuse", "digits", "--steps", "150", "--batch-size", "32", "--width", "16"],
    "sft": ["sft", "mazes", "--steps", "150", "--batch-size", "32", "--examples", "500", *SMALL_MODEL],
    "dpo": ["dpo", "PAIRS", "--model", "MODEL", "--steps", "150", "--batch-size", "16"],
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
    args = [made.get(word, word) for word in COMMANDS[what]] + ["--save-every", "0.2"]
    began = time.monotonic()
    qx(*args, "--out", str(tmp_path / "whole"))
    whole = time.monotonic() - began
    moments = [random.uniform(0.3, 1.0) * whole for _ in range(2)]
    kill_after(moments[0], *args, "--out", str(tmp_path / "cut"))
    if not (tmp_path / "cut" / "config.json").exists():  # killed while it was still importing
        qx(*args, "--out", str(tmp_path / "cut"))
    kill_after(moments[1], "resume", str(tmp_path / "cut"), "--save-every", "0.2")
    qx("resume", str(tmp_path / "cut"))
    expected, found = final(tmp_path / "whole"), final(tmp_path / "cut")
    assert expected.keys() == found.keys()
    differing = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert not differing, f"killed after {moments} of {whole:.1f} s: {differing} differ"
    logged = [(run / "metrics.jsonl").read_text() for run in (tmp_path / "whole", tmp_path / "cut")]
    assert logged[0] == logged[1]


def qx(*args: str) -> None:
    done = subprocess.run([*QX, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def kill_after(seconds: float, *args: str) -> None:
    """Start the command and kill it with SIGKILL after some seconds, unless it ended before."""
    process = subprocess.Popen([*QX, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def final(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor and number of the newest checkpoint, by path."""
    tensors, numbers = tree.split(checkpoint.load(run / "checkpoint").state)
    return {**tensors, "numbers": torch.tensor(list(repr(numbers).encode()))}
