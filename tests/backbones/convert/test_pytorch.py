"""torch's own layers with their weights in ours: outputs, and the gradients of inputs and of every weight, in float64.

The gradients of the weights are compared under torch's names: `save_*` renames them as it renames weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn

from backbones.attention import Attention
from backbones.convert import pytorch
from backbones.initialise import build
from backbones.masks import CAUSAL, FULL, Mask, padding
from backbones.stack import Block, Modulation, Pass
from backbones.transformer import Transformer

LENGTHS = (6, 4)  # of the rows, padded to 6
SEEN = {"full": FULL, "causal": CAUSAL, "padding": padding(torch.tensor(LENGTHS), 6)}
SEEN["both"] = SEEN["causal"] & SEEN["padding"]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.requires_grad_()


def made(peer: Callable[[], nn.Module]) -> nn.Module:
    """The peer, its weights drawn so that none is 0 or 1, and no dropout at work."""
    with torch.random.fork_rng(devices=[]):
        module = peer().double().eval()
    for seed, weight in enumerate(module.parameters()):
        weight.data.normal_(std=0.4, generator=torch.Generator().manual_seed(seed))
    return module


def hidden(name: str) -> dict[str, torch.Tensor]:
    """The mask in torch's words, where True is hidden."""
    above = torch.tensor([[s > t for s in range(6)] for t in range(6)])
    filled = torch.tensor([[s >= length for s in range(6)] for length in LENGTHS])
    causal, padded = name in ("causal", "both"), name in ("padding", "both")
    return ({"mask": above} if causal else {}) | ({"padding": filled} if padded else {})


def same_gradients(
    save: Callable[[nn.Module], tuple[object, Mapping[str, torch.Tensor]]], ours: nn.Module, peer: nn.Module
) -> None:
    for weight in ours.parameters():  # a module whose weights are its gradients
        assert weight.grad is not None
        weight.data = weight.grad
    found = save(ours)[1]
    expected = {name: weight.grad for name, weight in peer.named_parameters()}
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-10, msg=name)


