"""What a mask hides cannot leak, for every kind of attention: its content is made huge, and nothing else moves.

Two rows of seven positions are computed. In the first all are content; in the second the last three are padding. A
position is changed to 1e9 and to -1e9, in every feature; every output that may not see it must stay the same to the
last bit, and its gradient from those outputs must be exactly 0, whether the content is ordinary or huge.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from backbones.additive import AdditiveAttention
from backbones.attention import Attention
from backbones.gated import GatedAttention, MixedChunkAttention
from backbones.initialise import build
from backbones.kernel_attention import gaussian_attend, nadaraya_watson
from backbones.linear_attention import LinearAttention
from backbones.masks import CAUSAL, FULL, Mask, blocks, padding, prefix, until, window
from backbones.sliding import SlidingAttention
from backbones.transformer import Transformer

B, T, D, WINDOW = 2, 7, 8, 3
LENGTHS = torch.tensor([7, 4])
Run = Callable[[Tensor, Mask], Tensor]  # [B, T, D] and a mask -> [B, T, any]
Rule = Callable[[int, int, int], bool]  # may query t of row b see key s?


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(make: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Module:
    """With weights of ordinary size, also where a layer starts at zero."""
    module = build(make, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for seed, weight in enumerate(module.parameters()):
            weight.copy_(weight if weight.any() else draw(*weight.shape, seed=seed))
    return module.to(dtype)


def additive(dtype: torch.dtype) -> Run:
    module = made(lambda: AdditiveAttention(D, D, 6), dtype)
    asked = draw(B, T, D, seed=3).to(dtype)
    return lambda x, mask: module(asked, x, x, mask)[0]


def crossed(dtype: torch.dtype) -> Run:
    module = made(lambda: Attention(D, 2, context=D), dtype)
    asked = draw(B, T, D, seed=3).to(dtype)
    return lambda x, mask: module.cross(asked, module.read(x), mask)


def regressed(dtype: torch.dtype) -> Run:
    asked = draw(B, T, D, seed=3).to(dtype)
    return lambda x, mask: nadaraya_watson(asked, x, x, 2.0, "gaussian", mask)[0]


def regressed_by_products(dtype: torch.dtype) -> Run:
    asked = draw(B, T, D, seed=3).to(dtype)
    return lambda x, mask: gaussian_attend(asked[:, None], x[:, None], x[:, None], 2.0, mask)[:, 0]


def stacked(dtype: torch.dtype, **arguments: object) -> Run:
    """The Transformer from its embeddings on: what a token's embedding is, its neighbours may not tell."""
    model = made(lambda: Transformer(vocabulary=5, width=D, depth=2, heads=2, hidden=8, **arguments), dtype)
    place = torch.arange(T)[None].expand(B, T)
    return lambda x, mask: model.stack(x, place, mask)


def cached(dtype: torch.dtype) -> Run:
    """Read in two pieces into a cache of more slots than there are positions. It is written in place: no gradients."""
    model = made(lambda: Transformer(vocabulary=5, width=D, depth=2, heads=2, hidden=8), dtype)

    def run(x: Tensor, mask: Mask) -> Tensor:
        cache, outs = model.cache(B, T + 3), []
        for cell in cache:
            cell.keys, cell.values = cell.keys + 1e9, cell.values + 1e9  # what an earlier sequence left there
        for piece in (torch.arange(3), torch.arange(3, T)):
            place = piece[None].expand(B, -1)
            outs.append(model.stack(x[:, piece], place, until(place, T + 3), cache=cache))
        return torch.cat(outs, dim=1)

    return run


def layer(make: Callable[[], nn.Module]) -> Callable[[torch.dtype], Run]:
    return lambda dtype: made(make, dtype)


