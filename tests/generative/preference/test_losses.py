"""The losses against published numbers, and against their formulas and derivatives in fifty digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from generative.preference.contrastive import cdpo, robust, sigmoid
from generative.preference.four import DIVERGENCES, Divergence, Four
from generative.preference.losses import LOSSES, Preference, PreferenceConfig
from generative.preference.sided import bco, kto
from tests.oracles.preference import GENERATORS, dpo_gradient

CASE = [
    torch.tensor([-0.5, -10.0, -1.0]),
    torch.tensor([-0.1, -30.0, -21.0]),
    torch.tensor([-0.5, -10.1, -0.1]),
    torch.tensor([-0.1, -20.1, -0.1]),
]

PUBLISHED = {
    "sigmoid": [0.693147, 0.313262, 0.126928],
    "cdpo": [0.693147, 0.413262, 0.326928],
    "ipo": [25.0, 25.0, 225.0],
    "hinge": [1.0, 0.0, 0.0],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_losses_equal_their_published_values(name: str):
    torch.testing.assert_close(LOSSES[name](*CASE, 0.1), torch.tensor(PUBLISHED[name]), rtol=0, atol=2e-6)


mp = mpmath.mp.clone()
mp.dps = 50
Number = Any  # of mpmath, which is untyped


def s(x: Number) -> Number:
    return 1 / (1 + mp.exp(-x))


def nll(x: Number) -> Number:
    return -mp.log(s(x))


def odds(x: Number) -> Number:
    return mp.exp(x) / (1 - mp.exp(x))


FORMULAS: dict[str, Callable[[Number, Number, Number, Number, Number], Number]] = {
    "sigmoid": lambda a, b, c, d, beta: nll(beta * (a - c - b + d)),
    "cdpo": lambda a, b, c, d, beta: 0.9 * nll(beta * (a - c - b + d)) + 0.1 * nll(-beta * (a - c - b + d)),
    "robust": lambda a, b, c, d, beta: (
        (mp.mpf(0.9) * nll(beta * (a - c - b + d)) - mp.mpf(0.1) * nll(-beta * (a - c - b + d))) / mp.mpf(0.8)
    ),
    "ipo": lambda a, b, c, d, beta: (a - c - b + d - 1 / (2 * beta)) ** 2,
    "hinge": lambda a, b, c, d, beta: max(mp.mpf(0), 1 - beta * (a - c - b + d)),
    "exo": lambda a, b, c, d, beta: sum(
        q * mp.log(q / p) for q, p in ((s(beta * (a - c - b + d)), mp.mpf(0.999)), (s(-beta * (a - c - b + d)), 0.001))
    ),
    "discopop": lambda a, b, c, d, beta: (
        s(-beta * (a - c - b + d) / 0.05) * nll(beta * (a - c - b + d))
        + s(beta * (a - c - b + d) / 0.05) * mp.exp(-beta * (a - c - b + d))
    ),
    "nca": lambda a, b, c, d, beta: nll(beta * (a - c)) + nll(-beta * (a - c)) / 2 + nll(-beta * (b - d)) / 2,
    "bco": lambda a, b, c, d, beta: nll(beta * (a - c)) + nll(-beta * (b - d)),
    "sppo": lambda a, b, c, d, beta: (a - c - 1 / (2 * beta)) ** 2 + (b - d + 1 / (2 * beta)) ** 2,
    "apo-zero": lambda a, b, c, d, beta: 1 - s(beta * (a - c)) + s(beta * (b - d)),
    "apo-down": lambda a, b, c, d, beta: s(beta * (a - c)) + 1 - s(beta * ((a - c) - (b - d))),
    "simpo": lambda a, b, c, d, beta: nll(beta * (a - b) - 0.5),
    "orpo": lambda a, b, c, d, beta: -a + beta * nll(mp.log(odds(a)) - mp.log(odds(b))),
}
"""Of one pair, as the papers have them; those of a whole batch have tests of their own below."""
ALIKE = {"sigmoid-per-token": "sigmoid", "ipo-per-token": "ipo"}
OF_BATCHES = {"kto", "aot", "aot-unpaired"}


def test_every_loss_has_a_formula():
    assert FORMULAS.keys() | ALIKE.keys() | OF_BATCHES == LOSSES.keys()


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=60, deadline=None)
@example([-1e-3, -3e-5, -0.5, -0.2], 0.5)
@given(st.lists(st.floats(-40, -1e-5), min_size=4, max_size=4), st.floats(0.02, 2.0))
def test_values_and_gradients_are_those_of_the_formula_in_fifty_digits(name: str, numbers: list[float], beta: float):
    values = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in numbers]
    found = LOSSES[name](*values, beta)
    found.sum().backward()
    formula, at = FORMULAS[name], [mp.mpf(x) for x in numbers]
    truth = formula(*at, mp.mpf(beta))
    assert found.item() == pytest.approx(float(truth), rel=1e-8, abs=1e-9)
    if name == "hinge" and abs(float(truth)) < 1e-6:
        return  # at its corner
    for i, value in enumerate(values):

        def along(x: Number, i: int = i) -> Number:
            return formula(*(x if j == i else y for j, y in enumerate(at)), mp.mpf(beta))

        slope = 0.0 if value.grad is None else value.grad.item()
        assert slope == pytest.approx(float(mp.diff(along, at[i])), rel=1e-6, abs=1e-8)


def test_every_loss_is_the_same_at_the_reference_whatever_the_completions():
    same = [CASE[0], CASE[1], CASE[0], CASE[1]]
    assert torch.equal(sigmoid(*same), torch.full((3,), math.log(2)))
    for loss in LOSSES.values():
        if loss.kind != "unreferenced":
            value = loss(*same, 0.1)
            assert torch.equal(value, value[:1].expand(3))


@settings(max_examples=300, deadline=None)
@example([0.0, 0.0, -37.25, -47.5], 2.0)  # torch's softplus is wrong in the ninth digit here: it turns linear at 20
@given(
    st.lists(st.floats(-50, 0), min_size=4, max_size=4),
    st.floats(0.01, 2.0),
)
def test_the_gradient_of_dpo_is_the_closed_formula(numbers: list[float], beta: float):
    values = [torch.tensor([x], dtype=torch.float64, requires_grad=i < 2) for i, x in enumerate(numbers)]
    sigmoid(*values, beta).sum().backward()
    h = (numbers[0] - numbers[2]) - (numbers[1] - numbers[3])
    chosen, rejected = dpo_gradient(h, beta)
    assert values[0].grad is not None
    assert values[1].grad is not None
    assert values[0].grad.item() == pytest.approx(chosen, rel=1e-9, abs=1e-15)
    assert values[1].grad.item() == pytest.approx(rejected, rel=1e-9, abs=1e-15)


SIGNS = [(1, 1, -1, -1), (1, -1, -1, 1), (-1, 1, 1, -1), (-1, -1, 1, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_finite_at_600(name: str, divergence: Divergence, dtype: torch.dtype):
    if divergence != "reverse-kl" and LOSSES[name].kind != "contrastive":
        return
    length = torch.ones(1, dtype=torch.int64)
    for signs in SIGNS:
        values = [torch.tensor([600.0 * sign], dtype=dtype, requires_grad=True) for sign in signs]
        for beta in (0.1, 1.0, 5.0):
            asked = Preference(PreferenceConfig((name,), beta=beta, divergence=divergence))
            value = asked(Four(*values), length, length)
            assert value.isfinite().all()
            slopes = torch.autograd.grad(value.sum(), values, allow_unused=True)
            assert all(slope is None or slope.isfinite().all() for slope in slopes)


def test_cdpo_and_robust_are_expectations_over_flipped_labels():
    """cDPO is the mean over labels that flip; robust is what has the clean loss as its mean when they do."""
    swapped = [CASE[1], CASE[0], CASE[3], CASE[2]]
    e = 0.2
    mean = (1 - e) * sigmoid(*CASE) + e * sigmoid(*swapped)
    torch.testing.assert_close(cdpo(*CASE, smoothing=e), mean)
    unbiased = (1 - e) * robust(*CASE, smoothing=e) + e * robust(*swapped, smoothing=e)
    torch.testing.assert_close(unbiased, sigmoid(*CASE), rtol=0, atol=1e-6)


def test_kto_weighs_gains_and_losses_around_the_batchs_own_divergence():
    """c = (2, -1), r = (4, 3): z = 2. Given a z, that is used; where the mean is negative, as of c = (-2, 1) and
    r = (-4, -3), z is 0; z has no gradient.
    """
    pi_c, pi_r = torch.tensor([2.0, -1.0], requires_grad=True), torch.tensor([4.0, 3.0])
    nothing = torch.zeros(2)

    def plain(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    found = kto(pi_c, pi_r, nothing, nothing, 0.5)
    expected = [(plain(0.5 * (2 - c)) + plain(0.5 * (r - 2))) / 2 for c, r in ((2, 4), (-1, 3))]
    assert found.tolist() == pytest.approx(expected)
    (slope,) = torch.autograd.grad(found[0], pi_c)
    assert slope.tolist() == pytest.approx([-0.5 * 0.5 * 0.25, 0.0])
    assert kto(pi_c, pi_r, nothing, nothing, 0.5, baseline=torch.tensor(1.0))[0].item() == pytest.approx(
        (plain(-0.5) + plain(1.5)) / 2
    )
    below = [(plain(1.0) + plain(-2.0)) / 2, (plain(-0.5) + plain(-1.5)) / 2]
    assert kto(-pi_c, -pi_r, nothing, nothing, 0.5).tolist() == pytest.approx(below)


def test_bco_asks_on_which_side_of_the_shift_a_reward_is():
    c, r, nothing = torch.tensor([2.0]), torch.tensor([-3.0]), torch.zeros(1)
    expected = float(nll(mp.mpf(0.5 * 2 - 0.7)) + nll(mp.mpf(0.7 + 0.5 * 3)))
    assert bco(c, r, nothing, nothing, 0.5, shift=0.7).item() == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [None, 0.2])
def test_aot_compares_ranks(smoothing: float | None):
    """Margins 5, -1, 2 beside the reference's 0, 3, -2: sorted -1, 2, 5 beside -2, 0, 3; and unpaired likewise."""
    four = [torch.tensor(x) for x in ([5.0, 0.0, 1.0], [0.0, 1.0, -1.0], [1.0, 3.0, -2.0], [1.0, 0.0, 0.0])]
    options = {} if smoothing is None else {"smoothing": smoothing}
    e = smoothing or 0.0
    for name, gaps in (("aot", [-1 + 2, 2 - 0, 5 - 3]), ("aot-unpaired", [-3 + 1, 3 + 1, 4 - 1])):
        expected = [float((1 - e) * nll(mp.mpf(0.1 * gap)) + e * nll(mp.mpf(-0.1 * gap))) for gap in gaps]
        assert LOSSES[name](*four, 0.1, **options).tolist() == pytest.approx(expected, rel=1e-5)


