"""Copying strings longer than any seen in training, with four ways to write positions.

    a b c d |  a b c d          tokens, a mark, the same tokens again, which are to be predicted one after another

Trained on strings with which a row has at most 32 tokens, tested to 128. The loss on longer rows is what Press et al.
measure; here it is the share of letters copied right, each after the right ones before it. A model can find the letter
that stands as far back as the string is long; or, as induction heads do, the place where the last few letters stood
before, which over an alphabet of 16 is not always one alone.

Key: n letters of a string; a row has 2 n + 1 tokens, of which 2 n are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float64, Int64
from matplotlib.figure import Figure
from torch import Tensor

from backbones.initialise import build
from backbones.transformer import PositionsName, Transformer
from experiments.claim import Claim, Finding, Setting
from experiments.sequences import Drawn, TransformerReader, followed, predicted, trainer
from generative.train import Batch, TrainConfig
from lab import plots, streams

LETTERS = 16
MARK = LETTERS
KINDS: tuple[PositionsName, ...] = ("sinusoidal", "learned", "rotary", "alibi")
NAMES = {"sinusoidal": "sinusoidal", "learned": "learned", "rotary": "rotary", "alibi": "ALiBi"}
assert set(KINDS) <= set(get_args(PositionsName))

CLAIM = Claim(
    claim="Trained on short rows and tested on longer ones, a Transformer with ALiBi goes on working, and one with "
    "sinusoidal, learned or rotary positions does not.",
    source="Press, Smith & Lewis 2022, Train short, test long, sec. 2.2 and 3, fig. 1 (there: perplexity of text; "
    "here: copying, as in Kazemnejad et al. 2023, sec. 4)",
    stated={
        "accuracy on the rows trained on, all four at least": "> 0.95",
        "ALiBi: accuracy at twice the length": "> 0.9",
        "ALiBi: accuracy at four times the length": "> 0.9",
        "sinusoidal: accuracy at four times the length": "< 0.5",
        "learned: accuracy at four times the length": "< 0.5",
        "rotary: accuracy at four times the length": "< 0.5",
    },
    minutes=2.5,
)


@dataclass(frozen=True)
class Copy:
    """The task (`experiments.sequences.Task`): strings of `least` to `most` letters, rows padded to the longest."""

    least: int
    most: int

    def __call__(self, key: Int64[Tensor, "B"]) -> Batch:
        """Tokens [B, 2 most]; targets at the mark and at all but the last of the copied letters."""
        at = torch.arange(2 * self.most + 1)
        n = self.least + (streams.uniform(key, 0) * (self.most - self.least + 1)).long()[:, None]  # [B, 1]
        letters = (streams.uniform(key[:, None], 1 + at[: self.most]) * LETTERS).long()  # [B, most]
        back = torch.where(at < n, at, (at - n - 1).clamp(0, self.most - 1)).clamp(max=self.most - 1)
        row = letters.gather(1, back.expand(len(key), -1)).masked_fill(at == n, MARK)
        copied = (at[1:] > n) & (at[1:] <= 2 * n)
        return {"tokens": row[:, :-1], "target": row[:, 1:].masked_fill(~copied, -1)}


def run(setting: Setting) -> Finding:
    """Strings of 1 to 16 letters, then of up to 64; two layers, 64 wide."""
    return compare(setting, most=16, width=64, steps=1000, batch=64, tests=200)


def compare(setting: Setting, most: int, width: int, steps: int, batch: int, tests: int) -> Finding:
    """The experiment at any size."""
    lengths = [most * times // 4 for times in (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)]
    scores: dict[str, Float64[Tensor, "lengths"]] = {}
    for i, kind in enumerate(KINDS):
        model = build(
            lambda kind=kind: TransformerReader(  # type: ignore[misc]
                Transformer(
                    vocabulary=LETTERS + 1, width=width, depth=2, heads=4, positions=kind, length=2 * lengths[-1] + 1
                )
            ),
            streams.generator(setting.seed, "weights"),
        )
        config = TrainConfig(steps=steps, batch_size=batch, learning_rate=2e-3)
        loop = trainer(model, Drawn(Copy(1, most), setting.seed), config, setting)
        for _ in followed(loop, setting, (i / len(KINDS), (i + 1) / len(KINDS)), NAMES[kind]):
            pass
        scores[kind] = torch.tensor([accuracy(model, n, setting.seed, tests) for n in lengths], dtype=torch.float64)
    trained, twice = lengths.index(most), lengths.index(2 * most)
    learnt = min(float(score[: trained + 1].min()) for score in scores.values())
    far = {kind: float(score[-1]) for kind, score in scores.items()}
    found = [learnt, float(scores["alibi"][twice]), far["alibi"], *(far[kind] for kind in KINDS[:3])]
    reached = {
        kind: max((2 * n for n, right in zip(lengths, score.tolist(), strict=True) if right > 0.9), default=0)
        for kind, score in scores.items()
    }
    said = ", ".join(f"{NAMES[kind]} {reached[kind]}" for kind in KINDS)
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=judge(*found),
        verdict=f"trained on up to {2 * most} tokens, rows are copied at 90% up to this many: {said}; one seed, "
        f"{steps} updates; exact copying asks more of distant positions than the perplexity of text does",
        figure=_picture(lengths, scores, most, far),
        header=("tokens", *(NAMES[kind] for kind in KINDS)),
        rows=[[f"{2 * n}", *(f"{float(scores[kind][j]):.3f}" for kind in KINDS)] for j, n in enumerate(lengths)],
    )


def judge(learnt: float, twice: float, far: float, sinusoidal: float, learned: float, rotary: float) -> bool:
    """The rule, on the numbers of the claim in their order."""
    return learnt > 0.95 and twice > 0.9 and far > 0.9 and max(sinusoidal, learned, rotary) < 0.5


def accuracy(model: torch.nn.Module, n: int, seed: int, tests: int) -> float:
    """The share of letters copied right in fresh strings of n letters."""
    batch = Drawn(Copy(n, n), seed, "test").batch(torch.arange(tests))
    return float(predicted(model, batch).double().sum() / (batch["target"] >= 0).sum())


def _picture(lengths: list[int], scores: dict[str, Tensor], most: int, far: dict[str, float]) -> Figure:
    """Accuracy against length."""
    figure, (ax,) = plots.figure(1, 1, width=6.6, height=3.8)
    ax.axvspan(0, 2 * most, color=plots.GRID, alpha=0.5, linewidth=0)
    ax.text(most, 1.06, "trained on", ha="center", fontsize=8, color=plots.INK)
    for colour, (kind, score) in enumerate(scores.items()):
        plots.curve(ax, [2 * n for n in lengths], score.tolist(), NAMES[kind], colour)
    plots.level(ax, 1 / LETTERS, "guessing")
    ax.set_ylim(0, 1.12)
    ax.set_xlim(0, 2 * lengths[-1])
    ax.set_xticks([0, *(2 * most * i for i in (1, 2, 3, 4))])
    others = max(right for kind, right in far.items() if kind != "alibi")
    title = f"{2 * lengths[-1]} tokens: {far['alibi']:.0%} copied with ALiBi, at most {others:.0%} with the others"
    plots.label(ax, title, "tokens of a row", "share of letters copied right")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, labelcolor=plots.INK)
    return figure
