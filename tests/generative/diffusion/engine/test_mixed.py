"""Whatever mixture rides along, and whenever it comes and goes: every image is that of its solo run, bit for bit."""

from dataclasses import dataclass
from functools import cache, lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.unet import UNet
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import AllSolvers

SHAPE, ROWS = (1, 8, 8), 8
LAST = 7  # turn at which a request is still taken back
OURS = ("ddpm", "ddim", "dpmpp-2m")
PROBED = ("heun", "unipc", "euler-ancestral", "dpmpp-2m-sde", "plms", "kdpm2-ancestral")
IMAGE = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
MASKS = (torch.eye(8)[None], (torch.arange(8.0) / 7).expand(SHAPE))  # of 0 and 1, and in between
COMPILER = cache(AllSolvers(cosine(), "v"))  # a scheduler is probed once for all examples


@lru_cache
def network() -> UNet:
    made = UNet(1, 1, width=8, multipliers=(1,), blocks=1, attention=(0,), classes=10, head_width=8)
    draws = torch.Generator().manual_seed(0)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.08, generator=draws)
    return made


def engine() -> Engine:
    return Engine(network(), SHAPE, COMPILER, rows=ROWS, classes=10)


@dataclass
class Visit:
    """A request that comes at some turn and is perhaps taken back at another."""

    request: Request
    comes: int
    leaves: int | None


@st.composite
def visits(draw: st.DrawFn) -> Visit:
    solver = draw(st.sampled_from(OURS + PROBED))
    image = draw(st.sampled_from(("none", "none", "init", "mask")))
    label = draw(st.none() | st.integers(0, 9))
    request = Request(
        seed=draw(st.integers(-5, 5)),
        solver=solver,
        steps=draw(st.integers(2, 4)),
        guidance=1.0 if label is None else draw(st.sampled_from((1.0, 0.0, 3.0, 7.5))),
        label=label,
        clip=draw(st.sampled_from((None, 1.0, 0.5))) if solver in OURS else None,
        eta=draw(st.sampled_from((None, 0.0, 0.5, 1.0))) if solver == "ddim" else None,
        init=None if image == "none" else IMAGE,
        strength=1.0 if image == "none" else draw(st.sampled_from((0.5, 0.8, 1.0))),
        mask=draw(st.sampled_from(MASKS)) if image == "mask" else None,
    )
    return Visit(request, draw(st.integers(0, 4)), draw(st.none() | st.none() | st.integers(0, LAST)))


def every_image_is_its_own(plan: list[Visit]) -> None:
    shared, turn = engine(), 0
    numbers: dict[int, int] = {}  # of the engine -> of the plan
    gone, images, refused = set(), {}, set()
    while turn <= LAST or shared.waiting or shared.running:
        for i, visit in enumerate(plan):
            if visit.comes == turn:
                try:
                    numbers[shared.submit(visit.request)] = i
                except RequestError:
                    refused.add(i)
            if visit.leaves == turn and any(shared.cancel(n) for n, j in numbers.items() if j == i):
                gone.add(i)
        tick = shared.turn()
        assert not tick.failed
        images.update({numbers[number]: image for number, image in tick.finished})
        turn += 1
    assert len(shared.slots.free) == ROWS
    assert images.keys() | gone | refused == set(range(len(plan)))
    assert not images.keys() & gone
    solo = engine()
    for i, image in images.items():
        assert torch.equal(solo.sample([plan[i].request])[0], image), plan[i]
    for i in refused:
        with pytest.raises(RequestError):
            solo.submit(plan[i].request)


plans = st.lists(visits(), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(plans)
def test_every_image_of_a_mixed_load_is_its_own(plan: list[Visit]) -> None:
    every_image_is_its_own(plan)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(plans)
def test_every_image_of_200_mixed_loads_is_its_own(plan: list[Visit]) -> None:
    every_image_is_its_own(plan)
