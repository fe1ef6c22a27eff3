"""What the reference says is computed once: found again, gone on with after a kill, never mistaken for another's."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from backbones.continuations import Continuations
from generative.language.model import LanguageModel, ModelConfig
from generative.preference import data as portions
from generative.preference import reference as kept
from generative.preference.data import PairData
from generative.preference.reference import key, reference
from generative.preference.tokens import Tokens
from generative.saved import ModelError
from lab import streams

CPU = torch.device("cpu")


def pairs(count: int = 9, last: int = 3) -> PairData:
    draws = np.random.default_rng(0)
    made = [Tokens((1,), tuple(draws.integers(1, 9, 2 + i % 3).tolist()), (i % 7, 5)) for i in range(count - 1)]
    return PairData([*made, Tokens((1,), (2,), (last,))])


class Counting(LanguageModel):
    """Says how often it was asked, and may be killed."""

    calls = 0
    dies_at: int | None = None

    def judge(self, tokens: Int64[Tensor, "N"], row: Continuations) -> Float[Tensor, "M"]:
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        self.calls += 1
        return super().judge(tokens, row)


def model(seed: int = 0) -> Counting:
    made = ModelConfig(width=16, depth=1, heads=2).make(12, streams.generator(seed))
    return Counting(made.transformer)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions of some pairs each, and every one of them kept."""
    plain = portions._portions
    monkeypatch.setattr(portions, "_portions", lambda size, most: plain(size, 12))
    monkeypatch.setattr(kept, "SECONDS", -1.0)


def asked(of: Counting, of_pairs: PairData, folder: Path | None) -> Tensor:
    return reference(of, of_pairs, {"width": 16}, device=CPU, folder=folder)


def test_it_is_asked_once(tmp_path: Path) -> None:
    first, second, none = model(), model(), model()
    found = asked(first, pairs(), tmp_path)
    assert found.isfinite().all()
    assert first.calls > 3
    assert torch.equal(asked(second, pairs(), tmp_path), found)
    assert second.calls == 0
    assert torch.equal(asked(none, pairs(), None), found)
    assert none.calls == first.calls


@pytest.mark.parametrize("dies_at", [0, 1, 3])
def test_what_was_done_before_a_kill_is_not_done_again_and_the_bits_are_the_same(tmp_path: Path, dies_at: int) -> None:
    whole, killed, again = model(), model(), model()
    truth = asked(whole, pairs(), None)
    killed.dies_at = dies_at
    with pytest.raises(KeyboardInterrupt):
        asked(killed, pairs(), tmp_path)
    assert torch.equal(asked(again, pairs(), tmp_path), truth)
    assert again.calls == whole.calls - dies_at


def sealed(array: np.ndarray) -> bytes:
    """A file as it is kept: numpy's own bytes, and their digest."""
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue() + hashlib.blake2b(body.getvalue(), digest_size=16).digest()


def holding(value: float, truth: np.ndarray) -> np.ndarray:
    array = truth.copy()
    array[4, 1] = value
    return array


def flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :]


