"""LayerNorm and BatchNorm in a recurrent network, under small batches, other companions and longer sequences.

    h_t = tanh(norm(W x_t + U h_{t-1}))                                            Ba, Kiros & Hinton 2016, eq. 4

LayerNorm takes mean and variance over the features of one sequence at one step. BatchNorm takes them over the batch,
apart for each step (as Ba et al. describe it, sec. 3), and over what it has seen in training when in use; for steps
beyond those trained it has none, and uses the last (Cooijmans et al. 2017, sec. 4).

The task: symbols, of which some are marks and most are noise; the class of a sequence is its last mark. It asks for
memory that is kept for as long as it lasts, so a longer sequence is no harder.

Key: B batch, T steps, H width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from matplotlib.figure import Figure
from torch import Tensor, nn

from backbones.initialise import build
from experiments.claim import Claim, Finding, Setting
from experiments.sequences import Drawn, Predict, followed, predicted, trainer
from generative.train import Batch, TrainConfig
from lab import plots, streams

MARKS, NOISE = 4, 4
CLASSES = MARKS + 1  # or none was seen
NAMES = {"layer": "LayerNorm", "batch": "BatchNorm"}
BATCHES = (2, 8, 32)
NormName = Literal["layer", "batch"]

CLAIM = Claim(
    claim="What LayerNorm makes of a sequence does not depend on its batch; BatchNorm's does, and it learns worse from "
    "small batches and carries over worse to longer sequences.",
    source="Ba, Kiros & Hinton 2016, Layer Normalization, sec. 3 and, in sec. 6, Permutation invariant MNIST (batches "
    "of 128 and 4); Ioffe & Szegedy 2015, sec. 3.1",
    stated={
        "LayerNorm: change of an output with its batch": 0.0,
        "BatchNorm, training: change of an output with its batch": "> 0.01",
        f"batches of {BATCHES[0]}: accuracy, LayerNorm less BatchNorm": "> 0.05",
        f"batches of {BATCHES[-1]}: accuracy, LayerNorm less BatchNorm": "0 +- 0.05",
        "4 x the length: accuracy, LayerNorm less BatchNorm": "> 0.05",
    },
    minutes=1.5,
)


@dataclass(frozen=True)
class LastMark:
    """The task (`experiments.sequences.Task`): a symbol is a mark with chance 1/6, any of them alike, else noise."""

    length: int

    def __call__(self, key: Int64[Tensor, "B"]) -> Batch:
        """Tokens [B, T]: marks 0 ... 3, noise 4 ... 7; the target, at the last step alone, is a mark, or 4 for none."""
        at = torch.arange(self.length)
        draw, which = streams.uniform(key[:, None], at), streams.uniform(key[:, None], 10_000 + at)
        is_mark = draw < 1 / 6
        tokens = torch.where(is_mark, (which * MARKS).long(), MARKS + (which * NOISE).long())
        last = torch.where(is_mark, at, -1).amax(1)  # [B]
        label = torch.where(last >= 0, tokens.gather(1, last.clamp(min=0)[:, None])[:, 0], MARKS)
        target = torch.full_like(tokens, -1)
        target[:, -1] = label
        return {"tokens": tokens, "target": target}


class Normalised(nn.Module):
    """The recurrent network above, and a linear head on its state: tokens [B, T] to logits [B, T, classes].

    Args:
        norm: "layer" or "batch".
        width: H.
        length: steps that are trained, each with statistics of its own where the norm is over the batch.
    """

    def __init__(self, norm: NormName, width: int, length: int) -> None:
        super().__init__()
        self.read = nn.Embedding(MARKS + NOISE, width)
        self.carry = nn.Linear(width, width, bias=False)
        made: dict[str, Callable[[], list[nn.Module]]] = {
            "layer": lambda: [nn.LayerNorm(width)],
            "batch": lambda: [nn.BatchNorm1d(width) for _ in range(length)],
        }
        self.norms = nn.ModuleList(made[norm]())
        self.head = nn.Linear(width, CLASSES)

    def initialise(self, generator: torch.Generator) -> None:
        """From the state orthogonal (Saxe et al. 2014)."""
        nn.init.orthogonal_(self.carry.weight, generator=generator)

    def forward(self, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T c"]:
        """The logits after every step."""
        x = self.read(tokens)
        h = torch.zeros_like(x[:, 0])
        states = []
        for t in range(tokens.shape[1]):
            h = torch.tanh(self.norms[min(t, len(self.norms) - 1)](x[:, t] + self.carry(h)))
            states.append(h)
        return self.head(torch.stack(states, dim=1))


def run(setting: Setting) -> Finding:
    """Sequences of 12 steps in training, 6 to 48 in use; as many updates from every size of batch; three seeds."""
    return compare(setting, length=12, width=32, steps=1000, tests=2000, seeds=3)


def compare(setting: Setting, length: int, width: int, steps: int, tests: int, seeds: int) -> Finding:
    """The experiment at any size."""
    lengths = [length * q // 4 for q in (2, 4, 8, 12, 16)]
    scores: dict[tuple[str, int], Float64[Tensor, "seeds lengths"]] = {}
    change: dict[str, list[float]] = {norm: [] for norm in NAMES}
    runs: list[tuple[NormName, int]] = [(norm, batch) for batch in BATCHES for norm in ("layer", "batch")]
    for i, (norm, batch) in enumerate(runs):
        rows = []
        for s in range(seeds):
            one = replace(setting, seed=streams.derive(setting.seed, "norm", s) % 2**31)
            part = ((i + s / seeds) / len(runs), (i + (s + 1) / seeds) / len(runs))
            model = train(one, norm, batch, part, length, width, steps)
            test = [Drawn(LastMark(n), one.seed, "test").batch(torch.arange(tests)) for n in lengths]
            rows.append(torch.stack([predicted(model, read)[:, -1].double().mean() for read in test]))
            if batch == BATCHES[-1]:
                change[norm].append(moved(model, test[1]["tokens"].to(setting.device)))
        scores[norm, batch] = torch.stack(rows)
    trained = lengths.index(length)
    gap = {batch: scores["layer", batch] - scores["batch", batch] for batch in BATCHES}
    small, large, longer = gap[BATCHES[0]][:, trained], gap[BATCHES[-1]][:, trained], gap[BATCHES[-1]][:, -1]
    moves = max(change["layer"]), min(change["batch"])
    return Finding(
        found=dict(zip(CLAIM.stated, [*moves, *(float(g.mean()) for g in (small, large, longer))], strict=True)),
        holds=judge(*moves, small, large, longer),
        verdict=f"in other company an output of LayerNorm moves by at most {moves[0]:.0e}, of BatchNorm in training by "
        f"at least {moves[1]:.2f}; LayerNorm's accuracy is higher by {_spread(small)} after batches of {BATCHES[0]}, "
        f"by {_spread(large)} after batches of {BATCHES[-1]}, and then by {_spread(longer)} on {lengths[-1]} steps "
        f"(mean and standard error of {seeds} seeds)",
        figure=_picture(scores, lengths, length),
        header=("batch", *(f"{NAMES[norm]}, {n} steps" for n in (lengths[1], lengths[-1]) for norm in NAMES)),
        rows=[[f"{b}", *(_spread(scores[norm, b][:, j]) for j in (trained, -1) for norm in NAMES)] for b in BATCHES],
    )


def judge(
    layer: float,
    batch: float,
    small: Float64[Tensor, "seeds"],
    large: Float64[Tensor, "seeds"],
    longer: Float64[Tensor, "seeds"],
) -> bool:
    """The rule, on the numbers of the claim in their order, those of accuracy by seed.

    A difference counts where its mean is above 0.05 and more than two standard errors above 0.
    """
    clear = [float(g.mean()) > max(0.05, 2 * _error(g)) for g in (small, longer)]
    return layer < 1e-5 and batch > 0.01 and all(clear) and abs(float(large.mean())) < 0.05


def _error(values: Float64[Tensor, "seeds"]) -> float:
    """Standard error of the mean."""
    return float(values.std()) / math.sqrt(len(values))


def _spread(values: Float64[Tensor, "seeds"]) -> str:
    return f"{float(values.mean()):.3f} +- {_error(values):.3f}"


def train(
    setting: Setting, norm: NormName, batch: int, part: tuple[float, float], length: int, width: int, steps: int
) -> Normalised:
    """One network, trained with so many updates."""
    model = build(lambda: Normalised(norm, width, length), streams.generator(setting.seed, "weights"))
    config = TrainConfig(steps=steps, batch_size=batch, learning_rate=3e-3)
    loop = trainer(model, Drawn(LastMark(length), setting.seed), config, setting, Predict())
    for _ in followed(loop, setting, part, f"{NAMES[norm]}, batches of {batch}"):
        pass
    return model.eval()


@torch.no_grad()
def moved(model: Normalised, tokens: Int64[Tensor, "B T"]) -> float:
    """How far the last logits of eight sequences move, at most, when the rest of their batch is exchanged."""
    model.train()  # where BatchNorm takes the statistics of the batch
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one, other = (model(torch.cat([tokens[:8], tokens[a:b]]))[:8, -1] for a, b in ((8, 16), (16, 24)))
    model.load_state_dict(state)  # BatchNorm has followed these two batches
    model.eval()
    return float((one - other).abs().max())


def _picture(scores: dict[tuple[str, int], Tensor], lengths: list[int], length: int) -> Figure:
    """Accuracy by the size of training batches, and by the length of what is read in use."""
    figure, (left, right) = plots.figure(1, 2, width=4.9, height=3.5)
    trained = lengths.index(length)
    for colour, (norm, name) in enumerate(NAMES.items()):
        by_batch = torch.stack([scores[norm, b][:, trained] for b in BATCHES], dim=1)  # [seeds, sizes]
        for ax, x, y in ((left, list(BATCHES), by_batch), (right, lengths, scores[norm, BATCHES[-1]])):
            plots.curve(ax, x, y.mean(0).tolist(), name, colour, y.amin(0).tolist(), y.amax(0).tolist())
            ax.plot(x, y.mean(0).tolist(), "o", color=plots.COLOURS[colour], markersize=4)
    lost = scores["layer", BATCHES[0]][:, trained] - scores["batch", BATCHES[0]][:, trained]
    longer = scores["layer", BATCHES[-1]][:, -1] - scores["batch", BATCHES[-1]][:, -1]
    left.set_xscale("log", base=2)
    left.set_xticks(BATCHES, [str(b) for b in BATCHES])
    right.axvline(length, color=plots.INK, linewidth=1, linestyle=(0, (4, 3)), label="trained on")
    for ax in (left, right):
        ax.set_ylim(0, 1.05)
    title = f"Batches of {BATCHES[0]}: LayerNorm ahead by {float(lost.mean()):.2f}"
    plots.label(left, title, "sequences in a training batch", "accuracy in use (band: seeds)")
    title = f"{lengths[-1]} steps, batches of {BATCHES[-1]}: ahead by {float(longer.mean()):.2f}"
    plots.label(right, title, "steps of a sequence", "accuracy in use (band: seeds)")
    plots.legend(left, "lower right")
    plots.legend(right, "lower right")
    return figure
