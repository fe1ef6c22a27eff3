"""The claim on the pretrained story teller: a stranger's model is told apart, and what is missing is named."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from backbones.convert import llama2c
from backbones.initialise import build
from backbones.transformer import Transformer
from experiments import stories
from experiments.claim import DataError, Setting

REAL = Path(__file__).parents[3] / "shared" / "data" / "stories260K"


def setting(folder: Path | None) -> Setting:
    return Setting(seed=0, device=torch.device("cpu"), data=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Another model, untrained, over the bytes and a space."""
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256)), " "]
    vocabulary = [struct.pack("<fi", 0.0, len(piece)) + piece.encode() for piece in pieces]
    (tmp_path / "tok512.bin").write_bytes(struct.pack("<i", 6) + b"".join(vocabulary))
    model = build(
        lambda: Transformer(vocabulary=260, width=16, depth=1, heads=2, length=128), torch.Generator().manual_seed(0)
    )
    llama2c.save(tmp_path / "stories260K.bin", model)
    return tmp_path


def test_another_model_does_not_pass_for_the_published_one(folder: Path):
    finding = stories.run(setting(folder))
    assert not finding.holds
    assert finding.found.keys() == stories.CLAIM.stated.keys()
    assert finding.found["parameters"] == 260 * 16 + 2 * 16 + 4 * 16 * 16 + 3 * 16 * 48 + 16
    assert finding.verdict.startswith("0 of 76 characters")


def test_the_probability_of_a_token_is_the_largest_where_the_likeliest_is_written(folder: Path):
    pieces, probability = stories.certainty(*stories.load(folder), 20)
    assert probability.shape == (2, len(pieces))
    assert bool((probability[0] >= probability[1]).all())
    assert bool((probability.sum(0) <= 1 + 1e-6).all())


def test_a_folder_without_the_model_is_answered_with_what_it_should_hold(tmp_path: Path, folder: Path):
    with pytest.raises(DataError, match=r"name the folder of stories260K.bin and tok512.bin with --data"):
        stories.run(setting(None))
    with pytest.raises(DataError, match=r"stories260K.bin: no such file; it needs"):
        stories.run(setting(tmp_path / "nothing"))
    (folder / "stories260K.bin").write_bytes(b"short")
    with pytest.raises(DataError, match=r"stories260K.bin: 5 bytes, expected a header of 28; it needs"):
        stories.run(setting(folder))


@pytest.mark.skipif(not REAL.is_dir(), reason="the pretrained model is not here")
def test_the_published_model_writes_what_was_published():
    finding = stories.run(setting(REAL))
    assert finding.holds
    assert finding.found == stories.CLAIM.stated
