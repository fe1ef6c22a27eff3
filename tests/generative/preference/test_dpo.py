"""DPO on a language model: its first loss, its bookkeeping, and the policy that it must end at."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch

from generative.language.model import LanguageModel, ModelConfig
from generative.language.tokenizer import CharacterTokenizer
from generative.preference.data import PairData, judged, packed
from generative.preference.dpo import DPO, FLAT, TIE
from generative.preference.four import Four
from generative.preference.losses import LOSSES, PreferenceConfig
from generative.preference.pairs import Pair
from generative.preference.tokens import Plain, Tokens
from generative.train import TrainConfig, Trainer, TrainError
from lab import streams

TOKENIZER = CharacterTokenizer("abcdefgh")
PAIRS = [Pair("ab", "cd", "efgh"), Pair("c", "aaaaaa", "b"), Pair("", "h", "gh"), Pair("defgh", "a", "bc")]
KEY = torch.zeros(4, dtype=torch.int64)


CPU = torch.device("cpu")


def prepare(reference: LanguageModel, pairs: Sequence[Pair]) -> PairData:
    tokens = [Plain(TOKENIZER)(pair) for pair in pairs]
    return PairData(tokens, asked(reference, PairData(tokens)))


def asked(model: LanguageModel, pairs: PairData, tokens: int = 16_384) -> torch.Tensor:
    found = torch.full((len(pairs), 2), torch.nan, dtype=torch.float64)
    assert list(judged(model, pairs, found, device=CPU, tokens=tokens))[-1] == len(pairs)
    return found


def make(seed: int = 0) -> LanguageModel:
    return ModelConfig(width=32, depth=2, heads=2).make(TOKENIZER.size, streams.generator(seed))


def logprob(model: LanguageModel, prompts: Sequence[str], completions: Sequence[str]) -> torch.Tensor:
    """Each alone, through the full softmax, in float64."""
    model, values = copy.deepcopy(model).double(), []
    for prompt, completion in zip(prompts, completions, strict=True):
        tokens = torch.tensor([[TOKENIZER.bos, *TOKENIZER.encode(prompt + completion), TOKENIZER.eos]])
        full = model.transformer.logits(model.transformer(tokens)).log_softmax(-1)
        values.append(sum(full[0, t - 1, tokens[0, t]] for t in range(1 + len(prompt), tokens.shape[1])))
    return torch.stack(values)


def test_sequence_log_probabilities_equal_the_full_softmax_in_any_company():
    """Of both sides of each pair, whether few or all are asked at a time, the prompt read once or twice."""
    model, prompts = make(), [pair.prompt for pair in PAIRS]
    sides = [[pair.chosen for pair in PAIRS], [pair.rejected for pair in PAIRS]]
    expected = torch.stack([logprob(model, prompts, side).detach() for side in sides], dim=1)
    data = PairData([Plain(TOKENIZER)(pair) for pair in PAIRS])
    for tokens in (1, 20, 1000):
        torch.testing.assert_close(asked(model, data, tokens), expected, rtol=0, atol=1e-5)
    for shared in (True, False):
        tokens, row = packed(data.batch(torch.arange(4)), shared=shared)
        again = row.sums(model.judge(tokens, row)).view(-1, 2)
        torch.testing.assert_close(again.double().detach(), expected, rtol=0, atol=1e-5)


def test_a_batch_is_a_rectangle_and_a_row_has_no_filling():
    data = PairData([Tokens((1, 2), (3,), (4, 5)), Tokens((6,), (7, 8), (9,)), Tokens((1,), (2,), (3,))])
    batch = data.batch(torch.tensor([1, 0]))
    assert batch["tokens"].tolist() == [[6, 7, 8, 9, 0], [1, 2, 3, 4, 5]]
    assert batch["lengths"].tolist() == [[1, 2, 1], [2, 1, 2]]
    assert packed(batch)[0].tolist() == [6, 7, 8, 9, 1, 2, 3, 4, 5]
    tokens, row = packed(batch, shared=False)
    assert tokens.tolist() == [6, 7, 8, 6, 9, 1, 2, 3, 1, 2, 4, 5]
    assert row.position.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 2, 3]
    assert tokens[row.scored].tolist() == [7, 8, 9, 3, 4, 5]
    assert row.owner.tolist() == [0, 0, 1, 2, 3, 3]


def test_a_shared_prompt_has_the_gradients_of_two():
    """To 1e-5, as the losses: sharing is the same computation."""
    data, found = prepare(make(), PAIRS), []
    for shared in (True, False):
        model = make(1)
        DPO(PreferenceConfig(beta=0.3), shared=shared).loss(
            model, data.batch(torch.arange(4)), KEY
        ).value.sum().backward()
        found.append([weight.grad for weight in model.parameters()])
    for one, other in zip(*found, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_first_loss_is_ln_2_and_the_first_margin_nothing():
    model = make()
    data = prepare(model, PAIRS)
    losses = DPO(PreferenceConfig(beta=0.1)).loss(model, data.batch(torch.arange(4)), KEY)
    torch.testing.assert_close(losses.value.detach(), torch.full((4,), math.log(2)), rtol=0, atol=1e-6)
    assert losses.metrics["rewards/margins"].abs().max() < 1e-5


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_metrics_are_those_of_log_probabilities_computed_apart(name: str):
    reference, policy = make(0), make(1)
    batch = prepare(reference, PAIRS).batch(torch.tensor([2, 0, 3, 1]))
    found = DPO(PreferenceConfig((name,), beta=0.3)).loss(policy, batch, KEY)
    pairs = [PAIRS[i] for i in (2, 0, 3, 1)]
    pi_c, pi_r, ref_c, ref_r = (
        logprob(model, [pair.prompt for pair in pairs], [getattr(pair, side) for pair in pairs]).float().detach()
        for model in (policy, reference)
        for side in ("chosen", "rejected")
    )
    close = {"rtol": 0, "atol": 1e-4}
    four = [pi_c, pi_r, ref_c, ref_r]
    if LOSSES[name].per_token:
        chosen, rejected = (torch.tensor([len(getattr(p, s)) + 1.0 for p in pairs]) for s in ("chosen", "rejected"))
        four = [pi_c / chosen, pi_r / rejected, ref_c / chosen, ref_r / rejected]
    good, bad = four[:2] if name in ("simpo", "orpo") else (pi_c - ref_c, pi_r - ref_r)  # these know no reference
    expected = {
        "rewards/chosen": 0.3 * good,
        "rewards/rejected": 0.3 * bad,
        "rewards/margins": 0.3 * (good - bad),
        "rewards/accuracies": (good > bad).float(),
        "logps/chosen": pi_c,
        "logps/rejected": pi_r,
        "loss/preference": LOSSES[name](*four, 0.3),
        "zero_gradient": torch.zeros(4),
    }
    torch.testing.assert_close(found.value.detach(), expected["loss/preference"], **close)
    assert found.metrics.keys() == expected.keys()
    anchored = DPO(PreferenceConfig((name,), beta=0.3, anchor=0.5)).loss(policy, batch, KEY)
    torch.testing.assert_close(anchored.value.detach(), expected["loss/preference"] - 0.5 * pi_c, **close)
    for metric, value in expected.items():
        torch.testing.assert_close(found.metrics[metric].detach(), value, **close)
        torch.testing.assert_close(anchored.metrics[metric].detach(), value, **close)


def told(name: str, h: torch.Tensor, length: int = 1, **config: float) -> dict[str, torch.Tensor]:
    """The metrics where policy and reference differ by h [B] nats on the chosen alone, of equal lengths."""
    reference, lengths = torch.full_like(h, -900.0), torch.full(h.shape, length)
    four = Four(reference + h, reference, reference, reference)
    return DPO(PreferenceConfig((name,), **config)).told(four, lengths, lengths).metrics


@pytest.mark.parametrize("beta", [0.01, 5.0])
def test_what_is_nothing_but_rounding_is_not_ranked(beta: float):
    h = torch.tensor([-1.0, 0.0, 0.9 * TIE, 1.1 * TIE, 1.0], dtype=torch.float64)
    assert told("sigmoid", h, beta=beta)["rewards/accuracies"].tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("name", LOSSES)
def test_an_undecided_pair_teaches_however_long_it_is(name: str):
    for length in (1, 1200):
        for beta in (1e-4, 0.1, 5.0):
            flat = told(name, torch.zeros(1, dtype=torch.float64), length, beta=beta)["zero_gradient"]
            assert flat.tolist() == [0], (length, beta)


@pytest.mark.parametrize("length", [1, 1200])
@pytest.mark.parametrize("beta", [1e-3, 0.5, 20.0])
def test_a_sure_pair_teaches_nothing(beta: float, length: int):
    """The slope of DPO is 2 s(-beta h) of an undecided pair's: less than a thousandth from beta h = ln 1999 on."""
    edge = math.log(1999) / beta
    h = torch.tensor([-edge, 0.99 * edge, 1.01 * edge], dtype=torch.float64)
    assert told("sigmoid", h, length, beta=beta)["zero_gradient"].tolist() == [0, 0, 1]
    assert told("sigmoid-per-token", h * length, length, beta=beta)["zero_gradient"].tolist() == [0, 0, 1]