LENGTHS = torch.tensor([2, 4, 1]), torch.tensor([5, 1, 3])


def test_a_mixture_is_the_weighted_sum_with_its_anchor():
    config = PreferenceConfig(("sigmoid", "ipo-per-token"), (0.8, 0.2), beta=0.3, anchor=0.5)
    c, r = (length.float() for length in LENGTHS)
    divided = [CASE[0] / c, CASE[1] / r, CASE[2] / c, CASE[3] / r]
    expected = 0.8 * LOSSES["sigmoid"](*CASE, 0.3) + 0.2 * LOSSES["ipo"](*divided, 0.3) - 0.5 * CASE[0]
    torch.testing.assert_close(Preference(config)(Four(*CASE), *LENGTHS), expected)


def test_a_smoothing_reaches_those_that_smooth_and_no_others():
    found = Preference(PreferenceConfig(("cdpo", "sigmoid"), smoothing=0.3))(Four(*CASE))
    torch.testing.assert_close(found, cdpo(*CASE, smoothing=0.3) + sigmoid(*CASE))


def test_without_the_reference_its_numbers_do_not_matter():
    free = Preference(PreferenceConfig(("sigmoid",), reference_free=True))
    found = free(Four(*CASE))
    assert torch.equal(found, free(Four(CASE[0], CASE[1], CASE[2] - 7, CASE[3] + 3)))
    torch.testing.assert_close(found, torch.log1p(torch.exp(-0.1 * (CASE[0] - CASE[1]))))


