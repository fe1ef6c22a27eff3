"""Five networks read scikit-learn's handwritten digits: does what a network takes for granted count, or its size?

An MLP takes nothing for granted, a convolution that nearby pixels belong together and that a stroke is the same stroke
elsewhere, an LSTM that rows come in order, a ViT little more than that there are patches. All learn the same way:
AdamW, the same rate, the same number of updates on the same digits, whole and undistorted.

The splits are drawn by seed: 1,297 digits to learn from and 500 to be judged by, in each another way, so that the
spread over splits holds both the luck of the weights and that of the digits. The splits share digits, so that their
errors are not independent; the error of a mean over J splits is therefore that of Nadeau & Bengio 2003 ("Inference for
the generalization error", sec. 5, the corrected resampled t-test): s sqrt(1/J + n_test / n_train), not s / sqrt(J).

The claim holds where LeNet-5 makes fewer errors than *every* MLP with at least its weights, each time by more of these
errors than the 97.5% quantile of Student's t with J - 1 degrees: 2.78 for five splits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from torch import Tensor, nn

from backbones import cost
from backbones.classifiers import LeNet, ResNet
from backbones.initialise import build
from backbones.mlp import MLP
from backbones.recurrent import Recurrent
from backbones.vision import ViT
from experiments.claim import Claim, Finding, Number, Setting
from experiments.classify import TILES, Classify, misread, mosaic, read
from experiments.students import quantile
from generative.diffusion.data import digits
from generative.train import TensorData, TrainConfig, Trainer
from lab import plots, streams

CLAIM = Claim(
    claim="A convolutional network reads handwriting with fewer errors than a fully connected one with more weights.",
    source="LeCun, Bottou, Bengio & Haffner 1998, sec. III-C: LeNet-5 with 60,000 weights errs on 0.95% of MNIST's "
    "test digits, a perceptron of 300 hidden units with 235,000 weights on 4.7%",
    stated={"errors of the MLP over LeNet-5's": "> 1", "weights of the MLP over LeNet-5's": "> 1"},
    minutes=2.5,
)

SIDE, CLASSES = 8, 10


class Rows(nn.Module):
    """An LSTM that reads a picture row by row, from the top; its last state names the class."""

    def __init__(self, side: int, width: int, classes: int) -> None:
        super().__init__()
        self.rows = Recurrent("lstm", side, width)
        self.output = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B K"]:
        return self.output(self.rows(x[:, 0])[0][:, -1])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MLP, 32 wide": lambda: MLP(SIDE * SIDE, [32, 32], CLASSES),
    "MLP, 128 wide": lambda: MLP(SIDE * SIDE, [128, 128], CLASSES),
    "MLP, 512 wide": lambda: MLP(SIDE * SIDE, [512, 512], CLASSES),
    "LeNet-5": lambda: LeNet((1, SIDE, SIDE), CLASSES, padding=(2, 2)),
    "ResNet-8": lambda: ResNet(1, CLASSES, width=8, blocks=1),
    "ViT": lambda: ViT(SIDE, 1, 2, 32, 2, 4, CLASSES),
    "LSTM over rows": lambda: Rows(SIDE, 64, CLASSES),
}
CONFIG = TrainConfig(steps=720, batch_size=64, learning_rate=5e-3, final_rate=0.0, weight_decay=0.05)


@dataclass(frozen=True)
class Reading:
    """What one network made of the splits.

    Attributes:
        said: the class it gave each test digit.
        errors: the share of each split's test digits that it misread.
        weights: parameters.
        flops: floating-point operations to read one digit.
        seconds: to train it once.
    """

    said: Int64[Tensor, "splits N"]
    errors: Float[Tensor, "splits"]
    weights: int
    flops: int
    seconds: float


def run(setting: Setting) -> Finding:
    """Train each network on each split, count what it misreads, and compare LeNet-5 with the MLPs."""
    splits = [parts(streams.derive(setting.seed, "split", i)) for i in range(5)]
    readings = {}
    for i, (name, make) in enumerate(NETWORKS.items()):
        setting.report(i / len(NETWORKS), name)
        readings[name] = learn(make, splits, CONFIG, setting.seed, setting.device)
    return judge(readings, splits)


def parts(seed: int, test: int = 500) -> tuple[TensorData, TensorData]:
    """Digits to learn from and digits to be judged by, with ink at 1 and paper at 0."""
    split = digits(seed, test)
    learned, judged = (
        TensorData({"image": (part.tensors["image"] + 1) / 2, "label": part.tensors["label"]})
        for part in (split.train, split.test)
    )
    return learned, judged


def learn(
    make: Callable[[], nn.Module],
    splits: Sequence[tuple[TensorData, TensorData]],
    config: TrainConfig,
    seed: int,
    device: torch.device,
) -> Reading:
    """One network, trained afresh on each split."""
    said, errors, start = [], [], time.perf_counter()
    for i, (learned, judged) in enumerate(splits):
        network = build(make, streams.generator(seed, "weights", i))
        accelerator = Accelerator(cpu=device.type == "cpu")
        trainer = Trainer(network, Classify(), learned, config, seed=seed + i, accelerator=accelerator)
        for _ in trainer.run():
            pass
        said.append(read(trainer.result, judged.tensors["image"]))
        errors.append((said[-1] != judged.tensors["label"]).float().mean())
    seconds = (time.perf_counter() - start) / len(splits)
    operations = cost.flops(network.eval(), splits[0][1].tensors["image"][:1])
    return Reading(torch.stack(said), torch.stack(errors), cost.parameters(network), operations, seconds)


def judge(readings: dict[str, Reading], splits: Sequence[tuple[TensorData, TensorData]]) -> Finding:
    """The rule at the top of the file, on what was read."""
    lenet = readings["LeNet-5"]
    share = len(splits[0][1]) / len(splits[0][0])
    rivals = {n: r for n, r in readings.items() if n.startswith("MLP") and r.weights >= lenet.weights}
    name, best = min(rivals.items(), key=lambda item: item[1].errors.mean().item())
    ratio = (best.errors.mean() / lenet.errors.mean()).item()
    size = best.weights / lenet.weights
    found: dict[str, Number] = dict(zip(CLAIM.stated, (round(ratio, 2), round(size, 1)), strict=True))
    apart = distance(best.errors - lenet.errors, share)
    verdict = (
        f"LeNet-5 misreads {lenet.errors.mean():.2%} of the digits, and the best MLP of at least its weights "
        f"({name}: {size:.1f} times as many) {best.errors.mean():.2%}: "
        f"{'LeNet-5' if apart > 0 else 'the MLP' if apart < 0 else 'neither'} errs less, by {abs(apart):.1f} corrected "
        f"standard errors over {len(splits)} splits, where {quantile(len(splits)):.2f} are asked for; on digits of "
        "8 x 8 pixels."
    )
    header = ("network", "accuracy", "+-", "weights", "kFLOPs a digit", "seconds")
    rows = [
        (
            name,
            f"{1 - r.errors.mean():.2%}",
            f"{spread(r.errors, share):.2%}",
            f"{r.weights:,}",
            f"{r.flops / 1000:,.0f}",
            f"{r.seconds:.1f}",
        )
        for name, r in readings.items()
    ]
    clear = fewer(lenet.errors, [r.errors for r in rivals.values()], share)
    return Finding(found, clear, verdict, picture(readings, splits, ratio, size), header, rows)


def fewer(errors: Float[Tensor, "splits"], rivals: Sequence[Float[Tensor, "splits"]], share: float) -> bool:
    """Whether these errors are fewer than each rival's, by more than chance explains (the top of the file)."""
    return all(distance(rival - errors, share) > quantile(len(errors)) for rival in rivals)


