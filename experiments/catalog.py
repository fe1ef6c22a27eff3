"""Every claim by name. A name is what `qx reproduce` takes."""

from __future__ import annotations

from collections.abc import Callable

from experiments import (
    associative_recall,
    attention_cost,
    constant_memory,
    handwriting,
    length_extrapolation,
    mnist,
    moe_balance,
    nadaraya_watson,
    normalisation,
    parallel_in_time,
    scaling,
    stories,
    vanishing,
)
from experiments.claim import Claim, Finding, Setting

EXPERIMENTS: dict[str, tuple[Claim, Callable[[Setting], Finding]]] = {
    "associative-recall": (associative_recall.CLAIM, associative_recall.run),
    "attention-cost": (attention_cost.CLAIM, attention_cost.run),
    "handwriting": (handwriting.CLAIM, handwriting.run),
    "layernorm-batchnorm": (normalisation.CLAIM, normalisation.run),
    "length-extrapolation": (length_extrapolation.CLAIM, length_extrapolation.run),
    "linear-attention-memory": (constant_memory.CLAIM, constant_memory.run),
    "mnist": (mnist.CLAIM, mnist.run),
    "moe-balance": (moe_balance.CLAIM, moe_balance.run),
    "nadaraya-watson": (nadaraya_watson.CLAIM, nadaraya_watson.run),
    "parallel-in-time": (parallel_in_time.CLAIM, parallel_in_time.run),
    "sqrt-dk": (scaling.CLAIM, scaling.run),
    "stories": (stories.CLAIM, stories.run),
    "vanishing-gradients": (vanishing.CLAIM, vanishing.run),
}
