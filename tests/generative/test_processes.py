"""Two processes under accelerate's launcher train as one does with the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.generative import shared_training
from tests.generative.shared_training import CASES, UPDATES, logged, trainer, weights

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--main_process_port", "0", "--num_processes", "2"]
ROOT = Path(__file__).parent.parent.parent

Seen = list[tuple[dict[str, Any], dict[str, Tensor]]]


def launched(folder: Path, how: str) -> Seen:
    """What each process wrote, by rank."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*LAUNCH, how, shared_training.__file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    files = sorted(folder.glob("*.json"))
    return [(json.loads(f.read_text()), safetensors.torch.load_file(f.with_suffix(".safetensors"))) for f in files]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """`--multi_gpu` is accelerate's word for several processes, also on CPUs."""
    return launched(tmp_path_factory.mktemp("two"), "--multi_gpu")


def test_two_processes_ran_and_saw_the_same_numbers(seen: Seen) -> None:
    (first, ours), (second, theirs) = seen
    assert first["size"] == second["size"] == 2
    assert first == second
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("case", CASES)
def test_every_loss_and_every_weight_is_that_of_one_process(seen: Seen, case: str) -> None:
    """Metrics are of the whole batch, also where one process has five samples of it and the other four."""
    alone = trainer(CASES[case][0], 1)
    expected = logged(alone)
    found, tensors = seen[0]
    assert len(found[case]) == len(expected) == UPDATES
    for ours, theirs in zip(found[case], expected, strict=True):
        assert ours.keys() == theirs.keys() == {"loss", "noise", "gradient_norm", "learning_rate"}
        assert ours == pytest.approx(theirs, rel=1e-5)
    for name, weight in weights(alone).items():
        torch.testing.assert_close(tensors[f"{case}/{name}"], weight, rtol=0, atol=1e-5)


def test_a_run_that_is_cut_in_two_is_the_whole_one_bit_for_bit(seen: Seen) -> None:
    for found, tensors in seen:
        assert found["resumed"] == found["even"]
        for name, value in tensors.items():
            if name.startswith("resumed/"):
                assert torch.equal(value, tensors[name.replace("resumed", "even")]), name


def test_gradients_are_exchanged_once_an_update(seen: Seen) -> None:
    for found, _ in seen:
        assert found["exchanges"] == UPDATES


def test_a_batch_that_leaves_a_process_without_samples_is_refused(seen: Seen) -> None:
    for found, _ in seen:
        assert found["refused"] == "a batch of 1 is too small; expected at least 2, a sample for each process"


@pytest.mark.slow
def test_what_accelerate_calls_two_processes_on_cpus_is_one(tmp_path: Path) -> None:
    """Without MPI. Should it ever be two, the words in `qx.processes` are to be changed; the losses hold either way."""
    (found, tensors), *others = launched(tmp_path, "--cpu")
    assert found["size"] == 1
    assert not others
    alone = trainer(*CASES["even"])
    assert found["even"] == logged(alone)
    assert all(torch.equal(tensors[f"even/{name}"], value) for name, value in weights(alone).items())
