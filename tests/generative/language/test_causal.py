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
from generative.language.causal import COMPARED, Causal, UnsupportedModelError, check, check_on, honoured

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


def turning(kind: str, reach: int) -> LlamaForCausalLM:
    """A Llama whose rotary embedding is of that type, and changes beyond so many tokens."""
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": reach}
    most = 4 * reach if kind == "longrope" else reach
    config = LlamaConfig(**SIZE, max_position_embeddings=most, rope_parameters=rope)
    model = made("", lambda: LlamaForCausalLM(config)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 5  # so that attention looks somewhere
    return model


def row_of(*sequences: tuple[list[int], list[int]]) -> tuple[Tensor, Continuations]:
    tokens = [token for prompt, side in sequences for token in (*prompt, *side)]
    return torch.tensor(tokens), Continuations([len(p) for p, _ in sequences], [[len(side)] for _, side in sequences])


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_angles_that_depend_on_the_longest_sequence_are_refused_beyond_the_length_where_they_begin_to(
    kind: str,
) -> None:
    """In transformers' own forward the same short sequence is told otherwise beside a long one; below that length a row
    of both says what each says alone.
    """
    plain, model, reach = turning(kind, 16), Causal(turning(kind, 16)), 16
    short, fits, long = ([1, 2], [3, 4]), ([1, 2], [*range(5, 18)]), ([1, 2], [*range(5, 19)])
    assert [len(p) + len(side) for p, side in (fits, long)] == [reach - 1, reach]
    rows = torch.zeros(2, 24, dtype=torch.int64)
    rows[0, :4], rows[1] = torch.tensor([1, 2, 3, 4]), torch.arange(24)
    beside, alone = plain(input_ids=rows).logits[0, :4], plain(input_ids=rows[:1, :4]).logits[0]
    assert (beside - alone).abs().max() > 1e-2
    tokens, row = row_of(short, fits)
    torch.testing.assert_close(row.sums(model.judge(tokens, row))[0], own(plain, *short).sum())
    with pytest.raises(UnsupportedModelError, match=f"LlamaForCausalLM: its rope type is {kind}, so a sequence of 16 "):
        model.judge(*row_of(short, long))
    model.model.config.rope_parameters = {"full_attention": model.model.config.rope_parameters, "other": {}}
    with pytest.raises(UnsupportedModelError, match=f"its rope type is {kind}"):  # of a kind of layers
        model.judge(*row_of(short, long))


@pytest.mark.parametrize("kind", ["longrope", "dynamic", "window"])
def test_the_longest_sequence_that_is_honoured_is_told(kind: str) -> None:
    """One token more is refused; of a model without a bound, nothing is said."""
    windowed = MistralConfig(**GROUPED, sliding_window=9)
    plain = made("mistral", lambda: MistralForCausalLM(windowed)) if kind == "window" else turning(kind, 16)
    model, most = Causal(plain), honoured(plain.config)
    assert most == (9 if kind == "window" else 15)
    model.judge(*row_of(([1, 2], [*range(5, 5 + most - 2)])))
    with pytest.raises(UnsupportedModelError):
        model.judge(*row_of(([1, 2], [*range(5, 5 + most - 1)])))
    assert honoured(LlamaConfig(**SIZE)) is None


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


LONG = [1 + i % 49 for i in range(4 * COMPARED)]


@pytest.mark.parametrize("name", MODELS)
def test_a_long_sequence_is_compared_with_the_models_own_forward(name: str) -> None:
    for prompt in (0, 5, len(LONG) - 5):
        check(Causal(made(name)), LONG[:prompt], LONG[prompt:])


def test_what_goes_wrong_with_length_is_seen_in_the_longest_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here positions stop rising at the tenth token; short ones agree."""
    model = Causal(made("gpt2"))
    whole = model.model.base_model.forward

    def stopping(*given: Any, position_ids: Tensor | None = None, **asked: Any) -> Any:
        return whole(*given, position_ids=None if position_ids is None else position_ids.clamp(max=9), **asked)

    monkeypatch.setattr(model.model.base_model, "forward", stopping)
    check_on(model, [([3], [4, 5]), ([3, 4], [5])])
    for sequences in ([([3], [4, 5]), (LONG[:5], LONG[5:])], [(LONG[:-20], LONG[-20:]), ([3], [4])]):
        with pytest.raises(UnsupportedModelError, match="differs from its own"):
            check_on(model, sequences)


def test_of_many_sequences_the_longest_is_what_a_window_has_to_reach() -> None:
    """The longest with its prompt; and the first, which may be the longest, is checked, too."""
    model = Causal(made("mistral", lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=6))))
    fits: list[tuple[list[int], list[int]]] = [([1], [4, 5]), ([1, 2], [3, 4, 5, 6]), ([1, 2, 3, 4, 5], [6])]
    check_on(model, fits)
    for long in (([1, 2, 3, 4, 5], [6, 7]), ([1], [2, 3, 4, 5, 6, 7])):
        for sequences in ([*fits, long, ([1], [2])], [long, *fits]):
            with pytest.raises(UnsupportedModelError, match="MistralAttention: its attention looks 6 tokens back"):
                check_on(model, sequences)
