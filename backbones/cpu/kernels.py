"""Products of matrices and softmax in the processor's vector registers, for networks that only answer, on a CPU.

    y [6, 32] = x [6, K] w [K, 32] + bias       `tile62`, and `tile121` for 12 rows of 16 columns

Both keep all sums of a tile in registers, sixteen numbers in each, and read every number of w once for all rows. So
weights are laid out for them beforehand, in panels [K, 32] (`panels`). Everything else is made of these tiles: linear
layers, the products of Winograd's convolutions, and attention,

    s = q k^T;   p = 2^(s - max s);   y = p v / sum p       by twelve queries, whose scores stay in the cache

where 1/sqrt(d) and 1/ln 2 are multiplied into k, and 2^x = 2^n 2^f, n the nearest integer and f in [-1/2, 1/2], by a
polynomial of degree 5 that is off by 2e-7. A row of a result is summed in the same order wherever it stands and
whatever stands beside it.

The tiles are written in LLVM's own language, as numba takes it (`numba.extending.intrinsic`): what registers hold is
then said, not hoped for. On processors with shorter vectors LLVM splits them; it is right there, and less fast.

Source: Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication" (tiles and panels). torch's own
products of 64 to 512 columns run at 60 to 80% of these (docs/notebook.md).

Key: T rows, K columns in, N out, G = B H groups of attention (batch and head), S keys, d width of a head.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from jaxtyping import Float, Float32
from llvmlite import ir
from numba.core import cgutils
from numba.core import types as numba_types
from numba.extending import intrinsic
from torch import Tensor

LANES = 16  # numbers in a register
PANEL = 2 * LANES  # columns of a panel
QUERIES = 12  # that are answered together
SUMS = {"contract", "nsz"}  # what may be done to them: x y + z at once; not another order, which undoes a rounding
LOWEST = -126.0  # exponent of the smallest normal number
ROUND = 1.5 * 2**23  # x + ROUND has the integer nearest to x in its last bits
EXP2 = np.polynomial.Chebyshev.interpolate(np.exp2, 5, (-0.5, 0.5)).convert(kind=np.polynomial.Polynomial).coef.tolist()
ERF = (0.3275911, (0.0, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))
"""erf x = 1 - P(1 / (1 + p x)) e^(-x^2) for x >= 0, off by 1.5e-7: Abramowitz & Stegun 1964, 7.1.26."""

TILES = "_" + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]  # another name for other tiles

FLOAT, INT = ir.FloatType(), ir.IntType(64)
VECTOR, INTEGERS = ir.VectorType(FLOAT, LANES), ir.VectorType(ir.IntType(32), LANES)
types: Any = numba_types  # which bears no types of its own
POINTER = types.CPointer(types.float32)
F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """`function` as machine code, kept on disk where that may be written to; it holds no other thread up."""
    plain = inspect.unwrap(function)  # the tests wrap what they check
    plain.__qualname__ += TILES  # what is on disk is found by name and file, and tiles of this file are in all of it
    try:
        return cast(F, numba.njit(cache=True, nogil=True, fastmath=SUMS)(plain))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True, fastmath=SUMS)(plain))


def panels(weight: Float[Tensor, "*M K N"]) -> Float32[Tensor, "*M P K 32"]:
    """Columns in panels of 32, filled up with zeros."""
    *more, rows, columns = weight.shape
    count = -(-columns // PANEL)
    wide = torch.zeros(*more, rows, count * PANEL, dtype=torch.float32)
    wide[..., :columns] = weight
    return wide.view(*more, rows, count, PANEL).movedim(-2, -3).contiguous()


def _load(b: Any, base: Any, offset: Any) -> Any:
    found = b.load(b.bitcast(b.gep(base, [offset]), VECTOR.as_pointer()))
    found.align = 4
    return found


def _store(b: Any, value: Any, base: Any, offset: Any) -> None:
    b.store(value, b.bitcast(b.gep(base, [offset]), VECTOR.as_pointer())).align = 4


def _all(b: Any, number: Any) -> Any:
    """A vector of this number alone."""
    none = ir.Constant(VECTOR, ir.Undefined)
    one = b.insert_element(none, number, ir.Constant(ir.IntType(32), 0))
    return b.shuffle_vector(one, none, ir.Constant(INTEGERS, [0] * LANES))


def _constant(number: float) -> Any:
    return ir.Constant(VECTOR, [float(np.float32(number))] * LANES)


def _call(b: Any, name: str, result: Any, *values: Any) -> Any:
    """One of LLVM's functions of vectors."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, kind, f"llvm.{name}.v{LANES}f32"), values)


def _exp2(b: Any, x: Any) -> Any:
    """2^x of numbers that are not above 0; of those below -126 it is 2^-126, and nan is nan."""
    x = b.select(b.fcmp_ordered("<", x, _constant(LOWEST)), _constant(LOWEST), x)
    rounded = b.fadd(x, _constant(ROUND))
    f = b.fsub(x, b.fsub(rounded, _constant(ROUND)))
    power = _polynomial(b, f, EXP2)
    exponent = b.shl(b.bitcast(rounded, INTEGERS), ir.Constant(INTEGERS, [23] * LANES))
    return b.bitcast(b.add(b.bitcast(power, INTEGERS), exponent), VECTOR)