def spread(values: Float[Tensor, "splits"], share: float) -> float:
    """The corrected error of their mean; `share` is n_test / n_train."""
    return values.std().item() * math.sqrt(1 / len(values) + share)


def distance(difference: Float[Tensor, "splits"], share: float) -> float:
    """Corrected errors between the mean and 0."""
    return difference.mean().item() / max(spread(difference, share), 1e-9)


def picture(
    readings: dict[str, Reading], splits: Sequence[tuple[TensorData, TensorData]], ratio: float, size: float
) -> Figure:
    """Accuracy against weights, and the digits of the first split that LeNet-5 misreads."""
    made, (ax, wrong) = plots.figure(1, 2, width=5.4, height=3.6)
    plots.label(
        ax,
        f"An MLP of {size:.1f} times LeNet-5's weights errs {ratio:.1f} times as often",
        "weights",
        "test accuracy, %",
    )
    mlps = [r for n, r in readings.items() if n.startswith("MLP")]
    ax.plot([r.weights for r in mlps], [100 - 100 * r.errors.mean() for r in mlps], color=plots.COLOURS[0], alpha=0.4)
    share = len(splits[0][1]) / len(splits[0][0])
    others = [n for n in readings if not n.startswith("MLP")]
    for name, r in readings.items():
        colour = plots.COLOURS[1 + others.index(name) if name in others else 0]
        accuracy, error = 100 - 100 * r.errors.mean().item(), 100 * spread(r.errors, share)
        ax.errorbar(r.weights, accuracy, error, fmt="o", color=colour, capsize=2, markersize=5)
        right = name.startswith("MLP") or name == "ViT"  # of its point, where no other error bar passes
        beside, side = ((7, -11), "left") if right else ((-7, -3), "right")  # points
        ax.annotate(name, (r.weights, accuracy), beside, textcoords="offset points", ha=side, fontsize=8, color=colour)
    ax.set_xscale("log")
    ax.margins(x=0.3)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    judged = splits[0][1].tensors
    said = readings["LeNet-5"].said[0]
    mosaic(wrong, list(misread(judged["image"], judged["label"], said)))
    plots.label(
        wrong,
        f"All that LeNet-5 misreads of {len(said)} digits"
        if (said != judged["label"]).sum() <= TILES
        else f"The first {TILES} digits that LeNet-5 misreads",
    )
    return made
