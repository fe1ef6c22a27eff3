"""The proof finds networks whose rows are not each other's strangers, and passes those that are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backbones.unet import UNet
from generative.diffusion.engine import proof
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Inputs
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import ClosedForms

SHAPE = (1, 8, 8)
CPU, FLOAT = torch.device("cpu"), torch.float32
COMPILER = ClosedForms(cosine(), "v")


def honest(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    return torch.sin(x + t.view(-1, 1, 1, 1))


def ragged(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """A last bit more in the rows beyond the last whole block of four."""
    whole = len(x) // 4 * 4
    odd = (torch.arange(len(x)) >= whole).view(-1, 1, 1, 1)
    return torch.where(odd, honest(x, t, label) * (1 + 2**-23), honest(x, t, label))


def crowded(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    return honest(x, t, label) + 1e-7 * x.mean()


def lonely(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """A last bit more where less than all are asked."""
    return honest(x, t, label) * (1 + 2**-23 * (len(x) < 12))


def uncertain() -> Callable[..., Tensor]:
    calls = iter(range(1000))
    return lambda x, t, label: honest(x, t, label) + next(calls)


def test_each_flaw_is_found_and_named() -> None:
    inputs = Inputs(SHAPE, 13)
    assert proof.flaw(honest, inputs, CPU, FLOAT) is None
    assert "depends on its slot: one input has another answer in slot 12" in str(proof.flaw(ragged, inputs, CPU, FLOAT))
    assert "depends on its neighbours" in str(proof.flaw(crowded, inputs, CPU, FLOAT))
    assert "differs from call to call" in str(proof.flaw(uncertain(), inputs, CPU, FLOAT))
    assert proof.flaw(ragged, Inputs(SHAPE, 12), CPU, FLOAT) is None


def test_groups_of_rows_are_tried_without_the_others() -> None:
    inputs = Inputs(SHAPE, 12)
    assert proof.flaw(lonely, inputs, CPU, FLOAT) is None
    assert proof.flaw(honest, inputs, CPU, FLOAT, 4) is None
    found = proof.flaw(lonely, inputs, CPU, FLOAT, 4)
    assert found == "a row depends on its neighbours: other answers where only 4 rows are asked"
    late = lambda x, t, label: lonely(x, t, label) if 4 < len(x) < 12 else honest(x, t, label)  # noqa: E731
    assert "only 8 rows" in str(proof.flaw(late, inputs, CPU, FLOAT, 4))

    asked: set[frozenset[float]] = set()

    def noted(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        asked.add(frozenset(t.tolist()))
        return honest(x, t, label)

    assert proof.flaw(noted, Inputs(SHAPE, 16), CPU, FLOAT, 4) is None
    groups = [{(row * 389 + 11) % 1000 for row in range(first, first + 4)} for first in range(0, 16, 4)]
    for some in (0,), (1,), (2,), (3,), (1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2), (0, 2), (1, 3):
        assert frozenset(set().union(*(groups[i] for i in some))) in asked

    class Grouped(torch.nn.Module):
        rows_together = 4

        def forward(self, *given: Tensor | None) -> Tensor:
            return lonely(*given)  # type: ignore[arg-type]  # x, t, label

    with pytest.raises(ValueError, match="rows=12: a row depends on its neighbours: other answers"):
        Engine(Grouped(), SHAPE, COMPILER, rows=12, prove=True)


def test_what_happens_at_some_labels_and_conditions_alone_is_found() -> None:
    def by_label(x: Tensor, t: Tensor, label: Tensor, context: Tensor) -> Tensor:
        first = torch.arange(len(x)) == 0
        return honest(x, t, None) + (first & (label == 2)).view(-1, 1, 1, 1) * 1e-6 * context.sum((1, 2)).view(
            -1, 1, 1, 1
        )

    inputs = Inputs(SHAPE, 6, classes=4, null={"context": torch.zeros(2, 3)})
    assert "depends on its slot" in str(proof.flaw(by_label, inputs, CPU, FLOAT))


@pytest.mark.parametrize(("asked", "fitting"), [(13, 8), (64, 64), (62, 56), (7, 4)])
def test_the_next_smaller_number_of_rows_that_holds_is_found(asked: int, fitting: int) -> None:
    assert proof.fit(ragged, Inputs(SHAPE, asked), CPU, FLOAT) == fitting
    assert proof.fit(crowded, Inputs(SHAPE, asked), CPU, FLOAT) == 1  # alone, one has no neighbours


def test_an_engine_proves_itself_on_request() -> None:
    Engine(ragged, SHAPE, COMPILER, rows=12, prove=True)
    with pytest.raises(ValueError, match=r"rows=13: a row depends on its slot.*; rows=8 holds"):
        Engine(ragged, SHAPE, COMPILER, rows=13, prove=True)
    with pytest.raises(ValueError, match=r"rows=13.*no smaller number of rows holds"):
        Engine(uncertain(), SHAPE, COMPILER, rows=13, prove=True)


def test_a_real_network_at_the_rows_that_are_found_for_it() -> None:
    unet = UNet(1, 1, width=16, multipliers=(1, 2), blocks=1, classes=10, head_width=16)
    draws = torch.Generator().manual_seed(0)
    for weight in unet.parameters():
        torch.nn.init.normal_(weight, std=0.08, generator=draws)
    fitting = proof.fit(unet, Inputs(SHAPE, 16, classes=10), CPU, FLOAT)
    assert fitting > 0
    Engine(unet, SHAPE, COMPILER, rows=fitting, classes=10, prove=True)
