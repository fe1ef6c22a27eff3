"""The names of weights there and here, as a table that is read both ways.

A table of names pairs theirs with ours, the number of a layer written `#`, the last part (weight, bias) left out:

    {"encoder.layer.#.output.dense": "stack.blocks.#.feed_forward.down", ...}
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor


def rename(weights: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    """Every weight under the name that the table has for it.

    Raises:
        ValueError: for a weight whose name the table does not hold.
    """
    patterns = [
        (re.compile(re.escape(old).replace(r"\#", r"(\d+)") + r"(\.weight|\.bias|)"), new) for old, new in table.items()
    ]

    def translated(name: str) -> str:
        for pattern, new in patterns:
            found = pattern.fullmatch(name)
            if found:
                *numbers, last = found.groups()
                for number in numbers:
                    new = new.replace("#", number, 1)
                return new + last
        raise ValueError(f"weight {name!r} has no place here: known are {', '.join(table)}")

    return {translated(name): tensor for name, tensor in weights.items()}


def inverse(table: Mapping[str, str]) -> dict[str, str]:
    """The table read from right to left."""
    return {ours: theirs for theirs, ours in table.items()}
