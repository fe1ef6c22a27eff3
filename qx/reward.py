"""`qx reward`: a reward model from preference pairs, judged by pairs that it has not learned from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from accelerate import Accelerator
from torch import Tensor, nn

from generative.language.adapter import base_name
from generative.preference.data import PairData
from generative.preference.preflight import Checked, preflight
from generative.preference.reward import BradleyTerry, RewardModel
from generative.preference.tokens import PairTokenizer, Plain, Tokens
from generative.preference.tokens import Pretrained as Tokenised
from generative.saved import of_transformers
from generative.shares import cast, effective
from generative.train import TrainConfig, Trainer
from lab import plots
from lab.run import Run
from qx.curves import Curves
from qx.held_out import divided, means
from qx.jobs import device_of, show, start, vacant
from qx.language import begun, folder_of, load
from qx.usable import usable
from qx.usage import Common, Lasting, from_tree, parse, to_tree, value_of

REWARD_DEFAULTS = TrainConfig(steps=700, batch_size=32, learning_rate=1e-3, warmup=20)


@dataclass(frozen=True, kw_only=True)
class Reward(Lasting):
    """Train a reward model on preference pairs: a language model's body with a head that scores completions."""

    pairs: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PAIRS")]
    """A .jsonl or .parquet file, or the folder of a data set, with `prompt`, `chosen` and `rejected`."""
    model: Path
    """The run of `qx sft` or `qx dpo` whose model is the body, or a folder of a causal language model of
    transformers."""
    limit: int = 1024
    """The longest sequence in tokens, prompt and completion; what is longer is cut."""
    held_out: float = 0.05
    """The share of the pairs that it is judged by, and does not learn from."""
    strict: bool = False
    """Stop at the first row that cannot teach, where by default it is dropped and counted."""
    train: TrainConfig = REWARD_DEFAULTS


TRANSFORMERS = Reward(
    pairs=tyro.MISSING,
    model=tyro.MISSING,
    train=TrainConfig(steps=200, batch_size=16, learning_rate=5e-5, warmup=10),
)
"""What suits a model that was trained before, by others, on much."""


class Body(NamedTuple):
    """What `qx reward` needs of either kind of model."""

    tokenise: PairTokenizer
    reach: int | None
    """The longest sequence in tokens that the model can read."""
    scorer: Callable[[Sequence[Tokens]], nn.Module]
    """The reward model before it learns; the pairs are given to try whether it can read them."""
    keep: Callable[[Any, Path, str], None]
    """Write a reward model to a folder, with a card where such folders have one."""


class RewardJob:
    """One training of a reward model, prepared."""

    command = "reward"
    headline = ("loss", "rewards/accuracies", "rewards/margins")

    def __init__(self, options: Reward, checked: Checked, body: Body, tokens: Sequence[Tokens]) -> None:
        self.options, self.checked, self.body, self.device = options, checked, body, device_of(options)
        self.inputs: tuple[Path, ...] = (options.pairs, folder_of(options.model))
        self.name, self.total = options.pairs.stem, options.train.steps
        accelerator = Accelerator(cpu=self.device.type == "cpu")
        self.precision = effective(options.train.precision, accelerator)
        learned, self.held = divided(tokens, options.seed, options.held_out)
        self.trainer = Trainer(
            body.scorer(tokens),
            BradleyTerry(),
            PairData(learned),
            options.train,
            seed=options.seed,
            accelerator=accelerator,
        )

    def watch(self) -> Mapping[str, Tensor]:
        """The loss and scores of the pairs that are held out."""
        return {f"held_out/{name}": value for name, value in self._judged().items()}

    def _judged(self) -> dict[str, Tensor]:
        if not self.held:
            return {}
        with cast(self.precision, self.device.type):
            return means(self.trainer.objective, self.trainer.result.eval(), PairData(self.held), self.device)

    def evaluate(self) -> dict[str, Any]:
        """What is said of the pairs held out, and what the file held."""
        found: dict[str, Any] = {name: value.item() for name, value in self._judged().items()}
        findings = self.checked.findings
        return {**found, "learned": len(self.trainer.data), "held_out": len(self.held), "data": findings.counts()}

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """`model/`, and `report.png`."""
        self.body.keep(self.trainer.result.eval(), run.path / "model", card(self.options, result))
        draw(run)

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        rows = []
        if result["held_out"]:
            words = f"{result['rewards/accuracies']:.1%} of {result['held_out']} pairs held out are ranked right"
            rows.append(("held out", f"{words}, mean margin {result['rewards/margins']:.2g} nats"))
        else:
            rows.append(("held out", "none; a larger --held-out would say how well it ranks"))
        home = Path(result["run"])
        return [*rows, ("pictures", str(home / "report.png")), ("model", str(home / "model"))]


