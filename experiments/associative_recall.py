"""Associative recall: pairs of a key and a value, then the keys again in another order; after each, its value is asked.

    k3 v7  k1 v2  ...  k5 v2  |  k1 (v2)  k5 (v2)  k3 (v7)  ...

Attention looks the key up, wherever it stands: the path between the two is one layer, whatever the gap (Vaswani et al.
2017, table 1). A recurrent network has to carry all pairs in its state through every step between.

Key: n pairs, gap: tokens from a key's first appearance to its second, 2 ... 4 n - 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from matplotlib.figure import Figure
from torch import Tensor, nn

from backbones import cost
from backbones.initialise import build
from backbones.transformer import Transformer
from experiments.claim import Claim, Finding, Setting
from experiments.sequences import (
    Drawn,
    RecurrentReader,
    TransformerReader,
    as_large,
    followed,
    predicted,
    trainer,
)
from generative.train import Batch, TrainConfig
from lab import plots, streams

KEYS = VALUES = 16
NAMES = {"transformer": "Transformer", "lstm": "LSTM", "rnn": "RNN"}
RATES = {"transformer": 2e-3, "lstm": 1e-2, "rnn": 1e-3}  # the best of 1e-3, 2e-3, 5e-3, 1e-2 on another seed

CLAIM = Claim(
    claim="At equal parameters a Transformer recalls associations over any gap, where an LSTM forgets and a plain "
    "recurrent network hardly learns to.",
    source="Vaswani et al. 2017, sec. 4 and table 1; the task: Graves et al. 2014, sec. 4.3, Ba et al. 2016 (fast "
    "weights), sec. 4.1, Arora et al. 2024 (Zoology), sec. 3",
    stated={
        "Transformer: accuracy": "> 0.95",
        "LSTM: accuracy": "< the Transformer's - 0.1",
        "RNN: accuracy": "< the LSTM's - 0.05",
        "Transformer: accuracy at the longest gaps": "> 0.95",
        "LSTM: accuracy at the longest gaps": "-",
        "parameters, largest over smallest": "< 1.05",
    },
)


@dataclass(frozen=True)
class Recall:
    """The task with n pairs, as a function from keys to a batch (`experiments.sequences.Task`)."""

    pairs: int

    def __call__(self, key: Int64[Tensor, "B"]) -> Batch:
        """Tokens [B, 4 n]: keys 0 ... 15, values 16 ... 31. Targets stand at the second appearance of each key."""
        n, at = self.pairs, torch.arange(max(self.pairs, KEYS))
        keys = streams.uniform(key[:, None], at[:KEYS]).argsort(1)[:, :n]  # [B, n], all different
        values = KEYS + (streams.uniform(key[:, None], 100 + at[:n]) * VALUES).long()
        order = streams.uniform(key[:, None], 200 + at[:n]).argsort(1)
        shown = torch.stack([keys, values], dim=2).flatten(1)  # [B, 2 n]
        asked = torch.stack([keys.gather(1, order), values.gather(1, order)], dim=2).flatten(1)
        tokens = torch.cat([shown, asked], dim=1)
        target = torch.full_like(tokens, -1)
        target[:, 2 * n :: 2] = asked[:, 1::2]
        return {"tokens": tokens, "target": target}


def gaps(tokens: Int64[Tensor, "B T"], pairs: int) -> Int64[Tensor, "B n"]:
    """How many tokens lie between the two appearances of each key that is asked."""
    first, second = tokens[:, 0 : 2 * pairs : 2], tokens[:, 2 * pairs :: 2]  # [B, n] each
    shown = (second[:, :, None] == first[:, None]).long().argmax(2)
    return 2 * (torch.arange(pairs) + pairs - shown)


def run(setting: Setting) -> Finding:
    """Six pairs, three seeds, 57 thousand parameters each."""
    return compare(setting, pairs=6, width=48, steps=500, batch=64, seeds=3, tests=2000)


def makers(width: int) -> dict[str, Callable[[], nn.Module]]:
    """Each network, the recurrent ones as wide as has as many parameters as the Transformer of that width."""
    vocabulary = KEYS + VALUES

    def transformer() -> nn.Module:
        return TransformerReader(Transformer(vocabulary=vocabulary, width=width, depth=2, heads=2))

    with torch.device("meta"):
        parameters = cost.parameters(transformer())
    wide = as_large(lambda w: RecurrentReader("lstm", vocabulary, w, layers=1), parameters)
    wider = as_large(lambda w: RecurrentReader("rnn", vocabulary, w, layers=1), parameters)
    return {
        "transformer": transformer,
        "lstm": lambda: RecurrentReader("lstm", vocabulary, wide, layers=1),
        "rnn": lambda: RecurrentReader("rnn", vocabulary, wider, layers=1),
    }


def compare(setting: Setting, pairs: int, width: int, steps: int, batch: int, seeds: int, tests: int) -> Finding:
    """The experiment at any size."""
    made = makers(width)
    parameters = {name: cost.parameters(build(make, streams.generator(0))) for name, make in made.items()}
    scores: dict[str, Float64[Tensor, "seeds gaps"]] = {}
    for i, (name, make) in enumerate(made.items()):
        rows = []
        for s in range(seeds):
            begin = (i + s / seeds) / len(made)
            seed = streams.derive(setting.seed, "recall", s) % 2**31
            part = (begin, begin + 1 / (seeds * len(made)))
            config = TrainConfig(steps=steps, batch_size=batch, learning_rate=RATES[name])
            model = build(make, streams.generator(seed, "weights", name))
            loop = trainer(model, Drawn(Recall(pairs), seed), config, setting)
            for _ in followed(loop, setting, part, f"{NAMES[name]}, seed {s + 1} of {seeds}"):
                pass
            rows.append(accuracy(model, pairs, seed, tests))
        scores[name] = torch.stack(rows)
    mean = {name: float(score[:, 0].mean()) for name, score in scores.items()}
    far = {name: float(score[:, -1].mean()) for name, score in scores.items()}
    ratio = max(parameters.values()) / min(parameters.values())
    attention, gated, plain = mean.values()
    holds = [attention > 0.95, far["transformer"] > 0.95, gated < attention - 0.1, plain < gated - 0.05, ratio < 1.05]
    return Finding(
        found=dict(zip(CLAIM.stated, [attention, gated, plain, far["transformer"], far["lstm"], ratio], strict=True)),
        holds=all(holds),
        verdict=f"after {steps} updates the Transformer recalls {attention:.1%}, the LSTM {gated:.1%}, the RNN "
        f"{plain:.1%} (guessing any value: {1 / VALUES:.1%}); means of {seeds} seeds, each at its best rate",
        figure=_picture(scores, pairs),
        header=(
            "network",
            "parameters",
            "rate",
            "accuracy",
            "seeds, lowest to highest",
            "shortest gaps",
            "longest gaps",
        ),
        rows=[
            [
                NAMES[name],
                f"{parameters[name]}",
                f"{RATES[name]:g}",
                f"{mean[name]:.3f}",
                f"{float(s[:, 0].min()):.3f} to {float(s[:, 0].max()):.3f}",
                f"{float(s[:, 1].mean()):.3f}",
                f"{far[name]:.3f}",
            ]
            for name, s in scores.items()
        ],
    )


def accuracy(model: nn.Module, pairs: int, seed: int, tests: int) -> Float64[Tensor, "gaps"]:
    """On fresh samples: of all queries, and then of those with the gaps of each quarter of 2 ... 4 n - 2."""
    batch = Drawn(Recall(pairs), seed, "test").batch(torch.arange(tests))
    right = predicted(model, batch)[:, 2 * pairs :: 2].double()  # [B, n]
    quarter = (gaps(batch["tokens"], pairs) - 1) * 4 // (4 * pairs)
    return torch.stack([right.mean(), *(right[quarter == q].mean() for q in range(4))])


def _picture(scores: dict[str, Tensor], pairs: int) -> Figure:
    """Accuracy against the gap."""
    figure, (ax,) = plots.figure(1, 1, width=6.4, height=3.8)
    middle = [(q + 0.5) * pairs for q in range(4)]
    for colour, (name, score) in enumerate(scores.items()):
        by_gap = score[:, 1:]
        low, high = by_gap.amin(0).tolist(), by_gap.amax(0).tolist()
        plots.curve(ax, middle, by_gap.mean(0).tolist(), NAMES[name], colour, low, high)
    plots.level(ax, 1 / VALUES, "guessing any value")
    ax.set_ylim(0, 1.05)
    ax.set_xlim(0, 4 * pairs)
    plots.label(
        ax, f"recall of {pairs} pairs at equal parameters: attention does not care how far", "gap, tokens", "accuracy"
    )
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, labelcolor=plots.INK)
    return figure
