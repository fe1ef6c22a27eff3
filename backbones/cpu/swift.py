"""A copy of a network that answers sooner, on a CPU and without gradients.

    quick = swift(network, rows=16, pixels=32 * 32)      # the same answers, but for rounding: off by some 1e-5

Its 3x3 convolutions go Winograd's way (`winograd`), its linear layers (`linear`) and its attention (`attention`) by our
kernels; what those are not for stays as it was.

It takes some rows of a batch at a time, whose numbers the cache holds, and as many such chunks at once as torch has
threads, each by one thread: so threads meet once a call, not once a layer. Every chunk has the same number of rows, the
last one filled up, so that a row does not depend on how many there are, and chunks of which nobody wants an answer may
be left out (`generative.diffusion.engine.step` does so).
"""

from __future__ import annotations

import copy
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from backbones.attention import Attention
from backbones.cpu import attention, linear, winograd
from backbones.feed_forward import GEGLU
from backbones.unet_blocks import PixelAttention

LEAST, PIXELS = 4, 4096
"""Rows of a chunk, and pixels: fewer rows and what is not arithmetic takes too long, more pixels and the cache is full.
With 32 x 32 pixels, 64 to 128 channels and two threads 4 to 16 rows are alike; with 16 x 16 8 to 16, and 4 a third
slower."""


class Swift(nn.Module):
    """What `network` answers, chunk by chunk.

    Args:
        network: called with tensors of as many rows each, by place or by name, or None; answers with one such tensor.
        chunk: rows at a time.
    """

    def __init__(self, network: nn.Module, chunk: int) -> None:
        super().__init__()
        self.network, self.rows_together = network, chunk

    def forward(self, *inputs: Tensor | None, **named: Tensor | None) -> Tensor:
        given = [*inputs, *named.values()]
        rows = len(next(tensor for tensor in given if tensor is not None))
        size = self.rows_together
        count = max(1, -(-rows // size))
        filled = [None if tensor is None else _filled(tensor, count * size) for tensor in given]

        @torch.no_grad()
        def answer(i: int) -> Tensor:
            part = [None if tensor is None else tensor[i * size : (i + 1) * size] for tensor in filled]
            by_name = dict(zip(named, part[len(inputs) :], strict=True))
            return self.network(*part[: len(inputs)], **by_name)

        threads = torch.get_num_threads()
        parts = map(answer, range(count)) if threads == 1 else _pool(threads).map(answer, range(count))
        return torch.cat(list(parts))[:rows]


def swift(module: nn.Module, rows: int, pixels: int) -> Swift:
    """A copy of a network for sampling; it takes no gradients. Further training of `module` is not seen by it.

    Args:
        module: the network.
        rows: of the batches that it will be given.
        pixels: of a row.
    """
    made = copy.deepcopy(module).eval().requires_grad_(False)
    for name, layer in list(made.named_modules()):
        if isinstance(layer, Attention | PixelAttention):
            layer.attend = attention.attend
        path, _, leaf = name.rpartition(".")
        if name and linear.fits_gated(layer):
            setattr(made.get_submodule(path), leaf, linear.Gated(cast(GEGLU, layer)))
        elif name and winograd.fits(layer):
            setattr(made.get_submodule(path), leaf, winograd.Winograd(cast(nn.Conv2d, layer)))
        elif name and linear.fits_pixels(layer):
            setattr(made.get_submodule(path), leaf, linear.Pointwise(cast(nn.Conv2d, layer)))
        elif name and linear.fits(layer):
            setattr(made.get_submodule(path), leaf, linear.Linear(cast(nn.Linear, layer)))
    return Swift(made, min(max(LEAST, PIXELS // pixels), -(-rows // torch.get_num_threads())))


def _filled(tensor: Tensor, rows: int) -> Tensor:
    """With its last row again and again."""
    if len(tensor) == rows:
        return tensor
    if len(tensor) == 0:
        return tensor.new_zeros(rows, *tensor.shape[1:])
    return torch.cat([tensor, tensor[-1:].expand(rows - len(tensor), *tensor.shape[1:])])


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads of one torch thread each."""
    before = torch.get_num_threads()
    ready = threading.Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # the first time it is asked a thread takes over what the others have
        torch.set_num_threads(1)  # of this thread; but also what threads begin with that come later
        ready.wait()

    made = ThreadPoolExecutor(threads, "swift", begin)
    for _ in range(threads):
        made.submit(_nothing)
    ready.wait()
    torch.set_num_threads(before)
    return made


def _nothing() -> Any:
    return None


os.register_at_fork(after_in_child=_pool.cache_clear)  # which has none of these threads
