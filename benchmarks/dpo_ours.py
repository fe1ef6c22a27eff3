"""One epoch of our DPO, as a whole and without each of the things that make it fast.

    sharing   a prompt is read once for both completions; without, before each of them
    packing   sequences stand in one row one after another; without, side by side, filled up to the longest
    chunks    the head judges the completions alone, a chunk at a time; without, all logits of all tokens exist
    cache     the reference is asked once, before the first update; without, a copy of it is asked in every update

Sharing needs packing. What is left out is written here in the plain way, as a textbook has it.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64
from torch import Tensor, nn

from backbones.continuations import Continuations
from backbones.likelihood import log_probability
from benchmarks.dpo_load import ALPHA, Size, draw_adapters, model, pairs
from generative.language.adapter import body_layers
from generative.language.causal import Causal, states
from generative.lora import Lora, adapt
from generative.objective import Batch, Losses
from generative.preference.data import Judge, PairData, packed
from generative.preference.dpo import DPO
from generative.preference.reference import reference
from generative.shares import Precision
from generative.train import TrainConfig, Trainer


@dataclass(frozen=True)
class Ours:
    """How ours trains."""

    precision: Precision = "float32"
    sharing: bool = True
    packing: bool = True
    chunks: bool = True
    cache: bool = True


@dataclass(frozen=True)
class Epoch:
    """What one way did."""

    reference: float
    """Seconds in which the reference was asked before the first update."""
    training: float
    """Seconds of all updates."""
    losses: list[float]
    """Of every update."""
    likelihood: float
    """log pi of the chosen in the first update, in nats, a mean over its pairs: whether two ways compute the same."""


class Plainly(Causal):
    """A model that is asked without packing, or without chunks."""

    def __init__(self, model: Any, how: Ours) -> None:
        super().__init__(model)
        self.how = how

    def judge(self, tokens: Int64[Tensor, "N"], row: Continuations) -> Float[Tensor, "M"]:
        """As `Causal.judge`; without packing, of a row in which every sequence has a prompt of its own."""
        head = self.model.get_output_embeddings().weight
        hidden = states(self.model, tokens, row) if self.how.packing else self._side_by_side(tokens, row)
        if self.how.chunks:
            return log_probability(hidden[row.before], head, tokens[row.scored])
        said = nn.functional.linear(hidden, head).float().log_softmax(-1)  # [N, V]
        return said[row.before, tokens[row.scored]]

    def _side_by_side(self, tokens: Int64[Tensor, "N"], row: Continuations) -> Float[Tensor, "N D"]:
        first = (row.position == 0).nonzero()[:, 0]
        length = torch.diff(first, append=first.new_tensor([len(tokens)]))
        inside = torch.arange(int(length.max()), device=tokens.device) < length[:, None]  # [S, T]
        filled = tokens.new_zeros(inside.shape).masked_scatter(inside, tokens)
        told = self.model.base_model(input_ids=filled, attention_mask=inside.long(), use_cache=False)
        hidden: Tensor = told.last_hidden_state[inside]
        return hidden


class Asking(DPO):
    """DPO that asks a copy of the model for the reference's answers in every update."""

    def __init__(self, before: nn.Module, *, shared: bool) -> None:
        super().__init__(shared=shared)
        self.before = before

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """The reference of the batch is not looked at."""
        with torch.no_grad():
            tokens, row = packed(batch, shared=self.shared)
            told = row.sums(cast(Judge, self.before).judge(tokens, row)).view(-1, 2)
        return super().loss(model, {**batch, "reference": told}, key)


def epoch(size: Size, how: Ours, device: str) -> Epoch:
    """Train a new model on all pairs once, in their order."""
    made = model(size)
    plain, shared = not (how.packing and how.chunks), how.sharing and how.packing
    policy = (Plainly(made, how) if plain else Causal(made)).to(device)
    asked, where, began = PairData(pairs(size)), torch.device(device), time.perf_counter()
    objective = DPO(shared=shared)
    if not how.cache:
        objective = Asking(copy.deepcopy(policy).requires_grad_(False).eval(), shared=shared)
    elif how.sharing and not plain:
        asked = PairData(pairs(size), reference(policy.eval(), asked, {}, device=where, precision=how.precision))
    else:
        asked = PairData(pairs(size), _told(policy.eval(), asked, size.batch, shared, device))
    if size.lora_rank:
        adapt(made, Lora(size.lora_rank, ALPHA, body_layers(made)), torch.Generator())
        draw_adapters(made)
    told = time.perf_counter()
    config = TrainConfig(
        steps=size.pairs // size.batch,
        batch_size=size.batch,
        learning_rate=size.learning_rate,
        warmup=0,
        final_rate=1.0,
        beta2=0.999,  # the peer's
        precision=how.precision,
    )
    trainer = Trainer(policy, objective, asked, config, seed=0, accelerator=Accelerator(cpu=device == "cpu"))
    trainer._order = lambda epoch: torch.arange(len(asked))  # type: ignore[method-assign]  # as the peer's
    lines = [{name: value.item() for name, value in metrics.items()} for _, metrics in trainer.run()]
    ended = time.perf_counter()
    return Epoch(told - began, ended - told, [line["loss"] for line in lines], lines[0]["logps/chosen"])


@torch.no_grad()
def _told(policy: Causal, asked: PairData, batch: int, shared: bool, device: str) -> Float[Tensor, "N 2"]:
    """What the reference says, a batch after another."""
    found = []
    for index in torch.split(torch.arange(len(asked)), batch):
        tokens, row = packed({name: x.to(device) for name, x in asked.batch(index).items()}, shared=shared)
        found.append(row.sums(policy.judge(tokens, row)).view(-1, 2).cpu())
    return torch.cat(found)


def without(how: Ours) -> dict[str, Ours]:
    """Ours, ours without each of the four, and without them all."""
    less = {
        "sharing": dataclasses.replace(how, sharing=False),
        "packing": dataclasses.replace(how, packing=False),
        "chunks": dataclasses.replace(how, chunks=False),
        "cache": dataclasses.replace(how, cache=False),
    }
    none = dataclasses.replace(how, sharing=False, packing=False, chunks=False, cache=False)
    return {"all four": how, **{f"without {name}": each for name, each in less.items()}, "none of them": none}
