"""Mazes never seen, walked by a small language model before and after it learned from preferences, and by its rivals.

    before          a Transformer taught by imperfect demonstrations (`generative.language.mazes`)
    pairs           it walks other mazes; where it fails or walks too far, a shortest way is chosen, its own rejected
    DPO             taught further by the pairs, with a beta of 1 and an anchor of 1, as `qx dpo` does
    DPO alone       without the anchor, a beta of 5
    SFT             taught further by the chosen walks alone, by as many updates: half the work, as a pair has two sides
    SFT, twice      by twice the updates, in all else the same: as much work as DPO
    best of n       the model from before draws n walks, and a reward model, taught by the same pairs, takes one

All are judged on the same mazes, by breadth-first search: how many walks reach the goal, and how many of these are
shortest. Best of n draws at temperature 1; all others take the likeliest move. The walls of none of these mazes were
ever trained on, nor looked at while settings were chosen (`maze_course`). Never seen is said of the text: in the first
course of seed 0, 263 of the 1,000 are mazes that were trained on, mirrored or turned, start and goal with them, and of
more than 900 the walls are.

Every seed is a whole course of its own: demonstrations, weights, pairs and mazes. The intervals are Student's, of the
mean over seeds; of differences, seed by seed. The claim holds where both of DPO's gains and that of DPO alone are above
0 by such an interval. How DPO stands to SFT and to best of n is found and said, and no part of the rule. The reward
model is judged by pairs of mazes that are in none that it learned from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
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
from experiments.students import interval, points
from generative.language.generate import complete
from generative.language.model import LanguageModel
from generative.language.sft import SFT, encode
from generative.preference.best import best, divergence, drawn, scored
from generative.preference.data import PairData
from generative.preference.dpo import DPO
from generative.preference.losses import PreferenceConfig
from generative.preference.mazes import corrected
from generative.preference.pairs import Pair
from generative.preference.reward import BradleyTerry, RewardModel
from generative.preference.tokens import Plain
from generative.train import Data, Objective, TrainConfig
from lab import plots, streams

DRAWS = (4, 16)  # n
GAINS = (("DPO", "success"), ("DPO", "optimal"), ("DPO alone", "success"))
WORDS = {"success": "mazes solved", "optimal": "solved ones walked by a shortest way"}

CLAIM = Claim(
    claim="Direct preference optimisation teaches a language model to walk mazes that it has never seen: more walks "
    "reach the goal, and more of these are shortest.",
    source="Rafailov et al. 2023, Direct preference optimization, NeurIPS, sec. 6 (there sentiment, summaries and "
    "dialogue, judged by models; SFT on the chosen and best of n beside it)",
    stated={f"{who}: gain in {WORDS[what]}, lower end of 95%": "> 0" for who, what in GAINS},
    minutes=31.0,
)


def run(setting: Setting) -> Finding:
    """Five seeds."""
    return compare(setting, SIZES)


def compare(setting: Setting, sizes: Sizes) -> Finding:
    """The experiment at any size."""
    tell, scores, ranked = counter(setting, sizes.updates), list[dict[str, Score]](), list[float]()
    for i in range(sizes.seeds):
        found, right = course(streams.derive(setting.seed, "course", i), sizes, setting.device, tell)
        scores.append(found)
        ranked.append(right)
    return judge(scores, ranked, sizes)


def course(seed: int, sizes: Sizes, device: torch.device, tell: Tell) -> tuple[dict[str, Score], float]:
    """The score of each way to walk, and the share of held-out pairs that the reward model ranks right."""
    model = demonstrated(seed, sizes.examples, sizes.model, sizes.first, device, tell)
    pairs = corrected(model, TOKENIZER, seed, sizes.pairs + sizes.held)
    pairs, held = apart(pairs, sizes.held)
    data = referred(model, pairs, device)

    def after(objective: Objective, data: Data, train: TrainConfig, note: str) -> LanguageModel:
        return taught(copy.deepcopy(model), objective, data, train, seed, device, tell, note)

    chosen = encode(TOKENIZER, [str(pair.prompt) for pair in pairs], [str(pair.chosen) for pair in pairs])
    walkers = {
        "before": model,
        "DPO": after(DPO(PreferenceConfig(beta=1.0, anchor=1.0)), data, sizes.second, "DPO"),
        "DPO alone": after(DPO(PreferenceConfig(beta=5.0)), data, sizes.alone, "DPO alone"),
        "SFT": after(SFT(), chosen, sizes.second, "SFT on the chosen"),
        "SFT, twice": after(SFT(), chosen, sizes.twice, "SFT on the chosen, twice the updates"),
    }
    body = RewardModel(copy.deepcopy(model.transformer))
    reward = taught(body, BradleyTerry(), data, sizes.reward, seed, device, tell, "reward model")
    texts = unseen(seed, sizes.judged)
    scores = {name: score(texts, complete(walker, TOKENIZER, texts, limit=LONGEST)) for name, walker in walkers.items()}
    return scores | best_of(model, reward, texts, seed, device), ranked_right(reward, held, device)


def apart(pairs: list[Pair], held: int) -> tuple[list[Pair], list[Pair]]:
    """The pairs to learn from; and of the last `held` those whose maze is in none of them."""
    learned = pairs[:-held]
    mazes = {pair.prompt for pair in learned}
    return learned, [pair for pair in pairs[-held:] if pair.prompt not in mazes]


def best_of(
    model: LanguageModel, reward: RewardModel, texts: Sequence[str], seed: int, device: torch.device
) -> dict[str, Score]:
    """The walks of one draw, and of the best of several as the reward model has them."""
    prompts = [[TOKENIZER.bos, *TOKENIZER.encode(text)] for text in texts]
    walks = drawn(model, prompts, max(DRAWS), seed=seed, limit=LONGEST, end=TOKENIZER.eos)
    rewards = scored(reward, prompts, walks, device=device)
    return {
        f"best of {n}" if n > 1 else "one draw": score(
            texts, [TOKENIZER.decode(walk) for walk in best([each[:n] for each in walks], rewards[:, :n])]
        )
        for n in (1, *DRAWS)
    }


@torch.no_grad()
def ranked_right(reward: RewardModel, pairs: Sequence[Pair], device: torch.device) -> float:
    """The share of pairs, of one or more, whose chosen side has the higher score."""
    index = torch.arange(len(pairs))
    batch = PairData([Plain(TOKENIZER)(pair) for pair in pairs]).batch(index)
    told = BradleyTerry().loss(reward, {name: tensor.to(device) for name, tensor in batch.items()}, index.to(device))
    return told.metrics["rewards/accuracies"].mean().item()


def columns(scores: Sequence[Mapping[str, Score]]) -> dict[str, dict[str, Float64[Tensor, "seeds"]]]:
    """By what is measured and who walks: a number for each seed."""
    return {
        what: {
            who: torch.tensor([getattr(each[who], what) for each in scores], dtype=torch.float64) for who in scores[0]
        }
        for what in WORDS
    }


def judge(scores: Sequence[Mapping[str, Score]], ranked: Sequence[float], sizes: Sizes) -> Finding:
    """The finding of the courses."""
    table = columns(scores)
    lower = [interval(table[what][who] - table[what]["before"])[1] for who, what in GAINS]
    found: dict[str, Number] = {name: round(low, 4) for name, low in zip(CLAIM.stated, lower, strict=True)}
    solved = table["success"]
    rivals = {
        "SFT on the chosen": "SFT",
        "SFT by twice the updates": "SFT, twice",
        **{f"best of {n}": f"best of {n}" for n in DRAWS},
    }
    versus = ", ".join(f"minus {name} {points(solved['DPO'] - solved[who])}" for name, who in rivals.items())
    verdict = (
        f"of {sizes.judged:,} new mazes {solved['before'].mean():.1%} were solved before, {solved['DPO'].mean():.1%} "
        f"after DPO; in points: {points(solved['DPO'] - solved['before'])}; DPO {versus}; the reward model ranks "
        f"{sum(ranked) / len(ranked):.1%} of the pairs of other mazes right; {len(scores)} seeds"
    )
    header = ("walked by", "reach the goal", "95%", "of these shortest", "95%", "minus before", "95%", "KL at most")
    bounds = {f"best of {n}": f"{divergence(n):.2f}" for n in DRAWS} | {"one draw": "0"}
    rows = [
        [
            who,
            *spread(solved[who]),
            *spread(table["optimal"][who]),
            *spread(solved[who] - solved["before"]),
            bounds.get(who, "-"),
        ]
        for who in solved
    ]
    return Finding(found, holds(*lower), verdict, picture(table), header, rows)


def holds(*lower: float) -> bool:
    """The rule."""
    return all(low > 0 for low in lower)


def spread(values: Float64[Tensor, "seeds"]) -> tuple[str, str]:
    """The cells of a mean and its interval."""
    mean, low, high = interval(values)
    return f"{mean:.3f}", f"{low:.3f} to {high:.3f}"


def picture(table: Mapping[str, Mapping[str, Float64[Tensor, "seeds"]]]) -> Figure:
    """Both measures of each way to walk: every seed, the mean, its interval."""
    figure, axes = plots.figure(1, 2, width=5.0, height=3.4)
    for ax, (what, title) in zip(axes, WORDS.items(), strict=True):
        ladder(ax, table[what])
        plots.label(ax, title[0].upper() + title[1:], "share of " + ("new mazes" if what == "success" else "these"))
    return figure


def ladder(ax: Axes, values: Mapping[str, Float64[Tensor, "seeds"]]) -> None:
    """A line for each name: the seeds as dots, the mean and its interval above them."""
    for place, each in enumerate(values.values()):
        mean, low, high = interval(each)
        ax.plot(each.tolist(), [place] * len(each), ".", color=plots.COLOURS[0], alpha=0.45)
        if math.isfinite(low):
            ax.plot([low, high], [place, place], color=plots.COLOURS[1], linewidth=1.6)
        ax.plot([mean], [place], "D", color=plots.COLOURS[1], markersize=5)
    ax.set_yticks(range(len(values)), list(values))
    ax.invert_yaxis()
