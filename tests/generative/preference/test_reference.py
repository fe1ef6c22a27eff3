"""What the reference says is computed once: found again, gone on with after a kill, never mistaken for another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from backbones.continuations import Continuations
from generative.language.model import LanguageModel, ModelConfig
from generative.preference import data as portions
from generative.preference import reference as kept
from generative.preference.data import PairData
from generative.preference.reference import key, reference
from generative.preference.tokens import Tokens
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


@pytest.mark.parametrize("content", [b"", b"no numbers", "half", "shape"])
def test_a_damaged_file_is_written_anew(tmp_path: Path, content: bytes | str) -> None:
    truth = asked(model(), pairs(), tmp_path)
    [file] = tmp_path.iterdir()
    if content == "shape":
        np.save(file, np.zeros((2, 2)))
    else:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if content == "half" else content)  # type: ignore[arg-type]
    again = model()
    assert torch.equal(asked(again, pairs(), tmp_path), truth)
    assert again.calls > 0
    assert np.array_equal(np.load(file), truth.numpy())
    assert list(tmp_path.iterdir()) == [file]


def test_what_it_depends_on_is_in_the_key() -> None:
    plain = key(model(), pairs(), {"width": 16})
    nudged = model()
    with torch.no_grad():
        nudged.transformer.embedding.weight[3, 3] += 1e-6
    moved = PairData([Tokens((1, 2), (3,), (4,))]), PairData([Tokens((1,), (2, 3), (4,))])
    others = [key(nudged, pairs(), {"width": 16}), key(model(), pairs(last=4), {"width": 16})]
    others += [key(model(), pairs(), {"width": 17}), *(key(model(), each, {"width": 16}) for each in moved)]
    assert key(model(), pairs(), {"width": 16}) == plain
    assert len({plain, *others}) == 6
