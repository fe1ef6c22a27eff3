"""`qx sft DATA --model FOLDER`: a model of transformers from demonstrations, heard before and after."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from accelerate import Accelerator
from torch import Tensor

from generative.language.adapter import base_name
from generative.language.causal import Causal, check_on
from generative.language.demonstrations import DemonstrationData, Demonstrations, FineTuning, read
from generative.language.pretrained import Pretrained, complete, load
from generative.preference.tokens import Pretrained as Tokenised
from generative.shares import cast, effective
from generative.train import TrainConfig, Trainer
from lab import console, plots
from lab.run import Run
from qx.curves import Curves
from qx.held_out import different, divided, means
from qx.jobs import device_of, show, start, vacant
from qx.language import begun
from qx.usage import Common, Lasting, from_tree, parse, to_tree

SPOKEN = 8  # prompts that are continued for the report
TRAIN = TrainConfig(steps=200, batch_size=16, learning_rate=5e-5, warmup=10)


@dataclass(frozen=True, kw_only=True)
class SftPretrained(Lasting):
    """Train a causal language model of transformers to complete prompts as the demonstrations do."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A .jsonl or .parquet file, or the folder of a data set, with `prompt` and `completion`, or with pairs, whose
    chosen sides are learned."""
    model: Path
    """What to start from: a run of `qx sft` or `qx dpo` on such a model, or the folder of a causal language model of
    transformers."""
    limit: int = 1024
    """The longest sequence in tokens, prompt and completion; what is longer is cut."""
    held_out: float = 0.05
    """The share of the demonstrations that it is judged by, and does not learn from."""
    strict: bool = False
    """Stop at the first row that is no demonstration, where by default it is left out and counted."""
    train: TrainConfig = TRAIN


class SftPretrainedJob:
    """One fine-tuning of a model of transformers, prepared."""

    command = "sft"
    headline = ("loss", "nll_per_token")

    def __init__(self, options: SftPretrained, told: Demonstrations, pretrained: Pretrained) -> None:
        self.options, self.told, self.device = options, told, device_of(options)
        self.inputs: tuple[Path, ...] = (options.data, options.model)
        self.name, self.total = options.data.stem, options.train.steps
        self.pretrained, accelerator = pretrained, Accelerator(cpu=self.device.type == "cpu")
        self.precision = effective(options.train.precision, accelerator)
        model = Causal(pretrained.model)
        check_on(model, [(each.prompt, each.chosen) for each in told.tokens])
        learned, self.held = divided(told.tokens, options.seed, options.held_out)
        self.trainer = Trainer(
            model,
            FineTuning(),
            DemonstrationData(learned),
            options.train,
            seed=options.seed,
            accelerator=accelerator,
        )

    @functools.cached_property
    def before(self) -> Causal:
        """The model of the folder, as it is there."""
        return Causal(load(self.options.model).model).to(self.device).eval()

    @property
    def after(self) -> Causal:
        """What was learned so far: the moving average, where one is kept."""
        model = self.trainer.result.eval()
        assert isinstance(model, Causal)
        return model

    def watch(self) -> Mapping[str, Tensor]:
        """The loss of the demonstrations that are held out."""
        return {f"held_out/{name}": value for name, value in self._judged(self.after).items()}

    def _judged(self, model: Causal) -> dict[str, Tensor]:
        if not self.held:
            return {}
        with cast(self.precision, self.device.type):
            return means(self.trainer.objective, model, DemonstrationData(self.held), self.device)

    def evaluate(self) -> dict[str, Any]:
        """The loss of the demonstrations held out, before and after, and what the file held."""
        found: dict[str, Any] = {name: value.item() for name, value in self._judged(self.after).items()}
        if self.held:
            found["before"] = {name: value.item() for name, value in self._judged(self.before).items()}
        doubts = {kind: len(places) for kind, places in self.told.doubts.items()}
        return {**found, "learned": len(self.trainer.data), "held_out": len(self.held), "data": doubts}

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """`model/`, which transformers loads, `report.png`, and `samples.jsonl`: prompts continued before and after."""
        said = self._spoken()
        lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in said]
        (run.path / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
        Pretrained(self.after.model, self.pretrained.tokenizer).save(
            run.path / "model", card(self.options, result, said)
        )
        draw(run)

    def _spoken(self) -> list[dict[str, str]]:
        """Some different prompts, the held-out ones first, as they were demonstrated and as they are continued."""
        shown = different((*self.held, *self.told.tokens), SPOKEN)
        longest = max((len(each.chosen) for each in shown), default=1)
        limit = self.pretrained.within(longest, max((len(each.prompt) for each in shown), default=0))
        told = [
            complete(
                Pretrained(each.model, self.pretrained.tokenizer), [list(one.prompt) for one in shown], limit=limit
            )
            for each in (self.before, self.after)
        ]
        decode = functools.partial(self.pretrained.tokenizer.decode, skip_special_tokens=True)
        return [
            {
                "prompt": decode(list(one.prompt)),
                "demonstrated": decode(list(one.chosen)),
                "before": decode(old),
                "after": decode(new),
            }
            for one, old, new in zip(shown, *told, strict=True)
        ]

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        rows = []
        if result["held_out"]:
            old, new = result["before"]["nll_per_token"], result["nll_per_token"]
            words = f"{new:.3f} nats a token, a mean over {result['held_out']} demonstrations; {old:.3f} before"
            rows.append(("held out", words))
        else:
            rows.append(("held out", "nothing; a larger --held-out would say how well it does"))
        home = Path(result["run"])
        return [*rows, *((name, str(home / file)) for name, file in FILES.items())]


FILES = {"pictures": "report.png", "samples": "samples.jsonl", "model": "model"}


def sft(args: Sequence[str]) -> dict[str, Any]:
    """`qx sft DATA --model FOLDER`."""
    options = parse(SftPretrained, args, "qx sft")
    options = dataclasses.replace(options, model=begun(options.model))
    vacant(options)
    job = prepare(options)
    settled = dataclasses.replace(options, data=options.data.resolve(), model=options.model.resolve())
    _, result = start(job, to_tree(settled), options)
    show(job, result)
    return result


def reopen(run: Run, common: Common) -> SftPretrainedJob:
    """The job of a run of `qx sft` on a folder."""
    return prepare(dataclasses.replace(from_tree(SftPretrained, run.config), device=common.device))


def prepare(options: SftPretrained) -> SftPretrainedJob:
    """The job, before anything is written. What is cut or left out is said."""
    pretrained = load(options.model)
    told = read(options.data, Tokenised(pretrained.tokenizer), pretrained.within(options.limit), strict=options.strict)
    for kind, places in told.doubts.items():
        count = "1 demonstration" if len(places) == 1 else f"{len(places)} demonstrations"
        words = f"{count} {kind}; the first: {places[0]}"
        console.err.print(f"[dim]{console.escape(words)}[/]", soft_wrap=True)
    return SftPretrainedJob(options, told, pretrained)


def card(options: SftPretrained, result: Mapping[str, Any], said: Sequence[Mapping[str, str]]) -> str:
    """The model's README: how it was made, how well it fits what is held out, what it says now."""
    train = options.train
    lines = [
        "---",
        "library_name: transformers",
        "tags: [sft, quincunx]",
        "---",
        "",
        f"# {options.data.stem}, from {base_name(options.model)}",
        "",
        f"Trained by `qx sft` on {result['learned']:,} demonstrations, on their completions alone: {train.steps:,} "
        f"updates of {train.batch_size}, learning rate {train.learning_rate:g}, seed {options.seed}.",
        "",
    ]
    if result["held_out"]:
        lines += [f"| {result['held_out']:,} demonstrations held out | before | after |", "|---|---|---|"]
        lines += [f"| {name} | {old:.4g} | {result[name]:.4g} |" for name, old in result["before"].items()]
        lines.append("")
    lines += ["## Before and after", ""]
    for each in said:
        first, *rest = ((name, " ".join(text.split())[:400] or "(nothing)") for name, text in each.items())
        lines += [f"**{first[1]}**", "", *(f"- {name}: {text}" for name, text in rest), ""]
    return "\n".join(lines)


def draw(run: Run) -> None:
    """`report.png`: the loss of a completion and of a token over updates."""
    curves = Curves(run)
    made, axes = plots.figure(1, 2, width=4.6, height=3.1)
    curves.learned(axes[0], "loss", "nats a completion")
    curves.learned(axes[1], "nll_per_token", "nats a token")
    plots.save(made, run.path / "report.png")
