"""The rule of the bars, both ways, and one small run from training to picture."""

import dataclasses

import pytest
import torch

from experiments import deep_results
from experiments.claim import Setting
from experiments.deep_results import BARS, Bar, judge
from rl import agents
from rl.train import TrainConfig

SOME = Bar("dqn", "CartPole-v1", 475.0, every=False, source="Somebody 1999", minutes=1.0)
EVERY = dataclasses.replace(SOME, every=True)
BEST = Bar("q-learning", "zhao-2x2", None, every=True, source="Somebody 1999", minutes=1.0)


def test_the_rule() -> None:
    """Of [500 x 9, 400] the middle half is at the bar, and one seed is not; an optimum is reached to rounding."""
    scores = torch.tensor([500.0] * 9 + [400.0]).double()
    assert judge(SOME, scores, None) == (True, 9)
    assert judge(EVERY, scores, None) == (False, 9)
    assert judge(EVERY, scores.clamp(min=475), None) == (True, 10)
    assert judge(SOME, scores - 30, None) == (False, 0)
    assert judge(BEST, torch.tensor([2.0, 2.0 - 1e-9]).double(), 2.0) == (True, 2)
    assert judge(BEST, torch.tensor([2.0, 1.99]).double(), 2.0) == (False, 1)
    with pytest.raises(ValueError, match="no exact optimum"):
        judge(BEST, scores, None)


def test_a_small_run_from_training_to_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        agents, "defaults", lambda agent, world: (agents.AGENTS[agent].config(omega=0.0), TrainConfig(steps=2_000))
    )
    shares: list[float] = []
    setting = Setting(0, torch.device("cpu"), report=lambda share, note: shares.append(share))
    finding = deep_results.run(BEST, setting, seeds=4, episodes=2)
    assert list(finding.found) == list(deep_results.claim_of(BEST).stated)
    assert finding.holds
    assert finding.found["seeds that reach it, of 10"] == 4
    assert shares == sorted(shares)


@pytest.mark.parametrize("name", BARS)
def test_every_bar_is_of_an_agent_that_was_tuned_for_it(name: str) -> None:
    assert (BARS[name].agent, BARS[name].world) in agents.TUNED
