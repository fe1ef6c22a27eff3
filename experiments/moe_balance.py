"""Balance of a mixture of experts: a small language model with the bias rule, and without it.

The language is a Markov chain of uneven words, as real ones are: the next word is one of a few, which the last one
names, and some words are many times as frequent as others. Without any rule the router is free to send most tokens to
few experts, and what is trained more is chosen more.

Key: E experts, k active; excess: the fullest expert's load over the mean, less 1, over the last fifth of all updates
together (MaxVio_global: Wang et al. 2024, eq. 4 and table 2), or in a single batch, where chance has its part.

Wang et al. compare with a router that is balanced by an auxiliary loss; here the other one has no rule at all, so that
the rule does no harm to the loss is said against a network that is free to do as it likes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from matplotlib.figure import Figure
from torch import Tensor

from backbones.initialise import build
from backbones.moe import balance
from backbones.transformer import Transformer
from experiments.claim import Claim, Finding, Setting
from experiments.sequences import Drawn, TransformerReader, followed, trainer
from generative.train import Batch, TrainConfig
from lab import plots, streams

RATE = 5e-3  # u; the paper's 1e-3 is for runs of many thousand updates, and these have hundreds

CLAIM = Claim(
    claim="A bias on the choice of experts, moved against their load, keeps a mixture of experts balanced without an "
    "auxiliary loss, and costs no more of the loss than no rule at all.",
    source="Wang et al. 2024, Auxiliary-loss-free load balancing, alg. 1 and table 2; DeepSeek-V3 2024, sec. 2.1.2",
    stated={
        "excess of the fullest expert with the rule": "< 0.1 (there: 0.04)",
        "excess of the fullest expert without": "> 0.5",
        "loss with the rule less loss without any, nats": "< 0.02",
    },
)


@dataclass(frozen=True)
class Chain:
    """Text of a Markov chain over `words` words (`experiments.sequences.Task`).

    After word w comes one of four successors of w with chances 1/2, 1/4, 1/8, 1/8. Successors are drawn so that word
    v is met in proportion to 1 / (v + 1) (Zipf's law).
    """

    words: int
    length: int

    def __call__(self, key: Int64[Tensor, "B"]) -> Batch:
        """Tokens [B, length]; the target of each is the next."""
        weight = 1 / torch.arange(1, self.words + 1, dtype=torch.float64)
        edges = (weight / weight.sum()).cumsum(0)
        table = torch.searchsorted(edges, streams.uniform(torch.tensor(7), torch.arange(4 * self.words)).double())
        table = table.clamp(max=self.words - 1).view(self.words, 4)
        word = (streams.uniform(key, 0) * self.words).long()
        text = [word]
        for t in range(self.length):
            draw = streams.uniform(key, t + 1)
            which = (draw >= 0.5).long() + (draw >= 0.75).long() + (draw >= 0.875).long()
            text.append(table[text[-1], which])
        made = torch.stack(text, dim=1)
        return {"tokens": made[:, :-1], "target": made[:, 1:]}


def run(setting: Setting) -> Finding:
    """Eight experts, two of them active, in each of two layers."""
    return compare(setting, experts=8, width=48, steps=600, batch=32, length=32)


def compare(setting: Setting, experts: int, width: int, steps: int, batch: int, length: int) -> Finding:
    """The experiment at any size."""
    excess, loss, share = {}, {}, {}
    for i, rate in enumerate((RATE, 0.0)):
        loads, losses = train(setting, rate, (i / 2, (i + 1) / 2), experts, width, steps, batch, length)
        mean = loads.mean(2, keepdim=True)
        excess[rate] = ((loads / mean).amax(2) - 1).mean(1)  # [steps], mean over layers
        last = steps - steps // 5
        share[rate] = (loads[last:].sum(0) / loads[last:].sum((0, 2))[:, None]).sort(1, descending=True).values.mean(0)
        loss[rate] = losses
    single = {rate: float(e[last:].mean()) for rate, e in excess.items()}
    whole = {rate: float(one[0]) * experts - 1 for rate, one in share.items()}
    final = {rate: float(one[last:].mean()) for rate, one in loss.items()}
    harm = final[RATE] - final[0.0]
    found = [whole[RATE], whole[0.0], harm]
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=judge(*found),
        verdict=f"in the last fifth of {steps} updates the fullest of {experts} experts has {whole[RATE]:.0%} "
        f"more than its share with the rule and {whole[0.0]:.0%} more without (in single batches "
        f"{single[RATE]:.0%} and {single[0.0]:.0%}), at losses {final[RATE]:.3f} and {final[0.0]:.3f}; one seed",
        figure=_picture(excess, share, experts, whole),
        header=("expert, by load", "share with the rule", "share without"),
        rows=[[f"{e + 1}", f"{float(share[RATE][e]):.3f}", f"{float(share[0.0][e]):.3f}"] for e in range(experts)],
    )


def judge(ruled: float, free: float, harm: float) -> bool:
    """The rule, on the numbers of the claim in their order."""
    return ruled < 0.1 and free > 0.5 and harm < 0.02


def train(
    setting: Setting,
    rate: float,
    part: tuple[float, float],
    experts: int,
    width: int,
    steps: int,
    batch: int,
    length: int,
) -> tuple[Float64[Tensor, "steps L E"], Float64[Tensor, "steps"]]:
    """The loads of each layer's experts in every batch, and the losses; `rate` 0 leaves the bias at 0."""
    task = Chain(words=64, length=length)
    model = build(
        lambda: TransformerReader(
            Transformer(
                vocabulary=task.words, width=width, depth=2, heads=2, hidden=width, experts=experts, active=2, shared=1
            )
        ),
        streams.generator(setting.seed, "weights"),
    )
    config = TrainConfig(steps=steps, batch_size=batch, learning_rate=3e-3)
    loop = trainer(model, Drawn(task, setting.seed), config, setting)
    loads, losses = [], []
    for _, metrics in followed(loop, setting, part, "with the rule" if rate else "without"):
        loads.append(torch.stack(balance(loop.bare, rate)).cpu())
        losses.append(metrics["loss"].cpu())
    return torch.stack(loads).double(), torch.stack(losses).double()


def _picture(
    excess: dict[float, Tensor], share: dict[float, Tensor], experts: int, whole: dict[float, float]
) -> Figure:
    """The excess while learning, and the shares at the end."""
    figure, (left, right) = plots.figure(1, 2, width=4.9, height=3.5)
    for colour, (rate, word) in enumerate(((RATE, "bias rule"), (0.0, "no rule"))):
        smooth = plots.smooth(excess[rate].numpy(), 15)
        plots.curve(left, range(1, len(smooth) + 1), smooth, word, colour)
        place = torch.arange(experts) + 1 + (colour - 0.5) * 0.4
        right.bar(place.tolist(), share[rate].tolist(), width=0.38, color=plots.COLOURS[colour], label=word)
    left.set_ylim(0, None)
    last = len(excess[RATE]) - len(excess[RATE]) // 5
    ruled, free = (float(excess[rate][last:].mean()) for rate in (RATE, 0.0))
    title = f"In a batch the fullest is {ruled:.0%} too full, without {free:.0%}"
    plots.label(left, title, "updates", "fullest expert's load over the mean, less 1")
    plots.legend(left, "upper right")
    plots.level(right, 1 / experts, "an equal share")
    right.set_xticks(range(1, experts + 1))
    right.grid(axis="x", visible=False)
    title = f"Over all batches of the end {whole[RATE]:.0%}, without {whole[0.0]:.0%}"
    plots.label(right, title, "expert, by load", "share of all tokens")
    plots.legend(right, "upper right")
    return figure
