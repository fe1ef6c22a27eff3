"""The tasks against their rules, read token by token, and the shared parts against counts by hand."""

from __future__ import annotations

import torch

from backbones import cost
from backbones.initialise import build
from backbones.transformer import Transformer
from experiments.associative_recall import ASKED, KEYS, NEAR, VALUES, Recall, gaps, makers
from experiments.length_extrapolation import LETTERS, MARK, Copy
from experiments.moe_balance import Chain
from experiments.normalisation import MARKS, LastMark
from experiments.sequences import Drawn, Predict, RecurrentReader, TransformerReader, as_large, predicted


def test_a_sample_is_a_function_of_its_index() -> None:
    data = Drawn(Recall(4, 9), 3)
    index = torch.tensor([5, 17, 5])
    batch, alone = data.batch(index), data.batch(index[1:2])
    assert torch.equal(batch["tokens"][1:2], alone["tokens"])
    assert torch.equal(batch["tokens"][0], batch["tokens"][2])
    for other in (Drawn(Recall(4, 9), 4), Drawn(Recall(4, 9), 3, "test")):
        assert not torch.equal(other.batch(index)["tokens"], batch["tokens"])


def test_recall_asks_for_the_value_that_its_key_was_shown_with() -> None:
    pairs, rest = 5, 30
    batch = Drawn(Recall(pairs, rest), 0).batch(torch.arange(400))
    between = gaps(batch["tokens"], pairs)
    for row, target, gap in zip(batch["tokens"].tolist(), batch["target"].tolist(), between.tolist(), strict=True):
        shown = dict(zip(row[0 : 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        assert len(shown) == len(set(shown.values())) == pairs
        assert all(key < KEYS <= value < KEYS + VALUES for key, value in shown.items())
        assert not any(KEYS <= token < KEYS + VALUES for token in row[2 * pairs :])  # no value is shown again
        for place, token in enumerate(row):
            asked = place >= 2 * pairs and token < KEYS
            assert target[place] == (shown[token] if asked else -1)
            assert gap[place] == (place - row.index(token) if asked else 0)
    assert between[between > 0].min() == 2
    assert between.max() == 2 * pairs + rest - 1
    share = (between > 0).double().mean(0)[2 * pairs :]
    chance = torch.tensor([max(ASKED, NEAR / (NEAR + place)) for place in range(rest)], dtype=torch.float64)
    torch.testing.assert_close(share, chance, rtol=0, atol=0.1)  # four standard errors of 400


def test_recall_gives_nothing_away_to_who_does_not_keep_the_pairs() -> None:
    """Readers that know every value of a row, or cross out what they said, or what comes next, are right once in n."""
    pairs, rest = 4, 60
    batch = Drawn(Recall(pairs, rest), 1).batch(torch.arange(1500))
    right = {"first value": 0, "crossed out": 0, "beside the query": 0}
    asked = 0
    for row, target in zip(batch["tokens"].tolist(), batch["target"].tolist(), strict=True):
        values, said = sorted(row[1 : 2 * pairs : 2]), dict[int, int]()  # a bag: their order says nothing
        for place in range(2 * pairs, len(row)):
            if target[place] < 0:
                continue
            asked += 1
            left = [value for value in values if value not in said.values()]
            said.setdefault(row[place], left[0] if left else values[0])  # another key, another value
            right["crossed out"] += said[row[place]] == target[place]
            right["first value"] += values[0] == target[place]
            right["beside the query"] += place + 1 < len(row) and row[place + 1] == target[place]
    assert right.pop("beside the query") == 0
    of_key = torch.zeros(KEYS, VALUES).index_put_(
        (batch["tokens"][batch["target"] >= 0], batch["target"][batch["target"] >= 0] - KEYS),
        torch.ones(()),
        accumulate=True,
    )
    assert of_key.amax(1).sum() / asked < 0.1  # a key's usual value: once in 16, and what is due to luck
    for number in right.values():
        assert abs(number / asked - 1 / pairs) < 0.025  # 1500 rows: a standard error of at most 0.011


def test_copy_asks_for_the_same_letters_again() -> None:
    batch = Drawn(Copy(2, 6), 0).batch(torch.arange(80))
    seen = set()
    for row, target in zip(batch["tokens"].tolist(), batch["target"].tolist(), strict=True):
        n = row.index(MARK)
        seen.add(n)
        assert all(letter < LETTERS for letter in row[:n])
        assert target[n : 2 * n] == row[:n]
        assert row[n + 1 : 2 * n] == row[: n - 1]
        assert set(target[:n] + target[2 * n :]) <= {-1}
    assert seen == {2, 3, 4, 5, 6}


def test_the_last_mark_is_asked_for() -> None:
    batch = Drawn(LastMark(9), 0).batch(torch.arange(60))
    for row, target in zip(batch["tokens"].tolist(), batch["target"].tolist(), strict=True):
        marks = [token for token in row if token < MARKS]
        assert target == [-1] * 8 + [marks[-1] if marks else MARKS]


def test_the_chain_goes_to_four_words_with_chances_of_a_half_a_quarter_and_two_eighths() -> None:
    batch = Drawn(Chain(words=10, length=40), 0).batch(torch.arange(2000))
    assert torch.equal(batch["tokens"][:, 1:], batch["target"][:, :-1])
    pair = (10 * batch["tokens"] + batch["target"]).flatten()
    count = torch.bincount(pair, minlength=100).view(10, 10)
    seen = [row / row.sum() for row in count if row.sum() > 2000 and (row > 0).sum() == 4]  # four different successors
    assert seen
    for share in seen:
        chances = torch.tensor([0.5, 0.25, 0.125, 0.125])
        torch.testing.assert_close(share.sort(descending=True).values[:4], chances, rtol=0, atol=0.025)


def test_the_loss_is_the_mean_over_what_is_asked() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    batch = {"tokens": torch.zeros(2, 3, dtype=torch.int64), "target": torch.tensor([[-1, 2, 4], [1, -1, -1]])}

    class Given(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(logits)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.weight

    losses = Predict().loss(Given(), batch, torch.zeros(2, dtype=torch.int64))
    nats = -logits.double().softmax(-1).log()
    by_hand = [float(nats[0, 1, 2] + nats[0, 2, 4]) / 2, float(nats[1, 0, 1])]
    torch.testing.assert_close(losses.value.double(), torch.tensor(by_hand).double(), rtol=0, atol=1e-5)
    right = predicted(Given(), batch)
    assert right.tolist() == (logits.argmax(-1) == batch["target"]).tolist()
    torch.testing.assert_close(losses.metrics["accuracy"], right.sum(1) / torch.tensor([2, 1]))


def test_the_networks_to_compare_are_equally_large() -> None:
    sizes = [cost.parameters(build(make, torch.Generator())) for make in makers(48).values()]
    assert max(sizes) / min(sizes) < 1.05
    aim = 5000
    width = as_large(lambda w: RecurrentReader("lstm", 10, w, 1), aim)
    near = {w: abs(cost.parameters(RecurrentReader("lstm", 10, w, 1)) - aim) for w in range(1, 40)}
    assert width == min(near, key=lambda w: near[w])


def test_readers_give_logits_that_do_not_know_the_future() -> None:
    tokens = torch.randint(9, (2, 7), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 9
    for make in (
        lambda: TransformerReader(Transformer(vocabulary=9, width=8, depth=1, heads=2)),
        lambda: RecurrentReader("lstm", 9, 8, 1),
    ):
        model = build(make, torch.Generator().manual_seed(1))
        a, b = model(tokens), model(other)
        assert a.shape == (2, 7, 9)
        torch.testing.assert_close(a[:, :4], b[:, :4], rtol=0, atol=1e-6)
        assert not torch.allclose(a[:, 4:], b[:, 4:])
