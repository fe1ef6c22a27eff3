"""What every training of the lab's own language models shares: the job, and the folders they are kept in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from generative.language import mazes
from generative.language.model import LanguageModel
from generative.language.tokenizer import CharacterTokenizer
from generative.preference.best import drawn
from generative.preference.data import PairData
from generative.preference.drift import drift
from generative.shares import effective
from generative.train import Data, Objective, TrainConfig, Trainer
from lab import streams
from lab.run import Run
from qx import maze_report
from qx.jobs import device_of, finished
from qx.usage import Common, UsageError

FAR = 30  # nats from the reference, from which a person is warned
DRIFTED, DRAWS = 64, 4  # prompts, and completions of each, by which the distance to the reference is measured


class LanguageJob:
    """What both stages share: a model with its tokenizer, judged on held-out mazes where it speaks of mazes."""

    def __init__(
        self, command: str, inputs: tuple[Path, ...], name: str, trainer: Trainer, tokenizer: CharacterTokenizer
    ) -> None:
        self.command, self.inputs, self.name = command, inputs, name
        self.trainer, self.tokenizer, self.device = trainer, tokenizer, trainer.accelerator.device
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
        return {**result, **self._drifted()}

    def _drifted(self) -> dict[str, float]:
        """KL to the reference, where there is one, in nats, over what the policy says to prompts of the pairs."""
        data = self.trainer.data
        if self.before is None or not isinstance(data, PairData):
            return {}
        model, prompts = self._model(), [data.prompt(i) for i in range(min(len(data), DRIFTED))]
        limit, reach = int(data.lengths[:, 1:].max()), model.transformer.arguments["length"]
        if isinstance(reach, int):
            limit = min(limit, reach - max(map(len, prompts)))
        seed = streams.derive(self.trainer.seed, "drift")
        said = drawn(model, prompts, DRAWS, seed=seed, limit=limit, end=self.tokenizer.eos)
        found = drift(model, self.before, prompts, said, device=self.device)
        return {"kl": found.kl, "kl_error": found.error}

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
        if "kl" in result:
            rows.append(("KL", distance(result)))
        home = Path(result["run"])
        return [*rows, ("pictures", str(home / "report.png")), ("run", str(home))]

    def _model(self) -> LanguageModel:
        model = self.trainer.result
        assert isinstance(model, LanguageModel)
        return model.eval()


def distance(result: Mapping[str, Any]) -> str:
    """The KL to the reference, in words."""
    said = f"{round(result['kl'], 2) + 0.0:.2f} nats a completion to the reference"  # and not -0.00
    far = f"; beyond {FAR} little is left of it: a smaller --learning-rate or a larger --beta" * (result["kl"] > FAR)
    return f"{said}, standard error {result['kl_error']:.2g}{far}"


def trainer_of(
    model: LanguageModel, objective: Objective, data: Data, longest: int, train: TrainConfig, common: Common
) -> Trainer:
    """The loop that teaches it.

    Raises:
        UsageError: for texts that the model's positions do not reach.
        TrainError: for a cast of the accelerator that is not known here, and as `Trainer`.
    """
    reach = model.transformer.arguments["length"]
    if isinstance(reach, int) and longest > reach:
        raise UsageError(
            f"--length {reach}, of `qx sft`: the longest text has {longest} tokens, and the model reads no more"
        )
    accelerator = Accelerator(cpu=device_of(common).type == "cpu")
    effective(train.precision, accelerator)  # or a refusal
    return Trainer(model, objective, data, train, seed=common.seed, accelerator=accelerator)


def folder_of(run: Path) -> Path:
    """The saved model of a run, or the folder itself where it is one."""
    return run / "model" if (run / "model").is_dir() else run


def begun(model: Path) -> Path:
    """What a training starts from: what a run has made, or the folder itself. Raises UsageError where
    there is none, and before a run's end.
    """
    if not model.exists():
        raise UsageError(f"--model {model}: no such folder; expected a run, or a model of transformers on this disk")
    folder = folder_of(finished(model))
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise UsageError(f"--model {model}: adapters alone; expected the model/ beside them, which has them in it")
    if not any((folder / name).is_file() for name in ("model.json", "config.json")):
        raise UsageError(
            f"--model {model}: no model here; expected a run, or a folder of transformers (it would hold config.json)"
        )
    return folder


def load(run: Path) -> tuple[LanguageModel, CharacterTokenizer]:
    """The model of a run, or of its `model/` folder. Raises ModelError, TokenizerError; UsageError before its end."""
    folder = begun(run)
    return LanguageModel.load(folder), CharacterTokenizer.load(folder / "tokenizer.json")
