"""Linear attention against the quadratic formula with its weights written out, and its forms against each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from backbones.attention import Cache
from backbones.initialise import build
from backbones.linear_attention import KINDS, LinearAttention, elu_causal, softmax_causal
from backbones.masks import CAUSAL, FULL, Mask, blocks, padding, prefix, window
from backbones.positions import Rotary
from backbones.shape import ShapeError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def elu_weights(q: torch.Tensor, k: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """[T, S] weights of one head: phi(q_t) . phi(k_s), and rows that sum to 1."""
    phi = [torch.nn.functional.elu(x) + 1 for x in (q, k)]
    weights = (phi[0] @ phi[1].T) * allowed
    return weights / weights.sum(dim=1, keepdim=True)


def softmax_weights(q: torch.Tensor, k: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """[T, S] weights of one head: each query normalises its own keys, feature by feature."""
    rows = []
    for t in range(len(q)):
        keys = (k.exp() * allowed[t][:, None]) / (k.exp() * allowed[t][:, None]).sum(dim=0)  # [S, d]
        rows.append(keys @ (q[t].exp() / q[t].exp().sum()))
    return torch.stack(rows)


WEIGHTS: dict[str, Callable[..., torch.Tensor]] = {"elu": elu_weights, "softmax": softmax_weights}
LENGTHS = torch.tensor([37, 5])
MASKS = {
    "full": (FULL, torch.ones(2, 37, 37)),
    "padding": (padding(LENGTHS, 37), (torch.arange(37) < LENGTHS[:, None])[:, None].expand(2, 37, 37)),
    "causal": (CAUSAL, torch.ones(2, 37, 37).tril()),
    "causal and padding": (
        CAUSAL & padding(LENGTHS, 37),
        (torch.arange(37) < LENGTHS[:, None])[:, None].expand(2, 37, 37).double().tril(),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MASKS)
def test_linear_attention_equals_the_quadratic_formula_in_values_and_gradients(kind: str, name: str) -> None:
    """37 is no multiple of a chunk, and holds several."""
    mask, allowed = MASKS[name]
    module = build(lambda: LinearAttention(8, 2, kind, bias=True), torch.Generator().manual_seed(0)).double()
    x = (2 * draw(2, 37, 8)).requires_grad_()
    names = ["x", *dict(module.named_parameters())]
    q, k, v = (layer(x).view(2, 37, 2, 4) for layer in (module.query, module.key, module.value))
    rows = []
    for b in range(2):
        heads = [WEIGHTS[kind](q[b, :, h], k[b, :, h], allowed[b]) @ v[b, :, h] for h in range(2)]
        rows.append(module.output(torch.cat(heads, dim=1)))
    slow, fast = torch.stack(rows), module(x, mask)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-10)
    pull = draw(2, 37, 8, seed=5)
    mine = torch.autograd.grad((fast * pull).sum(), [x, *module.parameters()])
    theirs = torch.autograd.grad((slow * pull).sum(), [x, *module.parameters()])
    for what, a, b in zip(names, mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=what)


@pytest.mark.parametrize("kind", KINDS)
def test_the_recurrence_equals_the_parallel_form_in_values_and_gradients(kind: str) -> None:
    module = build(lambda: LinearAttention(8, 2, kind), torch.Generator().manual_seed(0)).double()
    x = (3 * draw(2, 70, 8)).requires_grad_()
    state, rows = module.start(2), []
    for t in range(70):
        y, state = module.step(x[:, t], state)
        rows.append(y)
    slow, fast = torch.stack(rows, dim=1), module(x, CAUSAL)
    torch.testing.assert_close(slow, fast, rtol=0, atol=1e-10)
    pull = draw(2, 70, 8, seed=5)
    pairs = [torch.autograd.grad((y * pull).sum(), [x, *module.parameters()]) for y in (slow, fast)]
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind: str) -> None:
    inputs = [draw(1, 1, 5, 2, seed=s).requires_grad_() for s in range(3)]
    causal = {"elu": elu_causal, "softmax": softmax_causal}[kind]
    assert torch.autograd.gradcheck(lambda q, k, v: causal(q, k, v, chunk=2), inputs)
    assert torch.autograd.gradcheck(lambda q, k, v: KINDS[kind].full(q, k, v, None), inputs)


@pytest.mark.parametrize("causal", [elu_causal, softmax_causal])
def test_the_size_of_a_chunk_changes_nothing(causal: Callable[..., torch.Tensor]) -> None:
    q, k, v = draw(2, 2, 33, 4), 3 * draw(2, 2, 33, 4, seed=1), draw(2, 2, 33, 3, seed=2)
    seen = torch.arange(33) < torch.tensor([33, 20])[:, None]
    whole = causal(q, k, v, seen, chunk=64)
    for chunk in (1, 2, 7, 33):
        torch.testing.assert_close(causal(q, k, v, seen, chunk=chunk), whole, rtol=0, atol=1e-12)


def test_the_running_softmax_survives_keys_whose_exponentials_overflow_or_vanish() -> None:
    """exp(1000) is infinite and exp(-1000) is 0 in float32; a maximum per feature at either end is met on the way."""
    rise = torch.linspace(-1000, 1000, 40)[:, None].expand(40, 3)[None, None]
    v = draw(1, 1, 40, 3).float()
    for k in (rise, -rise, torch.cat([rise[:, :, ::2], -rise[:, :, ::2]], dim=2)):
        k = k.clone().requires_grad_()
        out = softmax_causal(torch.zeros_like(k), k, v)
        weights = [torch.softmax(k[0, 0, : t + 1, 0].double(), dim=0) @ v[0, 0, : t + 1].double() for t in range(40)]
        torch.testing.assert_close(out[0, 0], torch.stack(weights).float(), rtol=0, atol=1e-6)
        (grad,) = torch.autograd.grad(out.sum(), k)
        assert grad.isfinite().all()


def test_phi_keeps_its_small_values() -> None:
    """elu(x) + 1 rounds to 0 below -17 in float32, and a query that saw such keys alone would see nothing."""
    k = torch.full((1, 1, 3, 2), -40.0)
    out = KINDS["elu"].full(torch.zeros_like(k), k, torch.tensor([[[[1.0, 2], [3, 4], [8, 9]]]]), None)
    torch.testing.assert_close(out[0, 0, 0], torch.tensor([4.0, 5.0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("causal", [FULL, CAUSAL])
def test_a_row_without_keys_gives_zeros(kind: str, causal: Mask) -> None:
    module = build(lambda: LinearAttention(4, 2, kind), torch.Generator().manual_seed(0)).double()
    x = draw(2, 3, 4).requires_grad_()
    out = module(x, causal & padding(torch.tensor([0, 3]), 3))
    assert not out[0].any()
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert not grad[0].any()
    assert grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_pairs_are_refused_by_name(kind: str) -> None:
    module, lengths = LinearAttention(4, 2, kind), torch.tensor([2, 3])
    for mask in (window(2, 3), prefix(lengths, 3), blocks(torch.tensor([[0, 0, 1]]))):
        with pytest.raises(ValueError, match=r"linear attention: mask of shape .* expected padding \[b, 1, 1, S\]"):
            module(torch.zeros(2, 3, 4), mask)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"x has shape \[2, 3, 5\], expected \[B, T, 4\]"):
        LinearAttention(4, 2)(torch.zeros(2, 3, 5))
    with pytest.raises(ShapeError, match=r"one step has shape \[2, 5\], expected \[B, 4\]"):
        LinearAttention(4, 2).step(torch.zeros(2, 5), LinearAttention(4, 2).start(2))
    with pytest.raises(ValueError, match="width 5, heads 2"):
        LinearAttention(5, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_the_recurrence_does_not_stand_still(kind: str) -> None:
    """1,200 steps: a sum of as many in bfloat16 stops growing at a few hundred, and is wrong by half."""
    module = build(lambda: LinearAttention(8, 2, kind), torch.Generator().manual_seed(0)).bfloat16()
    x = draw(1, 1200, 8).bfloat16()
    exact = build(lambda: LinearAttention(8, 2, kind), torch.Generator().manual_seed(0)).double()
    exact.load_state_dict({name: weight.double() for name, weight in module.state_dict().items()})
    with torch.no_grad():
        truth, state = exact(x.double(), CAUSAL), module.start(1)
        for t in range(1200):
            y, state = module.step(x[:, t], state)
            if t % 100 == 99:
                assert y.dtype == torch.bfloat16
                assert (y.double() - truth[:, t]).norm() < 0.03 * truth[:, t].norm(), t


@pytest.mark.usefixtures("as_in_use")
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_other_keys_is_refused(kind: str) -> None:
    for lengths, total in ((torch.tensor([2, 3]), 4), (torch.tensor([2, 3]), 1), (torch.tensor([2, 3, 1]), 3)):
        with pytest.raises(ShapeError, match=r"linear attention: mask has shape .* expected \[2 or 1, 1, 1, 3\]"):
            LinearAttention(4, 2, kind)(torch.zeros(2, 3, 4), padding(lengths, total))


def test_what_belongs_to_softmax_attention_is_refused_by_name() -> None:
    module, x = LinearAttention(4, 2), torch.zeros(2, 3, 4)
    given = {"turn": Rotary(2).turn(torch.arange(3)[None], x.dtype), "bias": torch.zeros(1, 2, 3, 3)}
    given |= {"cache": Cache(torch.zeros(2, 2, 3, 2), torch.zeros(2, 2, 3, 2))}
    for name, value in given.items():
        with pytest.raises(ValueError, match=f"linear attention: {name} of .* expected None"):
            module(x, **{name: value})
