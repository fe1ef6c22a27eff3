"""A network that says the variance of DDPM's noise: its steps are those of the plain loop that it was trained for."""

import math
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.learned import smallest, spread
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.noise.schedule import Levels, cosine, linear
from generative.diffusion.solvers.compiler import AllSolvers, ClosedForms
from generative.diffusion.solvers.probe import compile_scheduler
from generative.diffusion.solvers.schedulers import Schedulers
from generative.diffusion.solvers.solver import compile_solver, trailing
from generative.diffusion.training import variance

SHAPE, NULL = (2, 4, 4), 3


def network(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """Something smooth of either half, every row by itself."""
    told = (0.003 * t + 0.4 * label).view(-1, 1, 1, 1)
    return torch.cat([torch.sin(1.7 * x + told), torch.tanh(3 * torch.roll(x, 1, -1) - told)], dim=1)


def engine(of: Any = network, compiler: Any = None, rows: int = 8, learned: bool = True) -> Engine:
    compiler = AllSolvers(linear(), "v") if compiler is None else compiler
    return Engine(of, SHAPE, compiler, rows=rows, classes=NULL, variance=learned)


def draws(count: int, seed: int) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def by_the_plain_loop(request: Request) -> Tensor:
    """Guided as by the authors of DiT: the first half alone, beside the told row's variance."""

    def guided(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        told, null = network(x, t, torch.tensor([request.label])), network(x, t, torch.tensor([NULL]))
        (said, v), (away, _) = told.chunk(2, 1), null.chunk(2, 1)
        return torch.cat([away + request.guidance * (said - away), v], dim=1)

    assert request.noise is not None
    levels = Levels.through(linear(), torch.from_numpy(trailing(1000, request.steps).copy()))
    noise, clip = request.noise[:, None], math.inf if request.clip is None else request.clip
    return list(variance.draw(guided, levels, "v", noise[0], noise[1:], clip=clip))[-1][0]


WANTED = [
    Request(0, "ddpm", 9, 1.0, 0, noise=draws(10, 0)),
    Request(0, "ddpm", 12, 1.0, 2, clip=1.0, noise=draws(13, 1)),
    Request(0, "ddpm", 7, 3.0, 1, clip=0.7, noise=draws(8, 2)),
]
STRANGERS = [Request(1, "ddim", 5, 2.0, 1), Request(2, "dpmpp-2m", 6), Request(3, "ddpm", 4), Request(4, "heun", 3)]


def test_steps_are_those_of_the_plain_loop_among_strangers() -> None:
    found = engine().sample([*STRANGERS[:2], *WANTED, *STRANGERS[2:]])[2:5]
    for request, sample in zip(WANTED, found, strict=True):
        torch.testing.assert_close(sample, by_the_plain_loop(request), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large"])
def test_a_scheduler_of_diffusers_steps_alike_whatever_variance_it_has(kind: str) -> None:
    common: dict[str, Any] = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    given = diffusers.DDPMScheduler(clip_sample=False, variance_type=kind, **common)
    found = engine(compiler=Schedulers(given)).sample(WANTED)
    for request, sample in zip(WANTED, found, strict=True):
        torch.testing.assert_close(sample, by_the_plain_loop(request), rtol=1e-4, atol=1e-4)


def test_a_sample_is_its_own_whoever_rides_along() -> None:
    requests = [*WANTED, *STRANGERS]
    together = engine().sample(requests)
    for request, sample in zip(requests, together, strict=True):
        assert torch.equal(engine().sample([request])[0], sample)


def test_other_solvers_do_not_read_it() -> None:
    """Nor one that is nonsense, nor in a row that a "ddpm" has had; its table without the name is another solver."""

    def nonsense(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        said = network(x, t, label)
        return torch.cat([said[:, :2], torch.full_like(said[:, 2:], torch.inf)], dim=1)

    def first(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return network(x, t, label)[:, :2]

    table = compile_solver("ddpm", linear(), "v", 6)
    others = [STRANGERS[0], STRANGERS[1], STRANGERS[3], Request(5, table), Request(6, "ddim", 5, eta=1.0)]
    expected = engine(first, learned=False).sample(others)
    assert torch.equal(engine(nonsense).sample(others), expected)
    one = engine(rows=2)
    assert torch.equal(
        one.sample([Request(9, "ddpm", 3), *others])[1:], engine(first, rows=2, learned=False).sample(others)
    )


def test_the_smallest_variance_is_what_a_table_has_and_the_spread_its_distance_to_beta() -> None:
    """Against the formulas of `training.variance`, which go by the levels; the last step has no noise."""
    levels = Levels.through(cosine(), torch.from_numpy(trailing(1000, 20).copy()))
    table = compile_solver("ddpm", cosine(), "v", 20)
    small, large = variance.bounds(levels)
    torch.testing.assert_close(smallest(table).C, table.C)
    torch.testing.assert_close(2 * table.C[:-1, 0].log(), small[:-1])
    torch.testing.assert_close(spread(table)[:-1], (large - small)[:-1])
    assert spread(table)[-1] == 0
    other = compile_scheduler(diffusers.IPNDMScheduler(), 5)  # says no levels
    assert (spread(other) == 0).all()
    with pytest.raises(RequestError, match="solver is 'ddpm'; expected a table that says its levels"):
        smallest(other)


def test_an_answer_of_another_size_says_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"answers with \[8, 4, 4, 4\]; expected 1 x 32 numbers a row"):
        engine(learned=False).sample([WANTED[0]])
    plain = Engine(lambda x, t, label: x, SHAPE, ClosedForms(linear(), "v"), rows=2, variance=True)
    with pytest.raises(ValueError, match=r"answers with \[2, 2, 4, 4\]; expected 2 x 32 numbers a row"):
        plain.sample([Request(0)])
