"""The three ways to run a turn, and a network of another precision: near the plain way, and as blind to company."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from backbones.unet import UNet
from generative.diffusion.engine import rehearsal
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from tests.generative.diffusion.engine.load import COMPILER, LOAD, ROWS, SHAPE, Mixing, arriving, engine


def test_the_tensors_of_a_turn_stay_where_they_are() -> None:
    shared = engine()
    shared.sample(LOAD)
    before = {name: tensor.data_ptr() for name, tensor in shared.slots.tensors().items()}
    tables = {name: tensor.data_ptr() for name, tensor in shared.shelf.tensors().items()}
    shared.sample([*LOAD, Request(9, "ddpm", 50)])
    shared.cancel(shared.submit(LOAD[3]))
    assert {name: tensor.data_ptr() for name, tensor in shared.slots.tensors().items()} == before
    assert {name: tensor.data_ptr() for name, tensor in shared.shelf.tensors().items()} == tables


@pytest.mark.parametrize("always", [(True, True), (True, False)])
def test_the_variants_are_shortcuts(always: tuple[bool, bool]) -> None:
    """Where nobody draws or keeps, to do so all the same changes no bit."""
    load = LOAD if always[1] else [request for request in LOAD if request.mask is None]
    shared = engine()
    shared.slots.allot()
    shared.move = lambda draws, keeps: shared.core(*always)
    assert torch.equal(shared.sample(load), engine().sample(load))


@pytest.fixture(scope="module", params=["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def compiled(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Traced and made into a function as for the compiler, and then run as it stands; or compiled (20 seconds)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", partial(torch.compile, backend=request.param))
        yield engine(mode="compiled", prove=True)


def test_a_compiled_turn_is_near_the_plain_one_and_blind_to_company(compiled: Engine) -> None:
    expected = engine().sample(LOAD)
    found = compiled.sample(LOAD)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(arriving(compiled, LOAD[::-1]).flip(0), found)
    for request, sample in zip(LOAD, found, strict=True):
        assert torch.equal(compiled.sample([request])[0], sample)


def test_weights_that_change_in_place_are_seen(compiled: Engine) -> None:
    assert isinstance(compiled.network, Mixing)
    before, weight = compiled.sample(LOAD[:3]), compiled.network.out.weight
    with torch.no_grad():
        weight.mul_(0.5)
        halved = compiled.sample(LOAD[:3])
        weight.mul_(2)
    other = Mixing()
    with torch.no_grad():
        other.out.weight.mul_(0.5)
    torch.testing.assert_close(halved, engine(other).sample(LOAD[:3]), rtol=1e-5, atol=1e-5)
    assert torch.equal(compiled.sample(LOAD[:3]), before)


def test_whole_turns_are_tried_where_they_are_compiled() -> None:
    """The proof of a turn finds what the proof of a network finds; and its slots are as they were."""

    class Ragged(Mixing):
        def forward(self, x: Tensor, t: Tensor, label: Tensor, context: Tensor) -> Tensor:
            odd = (torch.arange(len(x)) >= len(x) // 4 * 4).view(-1, 1, 1, 1)
            said = super().forward(x, t, label, context)
            return torch.where(odd, said * (1 + 2**-20), said)

    whole = engine(Ragged())
    rehearsal.prove(whole)
    assert torch.equal(whole.sample(LOAD), engine().sample(LOAD))
    ragged = engine(Ragged(), rows=6)
    with pytest.raises(ValueError, match=r"rows=6: a row depends on its slot.*; expected another number of rows, or"):
        rehearsal.prove(ragged)


def tiny_unet() -> UNet:
    network = UNet(1, 1, width=16, multipliers=(1, 2), blocks=1, classes=10, head_width=16)
    draws = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.08, generator=draws)
    return network


def test_a_network_in_bfloat16_is_near_the_one_in_float32_and_blind_to_company() -> None:
    """8 bits of each answer, over 6 steps: the margin is 0.5% of the size of a sample, 0.13% was seen."""
    load = [Request(i, ("ddim", "dpmpp-2m", "ddpm")[i % 3], 6, (1.0, 2.0)[i % 2], i, clip=1.0) for i in range(6)]

    def drawing(network: UNet, dtype: torch.dtype) -> Engine:
        return Engine(network, SHAPE, COMPILER, rows=ROWS, classes=10, network_dtype=dtype, prove=True)

    full = drawing(tiny_unet(), torch.float32).sample(load)
    half = drawing(tiny_unet().to(torch.bfloat16), torch.bfloat16)
    found = half.sample(load)
    assert found.dtype == half.slots.h.dtype == torch.float32
    assert 0 < (found - full).square().mean().sqrt() < 0.005 * full.square().mean().sqrt()
    for request, sample in zip(load, found, strict=True):
        assert torch.equal(half.sample([request])[0], sample)


def test_conditions_are_shown_in_the_networks_type() -> None:
    network = Mixing().to(torch.bfloat16)
    near = engine(network, network_dtype=torch.bfloat16).sample(LOAD)
    torch.testing.assert_close(near, engine().sample(LOAD), rtol=0, atol=0.05)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="mode='fast'; expected one of eager, compiled, graph"):
        engine(mode="fast")
    with pytest.raises(ValueError, match="mode='graph' and the engine is on the cpu; expected a CUDA device"):
        engine(mode="graph")
    with pytest.raises(
        ValueError, match=r"network_dtype=torch\.bfloat16, but the network's into\.weight is torch\.flo"
    ):
        engine(network_dtype=torch.bfloat16)
