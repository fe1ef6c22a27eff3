"""Checkpoints: what goes in comes out, a crash at any write leaves the last good one, damage is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab import checkpoint, tree

leaves = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5)
leaves |= st.lists(st.floats(-1e6, 1e6, width=32), max_size=4).map(torch.tensor)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.dictionaries(st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(trees)
def test_a_tree_survives_json(state: object) -> None:
    tensors, skeleton = tree.split({"state": state})
    assert same(tree.join(tensors, json.loads(json.dumps(skeleton))), {"state": state})


def test_a_tree_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(TypeError, match="holds a set at a/1"):
        tree.split({"a": [1, {2}]})


def test_an_optimiser_continues_bit_for_bit(tmp_path: Path) -> None:
    def advance(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for i in steps:
            weight.grad = torch.full_like(weight, float(i))
            optimizer.step()

    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.Adam([weight])
    advance(weight, optimizer, range(5))
    checkpoint.save(tmp_path, 5, {"weight": weight, "optimizer": optimizer.state_dict()})
    advance(weight, optimizer, range(5, 9))

    found = checkpoint.load(tmp_path).state
    again = torch.nn.Parameter(found["weight"])
    other = torch.optim.Adam([again])
    other.load_state_dict(found["optimizer"])
    advance(again, other, range(5, 9))
    assert torch.equal(weight, again)


def test_tensors_that_share_memory_are_both_kept(tmp_path: Path) -> None:
    weight = torch.arange(6.0)
    checkpoint.save(tmp_path, 0, {"a": weight, "b": weight.view(2, 3), "c": weight[::2]})
    state = checkpoint.load(tmp_path).state
    assert torch.equal(state["b"], weight.view(2, 3))
    assert torch.equal(state["c"], weight[::2])


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in range(6):
        checkpoint.save(tmp_path, step, {"step": step}, keep=2)
    assert checkpoint.steps(tmp_path) == [4, 5]
    assert checkpoint.load(tmp_path).state == {"step": 5}
    assert checkpoint.load(tmp_path, 4).state == {"step": 4}


def test_a_crash_at_any_system_call_leaves_a_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the k-th write, flush or rename of a save raise, for every k: the last good one must still load."""

    class Crash(BaseException):
        pass

    calls = 0
    crash_at = 0

    def counted(real):  # type: ignore[no-untyped-def]  # wraps any function
        def wrapper(*args, **kwargs):  # type: ignore[no-untyped-def]  # of any signature
            nonlocal calls
            calls += 1
            if calls == crash_at:
                raise Crash
            return real(*args, **kwargs)

        return wrapper

    checkpoint.save(tmp_path, 1, {"w": torch.ones(3)})
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(Path, "mkdir", counted(Path.mkdir))
    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    crashed = 0
    for k in range(1, 20):
        calls, crash_at = 0, k
        try:
            checkpoint.save(tmp_path, 2, {"w": torch.full((3,), 2.0)}, keep=1)
        except Crash:
            crashed += 1
        found = checkpoint.load(tmp_path)
        assert found.step in (1, 2)
        assert torch.equal(found.state["w"], torch.full((3,), float(found.step)))
    assert crashed >= 5


def test_a_file_cut_in_half_is_named(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"w": torch.ones(1000)})
    file = tmp_path / "step-0000000002" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(
        checkpoint.CheckpointError, match=r"tensors.safetensors: 2000 bytes where \d+ .* go on from step 1"
    ):
        checkpoint.load(tmp_path)


def test_an_altered_byte_is_noticed(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"w": torch.ones(1000)}) / "tensors.safetensors"
    payload = bytearray(path.read_bytes())
    payload[-7] ^= 1
    path.write_bytes(payload)
    with pytest.raises(checkpoint.CheckpointError, match="checksum"):
        checkpoint.load(tmp_path)


def test_a_cut_or_foreign_header_is_named(tmp_path: Path) -> None:
    file = checkpoint.save(tmp_path, 1, {}) / "state.json"
    header = json.loads(file.read_text())
    file.write_text(json.dumps({**header, "format": 99}))
    with pytest.raises(checkpoint.CheckpointError, match="format 99; this version of quincunx reads format 1"):
        checkpoint.load(tmp_path)
    file.write_text(json.dumps(header)[:20])
    with pytest.raises(checkpoint.CheckpointError, match=r"state.json: not readable as JSON"):
        checkpoint.load(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint of step 7"):
        checkpoint.load(tmp_path, 7)
