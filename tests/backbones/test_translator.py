"""The encoder-decoder against nn.Transformer with its weights, its cache, and a task that needs the source."""

from __future__ import annotations

import json
import math
from typing import Any

import jaxtyping
import pytest
import torch
from torch import nn

from backbones.convert import pytorch
from backbones.convert.peers import under
from backbones.initialise import build
from backbones.shape import ShapeError
from backbones.translator import EncoderDecoder

KINDS: dict[str, dict[str, Any]] = {
    "vaswani": {},
    "pre": {"order": "pre", "feed_forward": "gelu", "source": 13, "tied": False},
    "modern": {"order": "pre", "norm": "rms", "feed_forward": "swiglu", "positions": "rotary", "bias": False},
    "learned": {"positions": "learned", "length": 12},
    "alibi": {"positions": "alibi"},
    "relative": {"positions": "relative", "order": "pre"},
    "none": {"positions": "none"},
}


def make(**kind: Any) -> EncoderDecoder:
    sizes = {"source": None, "vocabulary": 11, "width": 12, "depth": 2, "heads": 3, "hidden": 20}
    return build(lambda: EncoderDecoder(**sizes | kind), torch.Generator().manual_seed(0)).double()


def words(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(seed))


def sines(length: int, width: int) -> torch.Tensor:
    """The printed formula, number by number."""
    rows = [[p / 10_000 ** (2 * (i // 2) / width) for i in range(width)] for p in range(length)]
    pairs = [[(math.cos if i % 2 else math.sin)(a) for i, a in enumerate(row)] for row in rows]
    return torch.tensor(pairs, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["vaswani", "pre"])
def test_hidden_states_and_gradients_equal_torchs_transformer_with_its_weights(kind: str):
    ours, pre = make(**KINDS[kind]), kind == "pre"
    layer = {"d_model": 12, "nhead": 3, "dim_feedforward": 20, "norm_first": pre, "batch_first": True}
    layer |= {"activation": "gelu" if pre else "relu", "dtype": torch.float64, "dropout": 0.0}
    with torch.random.fork_rng(devices=[]):
        last = (lambda: nn.LayerNorm(12, dtype=torch.float64)) if pre else (lambda: None)
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2, last(), enable_nested_tensor=False)
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 2, last())
        peer = nn.Transformer(12, 3, custom_encoder=encoder, custom_decoder=decoder, batch_first=True)
    for seed, weight in enumerate(peer.parameters()):
        weight.data.normal_(std=0.4, generator=torch.Generator().manual_seed(seed))
    config = layer | {"num_layers": 2}
    ours.encoder.load_state_dict(pytorch.load_stack(config, under(peer.state_dict(), "encoder")).state_dict(), False)
    ours.decoder.load_state_dict(pytorch.load_stack(config, under(peer.state_dict(), "decoder")).state_dict(), False)

    source, target, lengths = words(2, 6), words(2, 5, seed=1), torch.tensor([6, 4])
    filled = torch.tensor([[s >= length for s in range(6)] for length in (6, 4)])
    above = torch.tensor([[s > t for s in range(5)] for t in range(5)])
    table = ours.source_embedding or ours.embedding
    x = (table.weight.detach()[source] * 12**0.5 + sines(6, 12)).requires_grad_()
    y = (ours.embedding.weight.detach()[target] * 12**0.5 + sines(5, 12)).requires_grad_()
    masks = {"tgt_mask": above, "src_key_padding_mask": filled, "memory_key_padding_mask": filled}
    theirs = peer(x, y, **masks)
    mine = ours(source, target, lengths)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)

    toward = torch.randn(mine.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (mine * toward).sum().backward()
    (theirs * toward).sum().backward()
    expected = torch.zeros_like(ours.embedding.weight)
    assert x.grad is not None
    assert y.grad is not None
    expected.index_put_((target,), y.grad * 12**0.5, accumulate=True)
    if table is ours.embedding:
        expected.index_put_((source,), x.grad * 12**0.5, accumulate=True)
    torch.testing.assert_close(ours.embedding.weight.grad, expected, rtol=0, atol=1e-10)
    for half, other in ((ours.encoder, peer.encoder), (ours.decoder, peer.decoder)):
        for block, theirs_ in zip(half.layers, other.layers, strict=True):
            for weight in block.parameters():
                weight.data = weight.grad
            found = pytorch.save_block(block)[1]
            for name, weight in theirs_.named_parameters():
                torch.testing.assert_close(found[name], weight.grad, rtol=0, atol=1e-10, msg=name)


def test_without_positions_the_equality_is_exact():
    ours = make(positions="none")
    layer, weights = pytorch.save_stack(ours.encoder)
    with torch.random.fork_rng(devices=[]):
        kind = {name: value for name, value in layer.items() if name != "num_layers"} | {"dtype": torch.float64}
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**kind), 2, None, enable_nested_tensor=False)
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**kind), 2, None)
    encoder.load_state_dict(weights)
    decoder.load_state_dict(pytorch.save_stack(ours.decoder)[1])
    source, target = words(2, 6), words(2, 5, seed=1)
    above = torch.tensor([[s > t for s in range(5)] for t in range(5)])
    memory = encoder(ours.embedding(source) * 12**0.5)
    theirs = decoder(ours.embedding(target) * 12**0.5, memory, tgt_mask=above)
    torch.testing.assert_close(ours(source, target), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_padding_of_the_source_nor_the_future_is_seen(kind: str):
    model, source, target = make(**KINDS[kind]), words(2, 7), words(2, 6, seed=1)
    lengths = torch.tensor([7, 4])
    before = model(source, target, lengths)
    other = source.clone()
    other[1, 4:] = (other[1, 4:] + 1) % 11
    assert torch.equal(model(other, target, lengths), before)
    torch.testing.assert_close(model(source[1:, :4], target[1:]), before[1:], rtol=0, atol=1e-12)
    later = target.clone()
    later[:, 4:] = (later[:, 4:] + 1) % 11
    after = model(source, later, lengths)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:, 4:], before[:, 4:])
    nearer = source.clone()
    nearer[:, 0] = (nearer[:, 0] + 1) % 11
    assert not torch.allclose(model(nearer, target, lengths)[:, 0], before[:, 0])  # but the source is


