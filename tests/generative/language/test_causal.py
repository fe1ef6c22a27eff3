"""Models of transformers through a row of continuations: the numbers of their own forward, or a refusal with why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from backbones.continuations import Continuations
from generative.language.causal import Causal, UnsupportedModelError, check

ENDS = {"bos_token_id": 1, "eos_token_id": 2}
SIZE: dict[str, Any] = {
    **{"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    **ENDS,
}
GROUPED = {**SIZE, "num_key_value_heads": 2}
SMALL_GPT2 = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, **ENDS)
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "gpt2": lambda: GPT2LMHeadModel(SMALL_GPT2),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=8)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZE)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            **{"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64},
            **{"word_embed_proj_dim": 32, **ENDS},
        )
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**GROUPED)),
}


def made(name: str, make: Callable[[], Any] | None = None) -> Any:
    draws = torch.Generator().manual_seed(0)
    model = (make or MODELS[name])()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=draws)
    return model.train()  # as a policy is: dropout would be heard


def own(model: Any, prompt: list[int], continuation: list[int]) -> Tensor:
    """Log-probabilities of the continuation by the model's own forward."""
    whole = torch.tensor([[*prompt, *continuation]])
    logp = model(input_ids=whole).logits[0].log_softmax(-1)
    first = max(len(prompt), 1)
    return logp[first - 1 : -1].gather(1, whole[0, first:, None])[:, 0]


PROMPTS = [[3, 4, 5, 6], [7], []]
SIDES = [[[8, 9], [10, 11, 12]], [[13], [14, 15]], [[16, 17], [18, 19, 20]]]


@pytest.mark.parametrize("name", MODELS)
def test_a_row_says_what_the_models_own_forward_says(name: str) -> None:
    """Values and gradients in float64; three prompts, one of them empty, with two continuations each."""
    plain, model = made(name).double().eval(), Causal(made(name).double())
    flat = [token for prompt, sides in zip(PROMPTS, SIDES, strict=True) for part in (prompt, *sides) for token in part]
    row = Continuations([len(p) for p in PROMPTS], [[len(side) for side in sides] for sides in SIDES])
    found = model.judge(torch.tensor(flat), row)
    each = [own(plain, p, side) for p, sides in zip(PROMPTS, SIDES, strict=True) for side in sides]
    torch.testing.assert_close(found, torch.cat(each))
    torch.testing.assert_close(row.sums(found), torch.stack([one.sum() for one in each]))
    weight = torch.arange(1.0, 1 + len(found), dtype=torch.float64)
    mine = torch.autograd.grad((found * weight).sum(), [p for p in model.model.parameters() if p.requires_grad])
    truth = torch.autograd.grad((torch.cat(each) * weight).sum(), [p for p in plain.parameters() if p.requires_grad])
    for one, other in zip(mine, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)  # norms and angles are theirs, in float32


@pytest.mark.parametrize("name", MODELS)
def test_without_a_row_the_model_is_as_it_was(name: str) -> None:
    """Also with padding on the left, as a generator has it."""
    plain, ours = made(name).eval(), Causal(made(name)).model.eval()
    tokens = torch.tensor([[0, 0, 3, 4], [5, 6, 7, 8]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    torch.testing.assert_close(
        ours(input_ids=tokens, attention_mask=mask).logits[mask.bool()],
        plain(input_ids=tokens, attention_mask=mask).logits[mask.bool()],
    )


def test_a_sliding_window_is_honoured_or_refused() -> None:
    model = Causal(made("mistral", lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=6))))
    check(model, [1, 2, 3], [4, 5])
    with pytest.raises(UnsupportedModelError, match="MistralAttention: its attention looks 6 tokens back"):
        check(model, [1, 2, 3, 4], [5, 6, 7])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PhiForCausalLM(PhiConfig(**SIZE)), "PhiForCausalLM: its head is Linear"),
        (
            lambda: Gemma2ForCausalLM(Gemma2Config(**GROUPED, head_dim=8)),
            "Gemma2ForCausalLM: its config has final_logit_softcapping 30",
        ),
        (
            lambda: BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4, **ENDS)),
            "BloomForCausalLM reads no row of continuations",
        ),
    ],
)
def test_what_a_row_cannot_honour_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        check(Causal(made("", make)), [1, 2, 3, 4], [5, 6, 7])


def test_numbers_that_are_not_the_models_own_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an architecture that goes another way: here positions are lost."""
    model = Causal(made("gpt2"))
    whole = model.model.base_model.forward
    monkeypatch.setattr(
        model.model.base_model, "forward", lambda *given, **asked: whole(*given, **{**asked, "position_ids": None})
    )
    with pytest.raises(UnsupportedModelError, match=r"GPT2LMHeadModel: what it says of a row .* differs from its own"):
        check(model, [1, 2, 3, 4], [5, 6, 7])
