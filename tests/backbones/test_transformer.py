"""The Transformer against leaks and against its cache. (Against Llama, GPT-2 and nn.TransformerEncoder: convert/.)"""

from __future__ import annotations

import json
import math
from typing import Any

import jaxtyping
import pytest
import torch

from backbones.initialise import build
from backbones.masks import CAUSAL, blocks, padding
from backbones.packed import packed
from backbones.product import able
from backbones.shape import ShapeError
from backbones.transformer import Transformer

KINDS: dict[str, dict[str, Any]] = {
    "llama": {"groups": 2, "tied": False},
    "gpt-2": {"norm": "layer", "feed_forward": "gelu-tanh", "positions": "learned", "length": 32, "bias": True},
    "sinusoidal": {"positions": "sinusoidal"},
    "alibi": {"positions": "alibi", "groups": 1},
    "relative": {"positions": "relative", "feed_forward": "geglu"},
    "none": {"positions": "none", "feed_forward": "relu2"},
    "post": {"order": "post", "feed_forward": "relu"},
    "stretched": {"stretch": {"factor": 4.0, "length": 8}},
}


def make(**kind: Any) -> Transformer:
    sizes = {"vocabulary": 50, "width": 32, "depth": 3, "heads": 4}
    return build(lambda: Transformer(**sizes | kind), torch.Generator().manual_seed(0))


