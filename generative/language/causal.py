"""A causal language model of transformers, asked for the log-probabilities of continuations and for nothing else.

The model's own layers run over one row of tokens (`backbones.continuations`): prompts once for all their continuations,
no padding. Its attention is exchanged for ours by transformers' own seam for that, `AttentionInterface`; without a row
it is torch's as before, so that the model generates and saves as ever. The head is multiplied only where a token is
scored, a chunk at a time (`backbones.likelihood`): logits [B, T, V] never exist.

What an architecture does that a row cannot honour is refused by name: windows that are shorter than the sequence,
rotary angles that depend on the longest sequence beside it, sinks and caps of the attention's logits, scaled or capped
logits of the head. `check` compares with the model's own forward, `check_on` for all of some sequences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from backbones.continuations import Continuations
from backbones.likelihood import log_probability
from generative.saved import ModelError

NAME = "quincunx"
STRANGE = ("s_aux", "softcap")  # of an attention
GROWING = ("longrope", "dynamic")
"""Rotary embeddings whose angles depend on the longest sequence of a batch, once that is beyond a length."""
ORIGINAL = "original_max_position_embeddings"
SCALES = {  # of a head's logits, and where they do nothing
    "final_logit_softcapping": None,
    "logit_scale": 1.0,
    "logits_scaling": 1.0,
    "lm_head_multiplier": 1.0,
    "output_multiplier": 1.0,
}
AGREE = 1e-3
"""Nats by which a log-probability of some ten tokens may differ from the model's own in float32."""
COMPARED = 16
"""The last tokens of a sequence, so many at most, whose log-probabilities are compared: logits [T, V] are dear."""


class UnsupportedModelError(ModelError):
    """The model does what a row of continuations cannot honour; the message says what."""


class Causal(nn.Module):
    """log p of continuations under a model of transformers with a language-modelling head.

    Its dropout is switched off, as usual for preferences: policy and reference are asked for the same numbers.

    Args:
        model: any with a `base_model` and output embeddings.
        checkpointing: whether a layer's activations are computed again for the gradient rather than kept: less memory,
            and a third more work.

    Raises:
        UnsupportedModelError: for a head that is more than a matrix, or layers that cannot compute again.
    """

    model: Any

    def __init__(self, model: Any, *, checkpointing: bool = False) -> None:
        super().__init__()
        config = model.config.get_text_config()
        head, kind = model.get_output_embeddings(), type(model).__name__
        if not isinstance(head, nn.Linear) or head.bias is not None:
            raise UnsupportedModelError(f"{kind}: its head is {head}; expected a matrix without a bias")
        for scale, nothing in SCALES.items():
            if (found := getattr(config, scale, None)) not in (None, nothing):
                raise UnsupportedModelError(f"{kind}: its config has {scale} {found}; expected plain logits")
        model.set_attn_implementation(NAME)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            for name in [each for each, share in vars(module).items() if "drop" in each and isinstance(share, float)]:
                setattr(module, name, 0.0)  # dropout by functions, and of whole layers
        if checkpointing:
            if not model.supports_gradient_checkpointing:
                raise UnsupportedModelError(f"{kind}: its layers cannot compute their activations again")
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model = model

    def judge(self, tokens: Int64[Tensor, "N"], row: Continuations) -> Float[Tensor, "M"]:
        """Natural log-probability of each token that `row` scores, given what it sees.

        Raises:
            UnsupportedModelError: when an attention layer asks for what a row cannot honour.
        """
        hidden = states(self.model, tokens, row)
        return log_probability(hidden[row.before], self.model.get_output_embeddings().weight, tokens[row.scored])


def states(model: Any, tokens: Int64[Tensor, "N"], row: Continuations) -> Float[Tensor, "N D"]:
    """The hidden state of each token of a row, by the body of a model whose attention is ours.

    Raises UnsupportedModelError when a layer asks for what a row cannot honour.
    """
    _refuse_growing(model, row)
    nothing = tokens.new_zeros(1, 1, 1, 1, dtype=torch.bool)  # a mask that is ready, so that none is made
    asked = {"position_ids": row.position[None], "attention_mask": nothing, "continuations": row}
    hidden: Tensor = model.base_model(input_ids=tokens[None], use_cache=False, **asked).last_hidden_state
    return hidden[0]


