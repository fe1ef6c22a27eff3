"""Linear layers, 1x1 convolutions and gated networks by tiles, beside the same in float64."""

import copy

import pytest
import torch
from torch import nn

from backbones.cpu import linear
from backbones.feed_forward import GEGLU


def layer(columns: int, out: int, bias: bool) -> nn.Linear:
    draws = torch.Generator().manual_seed(0)
    made = nn.Linear(columns, out, bias=bias).requires_grad_(False)
    made.weight.copy_(torch.randn(out, columns, generator=draws) / columns**0.5)
    if bias:
        made.bias.copy_(torch.randn(out, generator=draws))
    return made


@pytest.mark.parametrize("rows", [1, 5, 48, 49, 53, 97, 192])
@pytest.mark.parametrize(("columns", "out"), [(16, 32), (7, 64), (300, 96), (1, 32)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_layer(rows: int, columns: int, out: int, bias: bool) -> None:
    """Few rows, rows that are no multiple of 6 or 96, and odd numbers of columns; 1e-5 is some 20 roundings."""
    plain = layer(columns, out, bias)
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    expected = x.double() @ plain.weight.double().T + (plain.bias.double() if bias else 0)
    torch.testing.assert_close(linear.Linear(plain)(x).double(), expected, rtol=0, atol=1e-5)


def test_shapes_and_layouts_do_not_matter() -> None:
    plain = layer(24, 32, True)
    x = torch.randn(24, 5, 20, generator=torch.Generator().manual_seed(1)).permute(1, 2, 0)  # [5, 20, 24], strided
    found = linear.Linear(plain)(x)
    assert found.shape == (5, 20, 32)
    torch.testing.assert_close(found, plain(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_depends_on_no_other_and_not_on_its_place(threads: int) -> None:
    quick, before = linear.Linear(layer(64, 64, True)), torch.get_num_threads()
    x = torch.randn(101, 64, generator=torch.Generator().manual_seed(1))
    torch.set_num_threads(threads)
    try:
        together, turned = quick(x), quick(x.roll(1, 0))
        others = torch.randn(101, 64, generator=torch.Generator().manual_seed(2))
        others[70] = x[3]
        assert torch.equal(turned, together.roll(1, 0))
        assert torch.equal(quick(others)[70], together[3])
    finally:
        torch.set_num_threads(before)


def test_nan_stays_in_its_row() -> None:
    x = torch.zeros(60, 64)
    x[7, 5] = torch.nan
    found = linear.Linear(layer(64, 32, True))(x).isnan()
    assert found[7].all()
    assert found.sum() == 32


def test_a_convolution_of_one_pixel_is_a_layer() -> None:
    draws = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(40, 64, 1).requires_grad_(False)
    conv.weight.copy_(torch.randn(64, 40, 1, 1, generator=draws) / 40**0.5)
    x = torch.randn(3, 40, 6, 5, generator=draws)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = linear.Pointwise(conv)(x.contiguous(memory_format=layout))
        torch.testing.assert_close(found, conv(x), rtol=0, atol=1e-5)
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rows", [3, 48, 53, 97, 100])
@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_a_gated_network_is_that(rows: int, scale: float) -> None:
    """Gates from nearly linear to some +-30, where gelu is 0 or the identity; beside the definition in float64."""
    draws = torch.Generator().manual_seed(0)
    plain = GEGLU(32, 64, bias=True).requires_grad_(False)
    plain.up, plain.down = layer(32, 64, True), layer(64, 32, True)
    plain.gate.weight.copy_(torch.randn(64, 32, generator=draws) / 32**0.5)
    x = scale * torch.randn(rows, 32, generator=draws)
    gate, up = (part(x.double()) for part in (copy.deepcopy(plain.gate).double(), copy.deepcopy(plain.up).double()))
    hidden = gate * (1 + torch.erf(gate / 2**0.5)) / 2 * up
    expected = copy.deepcopy(plain.down).double()(hidden)
    found = linear.Gated(plain)(x)
    assert found.shape == (rows, 32)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * (1 + scale**2))
    assert torch.equal(linear.Gated(plain)(x.view(rows, 1, 32))[:, 0], found)


def test_nan_passes_a_gated_network() -> None:
    plain = GEGLU(32, 64, bias=True).requires_grad_(False)
    x = torch.zeros(60, 32)
    x[7, 5] = torch.nan
    found = linear.Gated(plain)(x).isnan()
    assert found[7].all()
    assert found.sum() == 32


@pytest.mark.parametrize(
    ("plain", "one", "other"),
    [
        (nn.Linear(5, 32), True, False),
        (nn.Linear(32, 33), False, False),
        (nn.Linear(32, 32, dtype=torch.float64), False, False),
        (nn.Linear(32, 32, device="meta"), False, False),
        (nn.Conv2d(5, 32, 1), False, True),
        (nn.Conv2d(32, 33, 1), False, False),
        (nn.Conv2d(32, 32, 1, stride=2), False, False),
        (nn.Conv2d(32, 32, 1, padding=1), False, False),
        (nn.Conv2d(32, 32, 1, groups=2), False, False),
        (nn.Conv2d(32, 32, 3), False, False),
    ],
)
def test_what_they_stand_for(plain: nn.Module, one: bool, other: bool) -> None:
    assert linear.fits(plain) == one
    assert linear.fits_pixels(plain) == other
