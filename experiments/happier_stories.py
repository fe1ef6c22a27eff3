"""Happier stories, by a rule that counts words: how much DPO gains of it, and how far it goes from the model for that.

Of each beginning the pretrained model tells some stories. The rule counts the happy and the sad words of each; the
happiest is paired with the saddest, the next with the next, and DPO learns from the pairs whose scores differ enough.
It learns as anybody would, from a folder of transformers; stories are drawn by our own Transformer with the same
weights. Each policy is then judged on beginnings and names that were not among the prompts: by the rule, and by its KL
to the reference over the same stories (`generative.preference.drift`), as in Rafailov et al. 2023, fig. 2. Stories are
cut after `LIMIT` tokens, where few have ended, and the KL is of these.

The interval is Student's, over the means of the beginnings: with other names a beginning goes on much alike. Each beta
is trained once, from one seed, so the interval holds nothing of how training varies.

The rule is no reader. It does not see that "not happy" is sad, and a story that only repeats its happy words would win.
So the share of different words among a story's stands beside the score, and stories of both models are in the picture,
the first that were drawn.

Which beta counts is settled by stories of the prompts that were learned from: of those within the bound the happiest.
The bars were set before anything was run; learning rate, betas and the number of stories after two trials of some 30
updates, with other pairs of the same prompts.
"""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from backbones.convert import llama
from experiments import stories
from experiments.claim import Claim, Finding, Number, Setting
from experiments.happiness import happiness, words_of
from experiments.students import half
from generative.language.causal import Causal
from generative.language.model import LanguageModel
from generative.language.pieces import PieceTokenizer
from generative.language.pretrained import load
from generative.language.stories import save
from generative.preference.best import drawn
from generative.preference.data import PairData
from generative.preference.dpo import DPO
from generative.preference.drift import Drift, drift
from generative.preference.losses import PreferenceConfig
from generative.preference.reference import reference
from generative.preference.tokens import Tokens
from generative.train import TrainConfig, Trainer
from lab import plots, streams

BOUND, GAIN = 10.0, 2.0
LIMIT = 200
"""Tokens of a story that are told: some ninety words, after which most stories are not over."""
DIFFERS = 2.0
"""Happy words of a hundred by which the sides of a pair differ at least."""

BEGINNINGS = (
    "Once upon a time, there was a little bird named {}.",
    "Once upon a time, {} was in a big house.",
    "One day, {} went to the park.",
    "One day, {} saw a dog.",
    "{} had a red ball.",
    "{} wanted to play outside.",
)
NAMES = ("Lily", "Tim", "Tom", "Sam", "Mia", "Ben", "Sue", "Max")
UNSEEN = (
    "Once there was a little cat named {}.",
    "One morning, {} was in the garden.",
    "{} could not find a toy.",
    "It was raining, and {} stayed at home.",
    "{} made a cake with a friend.",
    "Every night, {} looked at the moon.",
)
UNSEEN_NAMES = ("Anna", "Jack", "Lucy", "Bob")
SHOWN = 3  # beginnings in the picture
NATS = f"KL to the reference, nats in {LIMIT} tokens"
TRAIN = TrainConfig(steps=120, batch_size=16, learning_rate=1e-4, warmup=10)

CLAIM = Claim(
    claim="A pretrained model learns from preferences by a rule to tell happier stories, also of beginnings and names "
    f"that it did not learn from, within {BOUND:g} nats in {LIMIT} tokens of what it was.",
    source="this project's own, on the model of Karpathy, llama2.c (2023); sentiment beside KL as in Rafailov et al. "
    "2023, sec. 6.1",
    stated={
        "happier, words of a hundred": f">= {GAIN:g}",
        "lower end of its 95% interval": "> 0",
        NATS: f"<= {BOUND:g}",
    },
    minutes=4.5,
)