def _refuse_growing(model: Any, row: Continuations) -> None:
    """Raises UnsupportedModelError for a row so long that its other sequences would get other angles."""
    for kind, reach in _growing(model.config.get_text_config()):
        if (longest := int(row.position.max()) + 1) >= reach:
            raise UnsupportedModelError(
                f"{type(model).__name__}: its rope type is {kind}, so a sequence of {longest} tokens changes what is "
                f"said of those beside it; expected fewer than {reach}"
            )


def _growing(config: Any) -> Iterator[tuple[str, int]]:
    """(type, tokens from which they change) of rotary angles that depend on the longest sequence."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for rope in (found, *found.values()):  # of all layers, or of each kind of them
        if isinstance(rope, Mapping) and (kind := rope.get("rope_type", rope.get("type"))) in GROWING:
            lengths = (rope.get(ORIGINAL), getattr(config, ORIGINAL, None), config.max_position_embeddings)
            yield kind, min(length for length in lengths if length is not None)


def honoured(config: Any) -> int | None:
    """Tokens that a sequence of a row may have by the text configuration of a model; None where it sets no bound."""
    window = getattr(config, "sliding_window", None)
    bounds = [reach - 1 for _, reach in _growing(config)] + ([] if window is None else [window])
    return min(bounds, default=None)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    continuations: Continuations | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: ours where there is a row, else torch's."""
    if continuations is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return found
    name, window = type(module).__name__, options.get("sliding_window")
    for strange in STRANGE:
        if options.get(strange) is not None:
            raise UnsupportedModelError(f"{name}: its attention has {strange}, which a row of continuations has not")
    if window is not None and window <= int(continuations.position.max()):
        raise UnsupportedModelError(
            f"{name}: its attention looks {window} tokens back; expected sequences no longer than that"
        )
    return continuations.attend(query, key, value, scaling).transpose(1, 2), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def check_on(model: Causal, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
    """`check` the first of the sequences and the longest, which has all the length that a row has to honour.

    Args:
        model: that is to read them all.
        sequences: prompt and continuation of each, in tokens; one at least.

    Raises UnsupportedModelError as `check` does.
    """
    longest = max(sequences, key=lambda each: len(each[0]) + len(each[1]))
    check(model, *sequences[0])
    if longest is not sequences[0]:
        check(model, *longest)


@torch.no_grad()
def check(model: Causal, prompt: Sequence[int], continuation: Sequence[int]) -> None:
    """Compare with the model's own forward on the last tokens of one sequence, `COMPARED` at most.

    Raises:
        UnsupportedModelError: where they differ by more than `AGREE`, relative to the size where that is above 1, or
            where the model cannot read a row at all.
    """
    device = next(model.parameters()).device
    whole = torch.tensor([*prompt, *continuation], device=device)
    row = Continuations([len(prompt)], [[len(continuation), len(continuation)]], device)
    twice = torch.tensor([*prompt, *continuation, *continuation], device=device)
    scored = len(whole) - max(len(prompt), 1)
    count = min(scored, COMPARED)
    try:
        mine = model.judge(twice, row).view(2, scored)[:, scored - count :].sum(1)  # [2]
        logits = model.model(input_ids=whole[None], use_cache=False, logits_to_keep=count + 1).logits[0].float()
    except UnsupportedModelError:
        raise
    except Exception as error:  # whatever an architecture stumbles over
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UnsupportedModelError(f"{type(model.model).__name__} reads no row of continuations ({reason})") from None
    own = logits[-count - 1 : -1].log_softmax(-1).gather(1, whole[len(whole) - count :, None]).sum()
    apart = float((mine - own).abs().max())
    if not apart <= AGREE * max(1.0, float(own.abs())):
        raise UnsupportedModelError(
            f"{type(model.model).__name__}: what it says of a row of continuations differs from its own by {apart:.2g}"
        )
