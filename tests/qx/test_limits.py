"""Every number that an agent takes has its limits, and what is beyond them is refused by name."""

from __future__ import annotations

import dataclasses
import re

import pytest

from qx.limits import LIMITS, UsageError, check
from rl.agents import RECIPES

ANYTHING = {"low", "high"}
"""Numbers of which each is as good as any other."""


@pytest.mark.parametrize("name", RECIPES)
def test_every_number_of_an_agent_has_limits_which_its_defaults_keep(name: str) -> None:
    config = RECIPES[name].config
    numbers = {field.name for field in dataclasses.fields(config) if re.search(r"\b(int|float)\b", str(field.type))}
    assert numbers - ANYTHING - set(LIMITS) == set()
    check(config())


@pytest.mark.parametrize(
    ("agent", "field", "value", "said"),
    [
        ("sarsa-lambda", "lam", 1.5, "--lam 1.5: expected at most 1"),
        ("dyna-q", "planning", -3, "--planning -3: expected at least 0"),
        ("dyna-q-plus", "kappa", -0.1, "--kappa -0.1: expected at least 0"),
        ("mc", "gamma", 1.5, "--gamma 1.5: expected at most 1"),
        ("mc", "limit", 0, "--limit 0: expected at least 1"),
        ("mc", "tail", -1, "--tail -1: expected at least 0"),
        ("tile-sarsa-lambda", "final_alpha", -1.0, "--final-alpha -1: expected at least 0"),
        ("tile-sarsa-lambda", "tilings", 0, "--tilings 0: expected at least 1"),
        ("semi-gradient-td-lambda", "resolution", 0, "--resolution 0: expected at least 1"),
        ("c51", "atoms", 1, "--atoms 1: expected at least 2"),
        ("ppo", "clip_ratio", 0.0, "--clip-ratio 0: expected more than 0"),
    ],
)
def test_what_is_beyond_is_refused_by_name(agent: str, field: str, value: float, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(RECIPES[agent].config(**{field: value}))
    assert str(caught.value) == said