def _polynomial(b: Any, x: Any, coefficients: Sequence[float]) -> Any:
    """That of x^0 first."""
    value = _constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = _call(b, "fma", VECTOR, value, x, _constant(coefficient))
    return value


def _tile(rows: int, vectors: int) -> Any:
    """The kernel of `rows` x `vectors` registers."""

    def tile(typing: Any, x: Any, xs: Any, w: Any, ws: Any, bias: Any, y: Any, ys: Any, K: Any) -> Any:
        def write(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
            x, xs, w, ws, bias, y, ys, K = arguments
            step = [ir.Constant(INT, LANES * j) for j in range(vectors)]
            start = [_load(b, bias, s) for s in step]
            sums = [[cgutils.alloca_once_value(b, start[j]) for j in range(vectors)] for _ in range(rows)]
            row = [b.gep(x, [b.mul(xs, ir.Constant(INT, i))]) for i in range(rows)]
            with cgutils.for_range(b, K) as turn:
                at = b.mul(turn.index, ws)
                columns = [_load(b, w, b.add(at, s)) for s in step]
                for i in range(rows):
                    number = _all(b, b.load(b.gep(row[i], [turn.index])))
                    for j in range(vectors):
                        b.store(_call(b, "fma", VECTOR, number, columns[j], b.load(sums[i][j])), sums[i][j])
            for i in range(rows):
                out = b.gep(y, [b.mul(ys, ir.Constant(INT, i))])
                for j in range(vectors):
                    _store(b, b.load(sums[i][j]), out, step[j])
            return context.get_dummy_value()

        n = types.int64
        return types.void(POINTER, n, POINTER, n, POINTER, POINTER, n, n), write

    tile.__name__ = f"tile_{rows}_{vectors}"
    return intrinsic(tile)


tile62, tile121 = _tile(6, 2), _tile(12, 1)
"""y = x w + bias of (x, columns of x's matrix, w, of w's, bias, y, of y's, K), all but the numbers pointers (`at`)."""


@intrinsic  # type: ignore[untyped-decorator]
def at(typing: Any, array: Any, offset: Any) -> Any:
    """Pointer to the number `offset` of an array."""

    def write(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.gep(context.make_array(signature.args[0])(context, b, arguments[0]).data, [arguments[1]])

    return POINTER(array, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def soften(typing: Any, scores: Any, count: Any) -> Any:
    """scores <- 2^(scores - their maximum), of `count` numbers, a multiple of 16; their sum is returned."""

    def write(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        scores, count = arguments
        vectors, lanes = b.sdiv(count, ir.Constant(INT, LANES)), ir.Constant(INT, LANES)
        largest = cgutils.alloca_once_value(b, _constant(-np.inf))
        total = cgutils.alloca_once_value(b, _constant(0.0))
        with cgutils.for_range(b, vectors) as turn:
            x, now = _load(b, scores, b.mul(turn.index, lanes)), b.load(largest)
            b.store(b.select(b.fcmp_ordered(">", x, now), x, now), largest)
        top = _all(b, _call(b, "vector.reduce.fmax", FLOAT, b.load(largest)))
        with cgutils.for_range(b, vectors) as turn:
            place = b.mul(turn.index, lanes)
            x = b.fsub(_load(b, scores, place), top)
            power = _exp2(b, x)
            _store(b, power, scores, place)
            b.store(b.fadd(b.load(total), power), total)
        kind = ir.FunctionType(FLOAT, [FLOAT, VECTOR])
        add = cgutils.get_or_insert_function(b.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
        return b.call(add, [ir.Constant(FLOAT, 0.0), b.load(total)], fastmath=("reassoc",))

    return types.float32(POINTER, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def gate(typing: Any, gates: Any, ups: Any, count: Any) -> Any:
    """gates <- gelu(gates) ups, of `count` numbers, a multiple of 16; gelu x = (x + |x| erf(|x| / sqrt 2)) / 2."""

    def write(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        gates, ups, count = arguments
        with cgutils.for_range(b, b.sdiv(count, ir.Constant(INT, LANES))) as turn:
            place = b.mul(turn.index, ir.Constant(INT, LANES))
            x = _load(b, gates, place)
            size = _call(b, "fabs", VECTOR, x)
            y = b.fmul(size, _constant(math.sqrt(0.5)))
            one = _constant(1.0)
            t = b.fdiv(one, _call(b, "fma", VECTOR, y, _constant(ERF[0]), one))
            tail = b.fmul(_polynomial(b, t, ERF[1]), _exp2(b, b.fmul(b.fmul(y, y), _constant(-1 / math.log(2)))))
            twice = _call(b, "fma", VECTOR, size, b.fsub(one, tail), x)
            _store(b, b.fmul(b.fmul(twice, _constant(0.5)), _load(b, ups, place)), gates, place)
        return context.get_dummy_value()

    return types.void(POINTER, POINTER, types.int64), write


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
