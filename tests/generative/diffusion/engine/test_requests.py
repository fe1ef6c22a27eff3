"""What a request may bring beside its seed: an image, a mask, noise, conditions, eta, a clip."""

import math

import diffusers
import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import ClosedForms
from generative.diffusion.solvers.probe import compile_scheduler
from generative.diffusion.solvers.schedulers import NAMES, Schedulers
from generative.diffusion.solvers.solver import Levels, ddim, trailing
from tests.oracles.schedulers import loop

SHAPE = (1, 4, 4)
PIXELS = torch.Generator().manual_seed(3)
IMAGE = torch.rand(SHAPE, generator=PIXELS) * 2 - 1
HALF = (torch.arange(16.0).view(SHAPE) % 4 < 2).float()  # 1 where to paint: the left half
GIVEN = diffusers.DDPMScheduler(clip_sample=False)


def network(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    """Some smooth answer of the size that noise has; every row by itself."""
    return torch.sin(1.7 * x + 0.003 * t.view(-1, 1, 1, 1)) + 0.2 * torch.roll(x, 1, -1)


def engine(rows: int = 8) -> Engine:
    return Engine(network, SHAPE, Schedulers(GIVEN), rows=rows)


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "name", ["ddim", "ddpm", "dpmpp-2m", "dpmpp-2m-sde", "heun", "unipc", "euler-ancestral", "plms"]
)
@pytest.mark.parametrize(("strength", "masked"), [(0.45, False), (0.45, True), (1.0, False), (1.0, True)])
def test_an_image_is_changed_and_filled_in_as_by_diffusers(name: str, strength: float, masked: bool) -> None:
    """The loops of its img2img and inpaint pipelines: same steps left out, same noise kept, same level after each."""
    kind, changes = NAMES[name]
    scheduler = getattr(diffusers, kind).from_config(GIVEN.config, **changes)
    scheduler.set_timesteps(10)
    begin = (10 - int(10 * strength)) * scheduler.order
    rows = len(scheduler.timesteps) - begin
    noise = draws(1 + rows)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    start = scheduler.add_noise(IMAGE[None], noise[:1], scheduler.timesteps[begin][None])[0]
    if masked and strength == 1:
        start = noise[0] * scheduler.init_noise_sigma

    def blend(k: int, x: Tensor) -> Tensor:
        known = IMAGE[None]
        if k + 1 < rows:
            known = scheduler.add_noise(known, noise[:1], scheduler.timesteps[begin + k + 1][None])
        return HALF * x + (1 - HALF) * known if masked else x

    plain = lambda x, t: network(x, torch.tensor([t]))  # noqa: E731
    expected = loop(scheduler, plain, start, noise[1:], begin=begin, after=blend)[-1]
    mask = HALF if masked else None
    asked = Request(0, name, 10, init=IMAGE, strength=strength, mask=mask, noise=noise)
    company = [Request(5, "ddim", 7), Request(6, "ddpm", 9, init=-IMAGE, strength=0.6, mask=1 - HALF)]
    found = engine().sample([company[0], asked, company[1]])[1]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    if masked:
        assert torch.equal(found[..., 2:], IMAGE[..., 2:])


def test_what_is_kept_does_not_show_in_others_nor_later() -> None:
    plain = [Request(i, "ddpm", 6) for i in range(3)]
    kept = Request(9, "dpmpp-2m", 4, init=IMAGE, mask=HALF)
    alone = engine(4).sample(plain)
    together = engine(4)
    assert torch.equal(together.sample([kept, *plain])[1:], alone)
    assert torch.equal(together.sample(plain), alone)
    assert torch.equal(
        together.sample([Request(9, "dpmpp-2m", 4, init=IMAGE, mask=HALF[0])])[0], engine().sample([kept])[0]
    )
    assert "mask" not in engine().slots.kept


def test_a_mask_of_ones_and_one_of_zeros() -> None:
    """All painted is drawing anew; all kept is the image, bit for bit."""
    asked = [
        Request(1, "ddpm", 8),
        Request(1, "ddpm", 8, init=IMAGE, mask=torch.ones(1)),
        Request(1, "ddpm", 8, init=IMAGE, mask=torch.zeros(1, 1)),
    ]
    free, painted, kept = engine().sample(asked)
    assert torch.equal(painted, free)
    assert torch.equal(kept, IMAGE)


