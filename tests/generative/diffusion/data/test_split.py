"""One kind of data set: its parts, their division by content, and the names of classes."""

from __future__ import annotations

import pytest
import torch

from generative.diffusion.data import Images, Split
from generative.diffusion.data.split import divide, number
from generative.train import Data


def pictures(n: int, seed: int = 0) -> Images:
    image = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Images(image, torch.arange(n), tuple(str(i) for i in range(n)))


def test_a_part_is_data_for_the_trainer():
    part = pictures(6)
    assert isinstance(part, Data)
    index = torch.tensor([4, 0])
    batch = part.batch(index)
    assert set(batch) == {"image", "label"}
    assert torch.equal(batch["image"], part.image[[4, 0]])
    assert part.take(index).captions == ("4", "0")
    assert part.take(index).label.tolist() == [4, 0]
    assert set(Images(part.image).tensors) == {"image"}
    assert Split(part, part.take(index), ("a", "b")).classes == 2
    with pytest.raises(ValueError, match="1 captions for 6 images"):
        Images(part.image, None, ("one",))


def test_the_division_is_by_content_and_seed():
    part = pictures(200)
    train, test = divide(part, 0.15, 0)
    assert (len(train), len(test)) == (170, 30)
    assert sorted([*train.label.tolist(), *test.label.tolist()]) == list(range(200))
    shuffled = part.take(torch.randperm(200, generator=torch.Generator().manual_seed(1)))
    assert set(divide(shuffled, 0.15, 0)[1].label.tolist()) == set(test.label.tolist())
    assert set(divide(part, 0.15, 1)[1].label.tolist()) != set(test.label.tolist())
    assert set(divide(part, 0.15, -1)[1].label.tolist()) != set(test.label.tolist())
    fewer = set(divide(part.take(torch.arange(190)), 0.15, 0)[1].label.tolist())
    assert len(fewer - set(test.label.tolist())) <= 10  # an image more or less moves few others


def test_copies_stay_together():
    part = pictures(50)
    train, test = divide(part.take(torch.arange(150) % 50), 0.2, 3)
    assert not set(train.label.tolist()) & set(test.label.tolist())
    assert len(test) in (30, 31, 32)


def test_nothing_or_a_share_is_held_out():
    assert [len(side) for side in divide(pictures(5), 0.0, 0)] == [5, 0]
    assert [len(side) for side in divide(pictures(1), 0.9, 0)] == [0, 1]
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="the share held out"):
            divide(pictures(2), share, 0)


def test_classes_are_numbered_by_their_words_and_numbers_stay():
    names, label = number(["b", "a", "b"])
    assert (names, label.tolist()) == (("a", "b"), [1, 0, 1])
    names, label = number([3, 1])
    assert (names, label.tolist()) == (("0", "1", "2", "3"), [3, 1])
    for wrong in ([-1, 2], [2**40, 0]):
        with pytest.raises(ValueError, match="expected whole numbers from 0, below 100,000"):
            number(wrong)
