"""A request that cannot be met is refused alone, and the message names the field."""

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import AllSolvers
from generative.diffusion.solvers.probe import compile_scheduler
from generative.diffusion.solvers.schedulers import Schedulers

SHAPE = (1, 4, 4)
IMAGE = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) * 2 - 1
HALF = (torch.arange(16.0).view(SHAPE) % 4 < 2).float()
GIVEN = diffusers.DDPMScheduler(clip_sample=False)


def network(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    """Some smooth answer of the size that noise has; every row by itself."""
    return torch.sin(1.7 * x + 0.003 * t.view(-1, 1, 1, 1)) + 0.2 * torch.roll(x, 1, -1)


def engine() -> Engine:
    return Engine(network, SHAPE, Schedulers(GIVEN), rows=8)


class Odd:
    """Something that no field of a request is."""


ZERO = torch.zeros(2)
NAN = torch.full(SHAPE, math.nan)
WRONG: dict[str, list[Any]] = {
    "seed": [None, True, 1.5, "7", math.nan, 10**400, -(10**40), Odd(), [1], np.float32(2)],
    "solver": [None, 3, "dpm", "", "ddim" * 1000, Odd(), b"ddim", ["ddim"]],
    "steps": [None, 0, -1, 1001, 10**9, 10**400, 2.0, True, "25", math.nan],
    "guidance": [None, math.nan, math.inf, -math.inf, "3", True, 10**400, 1j, torch.tensor(3.0), [3.0]],
    "label": [10, -1, 10**30, 1.0, True, "cat", math.nan, Odd()],
    "clip": [0.0, -1.0, math.nan, "1", True, Odd(), -math.inf],
    "eta": [-0.1, 1.5, math.nan, math.inf, "0", True, 0.5],  # dpmpp-2m, which is asked, takes none
    "condition": [*({"context": x} for x in (3, torch.zeros(3), ZERO * math.nan, ZERO.int())), 1, {}, {"other": ZERO}],
    "against": [*({"context": x} for x in (3, torch.zeros(3), ZERO * math.nan, ZERO)), 1, {}, {"other": ZERO}],
    "init": [1, torch.zeros(4, 4), HALF.int(), NAN, HALF / 0, np.zeros(SHAPE), torch.zeros(1).expand(10**12)],
    "strength": [0.0, -1.0, 1.5, math.nan, "1", True, None, 0.5],  # there is no init
    "mask": [HALF, 3, torch.zeros(5, 5), HALF * 2, NAN, torch.zeros(1, 1, 1, 1, 4)],
    "noise": [1, HALF, torch.zeros(3, *SHAPE), torch.zeros(0, *SHAPE), NAN[None], ZERO[0], HALF[None].long()],
}


def broken(good: Request, name: str, value: Any) -> Request:
    """Past the type checks that the tests alone have."""
    bad = copy.copy(good)
    object.__setattr__(bad, name, value)
    return bad


def test_a_thousand_malformed_requests_fail_alone() -> None:
    def told(x: Tensor, t: Tensor, label: Tensor | None, context: Tensor) -> Tensor:
        return network(x, t) + context.sum(1).view(-1, 1, 1, 1)

    def serving() -> Engine:
        return Engine(told, SHAPE, AllSolvers(cosine(), "v"), rows=6, classes=10, null={"context": torch.zeros(2)})

    good = [
        Request(
            i,
            ("dpmpp-2m", "ddpm", "ddim")[i % 3],
            2 + i % 5,
            (1.0, 2.0)[i % 2],
            i % 10,
            init=IMAGE if i % 7 == 0 else None,
        )
        for i in range(40)
    ]
    wrong = itertools.islice(itertools.cycle((name, value) for name, values in WRONG.items() for value in values), 1000)
    shared, accepted, images = serving(), {}, {}
    for i, (name, value) in enumerate(wrong):
        if i % 25 == 0:
            accepted[shared.submit(good[i // 25])] = i // 25
        with pytest.raises(RequestError) as caught:
            shared.submit(broken(Request(1, steps=4, label=3), name, value))
        assert str(caught.value).startswith(f"request {len(accepted)}: {name}"), (name, value, caught.value)
        assert "expected" in str(caught.value) or name in ("solver", "steps", "eta")
        assert len(str(caught.value)) < 1500, name
        if i % 10 == 0:
            images.update(shared.turn().finished)
    while shared.waiting or shared.running:
        images.update(shared.turn().finished)
    assert images.keys() == accepted.keys()
    for number, i in accepted.items():
        assert torch.equal(images[number], serving().sample([good[i]])[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"B": torch.zeros(6, 2, dtype=torch.float64)}, "solver is a table whose A is"),
        (
            {"C": torch.full((6, 1), math.nan, dtype=torch.float64)},
            "solver is a table whose C holds numbers that are not",
        ),
        ({"clip": math.nan}, "solver is a table with clip nan"),
    ],
)
def test_a_table_that_does_not_fit_together_is_refused(change: Mapping[str, Any], words: str) -> None:
    table = copy.copy(compile_scheduler(diffusers.DDIMScheduler(clip_sample=False), 6))
    for name, value in change.items():
        object.__setattr__(table, name, value)
    with pytest.raises(RequestError, match=words):
        engine().submit(Request(1, table))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            Request(1, compile_scheduler(diffusers.IPNDMScheduler(), 5), init=IMAGE),
            "init is given; expected None: the solver does not say",
        ),
        (
            Request(1, "ddim", 5, init=IMAGE, strength=0.1),
            "strength is 0.1 and leaves none of 5 steps; expected at least 0.2",
        ),
        (
            Request(1, compile_scheduler(GIVEN, 5), init=IMAGE, strength=0.5),
            "strength is 0.5; expected none: the solver is a table",
        ),
        (Request(1, "flow-euler", 5), "solver 'flow-euler' is for flow matching, but DDPMScheduler for discrete"),
        (Request(1, "hean", 5), "solver 'hean' is unknown; did you mean 'heun'"),
        (Request(1, "heun", 1001), "steps is 1001"),
    ],
)
def test_reasons_that_lie_in_the_solver(request_: Request, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        engine().submit(request_)
