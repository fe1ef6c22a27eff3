"""A course of `preferred_mazes` with trainings that are only noted: what each way to walk was taught, and how judged.

`Course` stands in for everything that takes long. A model "taught" in lesson n has n added to its weights, and solves
the first n of the mazes it is judged on; so a score tells whose it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from experiments import preferred_mazes
from experiments.maze_course import TOKENIZER, Score, referred
from experiments.preferred_mazes import course
from generative.language.model import LanguageModel
from generative.language.sft import SFT, Completions
from generative.preference.data import PairData
from generative.preference.dpo import DPO
from generative.preference.losses import PreferenceConfig
from generative.preference.pairs import Pair
from generative.preference.reward import BradleyTerry, RewardModel
from generative.train import Data, Objective, TrainConfig
from lab import streams
from tests.experiments.test_preferred_mazes import TINY

CPU = torch.device("cpu")
JUDGED = 20


@dataclass
class Lesson:
    """What `taught` was given, and whether the model was still the one from before."""

    model: nn.Module
    objective: Objective
    data: Data
    train: TrainConfig
    untouched: bool


class Course:
    """The parts of a claim's `course`, stubbed."""

    def __init__(self, claim: ModuleType, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = TINY.model.make(TOKENIZER.size, streams.generator(0, "weights"))
        self.first = self.model.transformer.embedding.weight.detach().clone()
        self.pairs, self.lessons = pairs, list[Lesson]()
        self.sizes = dataclasses.replace(
            TINY,
            pairs=len(pairs),
            judged=JUDGED,
            second=TrainConfig(steps=5),
            alone=TrainConfig(steps=7),
            reward=TrainConfig(steps=9),
        )
        for name in ("demonstrated", "corrected", "unseen", "taught", "complete"):
            monkeypatch.setattr(claim, name, getattr(self, name))

    def tell(self, note: str) -> None:
        pass

    def demonstrated(self, *given: Any) -> LanguageModel:
        return self.model

    def corrected(self, model: LanguageModel, tokenizer: Any, seed: int, count: int) -> list[Pair]:
        assert model is self.model
        return self.pairs[:count]

    def unseen(self, seed: int, count: int) -> list[str]:
        return ["S.G\n"] * count

    def taught(
        self, model: Any, objective: Objective, data: Data, train: TrainConfig, *rest: Any
    ) -> LanguageModel | RewardModel:
        self.lessons.append(Lesson(model, objective, data, train, self.learned(model) == 0))
        with torch.no_grad():
            model.transformer.embedding.weight += len(self.lessons)
        return model

    def learned(self, model: Any) -> int:
        """The numbers of its lessons, summed."""
        return round((model.transformer.embedding.weight - self.first).mean().item())

    def complete(self, model: Any, tokenizer: Any, texts: Sequence[str], *, limit: int) -> list[str]:
        return ["RR" if i < self.learned(model) else "U" for i in range(len(texts))]

    def solved(self, lesson: int) -> float:
        """The share of mazes that the model of that lesson solves."""
        return lesson / JUDGED


def sides(data: PairData) -> list[tuple[str, str, str]]:
    """Prompt, chosen and rejected of each pair, read back from its tokens."""
    parts = data.flat.split(data.lengths.flatten().tolist())
    texts = [TOKENIZER.decode(part.tolist()) for part in parts]
    return [(texts[i], texts[i + 1], texts[i + 2]) for i in range(0, len(texts), 3)]


PAIRS = [Pair("S.G\n" if i < 30 else "G.S\n", "RR", "U" * (1 + i % 7)) for i in range(36)]


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Course:
    """36 pairs, of which the last six are held out."""
    made = Course(preferred_mazes, PAIRS, monkeypatch)
    made.sizes = dataclasses.replace(made.sizes, pairs=30, held=6)
    return made


def test_each_way_is_taught_by_its_own_objective_and_schedule(whole: Course) -> None:
    course(0, whole.sizes, CPU, whole.tell)
    dpo, alone, *rest = whole.lessons
    for lesson, config in ((dpo, PreferenceConfig(beta=1.0, anchor=1.0)), (alone, PreferenceConfig(beta=5.0))):
        assert isinstance(lesson.objective, DPO)
        assert lesson.objective.preference.config == config
    assert [type(lesson.objective) for lesson in rest] == [SFT, SFT, BradleyTerry]
    assert [lesson.train.steps for lesson in whole.lessons] == [5, 7, 5, 10, 9]


def test_pairs_teach_both_sides_and_sft_the_chosen_alone(whole: Course) -> None:
    course(0, whole.sizes, CPU, whole.tell)
    dpo, alone, sft, twice, reward = (lesson.data for lesson in whole.lessons)
    for data in (dpo, alone, reward):
        assert isinstance(data, PairData)
        assert sides(data) == [(pair.prompt, pair.chosen, pair.rejected) for pair in PAIRS[:30]]
        assert data.reference.tolist() == referred(whole.model, PAIRS[:30], CPU).reference.tolist()
    for data in (sft, twice):
        assert isinstance(data, Completions)
        said = [TOKENIZER.decode(row[score].tolist()) for row, score in zip(data.tokens, data.score, strict=True)]
        assert said == [pair.chosen for pair in PAIRS[:30]]


def test_each_learns_as_a_copy_of_the_model_from_before_and_is_judged_as_itself(whole: Course) -> None:
    found, _ = course(0, whole.sizes, CPU, whole.tell)
    assert all(lesson.untouched for lesson in whole.lessons)
    assert len({id(lesson.model) for lesson in whole.lessons}) == 5
    assert whole.learned(whole.model) == 0
    solved = {name: score.success for name, score in found.items()}
    wanted = dict(zip(("before", "DPO", "DPO alone", "SFT", "SFT, twice"), map(whole.solved, range(5)), strict=True))
    assert {name: solved[name] for name in wanted} == wanted


def test_the_reward_model_chooses_among_walks_from_before_and_is_judged_by_other_mazes(
    whole: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    chose, ranked = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    monkeypatch.setattr(preferred_mazes, "best_of", lambda *given: chose.append(given) or {"best": Score(1.0, 1.0)})
    monkeypatch.setattr(preferred_mazes, "ranked_right", lambda *given: ranked.append(given) or 0.25)
    found, right = course(0, whole.sizes, CPU, whole.tell)
    reward = whole.lessons[-1].model
    assert isinstance(reward, RewardModel)
    assert (chose[0][0], chose[0][1]) == (whole.model, reward)
    assert (ranked[0][0], list(ranked[0][1])) == (reward, PAIRS[30:])
    assert found["best"] == Score(1.0, 1.0)
    assert right == 0.25
