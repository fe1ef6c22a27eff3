"""Networks whose layers are exchanged for faster ones say what they said."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.attention import Attention, attend
from backbones.cpu import attention, linear, winograd
from backbones.cpu.swift import Swift, swift
from backbones.dit import DiT
from backbones.unet import UNet
from backbones.unet_blocks import PixelAttention

KINDS: dict[type[nn.Module], Callable[[nn.Module], bool]] = {
    winograd.Winograd: winograd.fits,
    linear.Linear: linear.fits,
    linear.Pointwise: linear.fits_pixels,
    linear.Gated: linear.fits_gated,
}

MADE: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "unet of classes": (
        lambda: UNet(3, 3, width=32, multipliers=(1, 2), attention=(1,), classes=4),
        {"label": torch.tensor([1, 4])},
    ),
    "unet of prompts": (
        lambda: UNet(3, 3, width=32, multipliers=(1, 2), attention=(0, 1), context=24, head_width=16),
        {"context": torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))},
    ),
    "dit of prompts": (
        lambda: DiT(12, 3, 2, 64, 2, 2, context=24),
        {"context": torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))},
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_a_network_says_the_same_and_is_left_as_it_was(name: str) -> None:
    make, told = MADE[name]
    network, draws = make(), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=draws) * 0.1
    x, t = torch.randn(2, 3, 12, 12, generator=draws), torch.tensor([3.0, 700.0])
    quick = swift(network, rows=2, pixels=144)
    with torch.no_grad():
        expected, found = network(x, t, **told), quick(x, t, **told)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * expected.abs().max().item())
    assert not torch.equal(found, expected)  # which it would be, had nothing been exchanged
    assert all(weight.requires_grad for weight in network.parameters())
    made, plain = list(quick.modules()), list(network.modules())
    count = {kind: sum(isinstance(module, kind) for module in made) for kind in KINDS}
    wanted = {kind: sum(map(fits, plain)) for kind, fits in KINDS.items()}
    assert count == wanted | {linear.Linear: wanted[linear.Linear] + wanted[linear.Pointwise]}  # which holds one
    assert not any(isinstance(module, tuple(KINDS)) for module in plain)
    assert (wanted[linear.Gated] > 0) == (name == "unet of prompts")
    attends = [m for m in quick.modules() if isinstance(m, Attention | PixelAttention)]
    assert attends
    assert all(module.attend is attention.attend for module in attends)
    assert all(module.attend is attend for module in network.modules() if isinstance(module, Attention))


class Written(nn.Module):
    """Writes down how many rows it was given at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None, *, context: Tensor | None = None) -> Tensor:
        assert len(t) == len(x)
        assert label is None
        self.seen.append(len(x))
        y = x * t[:, None]
        return y if context is None else y + context


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param  # threads of its own leave ours as they are
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 12, 13])
def test_chunks_have_one_size_and_keep_their_order(rows: int, threads: int) -> None:
    draws = torch.Generator().manual_seed(0)
    x, t, context = (torch.randn(rows, *shape, generator=draws) for shape in ((3,), (), (3,)))
    written = Written()
    assert torch.equal(Swift(written, 4)(x, t, None, context=context), x * t[:, None] + context)
    assert torch.equal(Swift(written, 4)(x, t, None), x * t[:, None])
    assert set(written.seen) == {4}
    assert len(written.seen) == 2 * -(-rows // 4)


def test_a_row_depends_on_its_chunk_alone(threads: int) -> None:
    network, draws = UNet(3, 3, width=32, multipliers=(1, 2), attention=(1,)), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=draws) * 0.1
    quick = Swift(swift(network, rows=4, pixels=64).network, 4)
    x, t = torch.randn(12, 3, 8, 8, generator=draws), torch.randint(1000, (12,), generator=draws).float()
    together = quick(x, t)
    assert torch.equal(quick(x[4:8], t[4:8]), together[4:8])
    assert torch.equal(quick(x[[0, 1, 2, 3, 8, 9, 10, 11]], t[[0, 1, 2, 3, 8, 9, 10, 11]])[4:], together[8:])
    assert not together.requires_grad


def test_what_breaks_in_a_thread_is_raised_here(threads: int) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if (x > 5).any():
                raise ValueError("too much")
            return x

    quick = Swift(Broken(), 2)
    with pytest.raises(ValueError, match="too much"):
        quick(torch.arange(8.0))
    assert torch.equal(quick(torch.ones(8)), torch.ones(8))


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_a_chunk_has_one_thread(rows: int, threads: int) -> None:
    class Asking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0 + torch.get_num_threads()

    assert Swift(Asking(), 2)(torch.ones(rows)).tolist() == [1.0] * rows


def test_no_rows_are_no_answer(threads: int) -> None:
    assert Swift(nn.Identity(), 2)(torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("rows", "pixels", "chunk"), [(16, 32 * 32, 4), (16, 128 * 128, 4), (16, 16 * 16, 8), (64, 8 * 8, 32), (2, 64, 1)]
)
def test_the_size_of_a_chunk(rows: int, pixels: int, chunk: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert swift(nn.Identity(), rows, pixels).rows_together == chunk
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_starts_threads_of_its_own() -> None:
    """Those of the parent are not in it: a job handed to them would wait for ever."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        quick, x = Swift(nn.Identity(), 2), torch.arange(8.0)
        assert torch.equal(quick(x), x)
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(quick(x), x) else 1)
        for _ in range(200):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.05)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the fork waits")
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        torch.set_num_threads(before)