def test_only_the_encoder_spends_relative_buckets_on_what_lies_ahead():
    model, place = make(positions="relative"), torch.arange(100)[None]
    encoder, decoder = (half.positions.bias(place, place, torch.float64) for half in (model.encoder, model.decoder))
    assert encoder is not None
    assert decoder is not None
    assert encoder[0, 0, 0, 1:].unique().numel() == encoder[0, 0, :, 0].unique().numel() - 1 == 15  # ahead, behind, 0
    assert decoder[0, 0, 0].unique().numel() == 1
    assert decoder[0, 0, 99].unique().numel() > 25


@pytest.mark.parametrize("kind", KINDS)
def test_cached_steps_equal_the_whole_computation(kind: str):
    model, source, target = make(**KINDS[kind]), words(2, 7), words(2, 6, seed=1)
    lengths = torch.tensor([7, 4])
    whole, read, cache = model(source, target, lengths), model.read(source, lengths), model.cache(2, 6)
    first = model.write(target[:, :3], read, cache=cache)
    steps = [model.write(target[:, t : t + 1], read, torch.full((2, 1), t), cache) for t in range(3, 6)]
    torch.testing.assert_close(torch.cat([first, *steps], dim=1), whole, rtol=0, atol=1e-12)


def test_it_learns_to_write_the_source_backwards_and_translates_what_the_whole_computation_says():
    begin, end = 4, 5
    model = build(
        lambda: EncoderDecoder(source=None, vocabulary=6, width=32, depth=1, heads=4, order="pre"),
        torch.Generator().manual_seed(0),
    )
    optimiser, draws = torch.optim.Adam(model.parameters(), 1e-2), torch.Generator().manual_seed(1)

    def pairs(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        source = torch.randint(4, (count, 4), generator=draws)
        lengths = torch.randint(2, 5, (count,), generator=draws)
        target = torch.full((count, 6), end)
        target[:, 0] = begin
        for row, n in enumerate(lengths.tolist()):
            target[row, 1 : n + 1] = source[row, :n].flip(0)
        return source, lengths, target

    for _ in range(200):
        source, lengths, target = pairs(32)
        logits = model.logits(model(source, target[:, :-1], lengths))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    source, lengths, target = pairs(64)
    found = model.translate(source, lengths, begin=begin, end=end, limit=5)
    assert (found == target[:, 1 : 1 + found.shape[1]]).all(1).float().mean() > 0.8  # 0.91 or more of three seeds

    row = torch.tensor([[begin]])  # the same, without a cache, for one source alone
    while row.shape[1] < 6 and row[0, -1] != end:
        token = model.logits(model(source[:1, : int(lengths[0])], row))[:, -1:].argmax(-1)
        row = torch.cat([row, token], dim=1)
    assert found[0, : row.shape[1] - 1].tolist() == row[0, 1:].tolist()


def test_wrong_shapes_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is in use
    model = make()
    with pytest.raises(ShapeError, match=r"source has shape \[5\], expected \[B, S\]"):
        model(words(1, 5)[0], words(1, 4))
    with pytest.raises(ShapeError, match=r"target has shape \[3, 4\], expected \[2, T\]"):
        model(words(2, 5), words(3, 4))
    with pytest.raises(ShapeError, match=r"lengths has shape \[3\], expected \[2\]"):
        model(words(2, 5), words(2, 4), torch.tensor([5, 5, 5]))


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_make_the_same_model_again(kind: str):
    model = make(**KINDS[kind])
    again = EncoderDecoder(**json.loads(json.dumps(model.arguments))).double()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(words(2, 5), words(2, 4)), model(words(2, 5), words(2, 4)))


def test_a_norm_that_does_not_exist_is_answered_with_those_that_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="norm 'batch': expected one of rms, layer"):
        make(norm="batch")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("huge", [1e9, -1e9])
def test_what_is_hidden_may_be_huge_and_moves_no_bit(kind: str, huge: float):
    """The embeddings of the last source token and the last target token, which stand nowhere else."""
    model = make(**KINDS[kind]).float()
    table = model.embedding if model.source_embedding is None else model.source_embedding
    source, target, lengths = words(2, 7) % 9, words(2, 6, seed=1) % 9, torch.tensor([7, 4])
    source[1, 4:], target[:, 4:] = 9, 10
    with torch.no_grad():
        before = model(source, target, lengths)
        table.weight[9], model.embedding.weight[10] = huge, -huge
        after = model(source, target, lengths)
        assert torch.equal(after[:, :4], before[:, :4])
        source[1, 3] = 9  # what may be seen moves all
        assert not torch.isclose(model(source, target, lengths)[1, :4], before[1, :4]).all(-1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hidden_has_no_gradient(kind: str):
    model = make(**KINDS[kind])
    table = model.embedding if model.source_embedding is None else model.source_embedding
    source, target, lengths = words(2, 7) % 9, words(2, 6, seed=1) % 9, torch.tensor([7, 4])
    source[1, 4:], target[:, 4:] = 9, 10
    model(source, target, lengths)[:, :4].square().sum().backward()
    assert table.weight.grad is not None
    assert model.embedding.weight.grad is not None
    assert not table.weight.grad[9].any()
    assert not model.embedding.weight.grad[10].any()
    assert table.weight.grad[source[0]].any(-1).all()
