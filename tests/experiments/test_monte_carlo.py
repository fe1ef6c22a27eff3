"""The Monte Carlo experiments at a tiny size, their rules both ways, and their estimates by a plain loop."""

from __future__ import annotations

import pytest
import torch

from envs.catalog import load
from envs.world import World
from experiments import blackjack, blackjack_hand, mc_basic
from experiments.claim import Setting
from rl import dp

SETTING = Setting(seed=0, device=torch.device("cpu"))


def test_mc_basic_goes_through_at_a_tiny_size() -> None:
    finding = mc_basic.compare(SETTING, (1, 14, 15, 30, 100), replicas=1, iterations=1)
    assert list(finding.found) == list(mc_basic.CLAIM.stated)
    assert len(finding.rows) == 5
    assert not finding.holds  # after a single iteration


def test_episodes_of_two_steps_see_two_steps_far() -> None:
    """Zhao, fig. 5.4b: what is worth something lies at most two steps from the target, by hand."""
    world = load("zhao-5x5", {"reward.forbidden": -10})
    assert isinstance(world, World)
    found = mc_basic.converged(world, seed=0, length=2, replicas=3, iterations=30)
    near = {12: 1.9, 16: 1.9, 17: 1.9, 18: 1.9, 22: 1.9, 21: 0.9, 23: 0.9}
    expected = torch.tensor([near.get(s, 0.0) for s in range(25)], dtype=torch.float64)
    torch.testing.assert_close(found.values, expected.expand(3, -1))


def test_blackjack_goes_through_at_a_tiny_size() -> None:
    finding = blackjack.compare(SETTING, runs=3, games=20, replicas=2, steps=40, worlds=4)
    assert list(finding.found) == list(blackjack.CLAIM.stated)
    assert finding.rows
    assert not finding.holds


def test_random_games_tell_what_the_hand_is_worth() -> None:
    """40,000 games: E[rho] is 1, E[rho G] is the value, each within four standard errors; a game is 1 or -1 or 0."""
    world = load("blackjack")
    assert isinstance(world, World)
    rho, G = (x.flatten() for x in blackjack_hand.played(world.mdp, 1, range(4), 10_000))
    exact = float(dp.evaluate_exactly(world.mdp, blackjack_hand.stick_on_20(world.mdp), 1.0)[blackjack_hand.HAND])
    for sample, mean in ((rho, 1.0), (rho * G, exact)):
        assert float(sample.mean()) == pytest.approx(mean, abs=4 * float(sample.std()) / 200)
    assert set(G.tolist()) == {-1.0, 0.0, 1.0}
    assert set(rho.tolist()) <= {0.0, *(2.0**k for k in range(1, 12))}


def test_estimates_are_those_of_a_plain_loop() -> None:
    rho, G = [0.0, 2.0, 4.0, 0.0, 1.0], [1.0, -1.0, 1.0, 1.0, 0.0]
    both = torch.tensor([rho]).double(), torch.tensor([G]).double()
    plain, scaled, weight = [], [], 0.0
    total = 0.0
    for k, (w, g) in enumerate(zip(rho, G, strict=True), start=1):
        total, weight = total + w * g, weight + w
        plain.append(total / k)
        scaled.append(total / weight if weight else 0.0)
    assert blackjack_hand.ordinary_estimates(*both)[0].tolist() == pytest.approx(plain)
    assert blackjack_hand.weighted_estimates(*both)[0].tolist() == pytest.approx(scaled)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (mc_basic.judge, [0.0, 0.2, 25.0, 0.4, 0.001, 1e-12], [[0.1, -0.1], [0.0], [24.0], [0.05], [0.02], [1e-6]]),
        (
            blackjack.judge,
            [-0.2772, 3.0, 0.001, 0.001, 0.97, 0.002],
            [[-0.2768, -0.2777], [0.9], [0.02], [0.02], [0.94], [0.006]],
        ),
    ],
    ids=["mc-basic", "blackjack"],
)
def test_a_claim_holds_where_every_condition_does(rule: object, good: list[float], bad: list[list[float]]) -> None:
    assert callable(rule)
    assert rule(*good)
    for i, values in enumerate(bad):
        for value in values:
            assert not rule(*good[:i], value, *good[i + 1 :])
