"""What differs from the defaults of a deep Q-network on worlds that were tried, and how long to learn there."""

from __future__ import annotations

from typing import Any

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    # 10 of 10 seeds on each of several run seeds for double-dqn; what else was tried: docs/agents/deep-q-networks.md.
    # Large values are reached in strides of n steps a target copy; copies are frequent. The step size stays large
    # enough, and the discount near enough to 1, to learn of a cart that drifts away after hundreds of steps.
    **{
        (agent, "CartPole-v1"): (
            {
                "gamma": 0.995,
                "n": 3,
                "batch_size": 128,
                "target_every": 50,
                "capacity": 30_000,
                "final_epsilon": 0.04,
                "exploration_steps": 8_000,
                "learning_rate_steps": 30_000,
            },
            {"steps": 30_000, "worlds": 16},
        )
        for agent in ("dqn", "double-dqn")
    },
    ("dqn", "FrozenLake-v1"): (
        {"learning_rate_steps": 30_000, "final_learning_rate": 1e-4},
        {"steps": 30_000},
    ),
    ("dqn", "zhao-5x5"): ({"exploration_steps": 4_000, "learning_rate_steps": 10_000}, {"steps": 10_000}),
    # From planes, by a perceptron: each is one map, so a CNN would have nothing to share between places. Four rooms as
    # they were tried without slips, where the optimum is reached; with slips `pqn` comes nearer.
    ("double-dqn", "key-door"): (
        {
            "observation": "planes",
            "backbone": "mlp",
            "n": 3,
            "batch_size": 128,
            "gradient_steps": 4,
            "exploration_steps": 20_000,
            "final_learning_rate": 1e-5,
            "learning_rate_steps": 40_000,
        },
        {"steps": 40_000, "worlds": 16},
    ),
    ("double-dqn", "four-rooms"): (
        {
            "observation": "planes",
            "backbone": "mlp",
            "n": 3,
            "gradient_steps": 4,
            "exploration_steps": 20_000,
            "final_learning_rate": 3e-5,
            "learning_rate_steps": 48_000,
        },
        {"steps": 48_000, "worlds": 16},
    ),
    # The returns that are possible there: 1 a step, discounted by 0.99.
    **{(agent, "CartPole-v1"): ({"low": 0.0, "high": 100.0}, {}) for agent in ("c51", "rainbow")},
}
