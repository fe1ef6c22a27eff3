"""Student's intervals: of the mean of a few numbers, what seeds or prompts would say of it again.

Student 1908, "The probable error of a mean"; the numbers are taken as independent and about normal.
"""

from __future__ import annotations

import math

from jaxtyping import Float64
from scipy import stats  # type: ignore[import-untyped]  # scipy ships no types
from torch import Tensor


def quantile(count: int) -> float:
    """What Student's t of count - 1 degrees exceeds once in forty; infinite for a single number."""
    return float(stats.t.ppf(0.975, count - 1)) if count > 1 else math.inf


def half(values: Float64[Tensor, "n"]) -> float:
    """Half of the 95% interval around their mean; of a single number all numbers."""
    return quantile(len(values)) * values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf


def interval(values: Float64[Tensor, "n"]) -> tuple[float, float, float]:
    """(mean, lower end, upper end) of the 95% interval."""
    mean, far = values.mean().item(), half(values)
    return mean, mean - far, mean + far


def points(gain: Float64[Tensor, "n"]) -> str:
    """A difference of shares in hundredths, with its interval."""
    mean, low, high = (100 * value for value in interval(gain))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
