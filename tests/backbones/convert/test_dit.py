from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import nn

from backbones.convert import dit, folders
from backbones.dit import DiT


def drawn(module: nn.Module) -> nn.Module:
    draws = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.2, generator=draws)
    return module


def theirs_of(**change: Any) -> DiTTransformer2DModel:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 3, "sample_size": 8, "patch_size": 2}
    rest = {"in_channels": 3, "out_channels": 6, "num_embeds_ada_norm": 10}
    return drawn(DiTTransformer2DModel(**(sizes | rest | change))).eval()  # in training it would drop labels


def share(theirs: DiTTransformer2DModel) -> DiTTransformer2DModel:
    """The first block's embedder in all blocks, as published weights have it."""
    for block in theirs.transformer_blocks:
        block.norm1.emb.load_state_dict(theirs.transformer_blocks[0].norm1.emb.state_dict())
    return theirs


def inputs(**kind: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1), **kind)
    return x, torch.tensor([0.0, 3.0, 500.0, 999.0]), torch.tensor([0, 3, 9, 10])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "change", [{}, {"activation_fn": "gelu", "norm_eps": 1e-2, "out_channels": None}, {"patch_size": 4}]
)
def test_load_equals_diffusers(change: dict[str, Any], shared: bool) -> None:
    theirs = (share if shared else lambda model: model)(theirs_of(**change)).double()
    ours = dit.load(dict(theirs.config), theirs.state_dict())
    assert len(ours.conditions) == (1 if shared else 3)
    (x, t, label), (y, _, _) = inputs(dtype=torch.float64), inputs(dtype=torch.float64)
    out, expected = ours(x.requires_grad_(), t, label), theirs(y.requires_grad_(), t, label).sample
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-8, atol=1e-8)
    names = dit.rename({name: w.grad for name, w in theirs.named_parameters()}, dit.TABLE)
    for name, weight in ours.named_parameters():
        expected_grad = names[name]
        if shared and name.startswith("conditions."):  # ours has once what theirs has three times
            expected_grad = sum(names[name.replace("conditions.0.", f"conditions.{i}.")] for i in range(3))
        torch.testing.assert_close(weight.grad, expected_grad, rtol=1e-8, atol=1e-8, msg=name)


@pytest.mark.parametrize("own", [True, False])
def test_a_folder_saved_from_ours_opens_there(own: bool, tmp_path: Path) -> None:
    ours = drawn(DiT(8, 3, 2, 16, 3, 2, 10, out_channels=6, own=own))
    described, weights = dit.save(ours)
    folders.write(tmp_path, described, weights)
    theirs = DiTTransformer2DModel.from_pretrained(tmp_path).eval()
    x, t, label = inputs()
    torch.testing.assert_close(ours(x, t, label), theirs(x, t, label).sample, rtol=1e-5, atol=1e-5)
    again = dit.load(*folders.read(tmp_path))
    assert again.arguments["own"] == own
    assert all(torch.equal(w, again.state_dict()[name]) for name, w in ours.state_dict().items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation_fn": "geglu"}, "activation_fn is 'geglu'; known here: 'gelu-approximate' or 'gelu'"),
        ({"attention_bias": False}, "attention_bias is False"),
        ({"norm_type": "ada_norm"}, "norm_type is 'ada_norm'"),
        ({"num_layers": 4}, "are missing"),
    ],
)
def test_unknown_values_are_refused_by_name(change: dict[str, Any], words: str) -> None:
    theirs = theirs_of()
    with pytest.raises(ValueError, match=words):
        dit.load(dict(theirs.config) | change, theirs.state_dict())


def test_unsayable_networks_are_refused_by_name() -> None:
    for network, words in [
        (DiT(8, 1, 4, 16, 1, 2), "classes=None"),
        (DiT((8, 4), 1, 4, 16, 1, 2, 3), r"size=\(8, 4\)"),
        (DiT(8, 1, 4, 16, 1, 2, 3, context=5), "context is 5"),
        (DiT(8, 1, 4, 16, 1, 2, 3, feed_forward="swiglu"), "feed_forward is 'swiglu'"),
    ]:
        with pytest.raises(ValueError, match=words):
            dit.save(network)
