"""Tokens a second: our Transformer beside Hugging Face's Llama, of equal size and with equal weights.

    forward      logits of every position of a batch, without gradients
    training     forward, loss, backward and a step of AdamW, torch's own for both
    generation   greedy, with a cache: the same prompts, the same number of new tokens; reading the prompts counts

Both models run in one process, turn by turn, so that whatever else the machine does falls on both; a figure is the
median over the rounds. Before anything is timed their logits must agree. The peer runs as its library has it by
default (attention by torch's kernel, a cache that grows), and beside that with its documented switches: a cache of
fixed size and, where asked for, torch.compile. Peak memory is in `attention_memory`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CompileConfig, LlamaConfig, LlamaForCausalLM

from backbones.convert import llama
from backbones.cost import flops
from backbones.initialise import build
from backbones.product import able, multiply
from backbones.transformer import Transformer
from generative.language.generate import generate
from generative.language.model import LanguageModel

OURS, PEER = "quincunx", "transformers"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
AGREE = {"float32": 1e-4, "bfloat16": 0.25}  # between logits; bfloat16 has 8 bits
Call = Callable[[], Any]


@dataclass(frozen=True)
class Size:
    """What is measured."""

    vocabulary: int = 32_000
    """Tokens there are. More make the last layer, which both must multiply by, the larger part."""
    width: int = 256
    """Features of a position."""
    depth: int = 4
    """Blocks."""
    heads: int = 4
    """Attention heads; they divide the width."""
    groups: int = 4
    """Key-value heads; they divide the heads."""
    hidden: int = 688
    """Inner width of the feed-forward network."""
    batch: int = 8
    """Rows of forward and training."""
    length: int = 256
    """Tokens of each of them."""
    prompt: int = 32
    """Tokens of each prompt that generation continues."""
    new: int = 128
    """Tokens that it adds to each."""
    rows: tuple[int, ...] = (1, 16)
    """How many prompts are continued together; each number is measured."""


@dataclass(frozen=True)
class Result:
    """One measurement."""

    job: str
    way: str
    tokens_per_second: float
    seconds: float
    """Of one call: the median over the rounds."""


def ours(size: Size, generator: torch.Generator) -> LanguageModel:
    """Llama, as our Transformer."""
    made = build(
        lambda: Transformer(
            vocabulary=size.vocabulary,
            width=size.width,
            depth=size.depth,
            heads=size.heads,
            groups=size.groups,
            hidden=size.hidden,
        ),
        generator,
    )
    return LanguageModel(made).eval()


def peer(size: Size, model: LanguageModel | None = None) -> LlamaForCausalLM:
    """Llama as Hugging Face has it, with the weights of `model` where one is given. No token ends a text."""
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.hidden,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        num_key_value_heads=size.groups,
        max_position_embeddings=max(size.length, size.prompt + size.new),
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        made = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    if model is not None:
        made.load_state_dict(llama.save(model.transformer)[1], strict=False)  # tied: no head of its own
    return made.eval()


def words(size: Size, rows: int, length: int, generator: torch.Generator) -> Tensor:
    """Random tokens, [rows, length]."""
    return torch.randint(size.vocabulary, (rows, length), generator=generator)


@torch.no_grad()
def difference(model: LanguageModel, other: LlamaForCausalLM, tokens: Tensor) -> float:
    """The largest difference between the logits of the two."""
    return (_logits(model, tokens) - _logits(other, tokens)).abs().max().item()


def _logits(model: Any, tokens: Tensor) -> Tensor:
    if isinstance(model, LanguageModel):
        return model.transformer.logits(model.transformer(tokens))
    return model(tokens, use_cache=False).logits


def forward(model: Any, tokens: Tensor) -> Call:
    """Logits of all positions."""

    def call() -> Tensor:
        with torch.no_grad():
            return _logits(model, tokens)

    return call


def training(model: Any, tokens: Tensor) -> Call:
    """One update on the mean over all tokens but the first of each row. Returns the loss before it."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    score = torch.ones_like(tokens, dtype=torch.bool)
    score[:, 0] = False

    def call() -> float:
        if isinstance(model, LanguageModel):
            loss = -model(tokens, score).sum() / score.sum()
        else:
            loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    return call