def words(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_a_later_one_or_its_padding(kind: str):
    model, tokens = make(**KINDS[kind]), words(2, 12)
    before = model(tokens)
    for cut in (1, 5, 11):
        other = tokens.clone()
        other[:, cut:] = words(2, 12 - cut, seed=9)
        after = model(other)
        assert torch.equal(after[:, :cut], before[:, :cut])
        assert not torch.allclose(after[:, cut:], before[:, cut:])


@pytest.mark.parametrize("kind", KINDS)
def test_cached_steps_equal_the_whole_computation(kind: str):
    """Rows of lengths 7 and 4 are read at once, padded, then each is continued at its own positions."""
    model, tokens, lengths = make(**KINDS[kind]), words(2, 12), torch.tensor([7, 4])
    prompt = tokens[:, :7].clone()
    prompt[1, 4:] = 49  # padding, to be overwritten
    cache = model.cache(2, 12)
    model(prompt, cache=cache)
    for t in range(5):
        at = lengths + t
        token = tokens.gather(1, at[:, None])
        found = model(token, at[:, None], cache=cache)[:, 0]
        for row in range(2):
            whole = model(tokens[row : row + 1, : at[row] + 1])[0, -1]
            torch.testing.assert_close(found[row], whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_sequences_packed_into_one_row_need_only_positions_and_a_block_mask(kind: str):
    model, a, b = make(**KINDS[kind]), words(1, 5), words(1, 6, seed=1)
    mask = CAUSAL & blocks(torch.tensor([[0] * 5 + [1] * 6]))
    positions = torch.cat([torch.arange(5), torch.arange(6)])[None]
    packed = model(torch.cat([a, b], dim=1), positions, mask)
    torch.testing.assert_close(packed, torch.cat([model(a), model(b)], dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal", "alibi", "relative", "none"])
def test_an_encoder_sees_all_but_padding(positions: str):
    model = make(positions=positions, length=12, causal=False)
    tokens, lengths = words(2, 9), torch.tensor([9, 5])
    before = model(tokens, mask=padding(lengths, 9))
    other = tokens.clone()
    other[1, 5:] = (other[1, 5:] + 1) % 50
    after = model(other, mask=padding(lengths, 9))
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1, :5], before[1, :5])
    torch.testing.assert_close(model(tokens[1:, :5])[0], before[1, :5], rtol=0, atol=1e-5)
    other[:, 4] = (other[:, 4] + 1) % 50
    assert not torch.isclose(model(other, mask=padding(lengths, 9))[:, 0], before[:, 0]).all(-1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_order_matters_wherever_positions_are_written(kind: str):
    """The last token's state after the same past in another order; a causal mask alone tells nothing in one layer."""
    model = make(**{**KINDS[kind], "depth": 1})
    tokens = words(1, 6)
    swapped = tokens[:, [1, 0, 3, 2, 4, 5]]
    same = torch.allclose(model(tokens)[:, -1], model(swapped)[:, -1], atol=1e-5)
    assert same == (kind == "none")


def test_weights_start_by_the_stated_rule_and_from_the_generator_alone():
    wide = {"vocabulary": 300, "width": 160, "depth": 8, "heads": 4, "bias": True}
    torch.manual_seed(1)
    one = build(lambda: Transformer(**wide), torch.Generator().manual_seed(5)).state_dict()
    torch.manual_seed(2)
    two = build(lambda: Transformer(**wide), torch.Generator().manual_seed(5)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    base = math.sqrt(2 / (5 * 160))
    for name, tensor in one.items():
        if name.endswith("bias"):
            assert not tensor.any()
        elif "norm" in name:
            assert bool((tensor == 1).all())
        else:
            shrunk = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            assert tensor.std().item() == pytest.approx(base / (4 if shrunk else 1), rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_make_the_same_model_again(kind: str):
    model = make(**KINDS[kind])
    again = Transformer(**json.loads(json.dumps(model.arguments)))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(words(1, 9)), model(words(1, 9)))


def test_learned_positions_without_a_length_are_refused():
    with pytest.raises(ValueError, match="need a length"):
        make(positions="learned")


def test_tokens_without_a_batch_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is in use
    with pytest.raises(ShapeError, match=r"tokens has shape \[3\], expected \[B, T\]"):
        make()(torch.tensor([1, 2, 3]))


def test_a_name_that_does_not_exist_is_answered_with_those_that_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"positions 'rope': expected one of rotary, learned"):
        make(positions="rope")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "batch"}, "norm 'batch': expected one of rms, layer"),
        ({"order": "mid"}, "order 'mid': expected one of pre, post"),
        ({"active": 3}, "active 3 and shared 0 of no experts"),
        ({"shared": 1}, "active 2 and shared 1 of no experts"),
        ({"positions": "alibi", "stretch": {"factor": 2.0}}, "positions 'alibi' with stretch"),
        ({"stretch": {"factor": 2.0, "scale": 3}}, "stretch: scale is 3; expected fields factor, length, slow, fast"),
        ({"stretch": {"length": 8}}, "factor is missing"),
    ],
)
def test_what_would_be_passed_over_is_refused(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        make(**change)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_cached_steps_run_under_autocast_too(kind: str):
    """The cache is float32, what is stored bfloat16: against the whole computation under the same autocast."""
    model, tokens = make(**KINDS[kind]), words(2, 10)
    with torch.autocast("cpu", torch.bfloat16):
        cache, whole = model.cache(2, 10), model(tokens)
        rows = [model(tokens[:, :6], cache=cache)]
        for t in range(6, 10):
            rows.append(model(tokens[:, t : t + 1], torch.full((2, 1), t), cache=cache))
        assert cache[0].keys.dtype == torch.float32
        found = torch.cat(rows, dim=1)
    assert (found - whole).norm() < 0.03 * whole.norm()
    exact = model(tokens)
    assert 1e-4 * exact.norm() < (found - exact).norm() < 0.1 * exact.norm()  # and it was the lower type


@pytest.mark.parametrize("rows", [1, 4])
@torch.no_grad()
def test_a_packed_model_makes_its_own_cache(rows: int):
    """Its projections are laid out anew, and no norm has weights: only the embedding tells the type."""
    sizes = {"vocabulary": 40, "width": 384, "depth": 1, "heads": 2, "hidden": 384, "norm": "plain"}
    model = build(lambda: Transformer(**sizes), torch.Generator().manual_seed(0))
    fast, tokens = packed(model, rows), words(rows, 4) % 40
    assert (fast is not model) == able(model.stack.layers[0].feed_forward.down.weight)
    cache = fast.cache(rows, 4)
    steps = [fast(tokens[:, t : t + 1], torch.full((rows, 1), t), cache=cache) for t in range(4)]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(tokens), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("as_in_use")
def test_what_people_pass_by_mistake_is_named():
    """A boolean tensor for a mask, more tokens than learned positions, a hidden state of another width."""
    model, tokens = make(positions="learned", length=4), words(2, 9)
    with pytest.raises(ValueError, match=r"tokens has shape \[2, 9\], expected .* up to the learned positions, 4"):
        model(tokens)
    with pytest.raises(TypeError, match="mask is a Tensor, expected a Mask"):
        model(tokens[:, :4], mask=torch.ones(2, 4, dtype=torch.bool))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"hidden has shape \[2, 9, 31\], expected \[..., 32\]"):
        model.logits(torch.zeros(2, 9, 31))
