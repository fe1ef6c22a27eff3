"""What `qx bench dpo` trains on: a Llama of random weights, and pairs of random tokens of random lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from backbones.initialise import initialise
from generative.preference.tokens import Tokens

END = 1
"""The token that ends a completion; 0 fills up. Neither is drawn."""
ALPHA = 16.0
"""Of adapters."""


@dataclass(frozen=True)
class Size:
    """The model, and the pairs of an epoch."""

    vocabulary: Annotated[int, tyro.conf.Fixed, tyro.conf.Suppress] = 32_000  # of the command `--vocabularies`
    """Tokens there are. More make the head, which gives each of them a logit, the larger part."""
    width: int = 256
    """Features of a position."""
    depth: int = 4
    """Blocks."""
    heads: int = 4
    """Attention heads; they divide the width."""
    hidden: int = 688
    """Inner width of the feed-forward network."""
    pairs: int = 64
    """Of an epoch."""
    batch: int = 8
    """Pairs an update."""
    prompt: tuple[int, int] = (64, 192)
    """The least and the most tokens of a prompt; all lengths between are alike likely."""
    completion: tuple[int, int] = (32, 96)
    """The same of a completion, its end included."""
    lora_rank: int = 0
    """Of adapters in every linear layer of the body, which learn alone, in every way; at 0 all weights learn."""

    @property
    def learning_rate(self) -> float:
        """Of every way: large enough that losses differ from ln 2, so that they can be compared."""
        return 1e-3 if self.lora_rank else 1e-4


def model(size: Size) -> LlamaForCausalLM:
    """In float32, with a head of its own, as Llama has by default."""
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.hidden,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=size.prompt[1] + size.completion[1],
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM._from_config(config, attn_implementation="sdpa")


def draw_adapters(network: nn.Module) -> None:
    """Begin with the same adapters in every way: A drawn layer by layer, B as it is, zero."""
    draws = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(down := getattr(layer, "lora_A", None), nn.Module):
            initialise(down, draws)


def pairs(size: Size) -> list[Tokens]:
    """The same for every way."""
    draws = torch.Generator().manual_seed(0)

    def words(bounds: tuple[int, int], ended: int) -> tuple[int, ...]:
        length = int(torch.randint(bounds[0], bounds[1] + 1, (), generator=draws)) - ended
        return (*torch.randint(2, size.vocabulary, (length,), generator=draws).tolist(), *[END] * ended)

    return [
        Tokens(words(size.prompt, 0), words(size.completion, 1), words(size.completion, 1)) for _ in range(size.pairs)
    ]
