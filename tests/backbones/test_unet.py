from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.initialise import build
from backbones.masks import CAUSAL, padding
from backbones.shape import ShapeError
from backbones.unet import UNet
from backbones.unet_blocks import PixelAttention, Prompt, PromptAttention, Resample, ResidualBlock, picture, pixels


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(network: UNet, seed: int) -> UNet:
    """All weights drawn, also those that start at zero."""
    draws = generator(seed)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=draws)
    return network


def test_untrained_output_is_zero_and_repeats_with_its_generator() -> None:
    make = lambda: UNet(1, 1, width=16, classes=10, head_width=16)  # noqa: E731 - a factory, as `build` wants it
    state = torch.get_rng_state()
    first, again, other = build(make, generator(3)), build(make, generator(3)), build(make, generator(4))
    assert torch.equal(state, torch.get_rng_state())
    x, t = torch.ones(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    assert torch.equal(first(x, t), torch.zeros(2, 1, 8, 8))
    pairs = list(
        zip(first.state_dict().values(), again.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_a_missing_label_is_the_null_label() -> None:
    network = noisy(UNet(1, 1, width=16, classes=4, head_width=16), 0)
    x, t = torch.ones(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    assert torch.equal(network(x, t), network(x, t, torch.tensor([4, 4])))
    assert not torch.allclose(network(x, t), network(x, t, torch.tensor([4, 3])))


def test_odd_sizes_come_back_at_their_size() -> None:
    network = noisy(UNet(1, 2, width=16, multipliers=(1, 2, 2), attention=(2,), head_width=16), 0)
    assert network(torch.ones(2, 1, 7, 9), torch.ones(2)).shape == (2, 2, 7, 9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 12}, "level 0 has 12 channels"),
        ({"width": 15, "groups": 5}, "width=15: .* expected 2, ..."),
        ({"width": 2, "groups": 1, "offset": 1}, "width=2: .* expected 4, ..."),
        ({"attention": (2,)}, "levels 0 to 1"),
        ({"head_width": 48}, "level 1"),
        ({"head_width": (32,)}, "one for each of 2 levels"),
        ({"classes": 3, "label": "vector"}, "classes=3, label='vector'"),
    ],
)
def test_impossible_shapes_are_refused_by_name(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UNet(1, 1, **{"width": 64, "multipliers": (1, 2), **arguments})


def test_a_new_level_is_the_identity_before_it_is_trained() -> None:
    """Residual blocks of equal channels and attentions start as x, so that depth costs nothing at first."""
    draws = generator(0)
    x, condition = torch.randn(2, 16, 4, 4, generator=draws), torch.randn(2, 8, generator=draws)
    assert torch.equal(build(lambda: ResidualBlock(16, 16, 8, 4, 1e-5, "add"), draws)(x, condition), x)
    assert torch.equal(build(lambda: PixelAttention(16, 2, 4, 1e-5), draws)(x, None), x)
    prompt = Prompt(torch.randn(2, 3, 6, generator=draws))
    assert torch.equal(build(lambda: PromptAttention(16, 2, 4, 6, 1), draws)(x, prompt), x)


def test_pixels_become_tokens_and_a_picture_again_without_a_copy() -> None:
    x = torch.arange(48.0).view(2, 3, 2, 4).contiguous(memory_format=torch.channels_last)
    tokens = pixels(x)
    assert torch.equal(tokens[:, 4 + 2], x[:, :, 1, 2])
    again = picture(tokens, x)
    assert torch.equal(again, x)
    assert again.data_ptr() == tokens.data_ptr() == x.data_ptr()
    assert again.stride() == x.stride()


def test_padding_of_a_prompt_does_not_leak() -> None:
    network = noisy(UNet(1, 1, 16, attention=(0, 1), context=6, layers=2), 0)
    draws = generator(1)
    x, context = torch.randn(2, 1, 8, 8, generator=draws), torch.randn(2, 5, 6, generator=draws)
    t, mask = torch.tensor([3.0, 900.0]), padding(torch.tensor([2, 4]), 5)
    spoiled = context.clone()
    spoiled[0, 2:], spoiled[1, 4:] = 1e9, 1e9
    out = network(x, t, None, context, mask)
    assert torch.equal(out, network(x, t, None, spoiled, mask))
    assert not torch.allclose(out, network(x, t, None, context), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("context", [None, 6])
@pytest.mark.parametrize("tell", ["scale-shift", "add"])
def test_pictures_stay_channels_last_through_the_whole_network(context: int | None, tell: str) -> None:
    """Every part gets and gives channels_last, so that no convolution copies its input."""
    network = noisy(UNet(3, 2, 16, (1, 2, 2), attention=(1, 2), context=context, tell=tell, corner=tell == "add"), 0)  # type: ignore[arg-type]
    seen = []

    def look(module: nn.Module, arguments: tuple[Tensor, ...], out: Tensor) -> None:
        seen.append(type(module))
        for x in (arguments[0], out):
            assert x.is_contiguous(memory_format=torch.channels_last), type(module)

    kinds = (ResidualBlock, PixelAttention, PromptAttention, Resample, nn.Conv2d, nn.GroupNorm)
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(look)
    x = torch.randn(2, 3, 12, 8, generator=generator(0))
    network(x, torch.ones(2), None, None if context is None else torch.ones(2, 3, 6))
    assert len(seen) > 50


def test_a_level_or_a_vector_is_a_label_too() -> None:
    x, t = torch.ones(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    levels = noisy(UNet(1, 1, 16, label="level"), 0)
    assert not torch.allclose(levels(x, t, torch.tensor([0.0, 5.0])), levels(x, t, torch.tensor([0.0, 6.0])))
    vectors = noisy(UNet(1, 1, 16, label="vector"), 0)
    nothing = noisy(UNet(1, 1, 16), 0)
    torch.testing.assert_close(vectors(x, t, torch.zeros(2, 64)), nothing(x, t))
    for network in (levels, vectors):
        with pytest.raises(ValueError, match="which has no null"):
            network(x, t)


def test_what_does_not_fit_is_refused_with_both_shapes() -> None:
    network, t = UNet(1, 1, 16, context=6), torch.ones(2)
    with pytest.raises(ShapeError, match=r"\[2, 3, 8, 8\], expected \[B, 1, H, W\]"):
        network(torch.ones(2, 3, 8, 8), t)
    with pytest.raises(ValueError, match="context of shape None, made for context=6"):
        network(torch.ones(2, 1, 8, 8), t)
    with pytest.raises(ShapeError, match=r"\[2, 3, 5\], expected \[2, S, 6\]"):
        network(torch.ones(2, 1, 8, 8), t, None, torch.ones(2, 3, 5))


X, T, LABEL = torch.ones(4, 1, 8, 8), torch.ones(4), torch.zeros(4, dtype=torch.int64)


@pytest.mark.usefixtures("as_in_use")
@pytest.mark.parametrize(
    ("made", "told", "words"),
    [
        ({}, (T[:1],), r"UNet: t has shape \[1\], expected \[4\]"),
        ({}, (T[0],), r"UNet: t has shape \[\], expected \[4\]"),
        ({}, (T[:, None],), r"UNet: t has shape \[4, 1\], expected \[4\]"),
        ({"classes": 3}, (T, LABEL[:1]), r"UNet: label has shape \[1\], expected \[4\]"),
        ({"classes": 3}, (T, LABEL[0]), r"UNet: label has shape \[\], expected \[4\]"),
        ({"label": "level"}, (T, T[:1]), r"UNet: label has shape \[1\], expected \[4\]"),
        ({"label": "vector"}, (T, torch.ones(1, 64)), r"UNet: label has shape \[1, 64\], expected \[4, 64\]"),
        ({"context": 6}, (T, None, torch.ones(1, 3, 6)), r"context has shape \[1, 3, 6\], expected \[4, S, 6\]"),
        ({"context": 6}, (T, None, torch.ones(3, 6)), r"context has shape \[3, 6\], expected \[4, S, 6\]"),
    ],
)
def test_nothing_is_broadcast_over_the_batch(made: dict[str, Any], told: tuple[Tensor | None, ...], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        UNet(1, 1, 16, head_width=16, **made)(X, *told)


def test_what_nobody_would_read_is_refused() -> None:
    network = UNet(1, 1, 16, head_width=16)
    with pytest.raises(ValueError, match=r"UNet: a label of shape \[4\], made with classes=None: expected none"):
        network(X, T, LABEL)
    for mask in (padding(torch.tensor([1, 2, 3, 4]), 5), CAUSAL):
        with pytest.raises(ValueError, match="UNet: a mask without a context"):
            network(X, T, mask=mask)
