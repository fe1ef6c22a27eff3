"""Tiny pipelines of diffusers, one of each kind that we read, their weights drawn from a seed."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

V = {"prediction_type": "v_prediction"}  # keeps the samples of an untrained network within reach of its images
UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "sample_size": 8,
}
PLAIN = UNET | {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}
CROSS = UNET | {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 2,
    "cross_attention_dim": 12,
}


def drawn(module: Any, seed: int = 0, std: float = 0.2) -> Any:
    """The same module with weights of a seed, in evaluation."""
    draws = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        nn.init.normal_(weight, std=std, generator=draws)
    return module.eval()


def images(name: str, scheduler: Any, size: Any = 8, **changes: Any) -> Any:
    """A DDPMPipeline or DDIMPipeline of 1-channel images."""
    config = PLAIN | {"in_channels": 1, "out_channels": 1, "sample_size": size} | changes
    return quiet(getattr(diffusers, name)(unet=drawn(diffusers.UNet2DModel(**config)), scheduler=scheduler))


def autoencoder(**changes: Any) -> Any:
    """Images of 16 x 16 to latents of 8 x 8."""
    config = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (4, 8),
        "norm_num_groups": 2,
        "scaling_factor": 0.7,
        "sample_size": 16,
    }
    return drawn(diffusers.AutoencoderKL(**(config | changes)), seed=1)


def latent(scheduler: Any) -> Any:
    """An LDMPipeline with a codebook."""
    codes = drawn(diffusers.VQModel(block_out_channels=(4,), norm_num_groups=2, latent_channels=4, num_vq_embeddings=9))
    unet = drawn(diffusers.UNet2DModel(**PLAIN))
    return quiet(diffusers.LDMPipeline(vqvae=codes, unet=unet, scheduler=scheduler))


def dit(scheduler: Any, **changes: Any) -> Any:
    """A DiTPipeline with a learned variance."""
    config = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8, "out_channels": 8}
    network = drawn(diffusers.DiTTransformer2DModel(**(config | changes)))
    return quiet(diffusers.DiTPipeline(transformer=network, vae=autoencoder(), scheduler=scheduler))


def words() -> tuple[Any, Any]:
    """A tokenizer of letters and two words, at most 8 tokens, and a text encoder."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocabulary, [("r", "e"), ("re", "d</w>")], model_max_length=8)
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
    )
    return tokenizer, drawn(CLIPTextModel(config), seed=2)


def stable_diffusion(scheduler: Any, **changes: Any) -> Any:
    """A StableDiffusionPipeline without safety checker."""
    tokenizer, encoder = words()
    parts = {
        "vae": autoencoder(),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "unet": drawn(diffusers.UNet2DConditionModel(**(CROSS | changes)), std=0.3),
        "scheduler": scheduler,
    }
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return quiet(diffusers.StableDiffusionPipeline(**parts, **nothing))


def quiet(pipeline: Any) -> Any:
    """The same, without a bar."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(seed: int, draws: int, shape: tuple[int, ...]) -> Tensor:
    """[draws, *shape] What a diffusers pipeline draws, one after another, from a generator of this seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(draws)])
