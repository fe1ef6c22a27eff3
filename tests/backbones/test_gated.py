"""The gated attention unit and FLASH against their equations, one pair of positions at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from backbones.attention import Cache
from backbones.gated import Gate, GatedAttention, MixedChunkAttention
from backbones.initialise import build
from backbones.masks import CAUSAL, FULL, Mask, blocks, padding, window
from backbones.positions import Rotary
from backbones.shape import ShapeError

D, E, S, C, T = 6, 5, 4, 3, 8  # width, hidden, shared, chunk; T is no multiple of C
PAD = padding(torch.tensor([8, 4]), 8)
MASKS = {"full": FULL, "causal": CAUSAL, "padding": PAD, "causal and padding": CAUSAL & PAD}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(module: nn.Module) -> nn.Module:
    """All weights of ordinary size, also those that start at 0 or 1."""
    with torch.no_grad():
        for seed, weight in enumerate(module.double().parameters()):
            weight.copy_(draw(*weight.shape, seed=20 + seed) / (2 if weight.ndim == 2 else 1))
    return module


def turned(z: torch.Tensor, p: int) -> torch.Tensor:
    """z as S/2 complex numbers, turned by p theta^(-2i/S)."""
    half = S // 2
    pairs = torch.complex(z[:half], z[half:])
    angle = torch.tensor([p * 10_000.0 ** (-2 * i / S) for i in range(half)], dtype=torch.float64)
    out = pairs * torch.polar(torch.ones(half, dtype=torch.float64), angle)
    return torch.cat([out.real, out.imag])


def dot(q: torch.Tensor, k: torch.Tensor, t: int, s: int) -> torch.Tensor:
    return turned(q, t) @ turned(k, s)


def written_out(gate: Gate, x: torch.Tensor, mask: Mask, chunk: int | None) -> torch.Tensor:
    seen = mask.allowed if mask.allowed is not None else torch.ones(1, 1, T, T, dtype=torch.bool)
    seen = seen.expand(len(x), 1, T, T)[:, 0].clone()
    rows = []
    for b in range(len(x)):
        hidden = x[b] @ gate.up.weight.T + gate.up.bias
        hidden = hidden * torch.sigmoid(hidden)
        u, v, z = hidden[:, :E], hidden[:, E : 2 * E], hidden[:, 2 * E :]
        looks = [z * gate.scale[i, 0] + gate.offset[i, 0] for i in range(len(gate.scale))]
        for t in range(T):
            near, far = [], []
            for s in range(T):
                if seen[b, t, s] and (s <= t or not mask.causal):
                    same = chunk is None or s // chunk == t // chunk
                    near += [s] if same else []
                if chunk is not None and seen[b, t, s] and (s // chunk < t // chunk or not mask.causal):
                    far.append(s)
            total = torch.zeros(E, dtype=torch.float64)
            for s in near:
                bias = dot(gate.bias[0], gate.bias[1], t, s)
                logit = dot(looks[0][t], looks[1][s], t, s) / math.sqrt(S) + bias
                total = total + logit.clamp(min=0) ** 2 * v[s] / len(near)
            for s in far:
                total = total + dot(looks[2][t], looks[3][s], t, s) / math.sqrt(S) * v[s] / len(far)
            rows.append((u[t] * total) @ gate.down.weight.T + gate.down.bias)
    return torch.stack(rows).view(len(x), T, D)


def compare(module: GatedAttention | MixedChunkAttention, mask: Mask, chunk: int | None) -> None:
    x = draw(2, T, D).requires_grad_()
    fast, slow = module(x, mask), written_out(module.gate, x, mask, chunk)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    pull, names = draw(2, T, D, seed=5), ["x", *dict(module.named_parameters())]
    pairs = [torch.autograd.grad((y * pull).sum(), [x, *module.parameters()]) for y in (fast, slow)]
    for name, a, b in zip(names, *pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11, msg=name)


@pytest.mark.parametrize("name", [*MASKS, "window"])
def test_the_quadratic_unit_equals_its_equations_in_values_and_gradients(name: str) -> None:
    compare(drawn(GatedAttention(D, E, S)), {**MASKS, "window": window(3, T)}[name], None)


@pytest.mark.parametrize("name", MASKS)
def test_flash_equals_its_equations_in_values_and_gradients(name: str) -> None:
    compare(drawn(MixedChunkAttention(D, E, S, C)), MASKS[name], C)


@pytest.mark.parametrize("name", ["causal", "causal and padding"])
@pytest.mark.parametrize("chunk", [T, 100])
def test_one_chunk_that_holds_the_sequence_is_the_quadratic_unit(name: str, chunk: int) -> None:
    flash, quadratic = drawn(MixedChunkAttention(D, E, S, chunk)), GatedAttention(D, E, S).double()
    weights = flash.state_dict()
    weights |= {f"gate.{name}": weights[f"gate.{name}"][:2] for name in ("scale", "offset")}
    quadratic.load_state_dict(weights)
    x = draw(2, T, D)
    torch.testing.assert_close(flash(x, MASKS[name]), quadratic(x, MASKS[name]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [lambda: GatedAttention(D, E, S), lambda: MixedChunkAttention(D, E, S, C)])
def test_neither_padding_nor_the_length_of_the_batch_changes_an_output(make: Callable[[], nn.Module]) -> None:
    module, x = drawn(make()), draw(2, T, D)
    padded, alone = module(x, CAUSAL & PAD)[1, :4], module(x[1:, :4], CAUSAL)[0]
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-14)
    torch.testing.assert_close(module(x, PAD)[1, :4], module(x[1:, :4])[0], rtol=0, atol=1e-14)


def test_it_starts_as_stated() -> None:
    gate = build(lambda: GatedAttention(64, None, 128), torch.Generator().manual_seed(0)).gate
    assert (gate.scale == 1).all()
    assert not gate.offset.any()
    assert gate.bias.std().item() == pytest.approx(0.02, rel=0.2)
    assert gate.down.in_features == 128


def test_what_it_cannot_honour_is_refused() -> None:
    flash, x = MixedChunkAttention(4, 4, 4, 2), torch.zeros(2, 3, 4)
    for mask in (blocks(torch.tensor([[0, 0, 1]])), window(2, 3)):
        with pytest.raises(ValueError, match=r"mixed-chunk attention: mask of shape .* expected padding"):
            flash(x, mask)
    with pytest.raises(ValueError, match=r"gated attention: mask of shape .* differs by head"):
        GatedAttention(4, 4, 4)(x, Mask(allowed=torch.ones(2, 2, 3, 3, dtype=torch.bool)))
    with pytest.raises(ShapeError, match=r"x has shape \[2, 3, 5\], expected \[B, T, 4\]"):
        flash(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="chunk 0: expected 1 or more"):
        MixedChunkAttention(4, chunk=0)
    with pytest.raises(ValueError, match="width is 5, and must be even"):
        GatedAttention(4, 4, 5)


@pytest.mark.usefixtures("as_in_use")
def test_a_mask_of_other_keys_is_refused() -> None:
    """A mask of 3 keys would fit a chunk of 3, and pass."""
    for total in (3, 7, 9):
        mask = padding(torch.tensor([2, 3]), total)
        with pytest.raises(ShapeError, match=r"mixed-chunk attention: mask has shape .* expected \[2 or 1, 1, 1, 8\]"):
            MixedChunkAttention(D, E, S, C)(torch.zeros(2, T, D), mask)
        with pytest.raises(ShapeError, match=r"gated attention: mask has shape .* expected \[b, 1, 8 or 1, 8\]"):
            GatedAttention(D, E, S)(torch.zeros(2, T, D), mask)


def test_it_writes_its_own_positions_and_keeps_no_keys() -> None:
    x = torch.zeros(2, T, D)
    given = {"turn": Rotary(2).turn(torch.arange(T)[None], x.dtype), "bias": torch.zeros(1, 1, T, T)}
    given |= {"cache": Cache(torch.zeros(2, 1, T, S), torch.zeros(2, 1, T, S))}
    for module, kind in ((GatedAttention(D, E, S), "gated"), (MixedChunkAttention(D, E, S, C), "mixed-chunk")):
        for name, value in given.items():
            with pytest.raises(ValueError, match=f"{kind} attention: {name} of .* expected None"):
                module(x, **{name: value})
