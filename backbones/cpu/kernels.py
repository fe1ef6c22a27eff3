"""Products of matrices and softmax in the processor's vector registers, for networks that only answer, on a CPU.

All of it is made of tiles (`vectors`) that keep their sums in registers, and weights are laid out for these beforehand,
in panels [K, 32] (`panels`): linear layers, the products of Winograd's convolutions, and attention,

    s = q k^T;   p = 2^(s - max s);   y = p v / sum p       by twelve queries, whose scores stay in the cache

where 1/sqrt(d) and 1/ln 2 are multiplied into k. A row of a result is summed in the same order wherever it stands and
whatever stands beside it.

Source: Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication" (tiles and panels). torch's own
products of 64 to 512 columns run at 60 to 80% of these (docs/notebook.md).

Key: T rows, K columns in, N out, G = B H groups of attention (batch and head), S keys, d width of a head.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from backbones.cpu.vectors import LANES, at, compiled, gate, soften, tile62, tile121

PANEL = 2 * LANES  # columns of a panel


def panels(weight: Float[Tensor, "*M K N"]) -> Float32[Tensor, "*M P K 32"]:
    """Columns in panels of 32, filled up with zeros."""
    *more, rows, columns = weight.shape
    count = -(-columns // PANEL)
    wide = torch.zeros(*more, rows, count * PANEL, dtype=torch.float32)
    wide[..., :columns] = weight
    return wide.view(*more, rows, count, PANEL).movedim(-2, -3).contiguous()


@compiled
def softened(scores: Float32[np.ndarray, "N"]) -> float:
    """`soften` of a whole array."""
    return soften(at(scores, 0), len(scores))


@compiled
def product(
    x: Float32[np.ndarray, "T K"],
    w: Float32[np.ndarray, "P K 32"],
    bias: Float32[np.ndarray, "N"],
    y: Float32[np.ndarray, "T N"],
    low: int,
    high: int,
) -> None:
    """y = x w + bias in the rows from `low` to `high`, six of them or more."""
    K, P = w.shape[1], w.shape[0]
    N, most = P * 32, 96  # rows of x that stay in the cache while the panels pass
    for first in range(low, high, most):
        for p in range(P):
            for t in range(first, min(first + most, high), 6):
                row = min(t, high - 6)  # the last ones may be worked out twice
                tile62(at(x, row * K), K, at(w, p * K * 32), 32, at(bias, p * 32), at(y, row * N + p * 32), N, K)


@compiled
def gated(
    x: Float32[np.ndarray, "T K"],
    gates: Float32[np.ndarray, "P K 32"],
    gate_bias: Float32[np.ndarray, "N"],
    ups: Float32[np.ndarray, "P K 32"],
    up_bias: Float32[np.ndarray, "N"],
    downs: Float32[np.ndarray, "Q N 32"],
    down_bias: Float32[np.ndarray, "M"],
    y: Float32[np.ndarray, "T M"],
    low: int,
    high: int,
) -> None:
    """y = (gelu(x gates) * (x ups)) downs, with biases, in the rows from `low` to `high`, six of them or more.

    What is between the layers stays in the cache.
    """
    hidden, most = len(gate_bias), 48
    g, u = np.empty((most, hidden), np.float32), np.empty((most, hidden), np.float32)
    for first in range(low, high, most):
        start = max(low, min(first, high - 6))
        end = min(first + most, high)
        n = end - start
        product(x[start:end], gates, gate_bias, g[:n], 0, n)
        product(x[start:end], ups, up_bias, u[:n], 0, n)
        gate(at(g, 0), at(u, 0), n * hidden)
        product(g[:n], downs, down_bias, y[start:end], 0, n)


@compiled
def attention(
    q: Float32[np.ndarray, "B H T d"],
    k: Float32[np.ndarray, "B H S d"],
    v: Float32[np.ndarray, "B H S d"],
    y: Float32[np.ndarray, "B T H d"],
    low: int,
    high: int,
) -> None:
    """softmax(q k^T / sqrt(d)) v of the groups from `low` to `high`; d is 16, or a multiple of 32."""
    _, H, T, d = q.shape
    S, scale = k.shape[2], np.float32(1 / (math.sqrt(q.shape[3]) * math.log(2)))
    P = -(-S // 32)
    wide = P * 32
    keys, values = np.zeros((P, d, 32), np.float32), np.empty((S, d), np.float32)
    asked, none = np.zeros((12, d), np.float32), np.zeros(32, np.float32)
    scores, answer, share = np.empty((12, wide), np.float32), np.empty((12, d), np.float32), np.empty(12, np.float32)
    for group in range(low, high):
        b, h = group // H, group % H
        for s in range(S):
            for c in range(d):
                keys[s // 32, c, s % 32] = k[b, h, s, c] * scale
                values[s, c] = v[b, h, s, c]
        for first in range(0, T, 12):
            rows = min(12, T - first)
            for i in range(rows):
                for c in range(d):
                    asked[i, c] = q[b, h, first + i, c]
            for p in range(P):
                for i in range(0, 12, 6):
                    into = at(scores, i * wide + p * 32)
                    tile62(at(asked, i * d), d, at(keys, p * d * 32), 32, at(none, 0), into, wide, d)
            for i in range(12):
                for s in range(S, wide):
                    scores[i, s] = -np.inf
                share[i] = 1 / soften(at(scores, i * wide), wide)
            if d == 16:
                tile121(at(scores, 0), wide, at(values, 0), d, at(none, 0), at(answer, 0), d, S)
            else:
                for c in range(0, d, 32):
                    for i in range(0, 12, 6):
                        tile62(at(scores, i * wide), wide, at(values, c), d, at(none, 0), at(answer, i * d + c), d, S)
            for i in range(rows):
                for c in range(d):
                    y[b, first + i, h, c] = answer[i, c] * share[i]
