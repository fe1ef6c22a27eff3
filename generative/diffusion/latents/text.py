"""Prompts: a tokenizer trained on the captions, and a small text encoder that is trained with the denoiser.

    words = text(captions, TextConfig(), generator)
    words.tokens(["a red agent"]).ids              # [1, S], as the denoiser is trained with (see `prompted`)
    words.encode(["a red agent"])                  # {"context": [1, S, F]}, as the engine is asked
    words.save(folder);  Text.load(folder)         # folder/tokenizer and folder/text_encoder

Both are stock: transformers' `CLIPTokenizer` and `CLIPTextModel`, so what is saved is the text half of a Stable
Diffusion folder. As there, a prompt is lower case, is filled up to S ids with the end token and cut beyond; what fills
is not masked: the encoder is causal, and the denoiser sees all S places.

Sources: Sennrich et al. 2016, "Neural machine translation of rare words with subword units", alg. 1 (byte-pair
encoding); Radford et al. 2021, "Learning transferable visual models from natural language supervision", sec. 2.4 (the
encoder and its tokens); Rombach et al. 2022, sec. 4.3.1 (trained jointly with the denoiser).

Key: N prompts, S ids of a prompt, F features of an id.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from backbones.initialise import build

BEGIN, END, WORD = "<|startoftext|>", "<|endoftext|>", "</w>"


@dataclass(frozen=True)
class TextConfig:
    """The size of tokenizer and encoder."""

    merges: int = 1000
    """Most pairs of pieces that become one piece. More make a prompt shorter and rare words rarer."""
    width: int = 64
    """F: features of an id. Larger tells more apart."""
    layers: int = 2
    """Transformer layers. More read longer sentences, slower."""
    heads: int = 4
    """Attention heads; divides the width."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Prompts as ids."""

    ids: Int64[Tensor, "N S"]
    cut: tuple[str, ...]
    """What did not fit of each prompt, in its own letters; empty where all did."""


class Text:
    """A tokenizer and an encoder that belong together.

    Args:
        tokenizer: whose `model_max_length` is S.
        encoder: of at least S places.

    Raises:
        ValueError: where the encoder has fewer places, or does not know all ids.
    """

    def __init__(self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> None:
        self.tokenizer, self.encoder = tokenizer, encoder
        self.length: int = tokenizer.model_max_length
        places, known = encoder.config.max_position_embeddings, encoder.config.vocab_size
        if self.length > places or len(tokenizer) > known:
            raise ValueError(
                f"a tokenizer of {len(tokenizer)} ids, {self.length} a prompt, for an encoder that knows {known}, "
                f"and {places} a prompt: expected no more than it knows"
            )

    @property
    def features(self) -> int:
        """F."""
        return int(self.encoder.config.hidden_size)

    @property
    def null(self) -> Int64[Tensor, "S"]:
        """The ids of the empty prompt, which asks for nothing."""
        return self.tokens([""]).ids[0]

    def tokens(self, prompts: Sequence[str]) -> Tokens:
        """The ids of each prompt: begin, at most S - 2 of the words, end, and end again up to S."""
        rows, cut = [], []
        for prompt in prompts:
            whole = self.tokenizer(prompt, return_offsets_mapping=True, verbose=False)
            ids, places = whole["input_ids"], whole["offset_mapping"]
            fits = len(ids) <= self.length
            cut.append("" if fits else prompt[places[self.length - 1][0] :])
            kept = ids if fits else [*ids[: self.length - 1], ids[-1]]
            rows.append(kept + [self.tokenizer.pad_token_id] * (self.length - len(kept)))
        return Tokens(torch.tensor(rows, dtype=torch.int64).view(-1, self.length), tuple(cut))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> dict[str, Float[Tensor, "N S F"]]:
        """{"context": what the denoiser attends to}, on the encoder's device; the empty prompt's is the null.

        Each prompt is encoded by itself, so that its numbers do not depend on its company, and once.

        Warns:
            UserWarning: for each prompt that is cut, naming what was left out.
        """
        tokens = self.tokens(prompts)
        for prompt, cut in zip(prompts, tokens.cut, strict=True):
            if cut:
                warnings.warn(f"prompt {prompt!r}: {self.length - 2} pieces fit; left out: {cut!r}", stacklevel=2)
        device = next(self.encoder.parameters()).device
        rows = [tuple(row) for row in tokens.ids.tolist()]
        number = {row: i for i, row in enumerate(dict.fromkeys(rows))}
        none = torch.empty(0, self.length, self.features, device=device)
        alone = [contexts(self.encoder, torch.tensor([row], device=device)) for row in number]
        return {"context": torch.cat([none, *alone])[[number[row] for row in rows]]}

    def save(self, folder: Path) -> None:
        """Write `tokenizer` and `text_encoder` in the folder, as transformers does."""
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.encoder.save_pretrained(folder / "text_encoder")

    @classmethod
    def load(cls, folder: Path) -> Text:
        """Read what `save` or another pipeline wrote. Raises OSError where a file is missing."""
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True, use_safetensors=True)
        return cls(tokenizer, encoder)


def contexts(encoder: nn.Module, ids: Int64[Tensor, "N S"]) -> Float[Tensor, "N S F"]:
    """The last layer's features of every id, normalised: what a Stable Diffusion denoiser attends to."""
    return encoder(input_ids=ids).last_hidden_state


def text(captions: Iterable[str], config: TextConfig, generator: torch.Generator) -> Text:
    """A tokenizer of the captions and an untrained encoder, its weights drawn from `generator`.

    A prompt may be as long as the longest caption, rounded up to a multiple of eight.

    Raises:
        ValueError: where there is no caption, or the heads do not divide the width.
    """
    captions = list(captions)
    if not captions:
        raise ValueError("there are no captions to learn words from")
    tokenizer = tokenizer_of(captions, config.merges)
    longest = max(len(ids) for ids in tokenizer(captions, verbose=False)["input_ids"])
    tokenizer.model_max_length = -(-longest // 8) * 8
    described = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        projection_dim=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = build(lambda: CLIPTextModel(described), generator)
    return Text(tokenizer, encoder)


def tokenizer_of(captions: Iterable[str], merges: int) -> CLIPTokenizer:
    """Byte-pair encoding learned from the captions, in CLIP's form: it can write every text, at most a byte an id.

    The ids are in CLIP's order: 256 bytes, 256 bytes that end a word, the merged pieces, begin and end.

    Args:
        captions: the words to learn from.
        merges: most pairs to merge; fewer where no pair is left that occurs twice.
    """
    clip = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix=WORD))
    learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = [*letters, *(letter + WORD for letter in letters)]
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + merges,
        min_frequency=2,
        special_tokens=alphabet,  # which are not special, but so have their numbers from us, not as they are met
        end_of_word_suffix=WORD,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    learned: dict[str, Any] = json.loads(learner.to_str())["model"]
    pairs = [(first, second) for first, second in learned["merges"]]
    # two pairs may make the same piece
    pieces = list(dict.fromkeys([*alphabet, *(first + second for first, second in pairs), BEGIN, END]))
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=pairs)