def reward(args: Sequence[str]) -> dict[str, Any]:
    """`qx reward PAIRS --model RUN_OR_FOLDER`."""
    foreign = of_transformers(folder_of(Path(value_of(args, "--model") or "")))
    options = parse(Reward, args, "qx reward", default=TRANSFORMERS if foreign else None)
    options = dataclasses.replace(options, model=begun(options.model))
    vacant(options)
    job = prepare(options)
    settled = dataclasses.replace(options, pairs=options.pairs.resolve(), model=options.model.resolve())
    _, result = start(job, to_tree(settled), options)
    show(job, result)
    return result


def reopen(run: Run, common: Common) -> RewardJob:
    """The job of a run of `qx reward`."""
    return prepare(dataclasses.replace(from_tree(Reward, run.config), device=common.device))


def prepare(options: Reward) -> RewardJob:
    """The job, before anything is written."""
    body = (pretrained if of_transformers(options.model) else own)(options.model)
    limit = options.limit if body.reach is None else min(options.limit, body.reach)
    checked = preflight(options.pairs, body.tokenise, limit, strict=options.strict)
    return RewardJob(options, checked, body, usable(options.pairs, checked))


def own(model: Path) -> Body:
    """Of a run of the lab's own language models. Its folder is `RewardModel`'s, with the tokenizer."""
    language, tokenizer = load(model)
    reach = language.transformer.arguments["length"]

    def keep(trained: RewardModel, folder: Path, _card: str) -> None:
        trained.save(folder)
        tokenizer.save(folder / "tokenizer.json")

    return Body(Plain(tokenizer), reach, lambda _: RewardModel(language.transformer), keep)


def pretrained(folder: Path) -> Body:
    """Of a folder of transformers. Its folder is a classifier of transformers, with tokenizer and card."""
    from generative.language import causal  # transformers takes seconds to load
    from generative.language import pretrained as folders
    from generative.preference.reward_pretrained import rewarding

    found = folders.load(folder)

    def scorer(pairs: Sequence[Tokens]) -> nn.Module:
        body = causal.Causal(found.model)
        causal.check_on(body, [(each.prompt, side) for each in pairs for side in (each.chosen, each.rejected)])
        return rewarding(body, found.tokenizer.pad_token_id)

    def keep(trained: Any, at: Path, words: str) -> None:
        folders.Pretrained(trained.model, found.tokenizer).save(at, words)

    return Body(Tokenised(found.tokenizer), found.reach, scorer, keep)


def card(options: Reward, result: Mapping[str, Any]) -> str:
    """The model's README: how it was made, what the data held, how well it ranks, and where it looks."""
    train, data = options.train, result["data"]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags: [reward-model, bradley-terry, quincunx]",
        "---",
        "",
        f"# Reward of {options.pairs.stem}, from {base_name(options.model)}",
        "",
        f"Trained by `qx reward` on preference pairs, by -log sigmoid(r_chosen - r_rejected): {train.steps:,} updates "
        f"of {train.batch_size} pairs, learning rate {train.learning_rate:g}, seed {options.seed}. "
        f"{data['usable']:,} of {data['pairs']:,} rows can teach; {result['learned']:,} were learned from.",
        "",
        "The one logit of a prompt with its completion is the reward, read off the last token that is not the padding "
        "token. Rewards of one prompt's completions may be compared; those of different prompts may not.",
        "",
    ]
    if result["held_out"]:
        lines += [f"| {result['held_out']:,} pairs held out | |", "|---|---|"]
        lines += [f"| {name} | {result[name]:.4g} |" for name in result if "/" in name or name == "loss"]
        lines.append("")
    return "\n".join(lines)


def draw(run: Run) -> None:
    """`report.png`: scores, accuracy and loss over updates."""
    curves = Curves(run)
    made, axes = plots.figure(1, 3, width=4.2, height=3.1)
    curves.sides(axes[0], "rewards", "reward")
    curves.ranked(axes[1])
    curves.learned(axes[2], "loss", "loss")
    plots.save(made, run.path / "report.png")
