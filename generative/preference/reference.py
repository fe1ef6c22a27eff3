"""What the reference says of every pair: computed once, and kept on disk under what it depends on.

The key is a digest of the pairs' tokens (so of data, tokenizer, template and truncation) and of the reference's weights
and description. A file is written whole or not at all, and now and then while the work goes on: a run that is killed
there goes on where it was. Pairs are asked in portions that depend on the pairs alone, and a portion is kept when all
of it is done, so what is found is the same bits whether or not anybody was killed. Runs that ask the same at the same
time share what they have.

    KEY.npy     the array as numpy writes it, float64 [N, 2], nan where nothing is known yet; then the digest of these
                bytes. What does not fit its digest, or is no log-probability, is asked again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from generative.preference.data import PairData, Progress, credible, judged
from generative.saved import replace
from generative.shares import Precision

SECONDS = 10.0  # of work that a kill loses at most, but for the portion that is in work
FORMAT = 3
"""To be raised when a file is laid out otherwise, pairs are asked in other portions, or a model of ours says other bits
of the same tokens: none of these is in the key but by this number."""
DIGEST = 16  # bytes
LEFT_OVER = 24 * 3600.0  # seconds after which what a killed writer has begun is nobody's


class CacheWarning(UserWarning):
    """The reference's answers cannot be kept; the message says where and why."""


def reference(
    model: nn.Module,
    pairs: PairData,
    description: Mapping[str, Any],
    *,
    device: torch.device,
    precision: Precision = "float32",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, "N 2"]:
    """log ref of the chosen and of the rejected of each pair, in nats, float64 on the CPU.

    Args:
        model: the reference, a `Judge`, in the mode it is to answer in.
        pairs: all are asked.
        description: what the model's answers depend on besides its weights: JSON can hold it.
        device: of the model.
        precision: what the policy will compute in (`generative.shares.effective`): what both round alike cancels.
        folder: where answers are kept; None keeps none. A damaged file there is written anew; where nothing can be
            written, that is a `CacheWarning`, and none are kept.
        progress: hears how many pairs are done.

    Raises:
        ModelError: for a model that says something else than finite log-probabilities.
    """
    found = torch.full((len(pairs), 2), torch.nan, dtype=torch.float64)
    file = None
    if folder is not None:
        about = {**description, "device": device.type, "precision": precision}
        file = folder / f"{key(model, pairs, about)}.npy"
        _take(file, found)
        if not found.isnan().any() or not _opened(folder, found.nbytes):
            file = None  # nothing is left to be kept, or nowhere
    saved = time.monotonic()
    for done in judged(model, pairs, found, device=device, precision=precision):  # type: ignore[arg-type]  # a module that is a Judge
        if progress is not None:
            progress(done)
        if file is not None and (done == len(pairs) or time.monotonic() - saved > SECONDS):
            if not _kept(file, found):
                file = None
            saved = time.monotonic()
    return found


def key(model: nn.Module, pairs: PairData, description: Mapping[str, Any]) -> str:
    """The digest of all that the answers depend on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([FORMAT, description], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    for part in (pairs.lengths, pairs.flat):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def _take(file: Path, found: Float[Tensor, "N 2"]) -> None:
    """Fill in what a file has and we have not; nothing of a file that is damaged, or not there."""
    try:
        payload = file.read_bytes()
        body, digest = payload[:-DIGEST], payload[-DIGEST:]
        if digest != _digest(body):
            return
        kept = np.load(io.BytesIO(body), allow_pickle=False)
    except (OSError, ValueError, EOFError):  # cannot be read, or is no array
        return
    if not isinstance(kept, np.ndarray) or kept.shape != tuple(found.shape) or kept.dtype != np.float64:
        return
    known = torch.from_numpy(kept)
    if (known.isnan() | credible(known)).all():
        found.copy_(torch.where(found.isnan(), known, found))


def _kept(file: Path, found: Float[Tensor, "N 2"]) -> bool:
    """Whether what we know could be written, with what another run has kept meanwhile, which then we know, too."""
    _take(file, found)
    payload = io.BytesIO()
    np.save(payload, found.numpy())
    body = payload.getvalue()
    try:
        replace(file, body + _digest(body))
    except OSError as error:
        return _lost(file.parent, error)
    return True


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST).digest()


def _opened(folder: Path, size: int) -> bool:
    """Whether so many bytes can be written there; what killed writers left there long ago is taken away."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(size))
    except OSError as error:
        return _lost(folder, error)
    for begun in folder.glob("*.tmp"):
        with suppress(OSError):  # it is gone already, or not ours to take
            if time.time() - begun.stat().st_mtime > LEFT_OVER:
                begun.unlink()
    return True


def _lost(folder: Path, error: OSError) -> bool:
    """Say so, once: whoever hears False tries no more."""
    reason = error.strerror or type(error).__name__
    warnings.warn(
        f"{folder}: cannot be written ({reason}), so what the reference says is not kept; QUINCUNX_CACHE names another "
        "folder",
        CacheWarning,
        stacklevel=4,
    )
    return False


def usual_folder() -> Path:
    """QUINCUNX_CACHE, or where a person's programs keep what they can compute again."""
    if own := os.environ.get("QUINCUNX_CACHE"):
        return Path(own) / "reference"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "quincunx" / "reference"