def generation(model: Any, prompts: Tensor, new: int, **switches: Any) -> Call:
    """The continuations, as lists of tokens."""
    if isinstance(model, LanguageModel):
        rows = prompts.tolist()
        return lambda: generate(model, rows, limit=new, end=-1)  # a token that there is not: no row ends
    asked = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": new, "do_sample": False}
    return lambda: model.generate(prompts, **asked, **switches)[:, prompts.shape[1] :].tolist()


def ways(
    model: LanguageModel, other: LlamaForCausalLM, job: str, tokens: Tensor, new: int, *, compiled: bool
) -> dict[str, Call]:
    """Every way to do a job; the names of the peer's begin with `PEER`."""
    if job == "generation":
        static = {"cache_implementation": "static", "disable_compile": True}
        made = {
            OURS: generation(model, tokens, new),
            PEER: generation(other, tokens, new),
            f"{PEER}, static cache": generation(other, tokens, new, **static),
        }
        if compiled:
            settings = CompileConfig(mode="default", fullgraph=False)
            settings._compile_all_devices = True  # `generate` compiles on CUDA alone, unless told so
            static = {"cache_implementation": "static", "compile_config": settings}
            made[f"{PEER}, static cache, compiled"] = generation(other, tokens, new, **static)
        return made
    do = {"forward": forward, "training": training}[job]
    made = {OURS: do(model, tokens), PEER: do(other, tokens)}
    if compiled:
        made[f"{PEER}, compiled"] = do(torch.compile(other), tokens)
    return made


def measure(
    job: str, calls: dict[str, Call], tokens: int, seconds: float, device: str, *, exact: bool = True
) -> Iterator[Result]:
    """Every way to do a job of so many tokens, turn by turn for `seconds` in all and at least three rounds.

    Raises ValueError when two ways differ: where `exact`, in the tokens they write (in bfloat16 the likeliest two are
    often equal), and in the first losses by more than a hundredth.
    """
    said = {way: call() for way, call in calls.items()}  # compiles and allocates; not timed
    mine = said[OURS]
    for way, found in said.items():
        differs = abs(found - mine) > 0.01 * abs(mine) if isinstance(mine, float) else False
        if differs or (exact and isinstance(mine, list) and found != mine):
            raise ValueError(f"{job}: {way} does not answer as {OURS} does, so their times compare nothing")
    del said
    took: dict[str, list[float]] = {way: [] for way in calls}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(took[OURS]) < 3:
        for way, call in calls.items():
            took[way].append(_seconds(call, device))
    for way, times in took.items():
        median = statistics.median(times)
        yield Result(job, way, tokens / median, median)


def _seconds(call: Call, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def operations(size: Size) -> float:
    """Floating-point operations of a forward pass for one token of a row of `size.length`, its logits included."""
    model = ours(size, torch.Generator().manual_seed(0)).transformer
    one = torch.zeros(1, size.length, dtype=torch.int64)
    return flops(model, one) / size.length + 2 * size.vocabulary * size.width


def fastest(device: str, dtype: str, seconds: float = 1.0) -> float:
    """Floating-point operations a second of the fastest square matrix product: what the machine was seen to do."""
    n, best = (8192 if device == "cuda" else 1024), 0.0
    a, b = (torch.ones(n, n, device=device, dtype=DTYPES[dtype]) for _ in range(2))
    products: list[Call] = [lambda: a @ b] + ([lambda: multiply(a, b)] if able(b) else [])
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        best = max(best, *(2 * n**3 / _seconds(product, device) for product in products), 0.0)
    return best
