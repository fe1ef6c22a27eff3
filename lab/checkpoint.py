"""Checkpoints that a crash cannot spoil: safetensors and JSON, written aside, flushed, then renamed.

A checkpoint is a folder `step-0000001000/` with `tensors.safetensors` and `state.json`. It is written under a
temporary name in the same folder, every file and the folder itself are flushed to the disk, and only then does
it get its name: at any moment the newest `step-*` folder is complete. `state.json` carries a format version and
the size and checksum of the tensors, so a file that was cut or altered later is named, not loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from lab import tree

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another format; the message names the file and the way out."""


@dataclass(frozen=True)
class Checkpoint:
    """One stored moment of a run: the step it was taken at and the state tree."""

    step: int
    state: Any


def save(folder: Path, step: int, state: Any, keep: int = 3) -> Path:
    """Write the state tree as `folder/step-<step>`, keep the newest `keep`, and return the new path.

    A crash at any moment leaves the earlier checkpoints untouched. A step that is stored already stays as it is: a
    run's state is a function of its config, its seed and the step. Raises TypeError for a state that is no tree.
    """
    final = folder / f"step-{step:010d}"
    if final.exists():
        return final
    tensors, skeleton = tree.split(state)
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob("tmp-*"):  # of an earlier process that was killed while it wrote
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = folder / f"tmp-{step:010d}"
    temporary.mkdir()
    payload = safetensors.torch.save(
        {name: t.cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    )
    header = {"format": FORMAT, "step": step, "bytes": len(payload), "blake2b": _digest(payload), "state": skeleton}
    _write(temporary / "tensors.safetensors", payload)
    _write(temporary / "state.json", json.dumps(header).encode())
    _flush(temporary)
    temporary.replace(final)
    _flush(folder)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step-{old:010d}")
    return final


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in `folder`, ascending."""
    names = [path.name for path in folder.glob("step-*")]
    return sorted(int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d{10}", name))


def load(folder: Path, step: int | None = None) -> Checkpoint:
    """The checkpoint of `step`, or the newest. Raises CheckpointError when it is missing, damaged or foreign."""
    found = steps(folder)
    if not found or (step is not None and step not in found):
        raise CheckpointError(f"{folder}: no checkpoint{'' if step is None else f' of step {step}'} here")
    path = folder / f"step-{found[-1] if step is None else step:010d}"
    try:
        header = json.loads((path / "state.json").read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path / 'state.json'}: not readable as JSON ({error}){_way_out(found)}") from None
    version = header.get("format") if isinstance(header, dict) else None
    if version != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {version!r}; this version of quincunx reads format {FORMAT}")
    try:
        payload = (path / "tensors.safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path / 'tensors.safetensors'}: {error.strerror}{_way_out(found)}") from None
    file, way_out = path / "tensors.safetensors", _way_out(found)
    if len(payload) != header["bytes"]:
        raise CheckpointError(f"{file}: {len(payload)} bytes where {header['bytes']} were written: it was cut{way_out}")
    if _digest(payload) != header["blake2b"]:
        raise CheckpointError(f"{file}: its checksum is not the one written with it: it was altered{way_out}")
    return Checkpoint(step=header["step"], state=tree.join(safetensors.torch.load(payload), header["state"]))


def _way_out(found: list[int]) -> str:
    if len(found) < 2:
        return ""
    return f"; delete the folder to go on from step {found[-2]}"


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


def _write(path: Path, payload: bytes) -> None:
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