def test_without_the_reference_lengths_and_anchor_count_as_with_it():
    """Two numbers of each side by hand: log pi over the length, and -0.5 log pi of the chosen."""
    free = Preference(PreferenceConfig(("sigmoid-per-token",), beta=0.7, reference_free=True, anchor=0.5))
    found = free(Four(*CASE), *LENGTHS)
    pairs = zip(CASE[0].tolist(), CASE[1].tolist(), LENGTHS[0].tolist(), LENGTHS[1].tolist(), strict=True)
    expected = [math.log1p(math.exp(-0.7 * (a / n - b / m))) - 0.5 * a for a, b, n, m in pairs]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.3, 0.8])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("name", ["sigmoid", "sigmoid-per-token", "ipo", "ipo-per-token"])
def test_a_divergence_is_of_whole_completions(name: str, divergence: Divergence, alpha: float):
    """f'(u) - f'(1) by central differences of f, u = pi / ref of the whole; then over the length where it is asked."""
    f, step = GENERATORS[divergence](alpha), 1e-6
    slope = lambda u: (f(u + step) - f(u - step)) / (2 * step)  # noqa: E731
    four, beta = [[-1.0, -7.0, -2.0], [-4.0, -2.0, -3.0], [-3.0, -6.5, -2.5], [-2.0, -3.0, -1.5]], 0.4
    config = PreferenceConfig((name,), beta=beta, divergence=divergence, alpha=alpha)
    found = Preference(config)(Four(*torch.tensor(four, dtype=torch.float64)), *LENGTHS)
    expected = []
    for a, b, c, d, n, m in zip(*four, *(length.tolist() for length in LENGTHS), strict=True):
        sides = (slope(math.exp(a - c)) - slope(1.0)), (slope(math.exp(b - d)) - slope(1.0))
        lengths = (n, m) if "per-token" in name else (1, 1)
        h = sides[0] / lengths[0] - sides[1] / lengths[1]
        expected.append(math.log1p(math.exp(-beta * h)) if "sigmoid" in name else (h - 1 / (2 * beta)) ** 2)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def rewards(config: PreferenceConfig) -> list[list[float]]:
    return [side.tolist() for side in Preference(config).rewards(Four(*CASE), *LENGTHS)]


