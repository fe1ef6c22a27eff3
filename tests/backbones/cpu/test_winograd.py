"""Winograd's convolution beside the direct one in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from backbones.cpu import winograd


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (5, 7), (1, 1), (2, 9)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(size: tuple[int, int], bias: bool) -> None:
    """Heights and widths that are no multiples of 4, too; 2e-4 of a standard deviation is five times what it is off."""
    draws = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(40, 33, 3, padding=1, bias=bias)
    layer.weight.data = torch.randn(33, 40, 3, 3, generator=draws) / (9 * 40) ** 0.5
    x = torch.randn(3, 40, *size, generator=draws)
    expected = functional.conv2d(
        x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double(), padding=1
    )
    found = winograd.Winograd(layer)(x)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_an_image_depends_on_no_other() -> None:
    draws = torch.Generator().manual_seed(0)
    layer = winograd.Winograd(nn.Conv2d(32, 32, 3, padding=1))
    x = torch.randn(8, 32, 8, 8, generator=draws)
    together = layer(x)
    other = torch.randn(8, 32, 8, 8, generator=draws)
    other[5] = x[5]
    assert torch.equal(layer(other)[5], together[5])


def test_nan_stays_where_it_can_be_seen() -> None:
    layer = winograd.Winograd(nn.Conv2d(32, 32, 3, padding=1))
    x = torch.zeros(2, 32, 8, 8)
    x[1, 3, 4, 4] = torch.nan
    found = layer(x)
    assert found[1].isnan().any(dim=0)[3:6, 3:6].all()
    assert not found[0].isnan().any()


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(32, 32, 3, padding=1), True),
        (nn.Conv2d(32, 32, 3, padding=1, stride=2), False),
        (nn.Conv2d(32, 32, 3), False),
        (nn.Conv2d(32, 32, 1), False),
        (nn.Conv2d(32, 32, 3, padding=1, groups=2), False),
        (nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"), False),
        (nn.Conv2d(3, 32, 3, padding=1), False),
        (nn.Conv2d(32, 32, 3, padding=2, dilation=2), False),
        (nn.Conv2d(32, 32, 3, padding=1, dtype=torch.bfloat16), False),
        (nn.Linear(32, 32), False),
    ],
)
def test_what_it_stands_for(layer: nn.Module, expected: bool) -> None:
    assert winograd.fits(layer) == expected
