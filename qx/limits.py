"""What each number on the command line may be: one table for all commands, because a name means one thing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any


class UsageError(ValueError):
    """The request was wrong; the message says what and where, in one line."""


ABOVE, LEAST, UNDER, MOST = "more than {}", "at least {}", "less than {}", "at most {}"
HOLDS = {ABOVE: float.__gt__, LEAST: float.__ge__, UNDER: float.__lt__, MOST: float.__le__}

Limits = tuple[tuple[str, float], ...]
COUNTS = """steps replicas episodes worlds report_every batch_size capacity train_every gradient_steps target_every
    hidden examples count n quantiles rows width depth heads length multipliers blocks sizes horizon
    features rollout epochs window stride minibatches layers limit frames tiles tilings order resolution
    accumulate text_width text_layers latent_channels autoencoder_width autoencoder_steps"""
NOT_NEGATIVE = """seed save_every learning_starts exploration_steps learning_rate_steps final_learning_rate warmup
    weight_decay anchor omega attention sigma priority importance importance_steps planning kappa tail alpha_steps
    final_alpha burn_in entropy samples_every halvings kl adversary lora_rank"""
POSITIVE = "learning_rate critic_rate alpha beta clip clip_ratio clip_range seconds lora_alpha"
LIMITS: dict[str, Limits] = {
    **dict.fromkeys(COUNTS.split(), ((LEAST, 1),)),
    **dict.fromkeys(NOT_NEGATIVE.split(), ((LEAST, 0),)),
    "atoms": ((LEAST, 2),),
    **dict.fromkeys(POSITIVE.split(), ((ABOVE, 0), (UNDER, math.inf))),
    **dict.fromkeys(["gamma", "lam", "epsilon", "final_epsilon", "final_rate", "dropout"], ((LEAST, 0), (MOST, 1))),
    "held_out": ((LEAST, 0), (UNDER, 1)),
    "beta2": ((LEAST, 0), (UNDER, 1)),
    "ema": ((LEAST, 0), (MOST, 0.28)),
}


def check(options: Any) -> None:
    """Raises UsageError for the first number outside its `LIMITS`, or an --out that cannot become a directory."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            check(value)
        for number in value if isinstance(value, tuple) else (value,):
            for words, limit in LIMITS.get(field.name, ()):
                if isinstance(number, int | float) and not HOLDS[words](float(number), float(limit)):
                    flag = field.name.replace("_", "-")
                    raise UsageError(f"--{flag} {number:g}: expected {words.format(limit)}")
    out = getattr(options, "out", None)
    if isinstance(out, Path):
        taken = next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None)
        if taken is not None:
            raise UsageError(f"--out {out}: {taken} is a file; expected a directory to write to")
