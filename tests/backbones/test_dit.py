from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from backbones.dit import DiT
from backbones.initialise import build
from backbones.masks import padding
from backbones.shape import ShapeError


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(network: DiT, seed: int = 0) -> DiT:
    """All weights drawn, also those that start at zero."""
    draws = generator(seed)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=draws)
    return network


X, T = torch.randn(2, 1, 8, 8, generator=generator(9)), torch.tensor([1.0, 700.0])


def test_a_new_one_is_zero_with_identity_blocks_and_repeats_with_its_generator() -> None:
    make = lambda: DiT(8, 1, 2, 16, 2, 2, 10, context=6, pooled=True)  # noqa: E731 - a factory, as `build` wants it
    network, again = build(make, generator(1)), build(make, generator(1))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    context = torch.randn(2, 3, 6, generator=generator(2))
    assert torch.equal(network(X, T, None, context), torch.zeros(2, 1, 8, 8))
    tokens, condition = torch.randn(2, 16, 16, generator=generator(3)), torch.randn(2, 16, generator=generator(4))
    places = network.patches.places(X.device)[None]
    through = network.stack(tokens, places, memory=network.stack.remember(context), condition=condition)
    assert torch.equal(through, network.stack.positions.add(tokens, places))
    bound = (6 / (16 + 64)) ** 0.5  # Xavier: uniform in +-sqrt(6 / (in + out))
    up = network.stack.layers[0].feed_forward.up.weight
    assert 0.9 * bound < up.abs().max() <= bound
    assert not network.patches.conv.bias.any()
    assert 0.8 * (6 / (16 + 4)) ** 0.5 < network.patches.conv.weight.abs().max() <= (6 / (16 + 4)) ** 0.5


def test_training_leaves_the_zero_start() -> None:
    """Zero output and zero gates do not stop the gradient: after a few updates every weight has moved."""
    network = build(lambda: DiT(8, 1, 4, 16, 2, 2, 3), generator(0))
    before = {name: w.detach().clone() for name, w in network.named_parameters()}
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        loss = functional.mse_loss(network(X, T, torch.tensor([0, 3])), X)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    still = {name for name, w in network.named_parameters() if torch.equal(w, before[name])}
    assert not still


def test_a_missing_label_is_the_null_label() -> None:
    network = noisy(DiT(8, 1, 4, 16, 1, 2, 4))
    assert torch.equal(network(X, T), network(X, T, torch.tensor([4, 4])))
    assert not torch.allclose(network(X, T), network(X, T, torch.tensor([4, 3])))


def test_padding_of_a_prompt_does_not_leak() -> None:
    network = noisy(DiT((8, 4), 1, 4, 16, 2, 2, None, context=6))
    x, mask = X[..., :4], padding(torch.tensor([2, 4]), 5)
    context = torch.randn(2, 5, 6, generator=generator(5))
    spoiled = context.clone()
    spoiled[0, 2:], spoiled[1, 4:] = 1e9, 1e9
    out = network(x, T, None, context, mask)
    assert torch.equal(out, network(x, T, None, spoiled, mask))
    assert not torch.allclose(out, network(x, T, None, context), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("own", [False, True])
def test_the_last_token_of_a_pooled_context_is_a_part_of_the_condition(own: bool) -> None:
    """By the class that says the same: its vector is what the pooling makes of that token; nothing else differs."""
    network = noisy(DiT(8, 1, 4, 16, 2, 2, None, context=6, pooled=True, own=own))
    context = torch.randn(2, 5, 6, generator=generator(5))
    told = noisy(DiT(8, 1, 4, 16, 2, 2, 2, context=6, own=own))
    told.load_state_dict(network.state_dict(), strict=False)
    assert network.pool is not None
    with torch.no_grad():
        for condition in told.conditions:
            condition.label.weight[:2] = context[:, -1] @ network.pool.weight.T + network.pool.bias
    torch.testing.assert_close(network(X, T, None, context), told(X, T, torch.tensor([0, 1]), context))
    plain = noisy(DiT(8, 1, 4, 16, 2, 2, None, context=6, own=own))
    plain.load_state_dict(network.state_dict(), strict=False)
    assert not torch.allclose(network(X, T, None, context), plain(X, T, None, context), rtol=0.01, atol=0.01)
    with pytest.raises(ValueError, match="a mask of a context that is pooled"):
        network(X, T, None, context, padding(torch.tensor([2, 4]), 5))
    with pytest.raises(ValueError, match="pooled, and made for context=None"):
        DiT(8, 1, 4, 16, 1, 2, pooled=True)


def test_what_does_not_fit_is_refused_by_name() -> None:
    network = DiT(8, 1, 4, 16, 1, 2, context=6)
    with pytest.raises(ValueError, match=r"context of shape None, made for context=6: expected both"):
        network(X, T)
    with pytest.raises(ShapeError, match=r"\[2, 3, 5\], expected \[2, S, 6\]"):
        network(X, T, None, torch.ones(2, 3, 5))
    with pytest.raises(ShapeError, match=r"\[2, 1, 8, 4\], expected \[B, 1, 8, 8\]"):
        network(X[..., :4], T, None, torch.ones(2, 3, 6))
    with pytest.raises(ValueError, match="width of 4, 8"):
        DiT(8, 1, 4, 18, 1, 2)


LABEL = torch.tensor([0, 1])


@pytest.mark.usefixtures("as_in_use")
@pytest.mark.parametrize(
    ("made", "told", "words"),
    [
        ({}, (T[:1],), r"DiT: t has shape \[1\], expected \[2\]"),
        ({}, (T[0],), r"DiT: t has shape \[\], expected \[2\]"),
        ({"classes": 3}, (T, LABEL[:1]), r"DiT: label has shape \[1\], expected \[2\]"),
        ({"classes": 3}, (T, LABEL[0]), r"DiT: label has shape \[\], expected \[2\]"),
        ({"context": 6}, (T, None, torch.ones(1, 3, 6)), r"context has shape \[1, 3, 6\], expected \[2, S, 6\]"),
        ({"context": 6}, (T, None, torch.ones(3, 6)), r"context has shape \[3, 6\], expected \[2, S, 6\]"),
    ],
)
def test_nothing_is_broadcast_over_the_batch(made: dict[str, Any], told: tuple[Tensor | None, ...], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        DiT(8, 1, 4, 16, 1, 2, **made)(X, *told)


def test_what_nobody_would_read_is_refused() -> None:
    network = DiT(8, 1, 4, 16, 1, 2)
    with pytest.raises(ValueError, match=r"DiT: a label of shape \[2\], made with classes=None: expected none"):
        network(X, T, LABEL)
    with pytest.raises(ValueError, match="DiT: a mask without a context"):
        network(X, T, mask=padding(torch.tensor([1, 2]), 5))
