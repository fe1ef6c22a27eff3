"""The tokenizer and the encoder of prompts, against transformers' own loading and calls."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import CLIPTextModel, CLIPTokenizer

from generative.diffusion.latents.text import Text, TextConfig, text, tokenizer_of

CAPTIONS = [
    f"a {colour} {shape} {place} a blue goal"
    for colour in ("red", "green")
    for shape in ("agent", "key")
    for place in ("left of", "right of", "above", "below")
]
SMALL = TextConfig(merges=40, width=16, layers=1, heads=2)


def made(seed: int = 0) -> Text:
    return text(CAPTIONS, SMALL, torch.Generator().manual_seed(seed))


WORDS = made()


def test_captions_come_back_and_often_seen_words_are_one_piece() -> None:
    ids = WORDS.tokens(CAPTIONS).ids
    assert WORDS.tokenizer.batch_decode(ids, skip_special_tokens=True) == CAPTIONS
    pieces = WORDS.tokenizer.convert_ids_to_tokens(ids[0].tolist())
    assert pieces[:5] == ["<|startoftext|>", "a</w>", "red</w>", "agent</w>", "left</w>"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), max_size=20))
@settings(max_examples=200, deadline=None)
def test_every_text_can_be_written_and_read_but_for_case_and_spaces(prompt: str) -> None:
    """No piece is unknown, which in CLIP's tokenizer would be the end of the prompt."""
    ids = WORDS.tokenizer(prompt, verbose=False)["input_ids"]
    assert WORDS.tokenizer.eos_token_id not in ids[1:-1]
    normal = WORDS.tokenizer.backend_tokenizer.normalizer.normalize_str(prompt)
    read = WORDS.tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(read.split()) == "".join(normal.split())


def slow(captions: list[str], merges: int) -> list[str]:
    """Byte-pair encoding by counting everything anew (Sennrich et al. 2016, alg. 1), ties to the first numbers."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters)]
    words = [[*word[:-1], word[-1] + "</w>"] for caption in captions for word in caption.split()]
    for _ in range(merges):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs or max(pairs.values()) < 2:
            break
        first, second = min(pairs, key=lambda pair: (-pairs[pair], *map(pieces.index, pair)))
        pieces.append(first + second)
        for i, word in enumerate(words):
            joined: list[str] = []
            for piece in word:
                if joined and (joined[-1], piece) == (first, second):
                    joined[-1] = first + second
                else:
                    joined.append(piece)
            words[i] = joined
    return pieces


def test_the_vocabulary_is_in_clips_order_and_learned_as_the_paper_says() -> None:
    vocabulary = WORDS.tokenizer.get_vocab()
    by_id = sorted(vocabulary, key=vocabulary.__getitem__)
    assert [vocabulary[piece] for piece in by_id] == list(range(len(by_id)))
    assert by_id == [*slow(CAPTIONS, SMALL.merges), "<|startoftext|>", "<|endoftext|>"]
    words = "low low low low low lower lower newest newest newest newest newest newest widest widest widest"
    pieces = tokenizer_of([words], 3).get_vocab()
    assert [pieces[piece] for piece in ("es", "est</w>", "lo")] == [512, 513, 514]
    assert tokenizer_of(["no pair twice"], 10).tokenize("no") == ["n", "o</w>"]


def test_prompts_are_cut_and_filled_as_transformers_does_and_what_was_cut_is_named() -> None:
    assert WORDS.length == 16  # eight words, begin and end, rounded up
    long = "A red  agent left of a green key above a blue goal, a key near Zoë's"
    prompts = ["", "a red key", long]
    tokens = WORDS.tokens(prompts)
    theirs = WORDS.tokenizer(prompts, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    assert torch.equal(tokens.ids, theirs["input_ids"])
    assert tokens.cut[:2] == ("", "")
    kept, left = long[: len(long) - len(tokens.cut[2])], tokens.cut[2]
    assert long == kept + left
    assert WORDS.tokens([kept]).cut == ("",)
    assert left.lstrip() == "key near Zoë's"
    whole = [WORDS.tokenizer(part, verbose=False)["input_ids"][1:-1] for part in (kept, left)]
    assert whole[0] + whole[1] == WORDS.tokenizer(long, verbose=False)["input_ids"][1:-1]
    assert len(whole[0]) == 14
    with pytest.warns(UserWarning, match="14 pieces fit; left out: ") as warned:
        WORDS.encode(prompts)
    assert len(warned) == 1
    assert repr(left) in str(warned[0].message)


def test_a_prompt_is_encoded_alike_in_any_company() -> None:
    context = WORDS.encode([*CAPTIONS[:5], "", CAPTIONS[1]])["context"]
    assert context.shape == (7, 16, WORDS.features)
    assert torch.equal(context[1], context[6])
    assert torch.equal(context[1], WORDS.encode([CAPTIONS[1]])["context"][0])
    assert torch.equal(context[5], WORDS.encode([""])["context"][0])
    assert not torch.equal(context[0], context[1])
    assert WORDS.encode([])["context"].shape == (0, 16, WORDS.features)
    assert torch.equal(WORDS.null, WORDS.tokens([""]).ids[0])


def test_transformers_loads_it_and_finds_the_same_ids_and_the_same_features(tmp_path: Path) -> None:
    WORDS.save(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    assert tokenizer.model_max_length == 16
    prompts = [*CAPTIONS[:3], "", "a zebra"]
    ids = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    assert torch.equal(ids, WORDS.tokens(prompts).ids)
    with torch.no_grad():
        found = encoder(ids)[0]
    torch.testing.assert_close(found, WORDS.encode(prompts)["context"], rtol=1e-5, atol=1e-6)
    again = Text.load(tmp_path)
    assert torch.equal(again.encode(prompts)["context"], WORDS.encode(prompts)["context"])


def test_weights_come_from_the_generator_and_the_global_one_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (made(seed).encoder.state_dict() for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        assert ("norm" in name) == torch.equal(weight, other[name]), name


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="no captions"):
        text([], SMALL, torch.Generator())
    longer = tokenizer_of(CAPTIONS, 40)
    longer.model_max_length = 24
    with pytest.raises(ValueError, match=r"24 a prompt, for an encoder that knows \d+, and 16 a prompt"):
        Text(longer, WORDS.encoder)
