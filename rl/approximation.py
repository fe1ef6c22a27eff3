"""Stochastic approximation: the root of a function of which only noisy observations can be had.

    w <- w - a_k (g(w) + noise),   k = 1, 2, 3, ...                    (Robbins & Monro 1951; Zhao 2025, sec. 6.2)

It finds the root g(w*) = 0 with probability 1 where (Zhao thm 6.1)

    0 < c1 <= g' <= c2       g grows, but in no place too fast;
    sum a_k = inf            the steps reach as far as is needed;
    sum a_k^2 < inf          the noise that they let in comes to an end;
    E[noise] = 0, E[noise^2] < inf, given all that was seen.

Every rule of learning in `rl` that moves an estimate by a step size times an error is one of these: the mean (g(w) =
w - E[X]), stochastic gradient descent (g the gradient), TD and Q-learning (g Bellman's error).

R runs go side by side, each with draws of its own.

Source: Zhao, Mathematical Foundations of Reinforcement Learning, 2025, ch. 6; Robbins & Monro, "A stochastic
approximation method", 1951; Dvoretzky, "On stochastic approximation", 1956.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import accumulate, count

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from lab import streams

Law = Callable[[int], float]
"""a_k for k = 1, 2, 3, ..."""

Observe = Callable[[Float64[Tensor, "R *shape"], int], Float64[Tensor, "R *shape"]]
"""A noisy observation of g at w, the k-th: one for each run, drawn anew for each k."""


def power(alpha: float, omega: float, offset: int = 0) -> Law:
    """a_k = alpha / (k + offset)^omega. It satisfies both conditions for 1/2 < omega <= 1; omega 0 is constant.

    Larger omega: the noise dies sooner, and so does all progress. A larger offset takes the edge off the first steps
    and changes nothing in the end.
    """
    return lambda k: float(alpha / (k + offset) ** omega)


def robbins_monro(
    observe: Observe, first: Float64[Tensor, "R *shape"], law: Law
) -> Iterator[Float64[Tensor, "R *shape"]]:
    """w_2, w_3, ... of R runs from w_1 = `first`. Endless; where g grows too fast w may become inf or nan.

    Args:
        observe: noisy observations.
        first: w_1.
        law: step sizes.
    """
    w = first
    for k in count(1):
        w = w - law(k) * observe(w, k)
        yield w


def noisy(g: Callable[[Float64[Tensor, "R"]], Float64[Tensor, "R"]], keys: Int64[Tensor, "R"], sigma: float) -> Observe:
    """g(w) with normal noise of standard deviation `sigma`; the k-th draw of run r is a function of its key and k."""
    return lambda w, k: g(w) + sigma * streams.normal(keys, k).double()


def samples(x: Float64[Tensor, "n R *shape"]) -> Observe:
    """w - x_k, whose root is the mean of x: with a_k = 1 / k, w_{k+1} is the mean of the first k (Zhao sec. 6.1).

    Raises IndexError after n observations.
    """
    return lambda w, k: w - x[k - 1]


def mini_batches(x: Float64[Tensor, "n *shape"], keys: Int64[Tensor, "R"], size: int) -> Observe:
    """w minus the mean of `size` of the n points, drawn with replacement: a gradient of E|w - X|^2 / 2 (Zhao sec. 6.4).

    Size 1 is stochastic gradient descent. Larger: less noise, by the root of it, and more points to look at.
    """
    place = torch.arange(size)

    def observe(w: Float64[Tensor, "R *shape"], k: int) -> Float64[Tensor, "R *shape"]:
        chance = streams.uniform(keys[:, None], place + k * size)  # [R, size]
        return w - x[(chance.double() * len(x)).long()].mean(1)

    return observe


def sums(law: Law, steps: int) -> Float64[Tensor, "2 steps"]:
    """sum a_k and sum a_k^2 over the first 1, 2, ..., `steps` steps: whether they grow without end is what counts."""
    laid = [law(k) for k in range(1, steps + 1)]
    squares = accumulate(a * a for a in laid)
    return torch.tensor([list(accumulate(laid)), list(squares)], dtype=torch.float64)


def linear_moments(law: Law, error: float, slope: float, sigma: float, steps: int) -> Float64[Tensor, "2 steps"]:
    """Mean and variance of w_2 - w*, w_3 - w*, ... where g(w) = slope (w - w*), exactly: Dvoretzky's process.

        error <- (1 - a_k slope) error - a_k noise        (Zhao thm 6.2, with alpha_k = a_k slope and beta_k = a_k)

    The mean goes to 0 only if sum a_k is infinite; the variance if a_k goes to 0 and sum a_k is infinite.

    Args:
        law: step sizes.
        error: w_1 - w*.
        slope: of g.
        sigma: standard deviation of the noise.
        steps: how many.
    """
    mean, variance, found = error, 0.0, []
    for k in range(1, steps + 1):
        keep = 1 - law(k) * slope
        mean, variance = keep * mean, keep * keep * variance + (law(k) * sigma) ** 2
        found.append((mean, variance))
    return torch.tensor(found, dtype=torch.float64).T


def asymptotic_spread(alpha: float, slope: float, sigma: float) -> float:
    """Standard deviation of sqrt(k) (w_k - w*) for large k with a_k = alpha / k, or alpha / (k + offset) (Sacks 1958).

    The least, sigma / slope, is that of alpha = 1 / slope.

    Raises:
        ValueError: for alpha slope <= 1/2: then w_k is slower than 1 / sqrt(k).
    """
    if alpha * slope <= 0.5:
        raise ValueError(f"alpha times slope is {alpha * slope:g}, expected more than 1/2")
    return alpha * sigma / math.sqrt(2 * alpha * slope - 1)


def constant_spread(alpha: float, slope: float, sigma: float) -> float:
    """Standard deviation at which w_k - w* stays for ever with a constant step, where g(w) = slope (w - w*).

    Raises:
        ValueError: for alpha slope outside 0 ... 2: then it grows without end.
    """
    if not 0 < alpha * slope < 2:
        raise ValueError(f"alpha times slope is {alpha * slope:g}, expected a number between 0 and 2")
    return sigma * math.sqrt(alpha / (slope * (2 - alpha * slope)))
