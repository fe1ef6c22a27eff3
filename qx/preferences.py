"""`qx sft`, `qx dpo` and `qx pairs`: a language model from demonstrations, then from preferences."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from accelerate import Accelerator
from torch import Tensor

from generative.language import mazes
from generative.language.examples import Example, read_examples
from generative.language.model import LanguageModel, ModelConfig
from generative.language.sft import SFT, encode
from generative.language.tokenizer import CharacterTokenizer
from generative.preference import dpo as preference
from generative.preference import mazes as maze_pairs
from generative.preference import pairs as pair_files
from generative.preference.losses import LOSSES
from generative.train import TrainConfig, Trainer
from lab import console, streams
from lab.run import Run
from qx import maze_report
from qx.jobs import device_of, show, start
from qx.usage import Common, Lasting, UsageError, at_least, choose, from_tree, parse, to_tree

MODEL = ModelConfig()
SFT_DEFAULTS = TrainConfig(steps=2400, batch_size=32, learning_rate=3e-3)
DPO_DEFAULTS = TrainConfig(steps=700, batch_size=32, learning_rate=2e-3, warmup=20)


@dataclass(frozen=True, kw_only=True)
class Sft(Lasting):
    """Train a language model to complete prompts as the demonstrations do."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """A JSON Lines file with `prompt` and `completion`, or `mazes`: the embedded imperfect demonstrations."""
    examples: int = 40_000
    """Demonstrations to draw, for embedded data. More covers more mazes."""
    model: ModelConfig = MODEL
    train: TrainConfig = SFT_DEFAULTS


@dataclass(frozen=True, kw_only=True)
class Dpo(Lasting):
    """Train a language model further on preference pairs, held to what it was (direct preference optimisation)."""

    pairs: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PAIRS")]
    """A JSON Lines file with `prompt`, `chosen` and `rejected`."""
    model: Path
    """The run of `qx sft` or `qx dpo` to start from; it is also the reference."""
    loss: str = "sigmoid"
    """The preference loss: sigmoid (DPO), cdpo, robust, ipo or hinge."""
    beta: float = 1.0
    """Strength of the hold to the reference. Larger stays closer to it and learns less."""
    anchor: float = 1.0
    """Weight of an added SFT loss on the chosen side, which keeps it likely: small models need it, or a beta of 5 and a
    learning rate of 1e-3. 0 is DPO itself."""
    train: TrainConfig = DPO_DEFAULTS


@dataclass(frozen=True, kw_only=True)
class Pairs(Common):
    """What a preference file really holds (check), or the embedded one, written to a file (mazes)."""

    action: Annotated[tyro.conf.Positional[Literal["check", "mazes"]], tyro.conf.arg(metavar="check|mazes")]
    """check: count the findings in FILE. mazes: write maze pairs, judged by breadth-first search, to FILE."""
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The JSON Lines file."""
    count: int = 8000
    """Pairs to write. More teach more mazes."""
    model: Path | None = None
    """The run of a model that walks mazes: its own mistakes are rejected and a shortest way is chosen. Without one,
    two imperfect demonstrations of a maze are compared."""


