"""What a person of stable-baselines3 asks of a DQN, as the config of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rl.agents import recipe_of

POLICIES = ("MlpPolicy", "CnnPolicy")
RENAMED = {  # theirs -> ours
    "learning_rate": "learning_rate",
    "buffer_size": "capacity",
    "learning_starts": "learning_starts",
    "batch_size": "batch_size",
    "train_freq": "train_every",
    "gradient_steps": "gradient_steps",
    "target_update_interval": "target_every",
    "exploration_initial_eps": "epsilon",
    "exploration_final_eps": "final_epsilon",
    "max_grad_norm": "clip",
}


def check(arguments: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises ValueError for an unknown policy, TypeError for a setting that there is not."""
    if arguments["policy"] not in POLICIES:
        raise ValueError(f"policy is {arguments['policy']!r}, expected one of {', '.join(map(repr, POLICIES))}")
    unknown = sorted({*settings} - {*RENAMED}) + sorted({*(arguments["policy_kwargs"] or {})} - {"net_arch"})
    if unknown:
        expected = ", ".join([*RENAMED, "or net_arch in policy_kwargs"])
        raise TypeError(f"this DQN has no setting {unknown[0]!r}, expected {expected}")


def config_of(arguments: Mapping[str, Any], steps: int) -> Any:
    """The config of the recipe "dqn"; its schedules run over `steps`, or where that is 0 as the recipe has them."""
    fields: dict[str, Any] = {ours: arguments[theirs] for theirs, ours in RENAMED.items() if theirs in arguments}
    if "learning_rate" in fields:
        fields["final_learning_rate"] = fields["learning_rate"]
    if arguments["policy_kwargs"]:
        fields["hidden"] = tuple(arguments["policy_kwargs"]["net_arch"])
    if steps:
        fields["exploration_steps"] = max(1, round(arguments["exploration_fraction"] * steps))
        fields["learning_rate_steps"] = steps
    return recipe_of("dqn").config(gamma=arguments["gamma"], **fields)
