"""A training step against the length of the sequence: a Transformer and an LSTM of as many parameters.

Counted: the operations that have to wait for each other, the longest path through the graph of the loss. It does not
depend on the machine. Measured: seconds of a training step (forward and backward, no update) on one sequence, where all
that can be done at once has to be found within it; and on a batch with a fixed number of tokens, whose many short or
few long sequences fill the machine together ("which becomes critical at longer sequence lengths, as memory constraints
limit batching across examples": Vaswani et al. 2017, sec. 1). Attention's own n^2 is part of both.

Key: n steps of a sequence.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.autograd.graph import Node

from backbones import cost
from backbones.initialise import build
from backbones.transformer import Transformer
from experiments.claim import Claim, Finding, Setting
from experiments.sequences import Predict, RecurrentReader, TransformerReader, as_large
from generative.train import Batch
from lab import plots, streams

VOCABULARY = 64
NAMES = {"transformer": "Transformer", "lstm": "LSTM"}

CLAIM = Claim(
    claim="A Transformer trains in parallel over time, where an LSTM cannot: operations that wait for each other do "
    "not grow with the sequence, while an LSTM's grow in proportion; so on long sequences its step is quicker.",
    source="Vaswani et al. 2017, sec. 4 and table 1: O(1) against O(n) sequential operations (there: on GPUs)",
    stated={
        "Transformer: sequential operations ~ n^": 0.0,
        "LSTM: sequential operations ~ n^": 1.0,
        "one sequence, Transformer: seconds a token, longest over shortest": "< 0.5",
        "one sequence, LSTM: seconds a token, longest over shortest": "> 0.67",
        "one sequence, longest: LSTM's seconds over the Transformer's": "> 1.1",
        "a full batch, longest: LSTM's seconds over the Transformer's": "> 1.1",
        "parameters, largest over smallest": "< 1.05",
    },
)


def run(setting: Setting) -> Finding:
    """Lengths 32 to 1024 at 4096 tokens a batch, two layers, 128 wide."""
    return compare(setting, lengths=(32, 64, 128, 256, 512, 1024), tokens=4096, width=128, repeats=4)


def makers(width: int) -> dict[str, Callable[[], nn.Module]]:
    """Two layers each; the LSTM as wide as has as many parameters as the Transformer of that width."""

    def transformer() -> nn.Module:
        return TransformerReader(Transformer(vocabulary=VOCABULARY, width=width, depth=2, heads=4))

    with torch.device("meta"):
        parameters = cost.parameters(transformer())
    wide = as_large(lambda w: RecurrentReader("lstm", VOCABULARY, w, layers=2), parameters)
    return {"transformer": transformer, "lstm": lambda: RecurrentReader("lstm", VOCABULARY, wide, layers=2)}


def compare(setting: Setting, lengths: Sequence[int], tokens: int, width: int, repeats: int) -> Finding:
    """The experiment at any size."""
    models = {name: build(make, streams.generator(setting.seed, name)) for name, make in makers(width).items()}
    chains = {name: [sequential(model, n, setting.seed) for n in lengths] for name, model in models.items()}
    for model in models.values():
        model.to(setting.device)
    alone = measured(models, setting, lengths, 1, 3 * repeats, (0.0, 0.4))  # short, and so the more easily disturbed
    full = measured(models, setting, lengths, tokens, repeats, (0.4, 1.0))
    growth = {name: _exponent(lengths, chain) for name, chain in chains.items()}
    token = {name: s[-1] / lengths[-1] / (s[0] / lengths[0]) for name, s in alone.items()}
    single, packed = (s["lstm"][-1] / s["transformer"][-1] for s in (alone, full))
    parameters = [cost.parameters(model) for model in models.values()]
    ratio = max(parameters) / min(parameters)
    found = [*growth.values(), *token.values(), single, packed, ratio]
    holds = (
        counted(growth["transformer"], growth["lstm"], ratio),
        timed(token["transformer"], token["lstm"], single, packed),
    )
    said = [
        f"{what} {'as claimed' if good else 'not so'}" for what, good in zip(("counts", "seconds"), holds, strict=True)
    ]
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=all(holds),
        verdict=f"{said[0]}, {said[1]}: at {lengths[-1]} steps the LSTM's loss has a chain of {chains['lstm'][-1]} "
        f"operations and the Transformer's one of {chains['transformer'][-1]}; a step on one such sequence takes the "
        f"LSTM {single:.1f} times as long, on {tokens} tokens {packed:.1f} times, on {_machine(setting)}",
        figure=_picture(lengths, chains, alone, single),
        header=("steps", *(f"{NAMES[name]}, {what}" for what in ("chain", "ms", "ms a full batch") for name in models)),
        rows=[
            [
                f"{n}",
                *(f"{chains[name][j]}" for name in models),
                *(f"{1e3 * seconds[name][j]:.1f}" for seconds in (alone, full) for name in models),
            ]
            for j, n in enumerate(lengths)
        ],
    )


def counted(transformer: float, lstm: float, ratio: float) -> bool:
    """The rule for the operations that wait for each other, given their growth, and the ratio of parameters."""
    return abs(transformer) < 0.01 and abs(lstm - 1) < 0.02 and ratio < 1.05


def timed(transformer: float, lstm: float, single: float, packed: float) -> bool:
    """The rule for seconds: of a token, longest over shortest; of a step, the LSTM's over the Transformer's."""
    return transformer < 0.5 and lstm > 0.67 and single > 1.1 and packed > 1.1


def measured(
    models: dict[str, nn.Module],
    setting: Setting,
    lengths: Sequence[int],
    tokens: int,
    repeats: int,
    part: tuple[float, float],
) -> dict[str, list[float]]:
    """Seconds of a step at each length: the least of some, round and round, so that a busy moment spoils one alone."""
    seconds = {name: [math.inf] * len(lengths) for name in models}
    begin, end = part
    for again in range(repeats + 1):  # the first sets things up
        for j, n in enumerate(lengths):
            batch = _batch(setting, n, tokens)
            for name, model in models.items():
                took = seconds_of(model, batch)
                seconds[name][j] = min(seconds[name][j], took) if again else math.inf
            share = (again + (j + 1) / len(lengths)) / (repeats + 1)
            setting.report(begin + (end - begin) * share, f"{len(batch['tokens'])} of length {n}")
    return seconds


def _machine(setting: Setting) -> str:
    return f"{torch.get_num_threads()} CPU threads" if setting.device.type == "cpu" else str(setting.device)


def _batch(setting: Setting, n: int, tokens: int) -> Batch:
    """Random words, as many sequences as have so many tokens, and at least one; for the time any words will do."""
    shape, generator = (max(1, tokens // n), n), streams.generator(setting.seed, "words", n)
    drawn = {name: torch.randint(VOCABULARY, shape, generator=generator) for name in ("tokens", "target")}
    return {name: words.to(setting.device) for name, words in drawn.items()}


def _loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    return Predict().loss(model, batch, torch.zeros(len(batch["tokens"]), dtype=torch.int64)).value.mean()


def seconds_of(model: nn.Module, batch: Batch) -> float:
    """Of one forward and backward pass."""
    began = time.perf_counter()
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(_loss(model, batch))
    if batch["tokens"].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def sequential(model: nn.Module, n: int, seed: int) -> int:
    """The number of operations on the longest path from a weight to the loss of one sequence of n steps.

    In float64 on the CPU, where torch's recurrent kernel is a loop of differentiable operations, not one fused one.
    """
    batch = _batch(Setting(seed, torch.device("cpu")), n, n)
    return longest(_loss(copy.deepcopy(model).double(), batch).grad_fn)


def longest(node: Node | None) -> int:
    """Nodes on the longest path below `node`, each counted once it has all of its own."""
    depth: dict[Node, int] = {}
    waiting = [node] if node is not None else []
    while waiting:
        top = waiting[-1]
        below = [child for child, _ in top.next_functions if child is not None]
        open_ones = [child for child in below if child not in depth]
        if open_ones and top not in depth:
            waiting += open_ones
        else:
            waiting.pop()
            depth[top] = 1 + max((depth[child] for child in below), default=0)
    return depth[node] if node is not None else 0


def _exponent(n: Sequence[int], y: Sequence[int]) -> float:
    """p of y ~ n^p, between the two longest."""
    return math.log(y[-1] / y[-2]) / math.log(n[-1] / n[-2])


def _picture(
    lengths: Sequence[int], chains: dict[str, list[int]], seconds: dict[str, list[float]], single: float
) -> Figure:
    """The chain, and the time a token of one sequence, against length."""
    figure, (left, right) = plots.figure(1, 2, width=4.9, height=3.5)
    for colour, (name, word) in enumerate(NAMES.items()):
        token = [1e6 * s / n for s, n in zip(seconds[name], lengths, strict=True)]
        for ax, y in ((left, chains[name]), (right, token)):
            plots.curve(ax, list(lengths), y, word, colour)
            ax.plot(lengths, y, "o", color=plots.COLOURS[colour], markersize=4)
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(lengths, [str(n) for n in lengths])
        ax.set_yscale("log")
    right.yaxis.set_major_formatter("{x:.0f}")
    right.yaxis.set_minor_formatter("{x:.0f}")
    ends = " and ".join(f"{chains[name][-1]} ({word})" for name, word in NAMES.items())
    plots.label(left, f"{lengths[-1]} steps: chains of {ends}", "steps of a sequence", "operations one after another")
    plots.label(
        right,
        f"There a step takes the LSTM {single:.1f} times as long",
        "steps of the sequence",
        "microseconds a token",
    )
    plots.legend(left, "center right")
    plots.legend(right, "best")
    return figure
