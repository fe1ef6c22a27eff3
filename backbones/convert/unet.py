"""diffusers' `UNet2DModel` and `UNet2DConditionModel` <-> `backbones.unet.UNet`.

Here their config is read and written; `unet_weights` renames the weights. In a `UNet2DModel`, `attention_head_dim` is
the width of a head; in a `UNet2DConditionModel` it is the number of heads.

A table of class vectors has a null label here, always the last: `num_class_embeds` = classes + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from backbones.convert import unet_weights
from backbones.convert.peers import expect, fill
from backbones.unet import LabelName, UNet
from backbones.unet_blocks import TellName

PLAIN: dict[str, Any] = {  # the defaults of a UNet2DModel, where a config holds no such key
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "block_out_channels": (224, 448, 672, 896),
    "in_channels": 3,
    "out_channels": 3,
    "attn_norm_num_groups": None,
    "add_attention": True,
}
CONDITIONAL: dict[str, Any] = {  # and of a UNet2DConditionModel
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "block_out_channels": (320, 640, 1280, 1280),
    "in_channels": 4,
    "out_channels": 4,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
    "upcast_attention": False,
}
BOTH: dict[str, Any] = {
    "center_input_sample": False,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "layers_per_block": 2,
    "downsample_padding": 1,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "class_embed_type": None,
    "num_class_embeds": None,
}
TELL: dict[str, TellName] = {"default": "add", "scale_shift": "scale-shift"}
LABEL: dict[str | None, LabelName] = {None: "class", "timestep": "level", "identity": "vector"}
KNOWN: dict[str, tuple[Any, ...]] = {
    "_class_name": ("UNet2DModel", "UNet2DConditionModel"),
    "resnet_time_scale_shift": tuple(TELL),
    "class_embed_type": tuple(LABEL),
    "downsample_padding": (0, 1),
    "time_embedding_type": ("positional",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "only_cross_attention": (False,),
    "mid_block_only_cross_attention": (None, False),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "addition_embed_type": (None,),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "cross_attention_norm": (None,),
}


def load(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> UNet:
    """Ours, with their weights; `upcast_attention` is not followed: we attend in the weights' own type.

    Args:
        config: theirs, as `config.json` holds it; a key that is absent has their default. Without `_class_name` it is
            a `UNet2DConditionModel` where it has a `cross_attention_dim`.
        weights: theirs.

    Raises:
        ValueError: for a value or a weight that is not known here; it says which.
    """
    expect("UNet", config, KNOWN)
    name = config.get("_class_name", "UNet2DConditionModel" if "cross_attention_dim" in config else "UNet2DModel")
    prompted = name == "UNet2DConditionModel"
    kind = "CrossAttn" if prompted else "Attn"
    c = BOTH | (CONDITIONAL if prompted else PLAIN) | dict(config)
    down, channels = tuple(c["down_block_types"]), tuple(c["block_out_channels"])
    width, levels = channels[0], len(channels)
    for type_ in down:
        expect("UNet", {"down_block_types": type_}, {"down_block_types": ("DownBlock2D", f"{kind}DownBlock2D")})
    mirrored = tuple(type_.replace("Down", "Up") for type_ in reversed(down))
    expect("UNet", {"up_block_types": tuple(c["up_block_types"])}, {"up_block_types": (mirrored,)})
    expect("UNet", c, {"mid_block_type": (f"UNetMidBlock2D{'CrossAttn' if prompted else ''}",)})
    expect("UNet", {"time_embedding_dim": c.get("time_embedding_dim")}, {"time_embedding_dim": (None, 4 * width)})
    heads: Sequence[int | None] = _each(c["attention_head_dim"], levels)
    if prompted:
        head_width = [of // (number or 1) for of, number in zip(channels, heads, strict=True)]
    else:
        head_width = [size or of for of, size in zip(channels, heads, strict=True)]
    middle_groups = None
    if not prompted and c["attn_norm_num_groups"] is not None:
        middle_groups = c["attn_norm_num_groups"]
    elif not prompted and c["resnet_time_scale_shift"] == "scale_shift":
        middle_groups = 0
    classes = None if c["num_class_embeds"] is None or c["class_embed_type"] else c["num_class_embeds"] - 1
    return fill(
        lambda: UNet(
            c["in_channels"],
            c["out_channels"],
            width,
            [of / width for of in channels],
            _one(c, "layers_per_block"),
            [level for level, type_ in enumerate(down) if type_ != "DownBlock2D"],
            classes,
            c["norm_num_groups"],
            head_width,
            context=_one(c, "cross_attention_dim") if prompted else None,
            layers=_each(c["transformer_layers_per_block"], levels) if prompted else 1,
            middle=prompted or c["add_attention"],
            middle_groups=middle_groups,
            tell=TELL[c["resnet_time_scale_shift"]],
            label=LABEL[c["class_embed_type"]],
            eps=c["norm_eps"],
            offset=c["freq_shift"],
            sine_first=not c["flip_sin_to_cos"],
            corner=c["downsample_padding"] == 0,
            center=c["center_input_sample"],
        ),
        unet_weights.ours(weights),
    )


def save(module: UNet, size: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, weights) for `config.json` and `diffusion_pytorch_model.safetensors`: with a context those of a
    `UNet2DConditionModel`, else of a `UNet2DModel`.

    Args:
        module: ours.
        size: side of the images, for pipelines that read it from the config (`sample_size`).

    Raises:
        ValueError: for a network that theirs cannot be; it says why.
    """
    made, channels, prompted = module.arguments, module.channels, module.context is not None
    if channels[0] != made["width"]:
        raise ValueError(f"their first level has the width itself: it is {channels[0]}, expected {made['width']}")
    if prompted and not made["middle"]:
        raise ValueError("the middle of their conditional UNet always attends; middle=False cannot be said there")
    attends = [level in made["attention"] for level in range(len(channels))]
    tell = {ours: theirs for theirs, ours in TELL.items()}[made["tell"]]
    kind = "CrossAttn" if prompted else "Attn"
    config: dict[str, Any] = {
        "_class_name": f"UNet2D{'Condition' if prompted else ''}Model",
        "sample_size": size,
        "in_channels": made["in_channels"],
        "out_channels": made["out_channels"],
        "center_input_sample": made["center"],
        "freq_shift": made["offset"],
        "flip_sin_to_cos": not made["sine_first"],
        "down_block_types": [f"{kind}DownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": [f"{kind}UpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "mid_block_type": f"UNetMidBlock2D{'CrossAttn' if prompted else ''}",
        "block_out_channels": channels,
        "layers_per_block": made["blocks"],
        "downsample_padding": 0 if made["corner"] else 1,
        "dropout": 0.0,
        "act_fn": "silu",
        "norm_num_groups": made["groups"],
        "norm_eps": made["eps"],
        "resnet_time_scale_shift": tell,
        "class_embed_type": {ours: theirs for theirs, ours in LABEL.items()}[made["label"]],
        "num_class_embeds": None if made["classes"] is None else made["classes"] + 1,
    }
    if prompted:
        config["attention_head_dim"] = module.heads
        config["cross_attention_dim"] = made["context"]
        layers = made["layers"]
        config["transformer_layers_per_block"] = layers if isinstance(layers, int) else list(layers)
        config["use_linear_projection"] = True
        return config, unet_weights.theirs(module.state_dict())
    config["attention_head_dim"] = _head_width(module, [*attends[:-1], attends[-1] or made["middle"]])
    config["add_attention"] = made["middle"]
    groups = made["groups"] if made["middle_groups"] is None else made["middle_groups"]
    if made["middle"] and not groups and tell == "default":
        raise ValueError("middle_groups=0 can be said in their config only with tell='scale-shift'")
    config["attn_norm_num_groups"] = groups or None
    return config, unet_weights.theirs(module.state_dict())


def _head_width(module: UNet, attends: Sequence[bool]) -> int | None:
    """The one width of all heads that a UNet2DModel can have, or None, which is one head a level."""
    widths = [of // heads for of, heads, a in zip(module.channels, module.heads, attends, strict=True) if a]
    if len(set(widths)) <= 1:
        return widths[0] if widths else None
    if any(heads > 1 for heads, a in zip(module.heads, attends, strict=True) if a):
        raise ValueError(f"their heads are equally wide at all levels; these are {widths}")
    return None


def _each(value: Any, levels: int) -> list[Any]:
    """One value a level, where the config may have one for all."""
    return list(value) if isinstance(value, list | tuple) else [value] * levels


def _one(config: Mapping[str, Any], key: str) -> int:
    """The value that the config may have once for each level, where all must be equal."""
    values = set(_each(config[key], 1))
    if len(values) > 1:
        raise ValueError(f"UNet: {key} is {config[key]!r}; known here: one number for all levels")
    return int(values.pop())
