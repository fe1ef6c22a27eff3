"""The parts of the experiments against independent computations, and each of them at a tiny size from end to end."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from backbones.initialise import build
from backbones.recurrent import Recurrent
from backbones.transformer import Transformer
from experiments import (
    associative_recall,
    length_extrapolation,
    moe_balance,
    normalisation,
    parallel_in_time,
    vanishing,
)
from experiments.claim import Claim, Finding, Setting
from experiments.sequences import RecurrentReader, TransformerReader

SETTING = Setting(seed=0, device=torch.device("cpu"))
TINY: dict[str, tuple[Claim, Callable[[], Finding]]] = {
    "associative-recall": (
        associative_recall.CLAIM,
        lambda: associative_recall.compare(
            SETTING, associative_recall.Recall(2, 12), width=16, steps=3, batch=4, seeds=2, tests=30
        ),
    ),
    "length-extrapolation": (
        length_extrapolation.CLAIM,
        lambda: length_extrapolation.compare(SETTING, most=4, width=16, steps=2, batch=4, tests=5),
    ),
    "layernorm-batchnorm": (
        normalisation.CLAIM,
        lambda: normalisation.compare(SETTING, length=4, width=8, steps=3, tests=40, seeds=2),
    ),
    "moe-balance": (
        moe_balance.CLAIM,
        lambda: moe_balance.compare(SETTING, experts=4, width=16, steps=10, batch=4, length=8),
    ),
    "parallel-in-time": (
        parallel_in_time.CLAIM,
        lambda: parallel_in_time.compare(SETTING, lengths=(4, 8, 16), tokens=16, width=16, repeats=1),
    ),
    "vanishing-gradients": (
        vanishing.CLAIM,
        lambda: vanishing.compare(SETTING, width=8, steps=14, batch=2),
    ),
}

Rule = Callable[..., bool]
# Each rule, numbers that pass all of its conditions, and for each number those that fail one condition.
RULES: dict[str, tuple[Rule, list[float], list[list[float]]]] = {
    "associative-recall": (
        associative_recall.judge,
        [0.99, 0.01, 0.5, 0.8, 1.01],
        [[0.94], [0.03], [0.9], [0.9], [1.06]],
    ),
    "length-extrapolation": (
        length_extrapolation.judge,
        [0.96, 0.95, 0.91, 0.2, 0.3, 0.4],
        [[0.94], [0.89], [0.89], [0.51], [0.51], [0.51]],
    ),
    "moe-balance": (moe_balance.judge, [0.05, 0.9, 0.01], [[0.11], [0.4], [0.03]]),
    "parallel-in-time, counted": (parallel_in_time.counted, [0.0, 1.0, 1.01], [[0.02, -0.02], [0.97, 1.03], [1.06]]),
    "parallel-in-time, timed": (parallel_in_time.timed, [0.4, 0.7, 1.2, 1.2], [[0.6], [0.6], [1.0], [1.0]]),
    "vanishing-gradients": (
        vanishing.judge,
        [1e-4, 0.05, 0.5, 1.0, 1.02, 0.98],
        [[2e-3], [5e-3], [0.05], [1.01], [1.06, 0.94], [1.06, 0.94]],
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_goes_through_at_a_tiny_size(name: str) -> None:
    claim, run = TINY[name]
    finding = run()
    assert list(finding.found) == list(claim.stated)
    assert all(len(row) == len(finding.header) for row in finding.rows)
    assert all(math.isfinite(value) for value in finding.found.values() if not isinstance(value, str))
    assert not finding.holds  # after so little


@pytest.mark.parametrize("name", RULES)
def test_a_claim_holds_where_every_condition_does(name: str) -> None:
    rule, good, bad = RULES[name]
    assert rule(*good)
    for i, values in enumerate(bad):
        for value in values:
            assert not rule(*good[:i], value, *good[i + 1 :])


def test_a_difference_of_normalisations_counts_where_it_is_large_and_clear_of_its_spread() -> None:
    clear, even = torch.tensor([0.09, 0.1, 0.11]).double(), torch.tensor([-0.01, 0.0, 0.01]).double()
    small, spread, apart = 0.4 * clear, torch.tensor([-0.3, 0.0, 0.6]).double(), 0.6 * clear
    assert normalisation.judge(1e-7, 0.1, clear, even, clear)
    for layer, batch in ((1e-4, 0.1), (1e-7, 0.005)):
        assert not normalisation.judge(layer, batch, clear, even, clear)
    for bad in (small, spread):
        assert not normalisation.judge(1e-7, 0.1, bad, even, clear)
        assert not normalisation.judge(1e-7, 0.1, clear, even, bad)
    for far in (apart, -apart):
        assert not normalisation.judge(1e-7, 0.1, clear, far, clear)


def test_recall_is_told_apart_by_the_gap_and_no_quarter_may_be_empty() -> None:
    """A reader that knows the answers to what is asked up to 12 tokens later."""
    task = associative_recall.Recall(2, 20)  # rows of 24: gaps of 2 to 5, 6 to 11, 12 to 17 and 18 to 23

    class Near(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            keys, values = tokens[:, None, 0:4:2], tokens[:, 1:4:2]
            found = (tokens[:, :, None] == keys).long().argmax(2)
            place = torch.arange(tokens.shape[1])
            answer = torch.where(place - 2 * found < 12, values.gather(1, found), 0)
            return nn.functional.one_hot(answer, 40).float()

    assert associative_recall.quarters(task) == [(2, 5), (6, 11), (12, 17), (18, 23)]
    assert associative_recall.accuracy(Near(), task, 0, 50).tolist() == [1, 1, 0, 0]
    with pytest.raises(ValueError, match=r"tests is 0: no key is asked 2 to 5 tokens later"):
        associative_recall.accuracy(Near(), task, 0, 0)


def test_the_same_seed_finds_the_same() -> None:
    _, run = TINY["moe-balance"]
    assert run().found == run().found


def test_the_gradient_of_an_rnn_is_the_product_of_its_jacobians() -> None:
    width, steps, batch = 5, 12, 3
    found = vanishing.rnn(SETTING, 0.9, width, steps, batch)
    net = build(lambda: Recurrent("rnn", width, width), vanishing.streams.generator(0, "rnn")).double()
    x = torch.randn(batch, steps, width, generator=vanishing.streams.generator(0, "inputs"), dtype=torch.float64)
    v = torch.randn(batch, 1, width, generator=vanishing.streams.generator(0, "loss"), dtype=torch.float64)[:, 0]
    u, h, slopes = 0.9 * net.weight_hh_l0.detach(), torch.zeros(batch, width, dtype=torch.float64), []
    for t in range(steps):
        h = torch.tanh(x[:, t] @ net.weight_ih_l0.detach().T + h @ u.T)
        slopes.append(1 - h.square())
    norms = [v.square().mean().sqrt()]
    for slope in reversed(slopes):
        v = (v * slope) @ u
        norms.append(v.square().mean().sqrt())
    torch.testing.assert_close(found.norm, torch.stack(norms) / norms[0], rtol=1e-10, atol=0)
    assert found.predicted == pytest.approx(0.9 * float(torch.stack(slopes).square().mean().sqrt()))


def test_the_mean_jacobian_of_an_lstm_is_that_of_autograd() -> None:
    """One sequence of one step has one Jacobian, and torch differentiates it."""
    width = 4
    found = vanishing.lstm(SETTING, 1.5, width, steps=1, batch=1)
    net = build(lambda: Recurrent("lstm", width, width), vanishing.streams.generator(0, "lstm")).double()
    with torch.no_grad():
        net.bias_ih_l0[width : 2 * width] = 1.5
    x = torch.randn(1, 1, width, generator=vanishing.streams.generator(0, "inputs"), dtype=torch.float64)

    def step(state: torch.Tensor) -> torch.Tensor:
        return net(x, state.view(1, 2, 1, width))[1].flatten()

    jacobian = torch.autograd.functional.jacobian(step, torch.zeros(2 * width, dtype=torch.float64))
    assert found.predicted == pytest.approx(float(torch.linalg.eigvals(jacobian).abs().max()), rel=1e-9)


def test_the_fitted_decay_of_an_exponential_is_its_own() -> None:
    norm = 3.0 * 0.87 ** torch.arange(60, dtype=torch.float64)
    assert vanishing.Decay(norm, 0.5).rate == pytest.approx(0.87, abs=1e-12)


def test_the_longest_path_is_counted_operation_by_operation() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x
    for _ in range(7):
        y = torch.sin(y)
    z = (y + torch.cos(x)).sum()
    # the leaf, seven sines, the sum of the two branches and the sum over features
    assert parallel_in_time.longest(z.grad_fn) == 1 + 7 + 1 + 1


def test_the_chain_grows_with_the_length_for_one_of_them() -> None:
    attention: nn.Module = build(
        lambda: TransformerReader(Transformer(vocabulary=64, width=8, depth=2, heads=2)), torch.Generator()
    )
    recurrent: nn.Module = build(lambda: RecurrentReader("lstm", 64, 8, 1), torch.Generator())
    flat = [parallel_in_time.sequential(attention, n, 0) for n in (4, 8, 16)]
    rising = [parallel_in_time.sequential(recurrent, n, 0) for n in (4, 8, 16)]
    assert flat[0] == flat[1] == flat[2]
    assert rising[2] - rising[1] == 2 * (rising[1] - rising[0]) > 0


def test_other_company_moves_an_output_of_batchnorm_alone() -> None:
    tokens = torch.randint(8, (40, 6), generator=torch.Generator().manual_seed(0))
    moved = {}
    for norm in ("layer", "batch"):
        model = build(lambda norm=norm: normalisation.Normalised(norm, 16, 6), torch.Generator().manual_seed(1))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        moved[norm] = normalisation.moved(model, tokens)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])
        model.eval()
        torch.testing.assert_close(model(tokens)[:3], model(tokens[:3]), rtol=0, atol=1e-6)  # in use neither does
    assert moved["layer"] < 1e-6
    assert moved["batch"] > 0.01


def test_batchnorm_has_statistics_of_its_own_for_each_step() -> None:
    """In use, a step t of the network is what torch's own BatchNorm number t makes of it."""
    model = build(lambda: normalisation.Normalised("batch", 6, 3), torch.Generator().manual_seed(0))
    tokens = torch.randint(8, (30, 5), generator=torch.Generator().manual_seed(1))
    model(tokens[:, :3])
    model.eval()
    h = torch.zeros(30, 6)
    for t in range(5):
        norm = model.norms[min(t, 2)]
        x = model.read.weight[tokens[:, t]] + h @ model.carry.weight.T
        h = torch.tanh((x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias)
    torch.testing.assert_close(model(tokens)[:, -1], model.head(h), rtol=0, atol=1e-5)
    assert not torch.equal(model.norms[0].running_mean, model.norms[2].running_mean)
