"""A network that takes rows by chunks (`backbones.cpu.swift`) is not asked of chunks in which nobody sits."""

import pytest
import torch
from torch import Tensor, nn

from backbones.cpu.swift import Swift
from tests.generative.diffusion.engine.load import LOAD, ROWS, Mixing, arriving, engine


class Pairs(nn.Module):
    """Answers two rows at a time, and writes down how many were asked for."""

    rows_together = 2

    def __init__(self) -> None:
        super().__init__()
        self.network, self.seen = Swift(Mixing(), 2), []

    def forward(self, x: Tensor, t: Tensor, label: Tensor, context: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.network(x, t, label, context=context)


class Whole(nn.Module):
    """The same, without a word of chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Swift(Mixing(), 2)

    def forward(self, x: Tensor, t: Tensor, label: Tensor, context: Tensor) -> Tensor:
        assert len(x) == ROWS
        return self.network(x, t, label, context=context)


def test_images_are_the_same_bits() -> None:
    pairs = Pairs()
    assert torch.equal(arriving(engine(pairs), LOAD), arriving(engine(Whole()), LOAD))
    assert min(pairs.seen) == 2
    assert max(pairs.seen) <= ROWS


def test_only_chunks_with_somebody_in_them_are_asked() -> None:
    pairs = Pairs()
    shared = engine(pairs)
    for request in (LOAD[0], LOAD[1], LOAD[5]):  # 1, 2 and 1 rows, of 3, 6 and 3 steps (Heun's: 5 calls)
        shared.submit(request)
    while shared.running or shared.waiting:
        shared.turn()
    assert pairs.seen == [4, 4, 4, 4, 4, 4]  # slots 0; 1 and 2; 3: the second stays to the end, in two chunks
    pairs.seen.clear()
    shared.submit(LOAD[0])
    while shared.running or shared.waiting:
        shared.turn()
    assert pairs.seen == [2, 2, 2]


def test_which_slots_are_awake() -> None:
    slots = engine().slots
    assert slots.awake(2) == [0, 1]  # nobody: one chunk, for an answer has to have some size
    slots.free = [0, 1, 2, 4, 5, 6, 7]
    assert slots.awake(2) == [2, 3]
    assert slots.awake(3) == [3, 4, 5]
    assert slots.awake(ROWS) == list(range(ROWS))
    slots.free = []
    assert slots.awake(3) == list(range(ROWS))


def test_other_modes_are_refused() -> None:
    """They hold on to what was traced or captured at first: which chunks were asked, too."""
    with pytest.raises(ValueError, match="mode='compiled' and a network that takes rows by chunks"):
        engine(Pairs(), mode="compiled")