def test_rewards_are_of_what_the_losses_look_at():
    """Of the reference where one of them looks at it, summed; else of the policy alone, per token where all are."""
    pi_c, pi_r, ref_c, ref_r = (side.tolist() for side in CASE)
    n, m = (length.tolist() for length in LENGTHS)
    against = [[0.3 * (pi - ref) for pi, ref in zip(*side, strict=True)] for side in ((pi_c, ref_c), (pi_r, ref_r))]
    alone = [[0.3 * pi for pi in side] for side in (pi_c, pi_r)]
    each = [[0.3 * pi / length for pi, length in zip(*side, strict=True)] for side in ((pi_c, n), (pi_r, m))]
    for loss, free, expected in (
        (("sigmoid",), False, against),
        (("ipo-per-token",), False, against),
        (("sigmoid", "simpo"), False, against),
        (("sigmoid",), True, alone),
        (("sigmoid", "simpo"), True, alone),
        (("ipo-per-token",), True, each),
        (("simpo",), False, each),
        (("simpo", "orpo"), False, each),
    ):
        found = rewards(PreferenceConfig(loss, beta=0.3, reference_free=free))
        assert found == [pytest.approx(side, rel=1e-5) for side in expected], (loss, free)


@pytest.mark.parametrize("name", LOSSES)
def test_what_looks_at_the_whole_batch_says_so(name: str):
    """Or the loss of each pair is what it is alone."""
    draws = torch.Generator().manual_seed(0)
    four = Four(*(-20 * torch.rand(6, generator=draws, dtype=torch.float64) for _ in range(4)))
    lengths = torch.arange(1, 7), torch.arange(6, 0, -1)
    asked = Preference(PreferenceConfig((name,), beta=0.5))
    together = asked(four, *lengths)
    alone = torch.cat([asked(Four(*(x[i : i + 1] for x in four)), *(x[i : i + 1] for x in lengths)) for i in range(6)])
    assert torch.allclose(together.mean(), alone.mean()) == (not asked.whole)
    assert asked.whole.startswith(f"{name} looks at the ") == bool(asked.whole)


