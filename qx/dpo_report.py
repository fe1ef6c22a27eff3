"""What a preference training of a model of transformers leaves to look at: curves, and a card for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from generative.language.adapter import base_name
from lab import plots
from lab.run import Run
from qx import pairs_report
from qx.curves import Curves

TOLD = ("loss", "chosen_moved", "kl", "kl_error")
"""What the card says of the result, besides the metrics."""

if TYPE_CHECKING:
    from generative.preference.losses import PreferenceConfig
    from generative.preference.preflight import Checked, Findings
    from qx.dpo import Dpo


def draw(run: Run, checked: Checked) -> None:
    """`report.png`: rewards, accuracy, log-probabilities over updates; and how long both sides are."""
    curves = Curves(run)
    made, axes = plots.figure(2, 2, width=4.6, height=3.1)
    curves.sides(axes[0], "rewards", "implicit reward, beta x nats", margin=True)
    curves.ranked(axes[1])
    curves.sides(axes[2], "logps", "log pi, nats a completion")
    pairs_report.panel(axes[3], pairs_report.histograms(checked)[0])
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
        f"# {options.pairs.stem}, from {base_name(options.model)}",
        "",
        f"Trained by `qx dpo` on {result['learned']:,} preference pairs: loss {_losses(p)}, beta {p.beta:g}"
        f"{f', anchor {p.anchor:g}' if p.anchor else ''}, {t.steps:,} updates of {t.batch_size} pairs, learning rate "
        f"{t.learning_rate:g}, {t.precision}, seed {options.seed}{_adapters(options)}.",
        "",
        "## The pairs",
        "",
        f"{findings.usable:,} of {findings.pairs:,} rows can teach. The median chosen side has "
        f"{findings.chosen_length:g} tokens, the rejected {findings.rejected_length:g}; in "
        f"{findings.chosen_longer:.0%} of the pairs the chosen one is the longer.",
        "",
        *[f"- {name.replace('_', ' ')}: {n:,}" for name, n in findings.counts().items() if isinstance(n, int) and n],
        "",
        "## What it learned",
        "",
    ]
    if result.get("held_out"):
        lines += ["| pairs held out | |", "|---|---|"]
        lines += [f"| {name} | {result[name]:.4g} |" for name in result if "/" in name or name in TOLD]
        lines.append("")
    lines += ["## Before and after", ""]
    for each in said:
        lines += [f"**{_line(each['prompt'])}**", "", f"- before: {_line(each['before'])}"]
        lines += [f"- after: {_line(each['after'])}", ""]
    return "\n".join(lines)


def _losses(preference: PreferenceConfig) -> str:
    """The losses, with their weights where they have some."""
    weights = preference.weights or (None,) * len(preference.loss)
    return " + ".join(
        name if weight is None else f"{weight:g} {name}" for weight, name in zip(weights, preference.loss, strict=True)
    )


def _adapters(options: Dpo) -> str:
    return f", by adapters of rank {options.lora_rank} and alpha {options.lora_alpha:g}" if options.lora_rank else ""


def _line(text: str) -> str:
    return " ".join(text.split())[:400] or "(nothing)"
