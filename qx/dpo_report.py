"""What a preference training of a model of transformers leaves to look at: curves, and a card for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lab import plots
from lab.run import Run
from qx.curves import SIDES, Curves

if TYPE_CHECKING:
    from generative.preference.preflight import Checked, Findings
    from qx.dpo import Dpo


def draw(run: Run, checked: Checked) -> None:
    """`report.png`: rewards, accuracy, log-probabilities over updates; and how long both sides are."""
    curves = Curves(run)
    made, axes = plots.figure(2, 2, width=4.6, height=3.1)
    curves.sides(axes[0], "rewards", "implicit reward, beta x nats", margin=True)
    curves.ranked(axes[1])
    curves.sides(axes[2], "logps", "log pi, nats a completion")
    sides = list(zip(*checked.lengths, strict=True))[1:]
    least, most = (pick(pick(side) for side in sides) for pick in (min, max))
    edges = np.unique(np.linspace(least, most + 1, 31).round()) - 0.5  # whole tokens
    axes[3].hist(sides, bins=list(edges), color=[plots.COLOURS[c] for c in SIDES.values()], label=list(SIDES))
    axes[3].xaxis.set_major_locator(MaxNLocator(integer=True))
    plots.label(axes[3], "length of completions", "tokens", "pairs")
    plots.legend(axes[3])
    plots.save(made, run.path / "report.png")


def card(options: Dpo, findings: Findings, result: Mapping[str, Any], said: Sequence[Mapping[str, str]]) -> str:
    """The model's README: how it was made, what the data held, what it says now."""
    p, t = options.preference, options.train
    lines = [
        "---",
        "library_name: transformers",
        "tags: [preference-optimisation, dpo, quincunx]",
        "---",
        "",
        f"# {options.pairs.stem}, from {options.model.name}",
        "",
        f"Trained by `qx dpo` on preference pairs: loss {' + '.join(p.loss)}, beta {p.beta:g}, {t.steps:,} updates of "
        f"{t.batch_size} pairs, learning rate {t.learning_rate:g}, seed {options.seed}.",
        "",
        "## The pairs",
        "",
        f"{findings.usable:,} of {findings.pairs:,} rows were used. In the mean the chosen have "
        f"{findings.chosen_length:.1f} tokens and the rejected {findings.rejected_length:.1f}; in "
        f"{findings.chosen_longer:.0%} of the pairs the chosen one is the longer.",
        "",
        *[f"- {name.replace('_', ' ')}: {n:,}" for name, n in findings.counts().items() if isinstance(n, int) and n],
        "",
        "## What it learned",
        "",
    ]
    if result.get("held_out"):
        lines += ["| pairs held out | |", "|---|---|"]
        lines += [f"| {name} | {result[name]:.4g} |" for name in result if "/" in name or name == "loss"]
        lines.append("")
    lines += ["## Before and after", ""]
    for each in said:
        lines += [f"**{_line(each['prompt'])}**", "", f"- before: {_line(each['before'])}"]
        lines += [f"- after: {_line(each['after'])}", ""]
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split())[:400] or "(nothing)"