def test_a_table_given_directly_starts_at_its_first_row() -> None:
    table = Schedulers(GIVEN)("ddpm", 10, 4, None)
    one, two = Request(1, table, init=IMAGE), Request(1, "ddpm", 10, init=IMAGE, strength=0.6)
    found = engine().sample([one, two])
    assert torch.equal(found[0], found[1])
    noise = draws(7)
    start = engine().start(Request(1, table, init=IMAGE, noise=noise))
    torch.testing.assert_close(start, (table.alpha[0] * IMAGE + table.sigma[0] * noise[0]).float())


def test_noise_that_is_given_takes_the_place_of_the_seed() -> None:
    noise = draws(7)
    found = engine().sample([Request(s, "ddpm", 6, noise=noise) for s in (1, 2)] + [Request(1, "ddpm", 6)])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    short = engine().sample([Request(1, "ddim", 6, noise=noise[:1]), Request(1, "ddim", 6, noise=noise)])
    assert torch.equal(short[0], short[1])


def test_eta_and_the_clip_are_the_solvers_own_unless_asked_otherwise() -> None:
    ours = Engine(network, SHAPE, ClosedForms(cosine(), "v"), rows=4)
    levels = Levels.through(cosine(), torch.from_numpy(trailing(1000, 6).copy()))
    half, plain, table = ours.sample(
        [Request(1, "ddim", 6, eta=0.5), Request(1, "ddim", 6), Request(1, ddim(levels, "v", 0.5))]
    )
    assert torch.equal(half, table)
    assert not torch.allclose(half, plain)
    clipping = compile_scheduler(diffusers.DDIMScheduler(clip_sample_range=0.5), 6)
    own, same, none, tight = engine().sample([Request(1, clipping, clip=c) for c in (None, 0.5, math.inf, 0.1)])
    assert own.abs().max() <= 0.5 < none.abs().max()
    assert tight.abs().max() <= 0.1 + 1e-6
    assert torch.equal(own, same)
    with pytest.raises(
        RequestError, match=r"clip is 1\.0; expected None: this solver is told the network's bare output"
    ):
        engine().submit(Request(1, "kdpm2", 6, clip=1.0))
    assert engine().sample([Request(1, "kdpm2", 6, clip=math.inf)]).isfinite().all()


def test_conditions_sit_with_their_request_and_the_null_ones_with_the_guidance() -> None:
    seen: list[dict[str, Tensor]] = []

    def told(x: Tensor, t: Tensor, label: Tensor | None, context: Tensor, ids: Tensor) -> Tensor:
        seen.append({"context": context.clone(), "ids": ids.clone()})
        assert label is None
        return x * context.sum((1, 2)).view(-1, 1, 1, 1) + ids.view(-1, 1, 1, 1)

    null = {"context": torch.full((2, 3), -1.0), "ids": torch.tensor([7])}
    mine = {"context": torch.arange(6.0).view(2, 3), "ids": torch.tensor([3])}
    conditioned = Engine(told, SHAPE, ClosedForms(cosine(), "v"), rows=4, null=null)
    conditioned.sample([Request(1, "ddim", 2, 2.0, condition=mine), Request(2, "ddim", 3)])
    assert [row.tolist() for row in seen[0]["ids"]] == [[3], [7], [7], [7]]
    assert torch.equal(seen[0]["context"][0], mine["context"])
    assert (seen[0]["context"][1:] == -1).all()
    assert (seen[2]["ids"] == 7).all()  # the first has left
    assert (seen[2]["context"] == -1).all()


def test_guidance_is_between_the_answers_with_the_conditions_and_without() -> None:
    def told(x: Tensor, t: Tensor, label: Tensor | None, context: Tensor) -> Tensor:
        return context.view(-1, 1, 1, 1) + 0 * x

    compiler = ClosedForms(cosine(), "x0")
    conditioned = Engine(told, SHAPE, compiler, rows=4, null={"context": torch.tensor([1.0])})
    asked = [Request(1, "ddim", 1, g, condition={"context": torch.tensor([5.0])}) for g in (1.0, 0.0, 3.0)]
    for sample, expected in zip(conditioned.sample(asked), (5.0, 1.0, 13.0), strict=True):
        torch.testing.assert_close(sample, torch.full(SHAPE, expected))


def test_a_request_is_taken_back_wherever_it_is() -> None:
    both = engine(1)
    first, second = both.submit(Request(1, "ddim", 3)), both.submit(Request(2, "ddim", 3))
    both.turn()
    assert both.cancel(second)
    assert both.cancel(first)
    assert not both.cancel(first)
    assert both.slots.free == [0]
    third = both.submit(Request(3, "ddim", 2))
    both.turn()
    ((number, image),) = both.turn().finished
    assert number == third
    assert torch.equal(image, engine(1).sample([Request(3, "ddim", 2)])[0])
