"""The convolutional networks: sizes by the papers, values by torch's own layers, sight to the rim."""

import pytest
import torch

from backbones.cnn import CNN, Convolution, atari, grid
from backbones.initialise import build


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
