"""What an experiment is: a claim with its source and its numbers, and a function that finds them here.

A module of this package holds `CLAIM` and `run(setting) -> Finding`; `experiments.catalog` lists them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib.figure import Figure

Number = int | float | str
LONG = 4.0  # minutes


class DataError(ValueError):
    """An experiment needs a file that is not there; the message says which, and how to name it."""


@dataclass(frozen=True)
class Claim:
    """What is said, by whom, and which numbers would show it.

    Attributes:
        claim: one sentence.
        source: paper and section.
        stated: what the claim says of each number that will be found: a number, or words ("> 1"). Each is a bar that
            the rule of the verdict tests.
        minutes: about how long it takes on two idle cores; those beyond `LONG` run only when they are asked for.
    """

    claim: str
    source: str
    stated: dict[str, Number]
    minutes: float = 1.0


@dataclass(frozen=True)
class Setting:
    """What a run is a function of, and where it tells how far it is.

    Attributes:
        seed: the root of every draw.
        device: where to compute.
        data: the file or folder that the person named with --data, if any.
        report: called with the share of the work that is done, in [0, 1], and a few words.
    """

    seed: int
    device: torch.device
    data: Path | None = None
    report: Callable[[float, str], None] = lambda share, note: None


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        found: a number for each of `Claim.stated`, under the same names.
        holds: whether the claim held here.
        verdict: one sentence that says so, with what limits it.
        figure: the picture.
        header: names of the columns of a table, where there is one.
        rows: its rows.
    """

    found: dict[str, Number]
    holds: bool
    verdict: str
    figure: Figure
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default=())
