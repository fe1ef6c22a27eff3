"""What a guided request is led away from."""

import diffusers
import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.noise.schedule import linear
from generative.diffusion.solvers.compiler import AllSolvers

SHAPE = (1, 4, 4)
NULL = {"context": torch.tensor([[0.1, -0.2], [0.0, 0.3]]), "kind": torch.tensor([0.5])}


def network(x: Tensor, t: Tensor, label: Tensor | None, context: Tensor, kind: Tensor) -> Tensor:
    """Every row by itself, and in no part linear."""
    told = torch.tanh(context).sum((1, 2)) * kind.cos().sum(1) + 0.001 * t
    if label is not None:
        told = told + 0.3 * label
    return torch.sin(1.3 * x + told.view(-1, 1, 1, 1)) + 0.2 * torch.roll(x, 1, -1)


def engine(rows: int = 8, classes: int | None = None) -> Engine:
    return Engine(network, SHAPE, AllSolvers(linear(), "eps"), rows=rows, classes=classes, null=NULL)


def told(seed: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {name: torch.randn(null.shape, generator=draws) for name, null in NULL.items()}


STRANGERS = [
    Request(20, "ddpm", 5),
    Request(21, "heun", 3, 4.0, condition=told(3)),
    Request(22, "ddim", 6, 2.0, condition=told(4), against=told(5)),
]


@pytest.mark.parametrize(("condition", "label"), [(1, None), (None, None), (1, 3)])
def test_guidance_leads_away_from_what_is_told(condition: int | None, label: int | None) -> None:
    """The loop of diffusers' pipelines, with its `negative_prompt`; ours beside strangers with others and with none."""
    wanted, away = NULL if condition is None else told(condition), told(2)
    noise = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(7))
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    scheduler.set_timesteps(8)
    x = noise
    for t in scheduler.timesteps:
        now, labels = t[None].float(), (label, None if label is None else 4)
        towards, from_ = (
            network(x, now, None if name is None else torch.tensor([name]), *(each[None] for each in side.values()))
            for name, side in zip(labels, (wanted, away), strict=True)
        )
        x = scheduler.step(from_ + 3.0 * (towards - from_), t, x).prev_sample
    given = None if condition is None else wanted
    asked = Request(0, "ddim", 8, 3.0, label, condition=given, against=away, noise=noise)
    found = engine(classes=None if label is None else 4).sample([*STRANGERS, asked, *STRANGERS])
    torch.testing.assert_close(found[3], x[0], rtol=1e-4, atol=1e-4)


def test_a_sample_is_its_own_whoever_is_led_away_from_what() -> None:
    requests = [*STRANGERS, Request(1, "ddpm", 4, 2.0, condition=told(1)), *STRANGERS[::-1]]
    together = engine().sample(requests)
    for request, sample in zip(requests, together, strict=True):
        assert torch.equal(engine().sample([request])[0], sample)


def test_none_is_the_null_conditions_and_nothing_stays_in_the_slots() -> None:
    shared = engine(2)  # one after another in the same two slots
    asked = [
        Request(1, "ddim", 3, 2.0, condition=told(1), against=told(2)),
        Request(1, "ddim", 3, 2.0, condition=told(1)),
        Request(1, "ddim", 3, 2.0, condition=told(1), against=NULL),
        Request(1, "ddim", 3, 2.0, condition=told(1), against=told(1)),
        Request(1, "ddim", 3, 1.0, condition=told(1)),
    ]
    away, plain, null, nowhere, unguided = shared.sample(asked)
    assert not torch.allclose(away, plain)
    assert torch.equal(null, plain)
    assert torch.equal(nowhere, unguided)
    assert all(torch.equal(row, NULL["kind"]) for row in shared.slots.conditions["kind"])


def test_what_is_told_is_copied_when_it_is_submitted() -> None:
    away = told(2)
    shared = engine()
    shared.submit(Request(1, "ddim", 3, 2.0, condition=told(1), against=away))
    away["context"].zero_()
    finished: list[tuple[int, Tensor]] = []
    while not finished:
        finished = shared.turn().finished
    expected = engine().sample([Request(1, "ddim", 3, 2.0, condition=told(1), against=told(2))])
    assert torch.equal(finished[0][1], expected[0])


def test_where_it_would_mean_nothing_it_is_refused() -> None:
    with pytest.raises(RequestError, match="against is given but guidance is 1, which leads away from nothing"):
        engine().submit(Request(1, condition=told(1), against=told(2)))
    plain = Engine(lambda x, t, label: x, SHAPE, AllSolvers(linear(), "eps"), rows=2, classes=2)
    with pytest.raises(RequestError, match=r"against is \['context', 'kind'\]; expected None: the network takes no"):
        plain.submit(Request(1, guidance=2.0, label=1, against=told(2)))
    with pytest.raises(RequestError, match=r"against\['kind'\] is a tensor \[2\] of torch.float32; expected a tensor"):
        engine().submit(Request(1, guidance=2.0, against=told(2) | {"kind": torch.zeros(2)}))
