"""`qx sft`, `qx dpo` and `qx reward` go on from each other's runs, as suits the model, or say why not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from generative.preference import thick
from qx import dpo, dpo_pretrained
from qx.main import main
from tests.qx.test_dpo_pretrained import folder, pairs
from tests.qx.test_first_stages import demonstrations

THICK = {"steps": str(thick.TRAIN.steps), "beta": str(thick.PREFERENCE.beta)}
ONE = ["--steps", "1", "--warmup", "1", "--batch-size", "4", "--device", "cpu"]


class Chain:
    """A folder of transformers, and the runs of `qx sft` and `qx dpo` that go on from it."""

    def __init__(self, home: Path) -> None:
        self.home, self.model = home, folder(home / "model", "llama")
        self.told, self.pairs = demonstrations(home / "told.jsonl"), pairs(home / "pairs.jsonl")
        self.sft, self.dpo = home / "sft", home / "dpo"
        learns = ["--steps", "5", "--warmup", "1", "--learning-rate", "1e-2", "--batch-size", "4", "--device", "cpu"]
        assert main(["sft", str(self.told), "--model", str(self.model), *learns, "--out", str(self.sft)]) == 0
        assert main([*self.words("dpo", self.sft, 1e-3), "--out", str(self.dpo)]) == 0

    def words(self, command: str, model: Path, rate: float) -> list[str]:
        """One update, which moves a weight by the rate at most."""
        file = self.told if command == "sft" else self.pairs
        return [command, str(file), "--model", str(model), *ONE, "--learning-rate", str(rate)]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


def body(folder: Path, kind: Any = AutoModelForCausalLM) -> dict[str, Tensor]:
    return dict(kind.from_pretrained(folder).base_model.state_dict())


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of a weight."""
    assert one.keys() == other.keys()
    return max((weight - other[name]).abs().max().item() for name, weight in one.items())


def test_a_stage_begins_with_the_weights_of_the_run_before_it(chain: Chain) -> None:
    """The first update of Adam moves a weight by the learning rate at most: by less than the stages are apart.

    The card of each is headed by the run before it.
    """
    folders = (chain.model, chain.sft / "model", chain.dpo / "model")
    begin, told, preferred = (body(each) for each in folders)
    assert apart(begin, told) > 1.1e-2
    assert 1e-4 < apart(told, preferred) < 1.1e-3
    assert main([*chain.words("sft", chain.dpo, 1e-5), "--out", str(chain.home / "more")]) == 0
    assert apart(body(chain.home / "more" / "model"), preferred) < 1.1e-5
    assert main([*chain.words("reward", chain.dpo, 1e-5), "--out", str(chain.home / "reward")]) == 0
    assert apart(body(chain.home / "reward" / "model", AutoModelForSequenceClassification), preferred) < 1.1e-5
    cards = [(chain.home / run / "model" / "README.md").read_text() for run in ("dpo", "more", "reward")]
    titles = [line for card in cards for line in card.splitlines() if line.startswith("# ")]
    assert titles == ["# pairs, from sft", "# told, from dpo", "# Reward of pairs, from dpo"]