class LanguageJob:
    """What both stages share: a model with its tokenizer, judged on held-out mazes where it speaks of mazes."""

    def __init__(self, command: str, name: str, trainer: Trainer, tokenizer: CharacterTokenizer, seed: int) -> None:
        self.command, self.name, self.trainer, self.tokenizer, self.seed = command, name, trainer, tokenizer, seed
        self.total = trainer.config.steps
        self.headline: tuple[str, ...] = ("loss", "nll_per_token")
        self.before: LanguageModel | None = None  # the reference, where there is one

    @property
    def speaks_of_mazes(self) -> bool:
        return self.tokenizer.alphabet == mazes.ALPHABET

    def watch(self) -> Mapping[str, Tensor]:
        return {}

    def evaluate(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if self.speaks_of_mazes:
            result |= maze_report.score(self._model(), self.tokenizer)
            if self.before is not None:
                result["before"] = maze_report.score(self.before, self.tokenizer)
        return result

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        self._model().save(run.path / "model")
        self.tokenizer.save(run.path / "model" / "tokenizer.json")
        maze_report.draw(run, result, self._model(), self.before, self.tokenizer if self.speaks_of_mazes else None)

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        rows = []
        for when, found in (("before", result.get("before")), ("after" if "before" in result else "held out", result)):
            if found and "success" in found:
                words = f"{found['success']:.1%} reach the goal, {found['optimal']:.1%} of these by a shortest way"
                rows.append((when, f"{words} ({found['mazes']} held-out mazes, {found['excess']:.2f} moves too many)"))
        return [*rows, ("run", str(result["run"]))]

    def _model(self) -> LanguageModel:
        model = self.trainer.result
        assert isinstance(model, LanguageModel)
        return model.eval()


def sft(args: Sequence[str]) -> dict[str, Any]:
    """`qx sft DATA`."""
    options = parse(Sft, args, "qx sft")
    job = prepare_sft(options)
    _, result = start(job, to_tree(options), options)
    show(job, result)
    return result


def prepare_sft(options: Sft) -> LanguageJob:
    """The job of `qx sft`, before anything is written."""
    device = device_of(options)
    at_least(1, examples=options.examples, steps=options.train.steps, batch_size=options.train.batch_size)
    if options.data == "mazes":
        walks = mazes.demonstrations(options.seed, options.examples)
        found = [Example(text, moves) for text, moves in walks]
        tokenizer = CharacterTokenizer(mazes.ALPHABET)
    else:
        found = read_examples(Path(options.data))
        tokenizer = CharacterTokenizer.of(text for example in found for text in (example.prompt, example.completion))
    data = encode(tokenizer, [e.prompt for e in found], [e.completion for e in found])
    model = options.model.make(tokenizer.size, streams.generator(options.seed, "weights"))
    trainer = Trainer(
        model, SFT(), data, options.train, seed=options.seed, accelerator=Accelerator(cpu=device.type == "cpu")
    )
    return LanguageJob("sft", Path(options.data).stem, trainer, tokenizer, options.seed)


def reopen_sft(run: Run, common: Common) -> LanguageJob:
    """The job of a run of `qx sft`."""
    options = from_tree(Sft, run.config)
    return prepare_sft(dataclasses.replace(options, device=common.device))


def dpo(args: Sequence[str]) -> dict[str, Any]:
    """`qx dpo PAIRS --model RUN`."""
    options = parse(Dpo, args, "qx dpo")
    job, digest = prepare_dpo(options)
    absolute = dataclasses.replace(options, pairs=options.pairs.resolve(), model=options.model.resolve())
    _, result = start(job, {**to_tree(absolute), "digest": digest}, options)
    show(job, result)
    return result


def prepare_dpo(options: Dpo) -> tuple[LanguageJob, str]:
    """The job of `qx dpo`, before anything is written, and a digest of its pairs."""
    device = device_of(options)
    at_least(1, steps=options.train.steps, batch_size=options.train.batch_size)
    choose("loss", options.loss, LOSSES)
    found = pair_files.read(options.pairs)
    model, tokenizer = load(options.model)
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    data = preference.prepare(reference.to(device), tokenizer, found)
    objective = preference.DPO(LOSSES[options.loss], options.beta, options.anchor)
    trainer = Trainer(
        model, objective, data, options.train, seed=options.seed, accelerator=Accelerator(cpu=device.type == "cpu")
    )
    job = LanguageJob("dpo", options.pairs.stem, trainer, tokenizer, options.seed)
    job.headline, job.before = ("loss", "rewards/accuracies", "rewards/margins"), reference
    return job, hashlib.blake2b(options.pairs.read_bytes(), digest_size=16).hexdigest()


def load(folder: Path) -> tuple[LanguageModel, CharacterTokenizer]:
    """The model of a run, or of its `model/` folder. Raises ModelError, TokenizerError."""
    inner = folder / "model" if (folder / "model").is_dir() else folder
    return LanguageModel.load(inner), CharacterTokenizer.load(inner / "tokenizer.json")


def reopen_dpo(run: Run, common: Common) -> LanguageJob:
    """The job of a run of `qx dpo`. Raises UsageError when its pairs have changed since."""
    config = dict(run.config)
    written = config.pop("digest", None)
    options = from_tree(Dpo, config)
    job, digest = prepare_dpo(dataclasses.replace(options, device=common.device))
    if digest != written:
        raise UsageError(
            f"{options.pairs}: has changed since {run.path} was begun; the run cannot go on with other pairs"
        )
    return job


def pairs(args: Sequence[str]) -> dict[str, Any]:
    """`qx pairs check FILE`, `qx pairs mazes FILE`."""
    options = parse(Pairs, args, "qx pairs")
    at_least(1, count=options.count)
    if options.action == "mazes":
        if options.file.exists():
            raise UsageError(f"{options.file}: exists already; name a file to make")
        if options.model is None:
            made = maze_pairs.demonstrated(options.seed, options.count)
        else:
            model, tokenizer = load(options.model)
            made = maze_pairs.corrected(model.to(device_of(options)).eval(), tokenizer, options.seed, options.count)
        options.file.parent.mkdir(parents=True, exist_ok=True)
        pair_files.write(options.file, made)
        console.out.print(f"{len(made)} pairs written to {options.file}", soft_wrap=True)
        return {"pairs": len(made), "file": str(options.file)}
    findings = pair_files.check(options.file)
    result = {k: v for k, v in dataclasses.asdict(findings).items() if k != "first"}
    rows = [
        [name.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value)]
        for name, value in result.items()
    ]
    console.table(str(options.file), ["finding", "count"], rows)
    for message in findings.first.values():
        console.out.print(f"[dim]first:[/] {console.escape(message)}", soft_wrap=True)
    return result