def compare(mine: torch.Tensor, theirs: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> None:
    """Outputs and the gradients of inputs; those of the weights are left in place."""
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    toward = draw(*mine.shape, seed=99).detach()
    grads = []
    for out in (mine, theirs):
        for x in inputs:
            x.grad = None
        (out * toward).sum().backward()
        grads.append([x.grad.clone() for x in inputs if x.grad is not None])
    for mine_, theirs_ in zip(*grads, strict=True):
        torch.testing.assert_close(mine_, theirs_, rtol=0, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", SEEN)
def test_self_attention(name: str, bias: bool):
    config = {"embed_dim": 12, "num_heads": 3, "bias": bias, "batch_first": True}
    peer = made(lambda: nn.MultiheadAttention(**config))
    ours = pytorch.load_attention(config, peer.state_dict())
    x, mask = draw(2, 6, 12), hidden(name)
    theirs = peer(x, x, x, attn_mask=mask.get("mask"), key_padding_mask=mask.get("padding"), need_weights=False)[0]
    compare(ours(x, SEEN[name]), theirs, (x,))
    same_gradients(pytorch.save_attention, ours, peer)


@pytest.mark.parametrize("name", ["full", "both"])
def test_self_attention_with_a_bias_on_the_logits(name: str):
    config = {"embed_dim": 12, "num_heads": 3, "batch_first": True}
    peer = made(lambda: nn.MultiheadAttention(**config))
    ours = pytorch.load_attention(config, peer.state_dict())
    x, bias = draw(2, 6, 12), draw(2, 3, 6, 6, seed=5)
    seen = SEEN[name].matrix(6, 6, x.device)
    added = bias if seen is None else bias.masked_fill(~seen, -torch.inf)
    theirs = peer(x, x, x, attn_mask=added.flatten(0, 1), need_weights=False)[0]
    compare(ours(x, SEEN[name], bias=bias), theirs, (x, bias))
    same_gradients(pytorch.save_attention, ours, peer)


@pytest.mark.parametrize("width", [12, 20])
def test_cross_attention_to_a_context_of_any_width(width: int):
    config = {"embed_dim": 12, "num_heads": 3, "kdim": width, "vdim": width, "batch_first": True}
    peer = made(lambda: nn.MultiheadAttention(**config))
    ours = pytorch.load_attention(config, peer.state_dict())
    x, context, padded = draw(2, 5, 12), draw(2, 6, width, seed=1), hidden("padding")["padding"]
    theirs = peer(x, context, context, key_padding_mask=padded, need_weights=False)[0]
    compare(ours.cross(x, ours.read(context), SEEN["padding"]), theirs, (x, context))
    same_gradients(pytorch.save_attention, ours, peer)


LAYERS = [
    {"norm_first": first, "activation": activation, "bias": bias}
    for first, activation, bias in ((False, "relu", True), (True, "gelu", True), (True, "relu", False))
]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", ["full", "both"])
def test_encoder_layer(name: str, kind: dict[str, object]):
    config = {"d_model": 12, "nhead": 3, "dim_feedforward": 20, "batch_first": True, **kind}
    peer = made(lambda: nn.TransformerEncoderLayer(**config))
    ours = pytorch.load_block(config, peer.state_dict())
    x, mask = draw(2, 6, 12), hidden(name)
    theirs = peer(x, src_mask=mask.get("mask"), src_key_padding_mask=mask.get("padding"))
    compare(ours(x, Pass(mask=SEEN[name])), theirs, (x,))
    same_gradients(pytorch.save_block, ours, peer)


@pytest.mark.parametrize("kind", LAYERS)
def test_decoder_layer(kind: dict[str, object]):
    config = {"d_model": 12, "nhead": 3, "dim_feedforward": 20, "batch_first": True, **kind}
    peer = made(lambda: nn.TransformerDecoderLayer(**config))
    ours = pytorch.load_block(config, peer.state_dict())
    x, context = draw(2, 5, 12), draw(2, 6, 12, seed=1)
    padded = hidden("padding")["padding"]
    above = torch.tensor([[s > t for s in range(5)] for t in range(5)])
    theirs = peer(x, context, tgt_mask=above, memory_key_padding_mask=padded)
    assert ours.cross is not None
    shared = Pass(mask=CAUSAL, context_mask=SEEN["padding"])
    compare(ours(x, shared, memory=ours.cross.read(context)), theirs, (x, context))
    same_gradients(pytorch.save_block, ours, peer)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_encoder_is_a_stack_and_the_body_of_a_transformer_that_is_not_causal(first: bool, last: bool):
    config = {"d_model": 12, "nhead": 3, "dim_feedforward": 20, "batch_first": True, "norm_first": first}

    def encoder() -> nn.Module:
        norm = nn.LayerNorm(12) if last else None
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(**config), 2, norm, enable_nested_tensor=False)

    peer = made(encoder)
    ours = pytorch.load_stack(config | {"num_layers": 2}, peer.state_dict())
    x = draw(2, 6, 12)
    theirs = peer(x, src_key_padding_mask=hidden("padding")["padding"])
    compare(ours(x, torch.arange(6)[None], SEEN["padding"]), theirs, (x,))
    if first == last:  # where our Transformer, too, puts its last norm
        kind = {"order": "pre" if first else "post", "norm": "layer", "feed_forward": "relu", "hidden": 20}
        whole = build(
            lambda: Transformer(
                vocabulary=7, width=12, depth=2, heads=3, **kind, positions="none", bias=True, causal=False
            ),
            torch.Generator().manual_seed(0),
        ).double()
        whole.stack.load_state_dict(ours.state_dict())
        tokens = torch.tensor([[1, 2, 3, 4, 5, 6], [6, 0, 1, 1, 0, 0]])
        theirs = peer(whole.embedding(tokens), src_key_padding_mask=hidden("padding")["padding"])
        torch.testing.assert_close(whole(tokens, mask=SEEN["padding"]), theirs, rtol=0, atol=1e-10)
    same_gradients(pytorch.save_stack, ours, peer)


def test_what_is_saved_makes_the_peer_again():
    config = {"d_model": 12, "nhead": 3, "dim_feedforward": 20, "activation": "gelu", "batch_first": True}
    peer = made(lambda: nn.TransformerDecoderLayer(**config))
    saved, weights = pytorch.save_block(pytorch.load_block(config, peer.state_dict()))
    again = nn.TransformerDecoderLayer(**saved, dtype=torch.float64)
    again.load_state_dict(weights)
    x, context = draw(2, 5, 12), draw(2, 6, 12, seed=1)
    torch.testing.assert_close(again(x, context), peer(x, context), rtol=0, atol=1e-12)
    config = {"embed_dim": 12, "num_heads": 3, "kdim": 8, "vdim": 8, "bias": False}
    peer = made(lambda: nn.MultiheadAttention(**config))
    saved, weights = pytorch.save_attention(pytorch.load_attention(config, peer.state_dict()))
    nn.MultiheadAttention(**saved, dtype=torch.float64).load_state_dict(weights)


def test_loaded_weights_are_copies():
    config = {"embed_dim": 12, "num_heads": 3}
    peer = made(lambda: nn.MultiheadAttention(**config))
    ours = pytorch.load_attention(config, peer.state_dict())
    peer.in_proj_weight.data.zero_()
    assert ours.query.weight.all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"add_bias_kv": True}, "add_bias_kv is True; known here: False"),
        ({"add_zero_attn": True}, "add_zero_attn is True"),
        ({"kdim": 8, "vdim": 6}, "vdim is 6; known here: 8"),
        ({"bias": False}, "in_proj_bias|query.bias.* not known"),
        ({"kdim": 8, "vdim": 8}, r"key.weight has shape \[12, 12\], expected \[12, 8\]"),
    ],
)
def test_what_attention_does_not_know_is_named(config: dict[str, object], message: str):
    weights = made(lambda: nn.MultiheadAttention(12, 3)).state_dict()
    with pytest.raises(ValueError, match=message):
        pytorch.load_attention({"embed_dim": 12, "num_heads": 3, **config}, weights)