@dataclass(frozen=True)
class Size:
    """How much is told and learned."""

    told: int = 64
    """Stories of each prompt, of which pairs are made."""
    judged: int = 16
    """Stories of each prompt by which a model is judged."""
    train: TrainConfig = TRAIN
    betas: Sequence[float] = (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Told:
    """What a model told of B prompts, K stories each, and what is found in it."""

    prompts: Sequence[Sequence[int]]
    stories: Sequence[Sequence[Sequence[int]]]
    """Tokens, without the prompts."""
    texts: Sequence[Sequence[str]]
    score: Float64[Tensor, "B K"]
    """Happy words less sad ones, of a hundred."""
    distinct: float
    """The share of different words among a story's, in the mean."""
    over: float
    """The share of stories that come to their end."""


def run(setting: Setting) -> Finding:
    """Tell, pair, learn with each beta, and judge."""
    return compare(setting, *stories.load(setting.data), Size())


def compare(setting: Setting, model: LanguageModel, pieces: PieceTokenizer, size: Size) -> Finding:
    """`run` with any model of llama2.c, at any size."""
    seeds = {name: streams.derive(setting.seed, name) for name in ("pairs", "known", "unseen")}
    known, unseen = written(BEGINNINGS, NAMES), written(UNSEEN, UNSEEN_NAMES)
    model.to(setting.device).eval()
    setting.report(0.0, "tells stories")
    pairs = paired(tell(model, pieces, known, seeds["pairs"], size.told))
    data = PairData(pairs, reference(model, PairData(pairs), model.transformer.arguments, device=setting.device))
    before, after = tell(model, pieces, unseen, seeds["unseen"], size.judged), dict[float, Told]()
    drifts, learning = dict[float, Drift](), dict[float, tuple[float, float]]()
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), model.transformer, pieces)
        for number, beta in enumerate(size.betas):
            policy = learned(setting, Path(folder), data, beta, size, 0.15 + 0.85 * number / len(size.betas))
            again = tell(policy, pieces, known, seeds["known"], size.judged // 2)
            learning[beta] = (gone(policy, model, again, setting).kl, float(again.score.mean()))
            after[beta] = tell(policy, pieces, unseen, seeds["unseen"], size.judged)
            drifts[beta] = gone(policy, model, after[beta], setting)
    best = chosen(learning)
    gain = by_beginning(after[best].score) - by_beginning(before.score)
    mean, low, kl = float(gain.mean()), float(gain.mean()) - half(gain), drifts[best].kl
    found: dict[str, Number] = dict(zip(CLAIM.stated, (round(n, 3) for n in (mean, low, kl)), strict=True))
    verdict = (
        f"with beta {best:g} and {len(pairs)} pairs {float(before.score.mean()):.2f} happy words, less sad ones, of a "
        f"hundred become {float(after[best].score.mean()):.2f} (by {mean:.2f} +- {half(gain):.2f} more), {kl:.1f} "
        f"nats from the reference in {LIMIT} tokens; of a story's words {before.distinct:.0%} are different ones "
        f"before, {after[best].distinct:.0%} after."
    )
    rows = [row("reference", before, None), *(row(f"beta {beta:g}", after[beta], drifts[beta]) for beta in after)]
    kinds = ("happy less sad words of 100", f"KL, nats in {LIMIT} tokens", "by k3", "different words", "stories over")
    picture = draw(before, after, drifts, best, unseen)
    return Finding(found, judge(mean, low, kl), verdict, picture, ("model", *kinds), rows)


def judge(gain: float, low: float, kl: float) -> bool:
    """Whether the claim holds."""
    return gain >= GAIN and low > 0 and kl <= BOUND


def written(beginnings: Sequence[str], names: Sequence[str]) -> list[str]:
    """Every beginning with every name."""
    return [beginning.format(name) for beginning in beginnings for name in names]


def by_beginning(score: Float64[Tensor, "B K"]) -> Float64[Tensor, "beginnings"]:
    """The mean over names and stories of each of the unseen beginnings, whose names tell much the same."""
    return score.reshape(len(UNSEEN), -1).mean(1)


def tell(model: LanguageModel, pieces: PieceTokenizer, begun: Sequence[str], seed: int, each: int) -> Told:
    """`each` stories of every beginning; story k of beginning b is drawn by (seed, b, k)."""
    prompts = [[pieces.bos, *pieces.encode(text)] for text in begun]
    told = drawn(model, prompts, each, seed=seed, limit=LIMIT, end=pieces.eos)
    texts = [[pieces.decode(story) for story in group] for group in told]
    words = [words_of(text) for group in texts for text in group]
    return Told(
        prompts,
        told,
        texts,
        torch.tensor([[happiness(text) for text in group] for group in texts], dtype=torch.float64),
        distinct=sum(len(set(story)) / max(len(story), 1) for story in words) / len(words),
        over=sum(story[-1] == pieces.eos for said in told for story in said) / len(words),
    )


def paired(told: Told) -> list[Tokens]:
    """Of each prompt the happiest story with the saddest, the next with the next, while they differ by `DIFFERS`."""
    pairs = []
    for prompt, said, score in zip(told.prompts, told.stories, told.score, strict=True):
        order = score.argsort(stable=True).tolist()
        for sad, happy in zip(order[: len(order) // 2], reversed(order), strict=False):
            if score[happy] - score[sad] >= DIFFERS:
                pairs.append(Tokens(tuple(prompt), tuple(said[happy]), tuple(said[sad])))
    return pairs


def learned(setting: Setting, folder: Path, data: PairData, beta: float, size: Size, begun: float) -> LanguageModel:
    """The folder's model after DPO, as one of ours. `begun` is the share of all work that was done before."""
    policy = Causal(load(folder).model)
    accelerator = Accelerator(cpu=setting.device.type == "cpu")
    objective = DPO(PreferenceConfig(beta=beta))
    trainer = Trainer(policy, objective, data, size.train, seed=setting.seed, accelerator=accelerator)
    part = 0.7 / len(size.betas)  # of all work; the rest is telling
    for step, metrics in trainer.run():
        if step % 10 == 0:
            note = f"beta {beta:g}: {metrics['rewards/accuracies'].item():.0%} of the pairs are ranked right"
            setting.report(begun + part * step / size.train.steps, note)
    transformer = llama.load(policy.model.config.to_dict(), policy.model.state_dict())
    return LanguageModel(transformer).to(setting.device).eval()


def gone(policy: LanguageModel, model: LanguageModel, told: Told, setting: Setting) -> Drift:
    """How far the policy went, by what it told."""
    return drift(policy, model, told.prompts, told.stories, device=setting.device)


def chosen(learning: dict[float, tuple[float, float]]) -> float:
    """Of beta -> (KL, score) the beta of the highest score within the bound; where none is, of the least KL."""
    within = {beta: score for beta, (kl, score) in learning.items() if kl <= BOUND}
    return max(within, key=within.__getitem__) if within else min(learning, key=lambda beta: learning[beta][0])


def row(name: str, told: Told, moved: Drift | None) -> list[str]:
    """A row of the table."""
    score = f"{float(told.score.mean()):.2f} +- {half(by_beginning(told.score)):.2f}"
    kl = ["0", "0"] if moved is None else [f"{moved.kl:.2f} +- {1.96 * moved.error:.2f}", f"{moved.k3:.2f}"]
    return [name, score, *kl, f"{told.distinct:.0%}", f"{told.over:.0%}"]


def draw(
    before: Told, after: dict[float, Told], drifts: dict[float, Drift], best: float, begun: Sequence[str]
) -> Figure:
    """Score beside KL; and of the first beginnings the first story of the first name, before and after."""
    made, axes = plots.mosaic([["score", "words"]], (13.5, 5.4), (1.0, 1.9))
    ax, page = axes["score"], axes["words"]
    points = [("reference", 0.0, 0.0, before)]
    points += [(f"beta {beta:g}", drifts[beta].kl, 1.96 * drifts[beta].error, told) for beta, told in after.items()]
    for name, kl, error, told in points:
        score = by_beginning(told.score)
        x, y = kl, float(score.mean())
        ax.errorbar(x, y, xerr=error, yerr=half(score), fmt="o", color=plots.COLOURS[0], capsize=2)
        ax.annotate(name, (x, y), xytext=(6, 6), textcoords="offset points", fontsize=8, color=plots.INK)
    ax.axvline(BOUND, color=plots.INK, linewidth=1.0, linestyle=(0, (4, 3)))
    ax.annotate("the bound", (BOUND, 0.02), xycoords=("data", "axes fraction"), xytext=(-4, 0),
                textcoords="offset points", ha="right", fontsize=8, color=plots.INK)  # fmt: skip
    ax.margins(x=0.15)
    plots.label(ax, "Happier, and how far it goes for that", NATS, "happy less sad words of 100")
    lines = []
    for b in range(0, SHOWN * len(UNSEEN_NAMES), len(UNSEEN_NAMES)):
        for when, told in (("before", before), (f"after, beta {best:g}", after[best])):
            story = " ".join((begun[b] + told.texts[b][0]).split()).replace("$", r"\$")
            lines += [f"{when} ({float(told.score[b, 0]):+.1f}):", *textwrap.wrap(story, 125), ""]
    page.set_axis_off()
    page.text(0, 1, "\n".join(lines), transform=page.transAxes, va="top", fontsize=7.5, in_layout=False)
    plots.label(page, "The first stories that were drawn, of beginnings not learned from")
    return made