def test_what_was_learned_before_is_what_is_said_before(chain: Chain) -> None:
    """The reference, too, is the model of the run: a policy that has hardly moved has hardly a distance to it."""
    samples = [json.loads(line) for line in (chain.dpo / "samples.jsonl").read_text().splitlines()]
    after = [json.loads(line) for line in (chain.sft / "samples.jsonl").read_text().splitlines()]
    said = {each["prompt"]: each["after"] for each in after}
    assert [each["before"] for each in samples] == [said[each["prompt"]] for each in samples]
    assert abs(json.loads((chain.dpo / "result.json").read_text())["kl"]) < 0.1
    first = json.loads((chain.dpo / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-5)


def test_the_run_keeps_where_it_began(chain: Chain) -> None:
    header = json.loads((chain.dpo / "config.json").read_text())
    assert header["config"]["model"] == str((chain.sft / "model").resolve())
    assert set(header["inputs"]) == {str((chain.sft / "model").resolve()), str(chain.pairs.resolve())}


@pytest.mark.parametrize("reporting", [False, True])
@pytest.mark.parametrize("command", ["sft", "dpo", "reward"])
def test_a_run_that_is_not_finished_is_no_model(
    command: str, reporting: bool, chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while it writes its report, when half of a model may be there."""
    begun = shutil.copytree(chain.sft, tmp_path / "begun")
    if not reporting:
        shutil.rmtree(begun / "model")
    (begun / "result.json").unlink()
    assert main([*chain.words(command, begun, 1e-3), "--out", str(tmp_path / "run")]) == 2
    assert f"{begun}: this run is not finished; `qx resume {begun}` goes on with it" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dpo PAIRS --model MODEL", {"steps": "200", "batch-size": "16", "learning-rate": "5e-05", "beta": "0.1"}),
        ("dpo PAIRS --model RUN", {"steps": "200", "learning-rate": "5e-05", "anchor": "0.0"}),
        ("dpo PAIRS --model=MODEL --lora-rank=4", {"steps": "200", "learning-rate": "0.0005", "beta": "0.1"}),
        ("dpo --lora-rank 4 --model MODEL", {"learning-rate": "0.0005"}),
        ("dpo PAIRS --model MODEL --lora-rank 0", {"learning-rate": "5e-05"}),
        ("dpo PAIRS --model MODEL --lora_rank 4", {"learning-rate": "0.0005"}),
        ("dpo PAIRS --model=MODEL --lora_rank=4", {"learning-rate": "0.0005"}),
        ("dpo PAIRS --model MODEL --lora-rank 4 --lora-rank 0", {"learning-rate": "5e-05"}),
        ("dpo PAIRS --model NOWHERE --model MODEL", {"steps": "200", "learning-rate": "5e-05"}),
        ("dpo PAIRS --model MODEL --out thick-digits", {"steps": "200", "learning-rate": "5e-05", "beta": "0.1"}),
        ("dpo thick-digits --model NOWHERE", {"steps": THICK["steps"], "beta": THICK["beta"]}),
        ("dpo PAIRS", {"steps": "700", "batch-size": "32", "learning-rate": "0.002", "beta": "1.0", "anchor": "1.0"}),
        ("sft DATA --model MODEL", {"steps": "200", "batch-size": "16", "learning-rate": "5e-05"}),
        ("reward --model MODEL", {"steps": "200", "batch-size": "16", "learning-rate": "5e-05"}),
        ("reward --model NOWHERE --model MODEL", {"steps": "200", "learning-rate": "5e-05"}),
        ("reward PAIRS --model RUN", {"steps": "200", "learning-rate": "5e-05"}),
        ("reward PAIRS", {"steps": "700", "batch-size": "32", "learning-rate": "0.001"}),
    ],
)
def test_help_says_what_suits_the_model(
    words: str, expected: dict[str, str], chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, path in (("PAIRS", chain.pairs), ("DATA", chain.told), ("MODEL", chain.model), ("RUN", chain.sft)):
        words = words.replace(name, str(path))
    with pytest.raises(SystemExit) as stop:
        main([*words.split(), "--help"])
    assert not stop.value.code
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    found = {name: re.search(rf"--{name} (?:INT|FLOAT) .*?\(default: (.*?)\)", said) for name in expected}
    assert {name: match and match[1] for name, match in found.items()} == expected


@pytest.mark.parametrize(("more", "rate"), [([], 5e-5), (["--lora-rank", "2"], 5e-4), (["--lora-rank=0"], 5e-5)])
def test_adapters_learn_ten_times_as_fast(more: list[str], rate: float, chain: Chain, tmp_path: Path) -> None:
    assert main(["dpo", str(chain.pairs), "--model", str(chain.model), *ONE, *more, "--out", str(tmp_path / "r")]) == 0
    train = json.loads((tmp_path / "r" / "config.json").read_text())["config"]["train"]
    assert train["learning_rate"] == rate
    line = json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["learning_rate"] == pytest.approx(rate)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reference is to be asked."""

    def asked(*_: Any, **__: Any) -> Any:
        pytest.fail("the reference was asked")

    monkeypatch.setattr(dpo, "told", asked)
    monkeypatch.setattr(dpo_pretrained, "told", asked)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the lab's own, whose letters are those of the pairs."""
    home = tmp_path_factory.mktemp("ours")
    small = ["--width", "16", "--depth", "1", "--heads", "2", *ONE]
    assert main(["sft", str(demonstrations(home / "told.jsonl")), *small, "--out", str(home / "run")]) == 0
    return home / "run"


REFUSED = {
    "--loss dpo": "--loss dpo: the loss of DPO's paper is named sigmoid, and is the default",
    "--batch-size 8 --accumulate 3": "a batch of 8 does not fall into 3 equal parts; expected a multiple of 3",
    "--loss kto --accumulate 2": "kto looks at the mean of all log-ratios of a batch",
    "--loss simgoid": "unknown loss 'simgoid'; did you mean 'sigmoid'?",
    "--out TAKEN": "a run stands here already",
}


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("kind", ["transformers", "ours"])
@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_refused_before_the_reference_is_asked(
    words: str, kind: str, chain: Chain, ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "say ", "chosen": "yes </s>", "rejected": "no </s>"}] * 4
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = chain.model if kind == "transformers" else ours
    more = words.replace("TAKEN", str(chain.sft)).split()
    out = [] if "--out" in more else ["--out", str(tmp_path / "run")]
    assert main(["dpo", str(tmp_path / "pairs.jsonl"), "--model", str(model), "--device", "cpu", *more, *out]) == 2
    assert REFUSED[words] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mazes --model RUN", "expected a file; `qx pairs mazes FILE --model RUN` writes one of the run's mistakes"),
        ("PAIRS --model RUN --lora-alpha 8", "--lora-alpha 8: of adapters; expected --lora-rank beside it"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one(
    words: str, expected: str, chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words.replace("PAIRS", str(chain.pairs)).replace("RUN", str(chain.sft)).split()
    assert main(["dpo", *asked, "--out", str(tmp_path / "run")]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_rows_that_are_no_demonstration_are_left_out_and_counted(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"prompt": "say ", "completion": "yes </s>"}
    rows = [good, {"prompt": "say "}, good, {"prompt": "say ", "completion": ""}, 7, {"completion": "no"}]
    (tmp_path / "told.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["sft", str(tmp_path / "told.jsonl"), "--model", str(chain.model), *ONE, "--out", str(tmp_path / "run")]
    assert main([*words, "--strict"]) == 2
    assert "told.jsonl:2: the column 'completion' is missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(words) == 0
    said = capsys.readouterr().err
    assert f"2 demonstrations left out, missing column; the first: {tmp_path / 'told.jsonl'}:2: " in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["data"] == {
        "left out, missing column": 2,
        "left out, empty": 1,
        "left out, not object": 1,
    }
    assert result["learned"] + result["held_out"] == 2