def test_what_torchs_layers_lack_is_named():
    generator = torch.Generator().manual_seed(0)
    llama = build(lambda: Transformer(vocabulary=7, width=12, depth=1, heads=3), generator)
    with pytest.raises(ValueError, match="feed-forward SwiGLU"):
        pytorch.save_block(llama.stack.layers[0])
    plain = build(lambda: Transformer(vocabulary=7, width=12, depth=1, heads=3, feed_forward="relu"), generator)
    with pytest.raises(ValueError, match="norm RMSNorm"):
        pytorch.save_block(plain.stack.layers[0])
    with pytest.raises(ValueError, match="positions Rotary"):
        pytorch.save_stack(plain.stack)
    with pytest.raises(ValueError, match="1 groups; known here: as many as heads, 3"):
        pytorch.save_attention(Attention(12, 3, 1))
    block = plain.stack.layers[0]
    changed = Block(block.attention, block.feed_forward, lambda: nn.LayerNorm(12), modulation=Modulation(4, 12))
    with pytest.raises(ValueError, match="without modulation"):
        pytorch.save_block(changed)
    with pytest.raises(ValueError, match="activation is 'selu'; known here: 'relu' or 'gelu'"):
        pytorch.load_block({"d_model": 12, "nhead": 3, "activation": "selu"}, {})


def test_a_float_mask_with_rows_that_see_nothing_gives_zeros_and_finite_gradients():
    """Not torch's: its module gives nan there."""
    ours = pytorch.load_attention(
        {"embed_dim": 12, "num_heads": 3}, made(lambda: nn.MultiheadAttention(12, 3)).state_dict()
    )
    x, bias = draw(1, 6, 12), draw(1, 3, 6, 6)
    rows = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    rows[:, :, 2] = False
    out = ours(x, Mask(allowed=rows), bias=bias)
    torch.testing.assert_close(out[0, 2], ours.output.bias, rtol=0, atol=0)
    out.sum().backward()
    assert x.grad is not None
    assert bias.grad is not None
    assert x.grad.isfinite().all()
    assert bias.grad.isfinite().all()
