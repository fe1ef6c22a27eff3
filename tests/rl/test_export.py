"""Exported policies under onnxruntime, beside the originals: batches of any size, tables, planes, both libraries'."""

from pathlib import Path
from typing import Any

import pytest
import torch

from envs.catalog import load
from envs.world import World
from lab import streams
from rl import agents, export
from rl.saved import Origin, Saved

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("q-learning", "cliff", {}),
    ("dqn", "CartPole-v1", {"hidden": (16,)}),
    ("dqn", "zhao-2x2", {"observation": "planes"}),
    ("sb3:a2c", "zhao-5x5", {}),
]


def fresh(name: str, world: str, **changed: Any) -> Saved:
    recipe, where = agents.recipe_of(name), load(world)
    config = recipe.config(**changed)
    return Saved(recipe.build(config, where, 2, 3), name, config, where, Origin(world), (0.0, 1.0))


def seen(found: Saved) -> torch.Tensor:
    if isinstance(found.world, World):
        return found.world.observe(found.config.observation)
    return torch.randn(20, *found.world.obs_shape, generator=streams.generator(0, "seen"))


@pytest.mark.parametrize(("name", "world", "changed"), CASES)
def test_the_file_says_what_the_best_replica_says(
    name: str, world: str, changed: dict[str, Any], tmp_path: Path
) -> None:
    found, file = fresh(name, world, **changed), tmp_path / "policy.onnx"
    if name == "q-learning":  # a table of zeros would agree with anything
        found.agent.q.value.copy_(torch.randn(found.agent.q.value.shape, generator=streams.generator(1, "q")).double())
    obs = seen(found)
    assert export.onnx(found, file, obs) <= 1e-5
    for rows in (1, 3):
        action, scores = export.run(file, (obs[-rows:],))
        both = obs[-rows:].expand(2, rows, *obs.shape[1:])
        expected = found.agent.policy(both, found.agent.memory(rows))[0][1]
        value = found.agent.values(both)[1]
        assert torch.equal(action, expected)
        assert not torch.equal(scores, torch.zeros_like(scores))
        if not name.startswith("sb3"):  # whose scores are logits
            torch.testing.assert_close(scores.amax(-1), value, atol=1e-5, rtol=1e-5, check_dtype=False)


def test_a_change_of_the_weights_is_noticed(tmp_path: Path) -> None:
    """The difference that is returned is measured, not assumed."""
    found, file = fresh("dqn", "CartPole-v1", hidden=(16,)), tmp_path / "policy.onnx"
    export.onnx(found, file, seen(found))
    with torch.no_grad():
        found.agent.online.weights.add_(0.01)
    changed = export.Policy(found.one().agent)
    assert export._difference(file, changed, (seen(found),)) > 1e-4
