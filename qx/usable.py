"""What of a preference file is trained on, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from generative.preference.pairs import PairError
from generative.preference.preflight import DOUBTFUL, UNTEACHING, Checked
from generative.preference.tokens import Tokens
from lab import console


def usable(file: Path, checked: Checked) -> Sequence[Tokens]:
    """The pairs to train on, in tokens; what is dropped or doubtful is said. Raises PairError where nothing is left."""
    findings = checked.findings
    if not checked.pairs:
        counts = [f"{n} {kind.replace('_', ' ')}" for kind in UNTEACHING if (n := getattr(findings, kind))]
        why = f": {', '.join(counts)}; the first: {next(iter(findings.first.values()))}" if counts else ""
        raise PairError(f"{file}: none of its {findings.pairs} pairs can teach{why}")
    for kind in (*UNTEACHING, *DOUBTFUL):
        if count := getattr(findings, kind):
            fate = "dropped" if kind in UNTEACHING else "kept"
            what = f"{count} of {findings.pairs} pairs {fate}, {kind.replace('_', ' ')}"
            console.err.print(f"[dim]{console.escape(f'{what}; the first: {findings.first[kind]}')}[/]", soft_wrap=True)
    return checked.tokens