def test_pairs_that_teach_nothing_are_those_whose_loss_is_flat():
    """By differences: hinge is flat beyond its margin, IPO at its target, DPO where it is sure; an SFT term never."""
    h = torch.tensor([0.0, 1.9, 2.1, 30.0], dtype=torch.float64)
    zero, lengths = torch.zeros_like(h), torch.ones(4, dtype=torch.int64)
    expected = {"hinge": [0, 0, 1, 1], "sigmoid": [0, 0, 0, 1], "ipo": [0, 0, 0, 0]}
    for name, flat in expected.items():
        for anchor in (0.0, 0.1):
            objective, step = DPO(PreferenceConfig((name,), beta=0.5, anchor=anchor)), 1e-6
            slope = objective._slope(Four(h, zero, zero, zero), lengths, lengths)
            ends = [
                objective.preference(Four(h + c * step, zero + r * step, zero, zero))
                for c, r in ((1, 0), (-1, 0), (0, 1), (0, -1))
            ]
            by_hand = ((ends[0] - ends[1]).abs() + (ends[2] - ends[3]).abs()) / (2 * step)
            torch.testing.assert_close(slope, by_hand, rtol=1e-4, atol=1e-8)
            assert (slope < FLAT * by_hand[0]).int().tolist() == (flat if not anchor else [0] * 4)  # h[0] is undecided
            assert told(name, h, beta=0.5, anchor=anchor)["zero_gradient"].tolist() == (flat if not anchor else [0] * 4)
    assert told("ipo", zero + 1.0, beta=0.5)["zero_gradient"].all()


