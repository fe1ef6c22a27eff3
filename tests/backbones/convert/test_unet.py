from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from backbones.convert import folders, unet, unet_weights
from backbones.masks import padding
from backbones.unet import UNet


def drawn(module: nn.Module) -> nn.Module:
    draws = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.15, generator=draws)
    return module


SMALL = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
PAIR = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
CIFAR = {  # google/ddpm-cifar10-32, with channels a sixteenth
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": (8, 16, 16, 16),
    "center_input_sample": False,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
UNCONDITIONAL = {
    "constructor": {"block_out_channels": (8, 16, 24, 32), "norm_num_groups": 4},
    "cifar": CIFAR,
    "scale-shift": SMALL | PAIR | {"resnet_time_scale_shift": "scale_shift", "num_class_embeds": 11},
    "middle norm": SMALL | PAIR | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 2},
    "no middle": SMALL | PAIR | {"add_attention": False, "center_input_sample": True, "out_channels": 6},
    "vectors": SMALL | PAIR | {"class_embed_type": "identity"},
    "one level": SMALL
    | {"block_out_channels": (16,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)},
}
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
CONDITIONAL = {
    "stable diffusion 1": {"block_out_channels": (8, 16, 24, 24), "norm_num_groups": 4, "attention_head_dim": 4},
    "stable diffusion 2": SMALL | CROSS | {"attention_head_dim": (1, 4), "use_linear_projection": True},
    "deep": SMALL | CROSS | {"attention_head_dim": 2, "transformer_layers_per_block": (2, 3), "num_class_embeds": 11},
    "levels": SMALL | CROSS | {"attention_head_dim": 2, "class_embed_type": "timestep", "freq_shift": 1},
    "options": SMALL | CROSS | {"attention_head_dim": 2, "resnet_time_scale_shift": "scale_shift", "norm_eps": 1e-3},
}


def labels(theirs: nn.Module) -> Tensor | None:
    draws = torch.Generator().manual_seed(2)
    kind, count = theirs.config.class_embed_type, theirs.config.num_class_embeds
    if kind == "identity":
        return torch.randn(3, 4 * theirs.config.block_out_channels[0], generator=draws, dtype=theirs.dtype)
    if kind == "timestep":
        return torch.tensor([0.0, 7.5, 300.0])
    return None if count is None else torch.tensor([0, 9, 10])


def inputs(theirs: nn.Module, size: tuple[int, int] = (16, 8)) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(3, theirs.config.in_channels, *size, generator=draws, dtype=theirs.dtype)
    return x, torch.tensor([0.0, 3.0, 999.0])


def words(theirs: nn.Module) -> Tensor:
    draws = torch.Generator().manual_seed(3)
    return torch.randn(3, 5, theirs.config.cross_attention_dim, generator=draws, dtype=theirs.dtype)


def compare_gradients(ours: nn.Module, theirs: nn.Module, out: Tensor, expected: Tensor) -> None:
    out.square().sum().backward()
    expected.square().sum().backward()
    named = unet_weights.ours({name: w.grad for name, w in theirs.named_parameters()})
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, named.pop(name), rtol=1e-8, atol=1e-8, msg=name)
    assert not named


@pytest.mark.parametrize("kind", UNCONDITIONAL)
def test_load_equals_unet_2d_model(kind: str) -> None:
    theirs = drawn(UNet2DModel(**UNCONDITIONAL[kind])).double()
    ours = unet.load(dict(theirs.config), theirs.state_dict())
    (x, t), (y, _), label = inputs(theirs), inputs(theirs), labels(theirs)
    out, expected = ours(x.requires_grad_(), t, label), theirs(y.requires_grad_(), t, label).sample
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    compare_gradients(ours, theirs, out, expected)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", CONDITIONAL)
def test_load_equals_unet_2d_condition_model(kind: str, masked: bool) -> None:
    theirs = drawn(UNet2DConditionModel(cross_attention_dim=6, **CONDITIONAL[kind])).double()
    ours = unet.load(dict(theirs.config), theirs.state_dict())
    (x, t), (y, _), label, context = inputs(theirs), inputs(theirs), labels(theirs), words(theirs)
    context.requires_grad_()
    lengths = torch.tensor([5, 1, 3]) if masked else torch.tensor([5, 5, 5])
    keep = torch.arange(5) < lengths[:, None]
    out = ours(x.requires_grad_(), t, label, context, padding(lengths, 5))
    (given,) = torch.autograd.grad(out.square().sum(), context, retain_graph=True)
    expected = theirs(y.requires_grad_(), t, context, class_labels=label, encoder_attention_mask=keep).sample
    (wanted,) = torch.autograd.grad(expected.square().sum(), context, retain_graph=True)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(given, wanted, rtol=1e-8, atol=1e-8)
    compare_gradients(ours, theirs, out, expected)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-8, atol=1e-8)