KINDS: dict[str, Callable[[torch.dtype], Run]] = {
    "softmax": layer(lambda: Attention(D, 4)),
    "softmax, grouped": layer(lambda: Attention(D, 4, 2)),
    "softmax, one key head": layer(lambda: Attention(D, 4, 1)),
    "softmax, cross": crossed,
    "additive": additive,
    "kernel": regressed,
    "kernel by products": regressed_by_products,
    "linear, elu": layer(lambda: LinearAttention(D, 2, "elu")),
    "linear, softmax": layer(lambda: LinearAttention(D, 2, "softmax")),
    "gated": layer(lambda: GatedAttention(D, 6, 4)),
    "mixed chunk": layer(lambda: MixedChunkAttention(D, 6, 4, chunk=3)),
    "sliding": layer(lambda: SlidingAttention(D, 2, WINDOW)),
    "sliding, ahead": layer(lambda: SlidingAttention(D, 2, WINDOW, ahead=True)),
    "decoder": lambda dtype: stacked(dtype),
    "decoder with ALiBi": lambda dtype: stacked(dtype, positions="alibi"),
    "encoder": lambda dtype: stacked(dtype, causal=False, positions="relative"),
    "cached decoder": cached,
}
PAD = padding(LENGTHS, T)
SEGMENTS = torch.tensor([[0] * 3 + [1] * 4, [0] * 2 + [1] * 5])
MASKS: dict[str, tuple[Mask, Rule]] = {
    "causal": (CAUSAL, lambda b, t, s: s <= t),
    "padding": (PAD, lambda b, t, s: s < LENGTHS[b]),
    "causal and padding": (CAUSAL & PAD, lambda b, t, s: s <= t and s < LENGTHS[b]),
    "prefix": (prefix(torch.tensor([2, 3]), T), lambda b, t, s: s <= t or s < (2, 3)[b]),
    "blocks": (CAUSAL & blocks(SEGMENTS), lambda b, t, s: s <= t and bool(SEGMENTS[b, t] == SEGMENTS[b, s])),
    "window": (window(2, T), lambda b, t, s: t - 2 < s <= t),
}
SUMMED = ("linear", "mixed", "sliding")  # know no pairs of positions: the last three masks they refuse
CASES = [
    (kind, mask)
    for kind in KINDS
    for mask in MASKS
    if not (kind.startswith(SUMMED) and mask in ("prefix", "blocks", "window"))
    if kind != "cached decoder" or mask == "causal"
]


def sees(kind: str, mask: str) -> Tensor:
    """[B, T, S]: whether the output at t may depend on the content at s, counting what a position does with itself."""
    matrix = torch.tensor([[[MASKS[mask][1](b, t, s) for s in range(T)] for t in range(T)] for b in range(B)])
    near = (torch.arange(T)[:, None] - torch.arange(T)).abs() < WINDOW
    if kind.startswith("sliding"):
        matrix &= near
    if kind == "sliding":
        matrix &= torch.ones(T, T, dtype=torch.bool).tril()
    if kind.startswith(("decoder", "encoder", "cached")):  # two layers: through what another position has seen
        with_self = matrix | torch.eye(T, dtype=torch.bool)
        return (with_self.double() @ with_self.double()) > 0
    if kind.startswith(("additive", "kernel", "softmax, cross")):  # queries are given apart
        return matrix
    return matrix | torch.eye(T, dtype=torch.bool)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_hidden_content_changes_no_bit(kind: str, name: str) -> None:
    run, mask, seen = KINDS[kind](torch.float32), MASKS[name][0], sees(kind, name)
    x = draw(B, T, D)
    with torch.no_grad():
        before = run(x, mask)
        assert before.isfinite().all()
        moved = False
        for b in range(B):
            for s in range(T):
                for huge in (1e9, -1e9):
                    other = x.clone()
                    other[b, s] = huge
                    after = run(other, mask)
                    blind = ~seen[b, :, s]
                    assert torch.equal(after[b, blind], before[b, blind]), f"position {s} of row {b} leaks"
                    assert torch.equal(after[1 - b], before[1 - b]), "one row leaks into the other"
                    moved = moved or not torch.equal(after, before)
        assert moved  # the huge content is seen by who may see it


@pytest.mark.parametrize(("kind", "name"), [case for case in CASES if case[0] != "cached decoder"])
def test_hidden_content_has_no_gradient(kind: str, name: str) -> None:
    run, mask, seen = KINDS[kind](torch.float64), MASKS[name][0], sees(kind, name)
    for b in range(B):
        for s in range(T):
            for content in (None, 1e9):
                x = draw(B, T, D).double()
                if content is not None:
                    x[b, s] = content
                x.requires_grad_()
                out = run(x, mask)[b, ~seen[b, :, s]]
                if len(out):
                    (grad,) = torch.autograd.grad(out.sum(), x)
                    assert torch.equal(grad[b, s], torch.zeros(D, dtype=torch.float64)), f"position {s} of row {b}"
                    assert not grad[1 - b].any()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith(SUMMED)])
@pytest.mark.parametrize("name", ["prefix", "blocks", "window"])
def test_who_cannot_honour_a_mask_says_so(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match="tells queries or heads apart"):
        KINDS[kind](torch.float32)(draw(B, T, D), MASKS[name][0])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith(("cached", "sliding"))])
def test_the_full_mask_hides_nothing(kind: str) -> None:
    """The test above would pass for attention that sees nothing: here every position moves an output in the middle."""
    run, x = KINDS[kind](torch.float32), draw(B, T, D).requires_grad_()
    if isinstance(run, GatedAttention):  # so that no weight of relu(.)^2 is 0: keys and queries look alike in the
        run.gate.offset.data.copy_(torch.tensor([0.0, 3.0, 0.0, 3.0]))  # pair of features that hardly turns
        run.gate.bias.data.zero_()
    (grad,) = torch.autograd.grad(run(x, FULL)[0, 3].sum(), x)
    assert not grad[1].any()
    assert (grad[0].abs().sum(dim=-1) > 0).all()
