"""Folders of causal language models as transformers keeps them: weights in safetensors, a tokenizer, a card.

Read from the disk alone, without code of the folder's own, and in one line where that fails: a folder whose weights do
not fill the model, whose tokenizer knows more tokens than the model, or that holds a classifier (as `qx reward` leaves
one), whose body fills a language model wherever the head is tied, would otherwise train in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from generative.language.generate import choose
from generative.saved import ModelError
from lab import streams


@dataclass(frozen=True)
class Pretrained:
    """A model with its tokenizer, both of transformers."""

    model: Any
    tokenizer: Any

    @property
    def reach(self) -> int | None:
        """The longest sequence in tokens that the model can read, where it says so."""
        found: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return found

    def within(self, limit: int, besides: int = 0) -> int:
        """The limit, or less where the model cannot read as many tokens beside so many others."""
        return limit if self.reach is None else min(limit, self.reach - besides)

    def save(self, folder: Path, card: str) -> None:
        """Write what `AutoModelForCausalLM.from_pretrained` reads, and the card as README.md."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")


def load(folder: Path) -> Pretrained:
    """The model of a folder in float32 on the CPU, and its tokenizer. Raises ModelError."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no causal language model here (it would hold config.json)")
    logging.disable_progress_bar()
    nothing = f"{folder}: no causal language model in safetensors here"
    with _refused(nothing):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for name in config.architectures or ():
        if "Classification" in name:
            raise ModelError(f"{folder}: a {name}, whose head scores texts; expected a causal language model")
    with _refused(nothing):
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(f"{folder}: {len(missing)} of the model's weights are not here, {missing[0]} the first")
    if wrong := sorted(str(each) for each in loading.get("mismatched_keys", ())):
        raise ModelError(f"{folder}: weights of another size than its config.json says, {wrong[0]} the first")
    with _refused(f"{folder}: no tokenizer that transformers can read here"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(f"{folder}: its tokenizer knows {len(tokenizer):,} tokens, its model {rows:,}")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{folder}: its tokenizer has no end-of-sequence token, which ends a completion")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Pretrained(model.eval(), tokenizer)


@torch.no_grad()
def complete(
    pretrained: Pretrained,
    prompts: Sequence[Sequence[int]],
    *,
    limit: int,
    batch_size: int = 16,
    key: Int64[Tensor, "N"] | None = None,
) -> list[list[int]]:
    """The continuation of each prompt, without the end: the likeliest token each time, or with keys a draw.

    Args:
        pretrained: asked on the device it is on.
        prompts: tokens, one at least each.
        limit: the most tokens to add.
        batch_size: prompts at a time.
        key: one for each prompt, for draws from the model at temperature 1; token t uses `uniform(key, t)`.
    """
    model, tokenizer, found = pretrained.model, pretrained.tokenizer, list[list[int]]()
    device = model.get_input_embeddings().weight.device
    for first in range(0, len(prompts), batch_size):
        part = prompts[first : first + batch_size]
        longest = max(map(len, part))
        tokens = torch.full((len(part), longest), tokenizer.pad_token_id)
        mask = torch.zeros(tokens.shape, dtype=torch.int64)
        for row, prompt in enumerate(part):  # filled on the left, so that all go on at the same place
            tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        keys = None if key is None else key[first : first + batch_size].to(device)
        found += _continued(model, tokens.to(device), mask.to(device), limit, tokenizer.eos_token_id, keys)
    return found


def _continued(
    model: Any,
    tokens: Int64[Tensor, "B T"],
    mask: Int64[Tensor, "B T"],
    limit: int,
    end: int,
    key: Int64[Tensor, "B"] | None,
) -> list[list[int]]:
    cache, ended, added = None, torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device), list[Tensor]()
    asked, position = tokens, (mask.cumsum(1) - 1).clamp(min=0)
    for t in range(limit):
        told = model(
            input_ids=asked, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        cache, logits = told.past_key_values, told.logits[:, -1].float()
        token = choose(logits, 1.0, None if key is None else streams.uniform(key, t))
        token = torch.where(ended, end, token)
        added.append(token)
        ended = ended | (token == end)
        if bool(ended.all()):
            break
        asked, position = token[:, None], position[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    rows = torch.stack(added, dim=1).tolist() if added else [[] for _ in tokens]
    return [row[: row.index(end)] if end in row else row for row in rows]


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Whatever fails while it lasts is a ModelError that says `what`, and why."""
    try:
        yield
    except Exception as error:  # each kind of model and tokenizer refuses in its own way
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{what} ({reason})") from None
