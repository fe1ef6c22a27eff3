import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from backbones.convert import vit
from backbones.vision import ViT


def drawn(module: nn.Module) -> nn.Module:
    draws = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.2, generator=draws)
    return module


def pictures(**kind: Any) -> torch.Tensor:
    return torch.randn(3, 2, 8, 12, generator=torch.Generator().manual_seed(1), **kind)


def config(**change: Any) -> ViTConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    shape = {"image_size": [8, 12], "patch_size": 4, "num_channels": 2, "num_labels": 5}
    return ViTConfig(**(sizes | shape | change))


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("kind", [ViTModel, ViTForImageClassification])
def test_load_equals_hugging_face(kind: type[nn.Module], act: str) -> None:
    theirs = drawn(kind(config(hidden_act=act))).double().eval()
    ours = vit.load(theirs.config.to_dict(), theirs.state_dict())
    a, b = pictures(dtype=torch.float64).requires_grad_(), pictures(dtype=torch.float64).requires_grad_()
    out, answer = ours(a), theirs(b)
    expected = answer.logits if kind is ViTForImageClassification else answer.pooler_output
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    if kind is ViTModel:
        torch.testing.assert_close(ours.tokens(a), answer.last_hidden_state, rtol=1e-10, atol=1e-10)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9)
    with torch.no_grad():  # the gradients in the place of the weights, so that `load` pairs them
        for weight in theirs.parameters():
            weight.copy_(weight.grad)
    paired = dict(vit.load(theirs.config.to_dict(), theirs.state_dict()).named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, paired[name].detach(), rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(("classes", "pooler"), [(5, None), (None, 16), (None, None)])
def test_a_folder_saved_from_ours_opens_there(classes: int | None, pooler: int | None, tmp_path: Path) -> None:
    ours = drawn(ViT((8, 12), 2, 4, 16, 2, 2, classes, hidden=40, pooler=pooler))
    described, weights = vit.save(ours)
    (tmp_path / "config.json").write_text(json.dumps(described))
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    if classes is None:
        theirs = ViTModel.from_pretrained(tmp_path, add_pooling_layer=pooler is not None)
    else:
        theirs = ViTForImageClassification.from_pretrained(tmp_path)
    answer = theirs.eval()(pictures())
    if classes is not None:
        expected = answer.logits
    else:
        expected = answer.last_hidden_state[:, 0] if pooler is None else answer.pooler_output
    torch.testing.assert_close(ours(pictures()), expected, rtol=1e-5, atol=1e-5)
    again = vit.load(described, weights)  # the names of files
    assert all(torch.equal(w, again.state_dict()[name]) for name, w in ours.state_dict().items())


def test_what_is_loaded_is_a_copy() -> None:
    theirs = ViTModel(config())
    ours = vit.load(theirs.config.to_dict(), theirs.state_dict())
    with torch.no_grad():
        ours.patches.conv.weight.zero_()
    assert theirs.embeddings.patch_embeddings.projection.weight.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "silu"}, "hidden_act is 'silu'; known here: 'gelu'"),
        ({"qkv_bias": False}, "qkv_bias is False; known here: True"),
        ({"patch_size": [4, 2]}, r"patch_size is \[4, 2\]"),
        ({"hidden_size": 24}, "has shape"),
    ],
)
def test_unknown_values_are_refused_by_name(change: dict[str, Any], words: str) -> None:
    theirs = ViTModel(config())
    with pytest.raises(ValueError, match=words):
        vit.load(theirs.config.to_dict() | change, theirs.state_dict())


def test_unknown_weights_and_unsayable_networks_are_refused_by_name() -> None:
    theirs = ViTModel(config(), use_mask_token=True)
    with pytest.raises(ValueError, match=r"weight 'embeddings\.mask_token' has no place"):
        vit.load(theirs.config.to_dict(), theirs.state_dict())
    without = {name: w for name, w in ViTModel(config()).state_dict().items() if "position" not in name}
    with pytest.raises(ValueError, match=r"weight 'embeddings\.position_embeddings' is missing"):
        vit.load(theirs.config.to_dict(), without)
    with pytest.raises(ValueError, match="positions is 'rotary'"):
        vit.save(ViT(8, 1, 4, 16, 1, 2, 3, positions="rotary"))
    with pytest.raises(ValueError, match="classes is 3"):
        vit.save(ViT(8, 1, 4, 16, 1, 2, 3, pooler=4))
