"""A course in walking mazes: a small model taught by demonstrations, then by pairs that correct it, then judged.

`preferred_mazes` and `corrupted_mazes` are courses that differ in what comes after the demonstrations.

The settings were chosen while the mazes that `qx` judges every model on were looked at (`LOOKED_AT` of them). Courses
are judged on others, whose walls are in none of these: 460 of the 4,760 patterns of walls that can be drawn to judge by
are left out. They are the likeliest ones, so what remains has more walls: 5.3 of 16 cells, with all of them 3.8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import nn

from experiments.claim import Setting
from generative.language import mazes
from generative.language.model import LanguageModel, ModelConfig
from generative.language.sft import SFT, encode
from generative.language.tokenizer import CharacterTokenizer
from generative.preference.data import PairData
from generative.preference.pairs import Pair
from generative.preference.reference import reference
from generative.preference.tokens import Plain
from generative.train import Data, Objective, TrainConfig, Trainer
from lab import streams

LONGEST = 40  # moves a model may make
LOOKED_AT = 1000  # mazes that were walked while settings were chosen: the first of seed 0, held out by `qx`
PATIENCE = 50  # mazes drawn for each that is judged by: at this size some three and a half are needed
TOKENIZER = CharacterTokenizer(mazes.ALPHABET)

M = TypeVar("M", bound=nn.Module)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        examples: demonstrations.
        pairs: to learn from.
        held: pairs drawn besides; the reward model is judged by those of mazes that are in no pair learned from.
        judged: mazes.
        first: how the demonstrations are learned.
        second: how everything after them is learned that has no settings of its own.
        alone: how DPO without an anchor is learned.
        reward: how the reward model is learned.
        seeds: courses.
        model: what learns.
    """

    examples: int
    pairs: int
    held: int
    judged: int
    first: TrainConfig
    second: TrainConfig
    alone: TrainConfig
    reward: TrainConfig
    seeds: int
    model: ModelConfig

    @property
    def twice(self) -> TrainConfig:
        """How chosen walks alone are learned with the work of pairs, which have two sides: with twice the updates."""
        return dataclasses.replace(self.second, steps=2 * self.second.steps)

    @property
    def updates(self) -> int:
        """Of all courses of `preferred_mazes`: DPO and SFT learn as long, SFT another time twice."""
        lessons = (self.first, self.second, self.second, self.twice, self.alone, self.reward)
        return self.seeds * sum(lesson.steps for lesson in lessons)


SIZES = Sizes(
    examples=40_000,
    pairs=8_000,
    held=400,
    judged=1_000,
    first=TrainConfig(steps=2400, batch_size=32, learning_rate=3e-3),
    second=TrainConfig(steps=700, batch_size=32, learning_rate=2e-3, warmup=20),
    alone=TrainConfig(steps=700, batch_size=32, learning_rate=1e-3, warmup=20),
    reward=TrainConfig(steps=4200, batch_size=32, learning_rate=1e-3, warmup=20),
    seeds=5,
    model=ModelConfig(),
)
"""Those of `qx sft mazes`, `qx pairs mazes` and `qx dpo`; the reward model learns six times as long."""


@dataclass(frozen=True)
class Score:
    """What a set of walks is worth."""

    success: float
    """The share that reach the goal."""
    optimal: float
    """The share of these that are shortest."""


def demonstrated(
    seed: int, examples: int, size: ModelConfig, train: TrainConfig, device: torch.device, tell: Tell
) -> LanguageModel:
    """The model that everything begins with: a new one, taught by demonstrations."""
    walks = mazes.demonstrations(seed, examples)
    data = encode(TOKENIZER, [text for text, _ in walks], [moves for _, moves in walks])
    model = size.make(TOKENIZER.size, streams.generator(seed, "weights"))
    return taught(model, SFT(), data, train, seed, device, tell, "demonstrations")


def taught(
    model: M,
    objective: Objective,
    data: Data,
    train: TrainConfig,
    seed: int,
    device: torch.device,
    tell: Tell,
    note: str,
) -> M:
    """The model itself, trained."""
    trainer = Trainer(model, objective, data, train, seed=seed, accelerator=Accelerator(cpu=device.type == "cpu"))
    for _, metrics in trainer.run():
        tell(f"{note}, loss {metrics['loss'].item():.3f}")
    return model.eval()


def counter(setting: Setting, total: int) -> Tell:
    """What is told of every update, of so many in all, and reports how far that is."""
    done = 0

    def tell(note: str) -> None:
        nonlocal done
        done += 1
        setting.report(done / total, note)

    return tell


def referred(model: LanguageModel, pairs: Sequence[Pair], device: torch.device) -> PairData:
    """The pairs in tokens, with what the model says of each side before it learns from them."""
    tokens = [Plain(TOKENIZER)(pair) for pair in pairs]
    return PairData(tokens, reference(model, PairData(tokens), model.transformer.arguments, device=device))


def unseen(seed: int, count: int) -> list[str]:
    """Mazes to be judged on: of walls that are never trained on, nor looked at while settings were chosen.

    Raises ValueError where `PATIENCE` times as many are drawn and they are still too few.
    """
    known = {walls(mazes.draw(0, index, test=True)) for index in range(LOOKED_AT)}
    root, found = streams.derive(seed, "judged"), list[str]()
    for index in range(PATIENCE * count):
        if len(found) == count:
            break
        text = mazes.draw(root, index, test=True)
        if walls(text) not in known:
            found.append(text)
    if len(found) < count:
        raise ValueError(
            f"{PATIENCE * count} mazes drawn: {len(found)} have walls that were not looked at; expected {count}"
        )
    return found


def walls(text: str) -> str:
    """The maze without its start and goal."""
    return text.replace("S", ".").replace("G", ".")


def score(texts: Sequence[str], walks: Sequence[str]) -> Score:
    """Judged by breadth-first search."""
    found = [mazes.judge(text, moves) for text, moves in zip(texts, walks, strict=True)]
    reached = sum(walk.valid for walk in found)
    return Score(reached / len(found), sum(walk.optimal for walk in found) / max(reached, 1))