DAMAGED: dict[str, Callable[[bytes, np.ndarray], bytes]] = {
    "empty": lambda whole, truth: b"",
    "short": lambda whole, truth: b"no numbers",
    "half": lambda whole, truth: whole[: len(whole) // 2],
    "a bit of its numbers": lambda whole, truth: flipped(whole, len(whole) - 18),
    "a bit of its digest": lambda whole, truth: flipped(whole, len(whole) - 2),
    "no digest": lambda whole, truth: whole[:-16],
    "no array": lambda whole, truth: b"no numbers" + hashlib.blake2b(b"no numbers", digest_size=16).digest(),
    "another shape": lambda whole, truth: sealed(np.full((2, 2), -1.0)),
    "one that would spread": lambda whole, truth: sealed(np.full((1, 2), -1.0)),
    "another type": lambda whole, truth: sealed(np.full(truth.shape, -1.0, np.float32)),
    "infinite": lambda whole, truth: sealed(holding(-np.inf, truth)),
    "positive": lambda whole, truth: sealed(holding(1.0, truth)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_written_anew(tmp_path: Path, damage: str) -> None:
    truth = asked(model(), pairs(), tmp_path)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    assert whole == sealed(truth.numpy())
    file.write_bytes(DAMAGED[damage](whole, truth.numpy()))
    again, first = model(), model()
    assert torch.equal(asked(again, pairs(), tmp_path), truth)
    asked(first, pairs(), None)
    assert again.calls == first.calls
    assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_not_known_yet_is_asked_and_nothing_else(tmp_path: Path) -> None:
    truth = asked(model(), pairs(), tmp_path)
    [file] = tmp_path.iterdir()
    file.write_bytes(sealed(holding(np.nan, truth.numpy())))
    again = model()
    assert torch.equal(asked(again, pairs(), tmp_path), truth)
    assert again.calls == 1


def test_what_it_depends_on_is_in_the_key() -> None:
    plain = key(model(), pairs(), {"width": 16})
    moved = PairData([Tokens((1, 2), (3,), (4,))]), PairData([Tokens((1,), (2, 3), (4,))])
    others = [key(model(), pairs(last=4), {"width": 16}), key(model(), pairs(), {"width": 17})]
    others += [key(model(), each, {"width": 16}) for each in moved]
    names = list(model().state_dict())
    for name in names:
        nudged = model()
        with torch.no_grad():
            nudged.state_dict()[name].view(-1)[-1] += 1e-6
        others.append(key(nudged, pairs(), {"width": 16}))
    assert key(model(), pairs(), {"width": 16}) == plain
    assert len({plain, *others}) == 5 + len(names)


class Holding(nn.Module):
    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def test_weights_of_the_same_bytes_differ_by_name_type_and_shape() -> None:
    """Zeros: their bytes say nothing of any of these."""
    models = [
        Holding(a=torch.zeros(2, 3), b=torch.zeros(2)),
        Holding(a=torch.zeros(2, 3), c=torch.zeros(2)),
        Holding(a=torch.zeros(2, 3), b=torch.zeros(2, dtype=torch.int32)),
        Holding(a=torch.zeros(3, 2), b=torch.zeros(2)),
    ]
    assert len({key(each, pairs(), {}) for each in models}) == 4


def test_answers_of_another_precision_or_device_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that needs no device says how often it was asked."""
    times = []

    def judged(asked: nn.Module, of: PairData, found: Tensor, **how: Any) -> Iterator[int]:
        if found.isnan().any():
            times.append((how["device"].type, how["precision"]))
            found.fill_(-float(len(times)))
        yield len(of)

    monkeypatch.setattr(kept, "judged", judged)
    ways: list[tuple[str, Any]] = [("cpu", "float32"), ("cpu", "bf16"), ("cuda", "float32"), ("cuda", "bf16")]
    for _ in range(2):
        for i, (where, precision) in enumerate(ways):
            device = torch.device(where)
            told = reference(model(), pairs(), {}, device=device, precision=precision, folder=tmp_path)
            assert told[0, 0] == -(i + 1)
    assert times == ways


class Beside(Counting):
    """Before it first answers, another run asks the same and comes to its end."""

    def judge(self, tokens: Int64[Tensor, "N"], row: Continuations) -> Float[Tensor, "M"]:
        if self.calls == 0:
            asked(model(), pairs(), self.folder)
        return super().judge(tokens, row)

    folder: Path


def test_what_another_run_has_kept_meanwhile_is_neither_lost_nor_asked_again(tmp_path: Path) -> None:
    slower, truth = Beside(model().transformer), asked(model(), pairs(), None)
    slower.folder = tmp_path
    assert torch.equal(asked(slower, pairs(), tmp_path), truth)
    assert slower.calls == 1
    [file] = tmp_path.iterdir()
    assert file.read_bytes() == sealed(truth.numpy())


def test_what_killed_writers_left_is_taken_away_after_a_day(tmp_path: Path) -> None:
    hour = 3600.0
    for name, age in (("old.npy.1a.tmp", 25 * hour), ("new.npy.2b.tmp", 23 * hour), ("old.npy", 25 * hour)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    asked(model(), pairs(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} > {"new.npy.2b.tmp", "old.npy"}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_model_whose_weights_are_no_numbers_is_refused_and_nothing_of_it_kept(tmp_path: Path) -> None:
    broken = model()
    with torch.no_grad():
        broken.transformer.embedding.weight[5] = torch.nan  # the tied head has it, too
    with pytest.raises(ModelError, match=r"the model says nan nats of the chosen side of pair \d of the 9 asked here"):
        asked(broken, pairs(), tmp_path)
    assert not list(tmp_path.iterdir())
