"""Why the engine may say no to a request.

A request is checked by itself and completely before anything is done for it, whatever its fields hold, so that a bad
one fails alone and says which field was bad, what it held and what is expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from generative.diffusion.engine.request import Inputs, Request, RequestError
from generative.diffusion.solvers.table import TENSORS, SolverTable

LARGEST_SEED = 2**64
LONGEST_NAME = 64  # of a solver
MOST_STEPS = 1_000_000  # of any solver; a schedule allows fewer


def check(request: Request, inputs: Inputs) -> None:
    """Raise RequestError unless a network with these inputs can serve the request, whatever its solver's table."""
    if not isinstance(request, Request):
        raise RequestError(f"the request is {shown(request)}; expected a Request")
    _integer("seed", request.seed, -LARGEST_SEED, LARGEST_SEED)
    _integer("steps", request.steps, 1, MOST_STEPS)
    named = isinstance(request.solver, str) and len(request.solver) <= LONGEST_NAME
    if not named and not isinstance(request.solver, SolverTable):
        raise RequestError(f"solver is {shown(request.solver)}; expected the name of one, or a SolverTable")
    if not named and (request.eta is not None or request.strength != 1):
        name = "strength" if request.eta is None else "eta"
        raise RequestError(f"{name} is {shown(getattr(request, name))}; expected none: the solver is a table")
    _number("guidance", request.guidance, "a finite number, 1 for none")
    if request.clip is not None:
        _number("clip", request.clip, "a positive bound, or None", above=0.0, infinite=True)
    if request.eta is not None:
        _number("eta", request.eta, "0 (no noise) to 1 (as much as ddpm), or None", above=-math.ulp(0.0), most=1.0)
    _number("strength", request.strength, "a share in (0, 1]", above=0.0, most=1.0)
    _told(request, inputs)
    _given(request, inputs)
    if request.rows > inputs.rows:
        raise RequestError(f"guidance is {request.guidance} and takes 2 network rows; this engine has {inputs.rows}")


def _told(request: Request, inputs: Inputs) -> None:
    """Label, conditions and guidance."""
    if request.label is not None:
        if inputs.classes is None:
            raise RequestError(f"label is {shown(request.label)}; the network knows no labels")
        _integer("label", request.label, 0, inputs.classes - 1)
    _conditions("condition", request.condition, inputs)
    _conditions("against", request.against, inputs)
    if request.guidance != 1 and request.label is None and request.condition is None and request.against is None:
        raise RequestError(f"guidance is {request.guidance} but there is no label to guide towards; expected 1")
    if request.guidance == 1 and request.against is not None:
        raise RequestError("against is given but guidance is 1, which leads away from nothing; expected None")


def _conditions(field: str, told: Any, inputs: Inputs) -> None:
    """Raise RequestError unless these are None, or just those the network takes."""
    if told is None:
        return
    if not isinstance(told, Mapping) or set(told) != set(inputs.null):
        names = f"tensors named {', '.join(inputs.null)}" if inputs.null else "None: the network takes no condition"
        given = sorted(map(str, told)) if isinstance(told, Mapping) else told
        raise RequestError(f"{field} is {shown(given)}; expected {names}")
    for name, null in inputs.null.items():
        _tensor(f"{field}[{name!r}]", told[name], tuple(null.shape), null.dtype)


def _given(request: Request, inputs: Inputs) -> None:
    """Image, mask and noise."""
    if request.init is not None:
        _tensor("init", request.init, inputs.shape)
    elif request.mask is not None or request.strength != 1:
        name = "strength" if request.mask is None else "mask"
        raise RequestError(f"{name} is {shown(getattr(request, name))} but there is no init; expected an image to keep")
    if request.mask is not None:
        expected = f"0 (keep) to 1 (paint), broadcastable to {list(inputs.shape)}"
        mask = request.mask
        if not isinstance(mask, Tensor) or mask.is_complex() or not _broadcasts(mask, inputs.shape):
            raise RequestError(f"mask is {shown(mask)}; expected {expected}")
        if not bool(((mask >= 0) & (mask <= 1)).all()):
            raise RequestError(f"mask holds numbers outside; expected {expected}")


def begin(request: Request) -> int:
    """Steps to leave out at the start, as diffusers' img2img counts them. Raises RequestError when none is left."""
    left = min(int(request.steps * request.strength), request.steps)
    if left == 0:
        least = f"expected at least {1 / request.steps:.3g}"
        raise RequestError(f"strength is {request.strength} and leaves none of {request.steps} steps; {least}")
    return request.steps - left