def test_a_loss_of_the_whole_batch_is_trained_whole_or_refused():
    """In two parts DPO is the same, and what looks at the whole batch is not; so that is not done."""
    data = prepare(make(), PAIRS)

    def loop(name: str, parts: int) -> Trainer:
        config = TrainConfig(steps=1, batch_size=4, accumulate=parts)
        return Trainer(make(1), DPO(PreferenceConfig((name,))), data, config, seed=0)

    assert DPO(PreferenceConfig(("sigmoid", "simpo"))).whole == ""
    whole, parts = (next(loop("sigmoid", count).run())[1]["loss"] for count in (1, 2))
    torch.testing.assert_close(whole, parts)
    for name in ("kto", "aot", "aot-unpaired"):
        next(loop(name, 1).run())
        with pytest.raises(
            TrainError, match=rf"^{name} looks at the .* of a batch, .* accumulate is 2, processes are 1;"
        ):
            loop(name, 2)


def test_training_a_language_model_ends_at_the_tilted_reference():
    """Answers worth r = ln 1, ln 2, ln 4, compared in the proportions of Bradley & Terry; 17 pairs, whole batches.

    With beta = 1/2 the ratios of the policy must become those of ref exp(r / beta) = ref * (1, 4, 16), seed 0.
    """
    answers, worth = ["a", "bb", "ccc"], [1, 2, 4]
    wins = {(0, 1): (2, 4), (0, 2): (1, 4), (1, 2): (2, 4)}  # counts in the proportion of the two worths
    assert all(win * worth[j] == lose * worth[i] for (i, j), (win, lose) in wins.items())
    pairs = []
    for (i, j), (first, second) in wins.items():
        pairs += [Pair("d", answers[i], answers[j])] * first + [Pair("d", answers[j], answers[i])] * second
    reference = make()
    data = prepare(reference, pairs)
    policy = copy.deepcopy(reference)
    config = TrainConfig(steps=250, batch_size=len(pairs), learning_rate=1e-3, warmup=10)
    for _ in Trainer(policy, DPO(PreferenceConfig(beta=0.5)), data, config, seed=0).run():
        pass
    moved = logprob(policy, ["d"] * 3, answers) - logprob(reference, ["d"] * 3, answers)
    expected = torch.tensor([0.0, math.log(4), math.log(16)], dtype=torch.float64)
    torch.testing.assert_close((moved - moved[0]).detach(), expected, rtol=0, atol=0.02)
