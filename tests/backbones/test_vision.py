import math

import pytest
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed

from backbones.initialise import build
from backbones.masks import padding
from backbones.shape import ShapeError
from backbones.vision import Patches, PlacesName, ViT, sincos


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_patches_are_cut_row_by_row_and_join_puts_them_back() -> None:
    patches = Patches((4, 6), 2, 2, 8)
    x = torch.arange(2 * 2 * 4 * 6).view(2, 2, 4, 6).float()
    tokens = patches(x)
    weight = patches.conv.weight.flatten(1)  # [D, C p p]
    for number, (row, column) in enumerate(patches.places(x.device).tolist()):
        cut = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        torch.testing.assert_close(tokens[:, number], cut.flatten(1) @ weight.T + patches.conv.bias)
    pixels = torch.stack(  # [B, T, p p C]: channels last
        [
            x[:, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].permute(0, 2, 3, 1).flatten(1)
            for r in range(2)
            for c in range(3)
        ],
        dim=1,
    )
    assert torch.equal(patches.join(pixels), x)


def test_waves_of_places_are_those_of_diffusers_and_no_place_has_none() -> None:
    places = Patches(12, 1, 2, 4).places(torch.device("cpu"))
    assert torch.equal(sincos(places, 32), get_2d_sincos_pos_embed(32, 6, base_size=6).float())
    assert not sincos(torch.tensor([[-1, -1]]), 32).any()


@pytest.mark.parametrize("positions", ["learned", "sincos", "rotary", "none"])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_only_positions_tell_the_order_of_patches(positions: PlacesName, pool: str) -> None:
    network = ViT((8, 12), 1, 4, 16, 2, 2, 3, positions=positions, pool=pool, eps=1e-6).double()  # type: ignore[arg-type]
    draws = generator(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=draws)
    x = torch.randn(2, 1, 8, 12, generator=draws, dtype=torch.float64)
    swapped = x.clone()
    swapped[..., :4, :4], swapped[..., 4:, 8:] = x[..., 4:, 8:], x[..., :4, :4]
    same = torch.allclose(network(x), network(swapped), rtol=0, atol=1e-10)
    assert same == (positions == "none")


def test_a_new_one_says_nothing_and_repeats_with_its_generator() -> None:
    make = lambda: ViT(8, 1, 2, 16, 2, 2, 5)  # noqa: E731 - a factory, as `build` wants it
    first, again = build(make, generator(1)), build(make, generator(1))
    assert torch.equal(first(torch.ones(2, 1, 8, 8)), torch.zeros(2, 5))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert first.class_token is not None
    assert not first.class_token.any()
    assert math.isclose(first.stack.positions.table.weight.std().item(), 0.02, rel_tol=0.2)


def test_a_masked_patch_does_not_leak() -> None:
    network = ViT(8, 1, 4, 16, 2, 2, None, pool="mean", eps=1e-6)
    x = torch.randn(2, 1, 8, 8, generator=generator(0))
    mask = padding(torch.tensor([3, 3]), 4)
    spoiled = x.clone()
    spoiled[..., 4:, 4:] = 1e9
    a, b = network.tokens(x, mask), network.tokens(spoiled, mask)
    assert torch.equal(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3], b[:, 3])


def test_without_head_or_with_pooler_it_gives_features() -> None:
    x = torch.ones(2, 1, 8, 8)
    bare, pooled = ViT(8, 1, 4, 16, 1, 2, None), ViT(8, 1, 4, 16, 1, 2, None, pooler=7)
    assert torch.equal(bare(x), bare.tokens(x)[:, 0])
    assert pooled(x).shape == (2, 7)
    assert ViT(8, 1, 4, 16, 1, 2, 3, pooler=7)(x).shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch": 3}, "patch 3: expected a divisor of the picture's sides, 8 x 8"),
        ({"heads": 3}, "width 16, heads 3"),
        ({"positions": "rotary", "heads": 8}, "width 2"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change: dict[str, object], words: str) -> None:
    arguments = {"size": 8, "channels": 1, "patch": 4, "width": 16, "depth": 1, "heads": 2, "classes": 3}
    with pytest.raises(ValueError, match=words):
        ViT(**(arguments | change))  # type: ignore[arg-type]


def test_a_wrong_picture_is_refused_with_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\[2, 3, 8, 8\], expected \[B, 1, 8, 8\]"):
        ViT(8, 1, 4, 16, 1, 2, 3)(torch.ones(2, 3, 8, 8))
