import pytest
import torch
from diffusers import UNet2DModel

from backbones.initialise import build
from backbones.unet import UNet


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(network: UNet, seed: int) -> UNet:
    """All weights drawn, also those that start at zero."""
    draws = generator(seed)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=draws)
    return network


@pytest.mark.parametrize(
    ("widths", "attends", "blocks", "size"),
    [((16, 32), (False, True), 2, 8), ((16, 32, 32), (True, False, True), 1, 12)],
)
def test_unet_equals_diffusers_weight_for_weight(
    widths: tuple[int, ...], attends: tuple[bool, ...], blocks: int, size: int
) -> None:
    ours = noisy(
        UNet(
            3,
            2,
            width=16,
            multipliers=tuple(w // 16 for w in widths),
            blocks=blocks,
            attention=tuple(i for i, a in enumerate(attends) if a),
            classes=10,
            head_width=8,
        ),
        0,
    ).double()
    theirs = UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=2,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        block_out_channels=widths,
        layers_per_block=blocks,
        norm_num_groups=8,
        attn_norm_num_groups=8,
        attention_head_dim=8,
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=11,
    ).double()
    theirs.load_state_dict(ours.state_dict())  # strict: the same names and shapes
    draws = generator(1)
    x = torch.randn(5, 3, size, size, generator=draws, dtype=torch.float64)
    t, label = torch.tensor([0.0, 3.0, 500.0, 998.0, 999.0]), torch.tensor([0, 1, 9, 10, 10])
    a, b = ours(x, t, label), theirs(x, t, label).sample
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # theirs computes the waves of t in float32, as ours does
    a.square().sum().backward()
    b.square().sum().backward()
    other = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, other[name].grad, rtol=1e-4, atol=1e-4, msg=name)


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
        ({"attention": (2,)}, "levels 0 to 1"),
        ({"head_width": 48}, "level 1"),
    ],
)
def test_impossible_shapes_are_refused_by_name(arguments: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UNet(1, 1, **{"width": 64, "multipliers": (1, 2), **arguments})
