"""The histograms of a preference file: every usable pair is in one bin, the one whose words hold its length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from generative.language.model import ModelConfig
from generative.language.tokenizer import CharacterTokenizer
from generative.preference.preflight import preflight
from generative.preference.tokens import Plain
from lab import streams
from qx import pairs_report
from qx.main import main
from qx.pairs_report import histogram
from tests.qx.test_dpo_pretrained import folder

numbers = st.lists(st.integers(-3000, 3000), min_size=1, max_size=60).map(np.array)


def holds(words: str, number: int) -> bool:
    """Whether a bin of these words holds the number: told from the words alone."""
    first, *rest = words.split()
    if first in ("less", "more"):
        return number < int(rest[1]) if first == "less" else number > int(rest[1])
    return int(first) <= number <= int(rest[1] if rest else first)


@given(numbers, numbers)
def test_every_number_is_in_the_one_bin_whose_words_hold_it(one: np.ndarray, other: np.ndarray) -> None:
    found = histogram("lengths", one=one, other=other)
    assert found.names == ("one", "other")
    for counts, values in zip(found.counts.tolist(), (one, other), strict=True):
        assert counts == [sum(holds(words, number) for number in values.tolist()) for words in found.bins]
        assert sum(counts) == len(values)
    assert len(found.bins) <= pairs_report.BINS + 2


def test_bins_are_round_and_what_is_far_out_does_not_widen_them() -> None:
    found = histogram("lengths", pairs=np.array([*range(1, 200), 100_000]))
    assert found.bins == (*(f"{first} to {first + 19}" for first in range(1, 200, 20)), "more than 200")
    assert found.counts.tolist() == [[20] * 9 + [19, 1]]
    assert histogram("lengths", pairs=np.array([-3, 0, 0, 2])).bins == ("-3", "-2", "-1", "0", "1", "2")


def pairs(at: Path) -> Path:
    rows = [{"prompt": "p", "chosen": "a" * n, "rejected": "b" * (2 * n)} for n in (1, 2, 2, 3)]
    at.write_text("".join(json.dumps(row) + "\n" for row in rows) + "[1]\n")
    return at


def test_lengths_are_counted_in_what_the_check_counted(tmp_path: Path) -> None:
    """In tokens each side has one more: its end."""
    file = pairs(tmp_path / "pairs.jsonl")
    for tokenizer, unit, more in ((None, "characters", 0), (Plain(CharacterTokenizer("pab")), "tokens", 1)):
        lengths, differences = pairs_report.histograms(preflight(file, tokenizer))
        assert lengths.title == f"length of completions, {unit}"
        assert differences.title == f"chosen less rejected length, {unit}"
        assert lengths.bins == tuple(str(n + more) for n in range(1, 7))
        assert lengths.counts.tolist() == [[1, 2, 1, 0, 0, 0], [0, 1, 0, 2, 0, 1]]
        assert dict(zip(differences.bins, differences.counts[0].tolist(), strict=True)) == {"-3": 1, "-2": 2, "-1": 1}


def test_they_are_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked = preflight(pairs(tmp_path / "pairs.jsonl"))
    pairs_report.show(checked)
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["2", "2", "█" * 20, "1", "█" * 10] in said
    assert ["-2", "2", "█" * 20] in said
    pairs_report.draw(checked, tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as drawn:
        assert len(drawn.convert("RGB").getcolors(1 << 20)) > 50


def test_a_file_of_which_nothing_is_usable_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.jsonl").write_text("[1]\n")
    checked = preflight(tmp_path / "none.jsonl")
    pairs_report.show(checked)
    pairs_report.draw(checked, tmp_path / "report.png")
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "report.png").exists()


def test_the_command_prints_them_and_draws_them_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = pairs(tmp_path / "pairs.jsonl")
    assert main(["pairs", "check", str(file), "--out", str(tmp_path / "checked"), "--json"]) == 0
    said = capsys.readouterr().out
    assert "length of completions, characters" in said
    assert "chosen less rejected length, characters" in said
    assert json.loads(said.splitlines()[-1])["usable"] == 4
    assert sorted(path.name for path in (tmp_path / "checked").iterdir()) == [
        "findings.jsonl",
        "report.png",
        "result.json",
    ]
    noted = [json.loads(line) for line in (tmp_path / "checked" / "findings.jsonl").read_text().splitlines()]
    assert [(each["finding"], each["row"].partition(": ")[0]) for each in noted] == [
        ("duplicated", f"{file}:3"),
        ("not_object", f"{file}:5"),
    ]


def test_with_a_model_the_check_sees_what_training_would_see(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run of the lab's own and of a folder of transformers: rows that are cut, refused or merged."""
    file, model = tmp_path / "pairs.jsonl", folder(tmp_path / "model", "llama")
    rows = [{"prompt": "please say", "chosen": "more " * n, "rejected": "less"} for n in (1, 2, 9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["pairs", "check", str(file), "--model", str(model), "--limit", "6", "--json"]) == 0
    said = capsys.readouterr().out
    assert "not looked at" not in said
    assert json.loads(said.splitlines()[-1])["overlong_chosen"] == 1
    assert "1  overlong chosen; the first: " in said
    own = tmp_path / "own" / "model"
    ModelConfig(width=8, depth=1, heads=1).make(len("more ls") + 3, streams.generator(0)).save(own)
    CharacterTokenizer("mores l").save(own / "tokenizer.json")
    assert main(["pairs", "check", str(file), "--model", str(tmp_path / "own"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["not_tokenised"] == 3
    assert main(["pairs", "check", str(file), "--json"]) == 0
    said = capsys.readouterr().out
    assert "--model counts it" in said
    assert json.loads(said.splitlines()[-1])["usable"] == 3


def own(at: Path, **positions: Any) -> Path:
    """A run of the lab's own, that knows one letter."""
    ModelConfig(width=8, depth=1, heads=1, **positions).make(4, streams.generator(0)).save(at / "model")
    CharacterTokenizer("a").save(at / "model" / "tokenizer.json")
    return at


def of_letters(at: Path, *lengths: int) -> Path:
    """Pairs whose longer side has so many tokens with the prompt: beginning and end are two."""
    rows = [{"prompt": "a", "chosen": "a" * (n - 3), "rejected": "a" * (n - 4)} for n in lengths]
    at.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return at


def test_the_check_cuts_nothing_of_what_a_model_of_our_own_learns_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a run takes no --limit; a rotary one reads any length."""
    file, model = of_letters(tmp_path / "pairs.jsonl", 8, 1500), own(tmp_path / "own")
    words = ["pairs", "check", str(file), "--model", str(model), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == preflight(file, Plain(CharacterTokenizer("a"))).findings.counts()
    assert (found["usable"], found["overlong_chosen"], found["overlong_rejected"]) == (2, 0, 0)
    assert main([*words, "--limit", "8"]) == 2
    assert f"--limit: for models of transformers; {model} is one of the lab's own" in capsys.readouterr().err


def test_the_check_says_of_learned_positions_what_training_would_refuse_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = of_letters(tmp_path / "pairs.jsonl", 8, 9, 7, 12)
    model = own(tmp_path / "own", positions="learned", length=8)
    refused = f"{file}: 2 of 4 pairs are longer than the model reads, up to 12 tokens; expected 8 at most"
    assert main(["pairs", "check", str(file), "--model", str(model), "--json"]) == 0
    said = capsys.readouterr().out
    assert f"`qx dpo` refuses {refused}" in said
    found = json.loads(said.splitlines()[-1])
    assert (found["usable"], found["overlong_chosen"], found["overlong_prompt"]) == (4, 0, 0)
    words = ["dpo", str(file), "--model", str(model), "--device", "cpu", "--steps", "1", "--batch-size", "2"]
    assert main([*words, "--warmup", "1", "--out", str(tmp_path / "run")]) == 2
    assert found["refused"] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    of_letters(file, 8, 7)
    assert main(["pairs", "check", str(file), "--model", str(model), "--json"]) == 0
    said = capsys.readouterr().out
    assert "refuse" not in said
    assert main([*words, "--warmup", "1", "--out", str(tmp_path / "run")]) == 0
