"""Every claim by name. A name is what `qx reproduce` takes."""

from __future__ import annotations

from collections.abc import Callable

from experiments.claim import Claim, Finding, Setting

EXPERIMENTS: dict[str, tuple[Claim, Callable[[Setting], Finding]]] = {}
