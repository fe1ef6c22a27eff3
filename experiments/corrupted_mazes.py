"""Pairs that say the opposite: a language model learns to walk mazes from preferences, some of them exchanged.

The course is that of `preferred_mazes`, with more pairs, each of them learned from once, so that none is learned by
heart; judged on such mazes as there. Of a share of the pairs the chosen and the rejected walk change places: of none,
10, 20 and 30%, those of a smaller share being among those of a larger one. Four losses learn from the same pairs, each
with a light anchor on whatever is called chosen, without which even clean pairs teach little here:

    sigmoid    DPO as it is
    cdpo       told the share e that is exchanged: the mean of the loss over labels that are wrong with probability e
    robust     told it, too: an unbiased estimate of DPO's loss on the pairs as they were
    ipo        (h - 1 / (2 beta))^2, which does not ask for more once the margin is there

With nothing exchanged cdpo and robust are sigmoid, and are not trained again. Beta is 1; IPO's is 2, with which its
slope at the first update, 1 / beta, is that of DPO, beta / 2. The settings are one for all, and those tried that were
the best for the robust loss with 30% exchanged.

The claim holds where, with 30% exchanged, the robust loss still gains on the model from before, and solves more mazes
than DPO as it is: both by the lower end of Student's 95% interval of the mean over seeds, seed by seed.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float64
from matplotlib.figure import Figure
from torch import Tensor

from experiments.claim import Claim, Finding, Number, Setting
from experiments.maze_course import (
    LONGEST,
    SIZES,
    TOKENIZER,
    Score,
    Sizes,
    Tell,
    counter,
    demonstrated,
    referred,
    score,
    taught,
    unseen,
)
from experiments.preferred_mazes import holds
from experiments.students import interval, points
from generative.language.generate import complete
from generative.preference.data import PairData
from generative.preference.dpo import DPO
from generative.preference.losses import LOSSES, PreferenceConfig
from generative.preference.mazes import corrected
from generative.preference.pairs import Pair
from generative.preference.tokens import Plain
from generative.train import TrainConfig
from lab import plots, streams

SHARES = (0.0, 0.1, 0.2, 0.3)
NAMES = ("sigmoid", "cdpo", "robust", "ipo")
BETA = 1.0
ANCHOR = 0.3
WORST = SHARES[-1]
ONCE = dataclasses.replace(
    SIZES, pairs=24_000, second=TrainConfig(steps=375, batch_size=64, learning_rate=5e-4, warmup=20)
)

Result = dict[tuple[str, float], Score]

CLAIM = Claim(
    claim="With three pairs in ten exchanged, the robust loss still teaches: more new mazes are solved than before, "
    "and more than after plain DPO.",
    source="Chowdhury, Kini & Natarajan 2024, Provably robust DPO: aligning language models with noisy feedback, ICML "
    "(there sentiment and dialogue); cDPO: Mitchell 2023; IPO: Azar et al. 2023",
    stated={
        "robust minus before, 30% exchanged, lower end of 95%": "> 0",
        "robust minus sigmoid, 30% exchanged, lower end of 95%": "> 0",
    },
    minutes=35.0,
)


def run(setting: Setting) -> Finding:
    """Five seeds."""
    return compare(setting, ONCE)


def runs() -> list[tuple[str, float]]:
    """What is trained: with nothing exchanged those that are told the share are sigmoid."""
    return [(name, share) for share in SHARES for name in NAMES if share or not LOSSES[name].smooths]


def compare(setting: Setting, sizes: Sizes) -> Finding:
    """The experiment at any size."""
    tell = counter(setting, sizes.seeds * (sizes.first.steps + len(runs()) * sizes.second.steps))
    seeds = [streams.derive(setting.seed, "course", i) for i in range(sizes.seeds)]
    return judge([course(seed, sizes, setting.device, tell) for seed in seeds], sizes)


def course(seed: int, sizes: Sizes, device: torch.device, tell: Tell) -> Result:
    """The score of each loss for each share that is exchanged; under ("before", 0) that of the model from before."""
    model = demonstrated(seed, sizes.examples, sizes.model, sizes.first, device, tell)
    pairs = corrected(model, TOKENIZER, seed, sizes.pairs)
    told = referred(model, pairs, device).reference
    texts = unseen(seed, sizes.judged)
    result = {("before", 0.0): score(texts, complete(model, TOKENIZER, texts, limit=LONGEST))}
    for name, share in runs():
        objective = DPO(config(name, share))
        data = exchanged(pairs, told, wrong(seed, len(pairs), share))
        note = f"{name}, {share:.0%} exchanged"
        policy = taught(copy.deepcopy(model), objective, data, sizes.second, seed, device, tell, note)
        result[name, share] = score(texts, complete(policy, TOKENIZER, texts, limit=LONGEST))
    return result | {(name, 0.0): result["sigmoid", 0.0] for name in NAMES if LOSSES[name].smooths}


def config(name: str, share: float) -> PreferenceConfig:
    """The loss by that name, for pairs of which that share is exchanged."""
    beta = 2 / BETA if name == "ipo" else BETA
    return PreferenceConfig((name,), beta=beta, smoothing=share if LOSSES[name].smooths else None, anchor=ANCHOR)


def wrong(seed: int, count: int, share: float) -> Bool[Tensor, "N"]:
    """Which pairs are exchanged: each with that probability, by a draw of its own that is the same for all shares."""
    return streams.uniform(streams.keys(seed, "exchanged", count), 0) < share


def exchanged(pairs: Sequence[Pair], told: Float64[Tensor, "N 2"], which: Bool[Tensor, "N"]) -> PairData:
    """The pairs with chosen and rejected, and what the reference says of them, exchanged where `which` is true."""
    turned = [
        Pair(pair.prompt, chosen=pair.rejected, rejected=pair.chosen) if other else pair
        for pair, other in zip(pairs, which.tolist(), strict=True)
    ]
    tokens = [Plain(TOKENIZER)(pair) for pair in turned]
    return PairData(tokens, torch.where(which[:, None], told.flip(1), told))


def judge(courses: Sequence[Result], sizes: Sizes) -> Finding:
    """The finding of the courses."""
    solved = {
        key: torch.tensor([each[key].success for each in courses], dtype=torch.float64) for key in courses[0]
    }  # of each loss and share, a number for each seed
    before, robust, usual = solved["before", 0.0], solved["robust", WORST], solved["sigmoid", WORST]
    lower = [interval(robust - other)[1] for other in (before, usual)]
    found: dict[str, Number] = {name: round(low, 4) for name, low in zip(CLAIM.stated, lower, strict=True)}
    verdict = (
        f"with {WORST:.0%} of the pairs exchanged, {robust.mean():.1%} of {sizes.judged:,} new mazes are solved after "
        f"the robust loss, {usual.mean():.1%} after DPO and {before.mean():.1%} before; in points, robust minus before "
        f"{points(robust - before)}, minus DPO {points(robust - usual)}; {len(courses)} seeds"
    )
    header = ("loss", *(f"{share:.0%} exchanged" for share in SHARES))
    rows = [[name, *(_cell(solved[name, share]) for share in SHARES)] for name in NAMES]
    rows.append(["before", _cell(before), "", "", ""])
    return Finding(found, holds(*lower), verdict, picture(solved), header, rows)


def _cell(values: Float64[Tensor, "seeds"]) -> str:
    mean, low, high = interval(values)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def picture(solved: Mapping[tuple[str, float], Float64[Tensor, "seeds"]]) -> Figure:
    """New mazes solved against the share that is exchanged: the mean of each loss, and its interval."""
    figure, (ax,) = plots.figure(1, 1, width=6.0, height=3.8)
    for colour, name in enumerate(NAMES):
        mean, low, high = map(list, zip(*(interval(solved[name, share]) for share in SHARES), strict=True))
        plots.curve(ax, [100 * share for share in SHARES], mean, name, colour, low, high)
    plots.level(ax, solved["before", 0.0].mean().item(), "before")
    plots.label(ax, "Mazes solved after preferences, some of them wrong", "pairs exchanged, %", "share of new mazes")
    plots.legend(ax)
    return figure
