"""What to say of a tensor that does not fit: what it is, the shape it has and the shape it should have.

In the tests jaxtyping holds every annotated shape. In use nothing is checked but the entrance of each backbone, by one
comparison of a size, because a wrong shape that gets past it fails deep inside, or broadcasts and does not fail at all.
"""

from __future__ import annotations

from torch import Tensor


class ShapeError(ValueError):
    """A tensor has another shape than was expected; the message names both."""


def wrong(what: str, x: Tensor, expected: str) -> ShapeError:
    """The error to raise: `raise wrong("MLP: x", x, "[B, 5]")`."""
    return ShapeError(f"{what} has shape {list(x.shape)}, expected {expected}")