def test_a_mixture_says_all_that_looks_at_the_whole_batch():
    asked = Preference(PreferenceConfig(("kto", "sigmoid", "aot")))
    assert asked.whole == "kto looks at the mean of all log-ratios and aot looks at the ranks of all margins"


NUMBERS = "expected finite numbers, 0 or more, and one at least above 0"
WRONG = [
    (PreferenceConfig(("dpo",)), "loss 'dpo': expected one of sigmoid"),
    (PreferenceConfig(()), "expected one at least"),
    (PreferenceConfig(("ipo",), (1.0, 2.0)), "2 weights for 1 losses"),
    (PreferenceConfig(weights=(-1.0,)), f"weights are -1: {NUMBERS}"),
    (PreferenceConfig(weights=(math.nan,)), f"weights are nan: {NUMBERS}"),
    (PreferenceConfig(("ipo", "nca"), (1.0, math.inf)), f"weights are 1, inf: {NUMBERS}"),
    (PreferenceConfig(("ipo", "nca"), (0.0, 0.0)), f"weights are 0, 0: {NUMBERS}"),
    (PreferenceConfig(beta=0.0), "beta is 0: expected a finite number above 0"),
    (PreferenceConfig(beta=math.nan), "beta is nan: expected a finite number above 0"),
    (PreferenceConfig(beta=math.inf), "beta is inf: expected a finite number above 0"),
    (PreferenceConfig(anchor=-1.0), "anchor is -1: expected a finite number, 0 or more"),
    (PreferenceConfig(anchor=math.nan), "anchor is nan: expected a finite number, 0 or more"),
    (PreferenceConfig(anchor=math.inf), "anchor is inf: expected a finite number, 0 or more"),
    (PreferenceConfig(smoothing=0.1), "sigmoid smooths nothing"),
    (PreferenceConfig(("robust",), smoothing=0.5), "smoothing is 0.5"),
    (PreferenceConfig(("ipo", "nca"), divergence="js"), "divergence js: not for nca"),
    (PreferenceConfig(divergence="alpha", alpha=1.0), "alpha is 1: expected"),
]


@pytest.mark.parametrize(("config", "message"), WRONG)
def test_what_there_is_not_is_refused(config: PreferenceConfig, message: str):
    with pytest.raises(ValueError, match=message):
        Preference(config)(Four(*CASE))


def test_a_loss_with_a_weight_of_nothing_is_as_if_it_were_not_there():
    """It neither looks at the batch nor at the reference, asks for no lengths, and smooths nothing."""
    for loss, weights, alone in (
        (("sigmoid", "ipo"), (1.0, 0.0), "sigmoid"),
        (("kto", "sigmoid"), (0.0, 1.0), "sigmoid"),
        (("sigmoid", "aot"), (0.0, 1.0), "aot"),
        (("sigmoid", "simpo"), (1.0, 0.0), "sigmoid"),
        (("sigmoid", "simpo"), (0.0, 1.0), "simpo"),
        (("simpo", "sigmoid-per-token", "orpo"), (1.0, 0.0, 1.0), "simpo"),
    ):
        config = PreferenceConfig(loss, weights, beta=0.3)
        assert Preference(config).whole == Preference(PreferenceConfig((alone,))).whole
        assert rewards(config) == rewards(PreferenceConfig((alone,), beta=0.3))
    found = Preference(PreferenceConfig(("sigmoid", "simpo"), (1.0, 0.0)))(Four(*CASE))
    assert torch.equal(found, sigmoid(*CASE))
    with pytest.raises(ValueError, match=r"smoothing 0\.1: sigmoid smooths nothing"):
        Preference(PreferenceConfig(("sigmoid", "cdpo"), (1.0, 0.0), smoothing=0.1))
    Preference(PreferenceConfig(("sigmoid", "nca"), (1.0, 0.0), divergence="js"))


def test_a_loss_per_token_asks_for_the_lengths():
    with pytest.raises(ValueError, match="needs the lengths"):
        Preference(PreferenceConfig(("simpo",)))(Four(*CASE))