def check_table(request: Request, table: SolverTable, inputs: Inputs, registers: int, room: int) -> None:
    """Raise RequestError unless the request can be met with this table, given registers and rows for tables."""
    if isinstance(request.solver, SolverTable):
        _whole(table)
    if len(table) > room:
        named = isinstance(request.solver, str)
        what = f"steps is {request.steps}; its table has" if named else "solver is a table of"
        raise RequestError(f"{what} {len(table)} rows; expected at most {room}, the room of this engine")
    if table.registers > registers:
        raise RequestError(f"solver remembers {table.registers} tensors; expected at most {registers}")
    if request.clip is not None and request.clip != math.inf and not table.estimate:
        why = "this solver is told the network's bare output and no estimate of the clean data that a bound would fit"
        raise RequestError(f"clip is {request.clip}; expected None: {why}")
    if inputs.estimate and not table.estimate:
        raise RequestError(f"solver is {shown(request.solver)}; expected one that says an estimate of the clean data")
    if request.init is not None and not bool((table.alpha.isfinite() & table.sigma.isfinite()).all()):
        raise RequestError("init is given; expected None: the solver does not say how much noise belongs to its steps")
    if request.noise is not None:
        alone = not table.stochastic and isinstance(request.noise, Tensor) and tuple(request.noise.shape[:1]) == (1,)
        _tensor("noise", request.noise, (1 if alone else 1 + len(table), *inputs.shape))


def check_weights(network: object, dtype: torch.dtype) -> None:
    """Raise ValueError for a module whose weights are of another floating type."""
    for name, weight in network.named_parameters() if isinstance(network, nn.Module) else ():
        if weight.is_floating_point() and weight.dtype != dtype:
            raise ValueError(f"network_dtype={dtype}, but the network's {name} is {weight.dtype}; expected it there")


def _whole(table: SolverTable) -> None:
    """Raise RequestError unless the parts of a table that someone made fit together, and are numbers."""
    steps, width = len(table.timesteps), table.B.shape[-1] if table.B.ndim else 0
    shapes = {"A": (steps, width, width), **dict.fromkeys("BCD", (steps, width))}
    for name in TENSORS:
        value, shape = getattr(table, name), shapes.get(name, (steps,))
        if steps == 0 or width == 0 or tuple(value.shape) != shape:
            raise RequestError(f"solver is a table whose {name} is {list(value.shape)}; expected {list(shape)}")
        if name not in ("alpha", "sigma") and not bool(value.isfinite().all()):
            raise RequestError(f"solver is a table whose {name} holds numbers that are not finite")
    if not table.clip > 0 or not math.isfinite(table.initial_scale):
        raise RequestError(f"solver is a table with clip {table.clip} and initial scale {table.initial_scale}")


def shown(value: Any) -> str:
    """A value in an error message: short, whatever it is."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    if isinstance(value, int) and abs(value) > LARGEST_SEED:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str | int | float | list | None):
        text = repr(value)
        return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}..."
    return f"a {type(value).__name__}"


def _integer(name: str, value: Any, least: int, most: int) -> None:
    whole = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if whole is None or not least <= whole <= most:
        raise RequestError(f"{name} is {shown(value)}; expected an integer, {least} to {most}")


def _number(
    name: str, value: Any, expected: str, *, above: float = -math.inf, most: float = math.inf, infinite: bool = False
) -> None:
    try:
        x = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        x = math.nan
    if not (above < x <= most and (infinite or math.isfinite(x))):
        raise RequestError(f"{name} is {shown(value)}; expected {expected}")


def _tensor(name: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    """Raise RequestError unless it is a finite tensor of that shape, and dtype or floating type."""
    kind = dtype or "a floating type"
    right = isinstance(value, Tensor) and tuple(value.shape) == tuple(shape)
    if not right or not (value.is_floating_point() if dtype is None else value.dtype == dtype):
        raise RequestError(f"{name} is {shown(value)}; expected a tensor {list(shape)} of {kind}")
    if not bool(value.isfinite().all()):
        raise RequestError(f"{name} holds numbers that are not finite; expected finite ones")


def _broadcasts(mask: Tensor, shape: tuple[int, ...]) -> bool:
    sizes = (1,) * (len(shape) - mask.ndim) + tuple(mask.shape)
    return len(sizes) == len(shape) and all(m in (1, n) for m, n in zip(sizes, shape, strict=True))