def test_a_label_that_is_a_level_equals_theirs() -> None:
    """In float32: in float64 their UNet2DModel forgets to cast the waves of the label, and fails."""
    theirs = drawn(UNet2DModel(**SMALL, **PAIR, class_embed_type="timestep", freq_shift=1))
    ours = unet.load(dict(theirs.config), theirs.state_dict())
    (x, t), label = inputs(theirs), labels(theirs)
    torch.testing.assert_close(ours(x, t, label), theirs(x, t, label).sample, rtol=1e-5, atol=1e-5)


def test_odd_sizes_equal_theirs_too() -> None:
    theirs = drawn(UNet2DConditionModel(cross_attention_dim=6, **CONDITIONAL["stable diffusion 1"])).double()
    ours = unet.load(dict(theirs.config), theirs.state_dict())
    x, t = inputs(theirs, (11, 9))
    torch.testing.assert_close(
        ours(x, t, None, words(theirs)), theirs(x, t, words(theirs)).sample, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 10},
        {"head_width": 8, "attention": (0, 1), "tell": "add", "corner": True, "offset": 1, "sine_first": True},
        {"middle": False, "attention": (), "center": True, "eps": 1e-3},
        {"context": 6, "classes": 10},
        {"context": 6, "head_width": (4, 16), "layers": (1, 2), "attention": (0, 1)},
    ],
)
def test_a_folder_saved_from_ours_opens_there(change: dict[str, Any], tmp_path: Path) -> None:
    ours = drawn(UNet(3, 2, 8, (1, 2), blocks=1, groups=4, **change))
    described, weights = unet.save(ours, 16)
    folders.write(tmp_path, described, weights)
    theirs = (UNet2DConditionModel if "context" in change else UNet2DModel).from_pretrained(tmp_path)
    assert theirs.config.sample_size == 16
    (x, t), label = inputs(theirs), labels(theirs)
    context = words(theirs) if "context" in change else None
    told = {"class_labels": label} | ({} if context is None else {"encoder_hidden_states": context})
    torch.testing.assert_close(ours(x, t, label, context), theirs(x, t, **told).sample, rtol=1e-5, atol=1e-5)
    again = unet.load(*folders.read(tmp_path))
    assert all(torch.equal(w, again.state_dict()[name]) for name, w in ours.state_dict().items())
    torch.testing.assert_close(again(x, t, label, context), ours(x, t, label, context), rtol=1e-6, atol=1e-6)


def test_the_names_of_old_files_are_read() -> None:
    theirs = drawn(UNet2DModel(**SMALL, **PAIR))
    weights = theirs.state_dict()
    for old, new in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")]:
        weights = {name.replace(f".{new}.", f".{old}."): w for name, w in weights.items()}
    assert not weights.keys() & {"mid_block.attentions.0.to_q.weight"}
    assert unet.load(dict(theirs.config), weights).mid_block.attentions[0].to_q.weight.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"act_fn": "mish"}, "act_fn is 'mish'; known here: 'silu' or 'swish'"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift is 'spatial'"),
        ({"mid_block_type": None}, "mid_block_type is None"),
        ({"downsample_type": "resnet"}, "downsample_type is 'resnet'"),
        ({"mid_block_scale_factor": 2}, "mid_block_scale_factor is 2"),
        ({"down_block_types": ("SkipDownBlock2D", "DownBlock2D")}, "down_block_types is 'SkipDownBlock2D'"),
        ({"up_block_types": ("UpBlock2D", "AttnUpBlock2D")}, "up_block_types is"),
        ({"time_embedding_dim": 7}, "time_embedding_dim is 7; known here: None or 32"),
        ({"layers_per_block": [1, 2]}, "layers_per_block is"),
        ({"block_out_channels": (8, 24)}, "has shape"),
    ],
)
def test_unknown_values_are_refused_by_name(change: dict[str, Any], said: str) -> None:
    theirs = UNet2DModel(**SMALL, **PAIR)
    with pytest.raises(ValueError, match=said):
        unet.load(dict(theirs.config) | change, theirs.state_dict())


def test_unsayable_networks_are_refused_by_name() -> None:
    for change, said in [
        ({"multipliers": (2, 2)}, "first level"),
        ({"attention": (0, 1), "head_width": (4, 8)}, r"equally wide at all levels; these are \[4, 8\]"),
        ({"middle": False, "context": 3}, "middle=False"),
        ({"middle_groups": 0, "tell": "add"}, "middle_groups=0"),
    ]:
        with pytest.raises(ValueError, match=said):
            unet.save(UNet(1, 1, **({"width": 8, "groups": 4, "head_width": 8} | change)))
