"""Pairs that say the opposite: what each loss learns from and with which settings, what is exchanged, and the rule."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from experiments import corrupted_mazes
from experiments.corrupted_mazes import ANCHOR, NAMES, ONCE, SHARES, config, course, exchanged, judge, runs, wrong
from experiments.maze_course import TOKENIZER, Score, referred
from generative.preference.data import PairData
from generative.preference.dpo import DPO
from generative.preference.four import Four
from generative.preference.losses import Preference
from generative.preference.pairs import Pair
from tests.experiments.test_preferred_course import Course, sides
from tests.experiments.test_preferred_mazes import TINY

CPU = torch.device("cpu")


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Course:
    """A course of stubs: pairs whose sides differ, and trainings that are only noted."""
    return Course(corrupted_mazes, [Pair("S.G\n", "RR", "U" * (1 + i % 5)) for i in range(60)], monkeypatch)


def test_each_loss_learns_from_pairs_of_which_its_share_is_exchanged(whole: Course) -> None:
    course(7, whole.sizes, CPU, whole.tell)
    told = referred(whole.model, whole.pairs, CPU).reference
    assert len(whole.lessons) == len(runs()) == 2 + 4 * 3
    for (_, share), lesson in zip(runs(), whole.lessons, strict=True):
        assert isinstance(lesson.data, PairData)
        which = wrong(7, 60, share).tolist()
        assert any(which) == (share > 0)
        for i, (other, pair, found) in enumerate(zip(which, whole.pairs, sides(lesson.data), strict=True)):
            two = (pair.chosen, pair.rejected)
            assert found == (pair.prompt, *(two[::-1] if other else two))
            assert lesson.data.reference[i].tolist() == told[i].tolist()[:: -1 if other else 1]


def test_each_loss_has_its_settings_and_a_model_of_its_own(whole: Course) -> None:
    found = course(7, whole.sizes, CPU, whole.tell)
    assert len({id(lesson.model) for lesson in whole.lessons}) == len(whole.lessons)
    for number, ((name, share), lesson) in enumerate(zip(runs(), whole.lessons, strict=True)):
        assert lesson.untouched
        assert lesson.train == whole.sizes.second
        assert isinstance(lesson.objective, DPO)
        asked = lesson.objective.preference.config
        assert asked.loss == (name,)
        assert asked.smoothing == (share if name in ("cdpo", "robust") else None)
        assert asked.anchor == ANCHOR
        assert found[name, share].success == whole.solved(number + 1)
    assert found["before", 0.0].success == 0
    assert found["cdpo", 0.0] == found["robust", 0.0] == found["sigmoid", 0.0]


def test_no_pair_is_learned_from_twice() -> None:
    """As many as there are updates to take them; the trainer goes through all before it takes one again."""
    assert ONCE.second.steps * ONCE.second.batch_size == ONCE.pairs


def test_the_first_slopes() -> None:
    """By autograd, without the anchor: IPO begins with that of DPO, beta / 2; cdpo with 1 - 2 e of it, and robust
    divides by as much."""
    slopes = {}
    for name, share in runs():
        chosen = torch.zeros(1, requires_grad=True)
        loss = Preference(dataclasses.replace(config(name, share), anchor=0.0))(Four(chosen, *torch.zeros(3, 1)))
        (slopes[name, share],) = torch.autograd.grad(loss.sum(), chosen)
    for (name, share), slope in slopes.items():
        times = (1 - 2 * share) ** {"cdpo": 1, "robust": -1}.get(name, 0)
        assert slope.item() == pytest.approx(-0.5 * times, rel=1e-5)


def test_the_rule_reads_the_worst_share() -> None:
    """Robust against DPO and before, all with 30% exchanged, whatever they do with fewer."""

    def courses(robust: float, usual: float, fewer: float) -> list[dict[tuple[str, float], Score]]:
        found = {(name, share): Score(fewer, 1.0) for name in NAMES for share in SHARES}
        found |= {("before", 0.0): Score(0.5, 1.0), ("robust", 0.3): Score(robust, 1.0)}
        return [found | {("sigmoid", 0.3): Score(usual, 1.0)} for _ in range(3)]

    good = judge(courses(0.8, 0.6, fewer=0.1), TINY)
    assert good.holds
    assert list(good.found.values()) == [pytest.approx(0.3), pytest.approx(0.2)]
    for bad in (courses(0.6, 0.8, fewer=0.9), courses(0.4, 0.3, fewer=0.9)):
        assert not judge(bad, TINY).holds


def test_pairs_exchanged_are_as_many_as_asked_and_those_of_a_larger_share_too() -> None:
    which = [wrong(7, 4000, share) for share in SHARES]
    for less, more, share in zip(which, which[1:], SHARES[1:], strict=False):
        assert not (less & ~more).any()
        assert abs(more.double().mean().item() - share) < 4 * math.sqrt(share * (1 - share) / 4000)
    assert not which[0].any()
    pairs = [Pair("S.G\n", "RR", "L"), Pair("S.G\n", "RR", "RLRR")]
    told = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    data = exchanged(pairs, told, torch.tensor([False, True]))
    assert data.reference.tolist() == [[1, 2], [4, 3]]
    assert data.lengths[:, 1:].tolist() == [[3, 2], [5, 3]]
    assert sides(data) == [("S.G\n", "RR", "L"), ("S.G\n", "RLRR", "RR")]
    assert TOKENIZER.decode(data.prompt(1)) == "S.G\n"
