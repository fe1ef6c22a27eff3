"""The convolutional networks: sizes by the papers, values by torch's own layers, sight to the rim."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from backbones.cnn import CNN, Convolution, Impala, atari, grid, impala
from backbones.initialise import build
from backbones.replicas import Replicas
from backbones.shape import ShapeError


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_atari_has_the_sizes_of_mnih_2015() -> None:
    network = build(lambda: atari((4, 84, 84), 18), generator(0))
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (18, 512)]
    assert sum(p.numel() for p in network.parameters()) == 1_693_362


def test_bytes_are_scaled_and_floats_are_not() -> None:
    network = build(lambda: atari((1, 36, 36), 2), generator(0))
    screen = torch.randint(0, 256, (2, 1, 36, 36), generator=generator(1), dtype=torch.uint8)
    torch.testing.assert_close(network(screen), network(screen.float() / 255))


@pytest.mark.parametrize("make", [grid, impala])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_bytes_and_bools_become_what_the_weights_are(make: Callable[..., nn.Module], dtype: torch.dtype) -> None:
    network = build(lambda: make((1, 4, 4), 2), generator(0)).to(dtype)
    planes = torch.rand(3, 1, 4, 4, generator=generator(1)) < 0.5
    assert torch.equal(network(planes), network(planes.to(dtype)))
    assert torch.equal(network(planes), network(255 * planes.byte()))
    with pytest.raises(ValueError, match=r"x holds torch\.int64; expected floats, bytes"):
        network(planes.long())


def test_grid_equals_its_layers_one_after_another() -> None:
    network = build(lambda: grid((2, 4, 6), 3), generator(0)).double()
    x = torch.randn(5, 2, 4, 6, generator=generator(1), dtype=torch.float64)
    w = dict(network.named_parameters())
    h = torch.nn.functional.unfold(x, 3, padding=1)  # patches [5, 18, 24]: convolution as a matrix product
    h = (w["convolutions.0.weight"].flatten(1) @ h + w["convolutions.0.bias"][:, None]).clamp(min=0).view(5, 32, 4, 6)
    h = torch.nn.functional.unfold(h, 3, padding=1)
    h = (w["convolutions.2.weight"].flatten(1) @ h + w["convolutions.2.bias"][:, None]).clamp(min=0).flatten(1)
    h = (h @ w["head.hidden.0.weight"].T + w["head.hidden.0.bias"]).clamp(min=0)
    torch.testing.assert_close(network(x), h @ w["head.output.weight"].T + w["head.output.bias"])


def test_every_cell_of_the_grid_is_seen() -> None:
    network = build(lambda: grid((1, 5, 5), 1), generator(0))
    x = torch.zeros(1, 1, 5, 5, requires_grad=True)
    network(x).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_a_picture_too_small_for_the_filters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pictures of \(1, 5, 9\) are too small .* -2 x 2 pixels"):
        CNN((1, 5, 9), [Convolution(4, 8)], [8], 2)


def test_impala_has_the_sizes_of_espeholt_2018() -> None:
    """Fig. 3: 15 convolutions in three sections of 16, 32, 32; 72 x 96 screens end as 9 x 12; 256 units."""
    network = build(lambda: impala((3, 72, 96), 9), generator(0))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [16] * 5 + [32] * 10
    assert {m.kernel_size for m in convolutions} == {(3, 3)}
    assert network.sections(torch.zeros(1, 3, 72, 96)).shape == (1, 32, 9, 12)
    assert [tuple(p.shape) for p in network.head.parameters() if p.ndim > 1] == [(256, 32 * 9 * 12), (9, 256)]


def test_impala_equals_its_layers_one_after_another() -> None:
    network = build(lambda: Impala((2, 7, 6), [3, 4], [40], 2), generator(0)).double()
    with torch.no_grad():
        for section in (0, 4):
            network.sections[section].bias.sub_(0.3)  # so that the largest of nine is often negative, and relu cuts
    w = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    ours = torch.randn(3, 2, 7, 6, generator=generator(1), dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()

    def convolve(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    h = theirs
    for section in (0, 4):  # modules of a section: convolution, pool, block, block
        h = convolve(h, f"sections.{section}")
        patches = functional.pad(h, (1, 1, 1, 1), value=-torch.inf).unfold(2, 3, 2).unfold(3, 3, 2)
        h = patches.amax((-1, -2))
        for block in (section + 2, section + 3):
            inner = convolve(h.clamp(min=0), f"sections.{block}.conv1").clamp(min=0)
            h = h + convolve(inner, f"sections.{block}.conv2")
    h = h.clamp(min=0).flatten(1)
    h = (h @ w["head.hidden.0.weight"].T + w["head.hidden.0.bias"]).clamp(min=0)
    expected = h @ w["head.output.weight"].T + w["head.output.bias"]

    result = network(ours)
    torch.testing.assert_close(result, expected)
    result.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ours.grad is not None
    assert (ours.grad != 0).any()
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.grad, w[name].grad)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 9), (4, 84, 84)])
def test_impala_takes_any_size(shape: tuple[int, int, int]) -> None:
    network = build(lambda: impala(shape, 2), generator(0))
    assert network(torch.zeros(2, *shape, dtype=torch.uint8)).shape == (2, 2)


def test_replicas_of_impala_are_each_their_own() -> None:
    replicas = Replicas(lambda: Impala((1, 4, 4), [2, 3], [4], 2), [generator(s) for s in range(3)])
    x = torch.randn(3, 5, 1, 4, 4, generator=generator(9))
    together = replicas(x)
    for r in range(3):
        alone = build(lambda: Impala((1, 4, 4), [2, 3], [4], 2), generator(r))
        torch.testing.assert_close(together[r], alone(x[r]))


@pytest.mark.parametrize("make", [grid, impala])
def test_a_wrong_shape_is_named(make: Callable[..., nn.Module]) -> None:
    network = make((2, 4, 6), 3)
    with pytest.raises(ShapeError, match=r"x has shape \[5, 2, 6, 4\], expected \[B, 2, 4, 6\]"):
        network(torch.zeros(5, 2, 6, 4))
