"""Happier stories: the rule by hand, its pairs, which beta counts, and the whole with a tiny teller of few words."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from backbones.initialise import build
from backbones.transformer import Transformer
from experiments import happier_stories
from experiments.claim import DataError, Setting
from experiments.happier_stories import Size, Told, by_beginning, chosen, judge, paired, row, tell
from experiments.happiness import FEW, happiness
from generative.language.model import LanguageModel
from generative.language.pieces import PieceTokenizer
from generative.preference.drift import Drift
from generative.train import TrainConfig
from lab import streams

SETTING = Setting(seed=0, device=torch.device("cpu"))
WORDS = [" happy", " smiled", " sad", " cried", " dog", " park", " red", " ball", " the", " ran"]
BYTES = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]
PIECES = PieceTokenizer([*BYTES, " ", *WORDS], [0.0] * (260 + len(WORDS)))
HAPPY = PIECES.pieces.index(" happy")


def teller() -> LanguageModel:
    """Untrained; it says words, not bytes."""
    model = build(
        lambda: Transformer(vocabulary=PIECES.size, width=16, depth=1, heads=2, length=256, tied=False),
        torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        model.head.weight[3:260] = 0
        model.head.weight[260:] *= 5
    return LanguageModel(model)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happier_stories, "LIMIT", 12)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Lily was happy. She smiled and laughed!", 3),
        ("He was sad, so sad, and cried.", -3),
        ("They were unhappy, but made a funny hat.", 0),
        ("Happily, he didn't fear the scary dog.", -1),
        ("The nomad made badges of sadness", -1),
        ("happyhappy smil", 0),
        ("", 0),
    ],
)
def test_the_rule_counts_whole_words(text: str, count: int) -> None:
    assert happiness(text) == 100 * count / FEW


def test_a_long_story_is_counted_by_the_hundred() -> None:
    assert happiness("the dog was happy " * 50) == 25
    assert happiness("the dog was happy and sad " * 50) == 0


def test_the_happiest_is_paired_with_the_saddest_while_they_differ() -> None:
    score = torch.tensor([[3.0, -2.0, 0.5, 1.0, 2.9], [0.0, 1.9, 0.5, 0.1, 0.2]], dtype=torch.float64)
    stories = [[[10 * b + k, 1] for k in range(5)] for b in range(2)]
    pairs = paired(Told([[1, 7], [1, 8]], stories, [[""] * 5] * 2, score, 1.0, 1.0))
    assert [(pair.prompt, pair.chosen[0], pair.rejected[0]) for pair in pairs] == [((1, 7), 0, 1), ((1, 7), 4, 2)]


def test_the_happiest_beta_within_the_bound_counts() -> None:
    assert chosen({0.1: (12.0, 9.0), 0.3: (9.0, 5.0), 1.0: (2.0, 4.0)}) == 0.3
    assert chosen({0.1: (12.0, 9.0), 0.3: (11.0, 5.0)}) == 0.3


@pytest.mark.parametrize(
    ("numbers", "holds"),
    [((2.0, 0.1, 10.0), True), ((1.9, 0.1, 1.0), False), ((3.0, -0.1, 1.0), False), ((3.0, 1.0, 10.1), False)],
)
def test_the_claim_holds_where_all_its_bars_are_cleared(numbers: tuple[float, float, float], holds: bool) -> None:
    assert judge(*numbers) == holds


def test_what_is_told_is_a_function_of_the_seed_and_counted_right() -> None:
    model, begun = teller(), ["the dog", "a ball is"]
    first, again, other = (tell(model, PIECES, begun, seed, 6) for seed in (0, 0, 1))
    assert first.stories == again.stories
    assert first.stories != other.stories
    assert first.prompts == [[1, *PIECES.encode(text)] for text in begun]
    assert [len(told) for told in first.stories] == [6, 6]
    for told, texts, scores in zip(first.stories, first.texts, first.score.tolist(), strict=True):
        for story, text, score in zip(told, texts, scores, strict=True):
            assert text == PIECES.decode(story)
            assert score == happiness(text)
    endings = [story[-1] == PIECES.eos for told in first.stories for story in told]
    assert first.over == sum(endings) / 12


def test_no_prompt_that_judges_was_learned_from() -> None:
    h = happier_stories
    assert not {*h.NAMES} & {*h.UNSEEN_NAMES}
    assert not {*h.BEGINNINGS} & {*h.UNSEEN}
    assert len(set(h.UNSEEN)) == 6
    assert len(set(h.written(h.UNSEEN, h.UNSEEN_NAMES))) == 24


def test_the_interval_is_of_beginnings() -> None:
    """Four names of each: prompts 0 to 3 are of the first. By hand: means 1 to 6, deviation 1.8708, 2.5706 of those."""
    score = torch.zeros(24, 2, dtype=torch.float64)
    for prompt in range(24):
        score[prompt] = torch.tensor([prompt // 4 + prompt % 4, prompt // 4 - prompt % 4]) + 1
    assert by_beginning(score).tolist() == [1, 2, 3, 4, 5, 6]
    begun = happier_stories.written(happier_stories.UNSEEN, happier_stories.UNSEEN_NAMES)
    assert all(begun[4 * b].startswith(begun[4 * b + 3].split("Bob")[0]) for b in range(6))
    told = Told([[1]] * 24, [[[1], [1]]] * 24, [["", ""]] * 24, score, 1.0, 1.0)
    assert row("", told, None)[1] == f"3.50 +- {2.5706 * 1.8708 / math.sqrt(6):.2f}"


def scored(prompts: int, values: list[float]) -> Told:
    """Two stories of each prompt; beginning b scores values[b % len(values)] with the name 0, 1 more with the next."""
    each = prompts // 6
    score = torch.tensor([values[p // each % len(values)] + p % each for p in range(prompts)], dtype=torch.float64)
    return Told([[1]] * prompts, [[[4], [5]]] * prompts, [["", ""]] * prompts, score[:, None].expand(-1, 2), 1.0, 1.0)


def test_the_beta_is_chosen_by_what_was_learned_from_and_judged_by_what_was_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the known prompts 0.3 is the happier, of the unseen ones 1; with 0.3 the six beginnings gain 1, 1, 1, 2, 2, 2.

    Student's of five degrees, 2.5706, times their deviation, 0.54772, over the root of six.
    """
    policies = {0.3: teller(), 1.0: teller()}
    gains = {0.3: [1.0, 1.0, 1.0, 2.0, 2.0, 2.0], 1.0: [5.0] * 6}

    def told(model: LanguageModel, pieces: PieceTokenizer, begun: list[str], seed: int, each: int) -> Told:
        beta = next((beta for beta, policy in policies.items() if policy is model), None)
        if begun == happier_stories.written(happier_stories.BEGINNINGS, happier_stories.NAMES):
            known = scored(48, [0.0 if beta is None else 9.0 - beta])
            return dataclasses.replace(known, score=known.score + torch.tensor([0.0, 5.0]))  # so that there are pairs
        return scored(24, [0.0] * 6 if beta is None else gains[beta])

    monkeypatch.setattr(happier_stories, "tell", told)
    monkeypatch.setattr(happier_stories, "learned", lambda setting, folder, data, beta, *rest: policies[beta])
    kl = {24: 7.0, 48: 3.0}
    monkeypatch.setattr(
        happier_stories, "gone", lambda policy, model, told, setting: Drift(kl[len(told.prompts)], 0.1, 1.0, 0.1, 48)
    )
    finding = happier_stories.compare(SETTING, teller(), PIECES, Size(2, 2, betas=(0.3, 1.0)))
    assert "with beta 0.3" in finding.verdict
    low = 1.5 - 2.5706 * 0.54772 / math.sqrt(6)
    assert list(finding.found.values()) == [1.5, pytest.approx(low, abs=2e-3), 7.0]
    said = [text.get_text() for axes in finding.figure.axes for text in axes.texts]
    assert sum(text.count("before (") for text in said) == 3  # of six beginnings the first three


