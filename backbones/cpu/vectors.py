"""The processor's vector registers, in LLVM's own language: tiles of a product, softmax and GELU, for `kernels`.

    y [6, 32] = x [6, K] w [K, 32] + bias       `tile62`, and `tile121` for 12 rows of 16 columns

Both keep all sums of a tile in registers, sixteen numbers in each, and read every number of w once for all rows. They
are written as numba takes LLVM (`numba.extending.intrinsic`): what registers hold is then said, not hoped for. On
processors with shorter vectors LLVM splits them; it is right there, and less fast.

2^x = 2^n 2^f, n the nearest integer and f in [-1/2, 1/2], by a polynomial of degree 5 that is off by 2e-7.
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
from llvmlite import ir
from numba.core import cgutils
from numba.core import types as numba_types
from numba.extending import intrinsic

LANES = 16  # numbers in a register
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


@intrinsic  # type: ignore[untyped-decorator]  # numba bears no types
def at(typing: Any, array: Any, offset: Any) -> Any:
    """Pointer to the number `offset` of an array."""

    def write(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.gep(context.make_array(signature.args[0])(context, b, arguments[0]).data, [arguments[1]])

    return POINTER(array, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]  # numba bears no types
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


@intrinsic  # type: ignore[untyped-decorator]  # numba bears no types
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
