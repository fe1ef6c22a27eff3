"""`qx sft`: a language model from demonstrations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from generative.language import mazes
from generative.language.examples import Example, read_examples
from generative.language.model import ModelConfig
from generative.language.sft import SFT, encode
from generative.language.tokenizer import CharacterTokenizer
from generative.train import TrainConfig
from lab import streams
from lab.run import Run
from qx.jobs import Job, show, start
from qx.language import LanguageJob, trainer_of
from qx.usage import Common, Lasting, asked, from_tree, parse, to_tree, value_of

MODEL = ModelConfig()
SFT_DEFAULTS = TrainConfig(steps=2400, batch_size=32, learning_rate=3e-3)
MAZES = "mazes"
"""The embedded demonstrations."""


@dataclass(frozen=True, kw_only=True)
class Sft(Lasting):
    """Train a new language model to complete prompts as the demonstrations do; with --model FOLDER one of transformers,
    whose options `qx sft --model FOLDER --help` lists."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """A JSON Lines file with `prompt` and `completion`, or `mazes`: the embedded imperfect demonstrations."""
    examples: int = 40_000
    """Demonstrations to draw, for embedded data. More covers more mazes."""
    model: ModelConfig = MODEL
    train: TrainConfig = SFT_DEFAULTS


def sft(args: Sequence[str]) -> dict[str, Any]:
    """`qx sft DATA`, `qx sft DATA --model FOLDER`."""
    if value_of(args, "--model") is not None:
        from qx import sft_pretrained  # transformers takes seconds to load

        return sft_pretrained.sft(args)
    options = parse(Sft, args, "qx sft")
    job = prepare(options)
    _, result = start(job, settled(options), options)
    show(job, result)
    return result


def settled(options: Sft) -> dict[str, Any]:
    """The configuration as it is kept: paths absolute, so that a run goes on from any directory."""
    data = options.data if options.data == MAZES else str(Path(options.data).resolve())
    return to_tree(dataclasses.replace(options, data=data))


def prepare(options: Sft) -> LanguageJob:
    """The job of `qx sft`, before anything is written."""
    inputs: tuple[Path, ...] = ()
    if options.data == MAZES:
        walks = mazes.demonstrations(options.seed, options.examples)
        found = [Example(text, moves) for text, moves in walks]
        tokenizer = CharacterTokenizer(mazes.ALPHABET)
    else:
        inputs = (Path(options.data),)
        found = read_examples(Path(options.data))
        tokenizer = CharacterTokenizer.of(text for example in found for text in (example.prompt, example.completion))
    data = encode(tokenizer, [e.prompt for e in found], [e.completion for e in found])
    with asked("the model"):
        model = options.model.make(tokenizer.size, streams.generator(options.seed, "weights"))
    trainer = trainer_of(model, SFT(), data, data.tokens.shape[1], options.train, options)
    return LanguageJob("sft", inputs, Path(options.data).stem, trainer, tokenizer)


def reopen(run: Run, common: Common) -> Job:
    """The job of a run of `qx sft`."""
    if isinstance(run.config["model"], str):
        from qx import sft_pretrained  # transformers takes seconds to load

        return sft_pretrained.reopen(run, common)
    return prepare(dataclasses.replace(from_tree(Sft, run.config), device=common.device))
