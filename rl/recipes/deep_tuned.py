"""What differs from the defaults of a deep Q-network on worlds that were tried, and how long to learn there."""

from __future__ import annotations

from typing import Any

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    # 8 of 10 seeds solved on run seed 1, 4 on run seed 0 (docs/agents/deep-q-networks.md).
    # Values near 100 are reached n steps of horizon
    # a target copy: so n is large and copies are frequent; large batches and the norm keep the fit between two of them,
    # all of the past is remembered, and a step size that falls to almost nothing settles on one policy.
    ("dqn", "CartPole-v1"): (
        {
            "n": 10,
            "batch_size": 128,
            "gradient_steps": 7,
            "target_every": 20,
            "capacity": 40_000,
            "final_epsilon": 0.04,
            "exploration_steps": 6_000,
            "final_learning_rate": 1e-5,
            "learning_rate_steps": 40_000,
        },
        {"steps": 40_000, "worlds": 16},
    ),
    # 7 of 10 seeds solved, IQM 492, run seed 0 (docs/notebook.md): one step, larger batches, copies nearly as frequent.
    ("double-dqn", "CartPole-v1"): (
        {
            "batch_size": 256,
            "target_every": 25,
            "capacity": 20_000,
            "final_epsilon": 0.04,
            "exploration_steps": 8_000,
            "final_learning_rate": 2e-5,
            "learning_rate_steps": 40_000,
        },
        {"steps": 40_000, "worlds": 16},
    ),
    ("dqn", "FrozenLake-v1"): (
        {"learning_rate_steps": 30_000, "final_learning_rate": 1e-4},
        {"steps": 30_000},
    ),
    ("dqn", "zhao-5x5"): ({"exploration_steps": 4_000, "learning_rate_steps": 10_000}, {"steps": 10_000}),
    # The returns that are possible there: 1 a step, discounted by 0.99.
    **{(agent, "CartPole-v1"): ({"low": 0.0, "high": 100.0}, {}) for agent in ("c51", "rainbow")},
}
