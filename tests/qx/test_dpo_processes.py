"""Two processes at `qx dpo`: the losses of one, one reference for both, and a cache that is whole whoever writes it."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from generative.saved import replace
from qx.main import main
from tests.generative.preference.test_reference import sealed
from tests.generative.test_processes import LAUNCH
from tests.qx import test_dpo_pretrained as pretrained
from tests.qx.test_processes import MODEL, SOON, final, metrics, started

COUNTED = ("rewards/accuracies", "zero_gradient")
"""Shares of pairs: one that lies on the edge is on either side of it by rounding."""
BATCH = 8
STEPS = ["--steps", "30", "--batch-size", str(BATCH), "--device", "cpu", "--json"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """From here on another place to keep what the reference says."""

    def kept_in(name: str) -> Path:
        monkeypatch.setenv("QUINCUNX_CACHE", str(tmp_path / name))
        return tmp_path / name / "reference"

    return kept_in


def of_transformers(kind: str, folder: Path) -> list[str]:
    model, pairs = pretrained.folder(folder / "model", kind), pretrained.pairs(folder / "pairs.jsonl")
    return ["dpo", str(pairs), "--model", str(model), "--learning-rate", "1e-2", "--held-out", "0.25", *STEPS]


def of_the_lab(folder: Path) -> list[str]:
    """Sums, of which the model has seen a few; right is preferred to one more."""
    sums = [(a, b) for a in range(8) for b in range(8)]
    shown = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a, b in sums]
    preferred = [{"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": str(a + b + 1)} for a, b in sums]
    for name, rows in (("shown.jsonl", shown), ("pairs.jsonl", preferred)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = ["sft", str(folder / "shown.jsonl"), *MODEL, "--steps", "20", "--out", str(folder / "sft")]
    assert main(sft) == 0
    return ["dpo", str(folder / "pairs.jsonl"), "--model", str(folder / "sft"), *STEPS]


MADE: dict[str, Callable[[Path], list[str]]] = {
    "lab": of_the_lab,
    "llama": lambda folder: of_transformers("llama", folder),
    "gpt2": lambda folder: of_transformers("gpt2", folder),
}


def same_losses(both: Path, one: Path, size: int) -> None:
    """Of every update and of the pairs held out, as near as a sum in another order leaves them."""
    found, expected = metrics(both), metrics(one)
    assert len(found) == len(expected) == 30
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            edge = 1.01 / size if name.endswith(COUNTED) else 1e-6
            assert ours[name] == pytest.approx(value, rel=1e-5, abs=edge), f"{name} of update {ours['step']}"
    assert [json.loads((run / "config.json").read_text())["processes"] for run in (one, both)] == [1, 2]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
def test_two_processes_have_the_losses_of_one_and_leave_the_same_cache(
    kind: str, tmp_path: Path, cache: Callable[[str], Path]
) -> None:
    words = MADE[kind](tmp_path)
    by_two = cache("by two")
    started(tmp_path, [*words, "--out", str(tmp_path / "both")])
    by_one = cache("by one")
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    same_losses(tmp_path / "both", tmp_path / "one", 4)
    assert (tmp_path / "0-1.out").read_text() == ""
    assert len(contents(by_one)) == (1 if kind == "lab" else 2)  # and of those held out
    assert contents(by_two) == contents(by_one)


@pytest.mark.slow
def test_accelerates_launcher_starts_them_so(tmp_path: Path, cache: Callable[[str], Path]) -> None:
    words = MADE["llama"](tmp_path)
    cache("of the launcher")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*LAUNCH, "--multi_gpu", "-m", "qx.main", *words, "--out", str(tmp_path / "both")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=2 * SOON)
    assert done.returncode == 0, done.stderr
    cache("of one")
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    same_losses(tmp_path / "both", tmp_path / "one", 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lab", "llama"])
def test_both_take_what_the_cache_says_and_ask_no_more(kind: str, tmp_path: Path, cache: Callable[[str], Path]) -> None:
    """Told that the reference finds every rejected side e times less likely than it does, the policy, which is the
    reference, lies behind it by beta on every pair of the first update: DPO's loss is log(1 + e^beta), and not log 2
    for anybody.
    """
    beta, words = 0.25, [*MADE[kind](tmp_path), "--beta", "0.25", "--anchor", "0"]
    kept = cache("told")
    assert main([*words, "--out", str(tmp_path / "asked")]) == 0
    assert metrics(tmp_path / "asked")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    for file in kept.iterdir():
        file.write_bytes(sealed(np.load(file) - np.array([0.0, 1.0])))
    told = contents(kept)
    started(tmp_path, [*words, "--out", str(tmp_path / "both")])
    assert metrics(tmp_path / "both")[0]["loss"] == pytest.approx(math.log(1 + math.exp(beta)), abs=1e-6)
    assert contents(kept) == told


def test_who_writes_a_file_at_the_same_time_neither_fails_nor_mixes_theirs_with_ours(tmp_path: Path) -> None:
    """Any number of writers: a reader finds what one of them wrote, whole."""
    file, payloads = tmp_path / "answers.npy", [bytes([mark]) * 50_000 for mark in range(4)]
    replace(file, payloads[0])

    def write(payload: bytes) -> None:
        for _ in range(50):
            replace(file, payload)

    with ThreadPoolExecutor(len(payloads)) as writers:
        written = [writers.submit(write, payload) for payload in payloads]
        while not all(each.done() for each in written):
            assert file.read_bytes() in payloads
    for each in written:
        each.result()
    assert list(tmp_path.iterdir()) == [file]


SLOWLY = """
import sys, time
from generative.preference import data, reference
from qx.main import main

plain = data._portions

def slowly(size, most):
    for index in plain(size, 1):
        time.sleep(0.03)
        yield index

data._portions, reference.SECONDS = slowly, -1.0
sys.exit(main(sys.argv[1:]))
"""
"""`qx`, whose reference reads one pair after another, and keeps what it says of each at once."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lab", "llama"])
def test_a_run_killed_while_its_reference_reads_begins_there_and_ends_bit_for_bit(
    kind: str, tmp_path: Path, cache: Callable[[str], Path]
) -> None:
    words = MADE[kind](tmp_path)
    cache("answers")
    slowly([*words, "--out", str(tmp_path / "whole")])
    kept, cut = cache("answers of the cut"), tmp_path / "cut"
    seconds = random.uniform(0.0, 0.25)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *words, "--out", str(cut)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any(kept.glob("*.npy")) and process.poll() is None:
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    how = f"killed {seconds} s after the first answers"
    assert process.returncode == -signal.SIGKILL, how
    assert not cut.exists(), how
    complete = [file for file in kept.glob("*.npy") if not np.isnan(np.load(file)).any()]
    assert len(complete) < (1 if kind == "lab" else 2), f"{how}, too late: let its reference read more slowly"
    slowly([*words, "--out", str(cut)])
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text(), how
    expected, found = final(tmp_path / "whole"), final(cut)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected), how


def slowly(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SLOWLY, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
