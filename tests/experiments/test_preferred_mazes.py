"""The claims on mazes walked after preferences, small; their rule; and what is exchanged."""

from __future__ import annotations

import dataclasses
import math
from types import ModuleType

import pytest
import torch

from experiments import corrupted_mazes, preferred_mazes
from experiments.claim import Setting
from experiments.corrupted_mazes import SHARES, exchanged, wrong
from experiments.maze_course import TOKENIZER, Score, Sizes, unseen
from experiments.preferred_mazes import columns, judge
from experiments.students import interval
from generative.language import mazes
from generative.language.model import ModelConfig
from generative.preference.pairs import Pair
from generative.train import TrainConfig

FEW = TrainConfig(steps=4, batch_size=8, warmup=2)
TINY = Sizes(
    **{"examples": 60, "pairs": 24, "held": 6, "judged": 12, "first": FEW, "second": FEW, "alone": FEW, "seeds": 2},
    model=ModelConfig(width=16, depth=1, heads=2),
)


@pytest.mark.parametrize("claim", [preferred_mazes, corrupted_mazes], ids=lambda claim: claim.__name__)
def test_a_small_run(claim: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly trained models do not walk; the finding's parts fit each other."""
    monkeypatch.setattr(claim, "LONGEST", 5)
    shares: list[float] = []
    setting = Setting(0, torch.device("cpu"), report=lambda share, note: shares.append(share))
    finding = claim.compare(setting, TINY)
    assert list(finding.found) == list(claim.CLAIM.stated)
    assert not finding.holds
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert all(len(row) == len(finding.header) for row in finding.rows)


def test_the_interval_is_students() -> None:
    """Of five seeds 2.776 standard errors either way."""
    mean, low, high = interval(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64))
    assert mean == 3
    assert high - mean == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)
    assert mean - low == pytest.approx(high - mean)


def test_the_rule_takes_each_seed_against_itself() -> None:
    """Gains of every seed are seen although the seeds lie far apart; one seed that loses undoes them."""
    names = ("before", "DPO", "DPO alone", "SFT", "one draw", "best of 4", "best of 16")
    rest = dict.fromkeys(names[3:], Score(0.5, 0.5))

    def course(before: float, gain: float) -> dict[str, Score]:
        after = Score(before + gain, before + gain)
        return {"before": Score(before, before), "DPO": after, "DPO alone": after, **rest}

    good = [course(before, 0.1) for before in (0.1, 0.4, 0.8)]
    assert judge(good, [0.9] * 3, TINY).holds
    assert not judge([*good, course(0.5, -0.1)], [0.9] * 4, TINY).holds
    assert columns(good)["success"]["before"].tolist() == [0.1, 0.4, 0.8]


def test_pairs_exchanged_are_as_many_as_asked_and_those_of_a_larger_share_too() -> None:
    which = [wrong(7, 4000, share) for share in SHARES]
    for less, more, share in zip(which, which[1:], SHARES[1:], strict=False):
        assert not (less & ~more).any()
        assert abs(more.double().mean().item() - share) < 4 * math.sqrt(share * (1 - share) / 4000)
    assert not which[0].any()
    pairs = [Pair("S.G\n", "RR", "L"), Pair("S.G\n", "RR", "RLRR")]
    told = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    batch = exchanged(pairs, told, torch.tensor([False, True])).batch(torch.arange(2))
    assert batch["reference"].tolist() == [[1, 2], [4, 3]]
    assert batch["lengths"][:, 1:].tolist() == [[3, 2], [5, 3]]
    start = int(batch["lengths"][1, 0])
    assert TOKENIZER.decode(batch["tokens"][1, start : start + 5].tolist()) == "RLRR"


def test_mazes_to_judge_by_are_never_trained_on() -> None:
    assert all(mazes.held_out(text) for text in unseen(0, 50))
    assert dataclasses.replace(TINY, seeds=3).updates == 3 * 5 * 4
