"""The corridor's exact values against the book's formula, the rule both ways, and the experiment at a small size."""

from __future__ import annotations

import math

import pytest
import torch
from matplotlib.figure import Figure

from experiments import short_corridor
from experiments.claim import Setting
from experiments.episodes import endless
from experiments.short_corridor import Learnt, judge
from rl.gradient.softmax import Softmax
from rl.recipes.gradient import ReinforceConfig

GOOD = (-11.657, 0.586, -12.5, -11.9, 0.58, 0.2)


def test_the_rule_holds_for_good_numbers_and_for_none_that_is_off() -> None:
    assert judge(*GOOD)
    bad = (-11.8, 0.61, -13.2, -12.7, 0.65, 0.5)
    for i, wrong in enumerate(bad):
        assert not judge(*GOOD[:i], wrong, *GOOD[i + 1 :])
    assert not judge(*GOOD[:5], math.inf)


def test_values_are_those_of_the_formula() -> None:
    """With left 1 - p and right p: v = -(4 - 2p) / (p (1 - p)), from three linear equations by hand."""
    p = torch.tensor([0.05, 0.5, 2 - math.sqrt(2), 0.95], dtype=torch.float64)
    torch.testing.assert_close(short_corridor.values(p), -(4 - 2 * p) / (p * (1 - p)))
    assert float(short_corridor.values(p)[2]) == pytest.approx(-6 - 4 * math.sqrt(2))


def test_the_actor_goes_right_with_the_chance_it_was_given() -> None:
    """Whatever it was before, in every state; the other way round it would begin at 0.95."""
    world = short_corridor.corridor()
    agent = endless("reinforce", world, ReinforceConfig(), replicas=2, seed=0).agent
    assert isinstance(agent, Softmax)
    short_corridor.begin(agent, 0.05)
    look = world.observe(ReinforceConfig().observation).expand(2, -1, -1)
    policy, _ = agent.policy(look, agent.memory(look.shape[1]))
    torch.testing.assert_close(policy, torch.tensor([0.95, 0.05]).double().expand_as(policy), atol=1e-6, rtol=0)


def test_a_ratio_asks_that_both_arrive() -> None:
    """40 episodes over never would be 0, which is less than a half of anything."""
    assert short_corridor.sooner(40.0, 480.0) == pytest.approx(1 / 12)
    for helped, plain in ((40.0, math.inf), (math.inf, 40.0), (math.inf, math.inf)):
        assert short_corridor.sooner(helped, plain) == math.inf


def test_arrival_is_where_the_mean_stays_above_the_bar() -> None:
    value = torch.tensor([[-80.0, -14, -16, -13, -12], [-80, -14, -16, -13, -12]], dtype=torch.float64)
    assert Learnt(value, value).arrival == 30
    assert Learnt(value[:, :3], value[:, :3]).arrival == math.inf


def test_it_begins_where_the_book_s_does_and_improves() -> None:
    shares: list[float] = []
    setting = Setting(seed=0, device=torch.device("cpu"), report=lambda share, note: shares.append(share))
    finding = short_corridor.compare(setting, replicas=3, episodes=20)
    assert list(finding.found) == list(short_corridor.CLAIM.stated)
    assert isinstance(finding.figure, Figure)
    values = [finding.found[f"value after 500 episodes: {who}"] for who in ("REINFORCE", "with baseline")]
    assert all(-82 < float(value) < -11.6 for value in values)
    assert not finding.holds  # after 20 episodes
    assert shares == sorted(shares)
    assert all(len(row) == len(finding.header) for row in finding.rows)