def test_the_kl_is_called_what_it_is() -> None:
    """Of so many tokens, in which few stories end."""
    assert list(happier_stories.CLAIM.stated.items())[2] == ("KL to the reference, nats in 200 tokens", "<= 10")
    assert "10 nats in 200 tokens" in happier_stories.CLAIM.claim


def test_it_goes_through_at_a_tiny_size_and_two_updates_gain_nothing() -> None:
    size = Size(told=4, judged=2, betas=(0.3, 1.0), train=TrainConfig(steps=2, batch_size=4, learning_rate=1e-6))
    finding = happier_stories.compare(SETTING, teller(), PIECES, size)
    assert list(finding.found) == list(happier_stories.CLAIM.stated)
    assert [line[0] for line in finding.rows] == ["reference", "beta 0.3", "beta 1"]
    assert all(len(line) == len(finding.header) for line in finding.rows)
    assert not finding.holds
    gain, _, kl = finding.found.values()
    assert abs(float(gain)) < 0.5
    assert abs(float(kl)) < 1e-3


def test_what_is_found_is_of_the_policy_against_the_model_on_unseen_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = teller()
    with torch.no_grad():
        policy.transformer.head.weight[HAPPY] *= 1.5
    monkeypatch.setattr(happier_stories, "learned", lambda *given: policy)
    gain, low, kl = happier_stories.compare(SETTING, teller(), PIECES, Size(4, 8, betas=(0.3,))).found.values()
    begun = happier_stories.written(happier_stories.UNSEEN, happier_stories.UNSEEN_NAMES)
    seed = streams.derive(SETTING.seed, "unseen")
    before, after = (tell(model, PIECES, begun, seed, 8).score.mean().item() for model in (teller(), policy))
    assert abs(after - before) > 0.1
    assert gain == pytest.approx(after - before, abs=1e-3)
    assert float(low) < float(gain)
    assert float(kl) > 0.01


def test_a_claim_without_its_data_says_what_it_needs(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(DataError, match=r"name the folder of stories260K.bin and tok512.bin with --data"):
            happier_stories.run(Setting(seed=0, device=torch.device("cpu"), data=folder))
