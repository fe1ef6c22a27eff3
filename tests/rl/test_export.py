"""Exported policies under onnxruntime, beside the originals: batches of any size, tables, planes, memories, both
libraries'."""

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
    ("noisy-dqn", "zhao-2x2", {"hidden": (16,)}),
    ("ppo", "zhao-2x2", {"hidden": (16,)}),
    ("sb3:a2c", "zhao-5x5", {}),
]
MEMORIES = ("gru", "lstm", "transformer", "none")


def fresh(name: str, world: str, **changed: Any) -> Saved:
    recipe, where = agents.recipe_of(name), load(world)
    config = recipe.config(**changed)
    agent: Any = recipe.build(config, where, 2, 3)
    for part in ("online", "actor"):
        if hasattr(agent, part):  # a policy that prefers nothing yet would agree with anything
            weights = getattr(agent, part).weights
            weights.data += 0.3 * torch.randn(weights.shape, generator=streams.generator(2, part))
    return Saved(agent, name, config, where, Origin(world), (0.0, 1.0))


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
        action, *rest = export.run(file, (obs[-rows:],))
        both = obs[-rows:].expand(2, rows, *obs.shape[1:])
        expected = found.agent.policy(both, found.agent.memory(rows))[0][1]
        value = found.agent.values(both)[1]
        if name == "ppo":
            torch.testing.assert_close(action.sum(-1), torch.ones_like(value).to(action.dtype))
            assert action.std() > 0.01
            torch.testing.assert_close(action, expected.to(action.dtype), atol=1e-6, rtol=1e-5)
            assert not rest
            continue
        [scores] = rest
        assert torch.equal(action, expected)
        assert not torch.equal(scores, torch.zeros_like(scores))
        if not name.startswith("sb3"):  # whose scores are logits
            torch.testing.assert_close(scores.amax(-1), value, atol=1e-5, rtol=1e-5, check_dtype=False)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_memory_is_carried_from_look_to_look(memory: str, tmp_path: Path) -> None:
    """The file by itself, fed what it remembered, says what the agent says, for one row and for three."""
    small = {"memory": memory, "width": 8, "window": 4}
    found, file = fresh("drqn", "t-maze", **small), tmp_path / "policy.onnx"
    obs = torch.randn(10, 26, generator=streams.generator(0, "looks"))  # no two alike, so that a memory tells
    assert export.onnx(found, file, obs) <= 1e-5
    for rows in (1, 3):
        ours = found.agent.memory(rows)
        theirs = ours[1]
        said: list[torch.Tensor] = []
        for t in range(8):
            looks = obs[t : t + rows]
            both = looks.expand(2, rows, *looks.shape[1:])
            q, _ = found.agent.q_values(both, ours)  # type: ignore[attr-defined]
            expected, ours = found.agent.policy(both, ours)
            action, scores, *after = export.run(file, (looks, theirs) if theirs.numel() else (looks,))
            assert torch.equal(action, expected[1])
            torch.testing.assert_close(scores, q[1], atol=1e-5, rtol=1e-5)
            if theirs.numel():
                [theirs] = after
                torch.testing.assert_close(theirs, ours[1], atol=1e-5, rtol=1e-5)
            said.append(scores)
        alone = export.run(file, (looks, torch.zeros_like(theirs)) if theirs.numel() else (looks,))[1]
        assert torch.allclose(alone, said[-1]) == (memory == "none")  # what was seen before counts


def test_what_goes_wrong_leaves_what_stood_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, file = fresh("dqn", "CartPole-v1", hidden=(16,)), tmp_path / "policy.onnx"
    file.write_text("an older file")

    def broken(*_: Any) -> list[torch.Tensor]:
        raise RuntimeError("invalid dimensions for input")

    with monkeypatch.context() as patched:
        patched.setattr(export, "run", broken)
        with pytest.raises(export.ExportError, match=r"dqn cannot be exported to ONNX: invalid dimensions"):
            export.onnx(found, file, seen(found))
    with monkeypatch.context() as patched:
        patched.setattr(export, "_difference", lambda *_: 0.1)
        assert export.onnx(found, file, seen(found)) == 0.1
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("policy.onnx", "an older file")]


def test_a_change_of_the_weights_is_noticed(tmp_path: Path) -> None:
    """The difference that is returned is measured, not assumed."""
    found, file = fresh("dqn", "CartPole-v1", hidden=(16,)), tmp_path / "policy.onnx"
    export.onnx(found, file, seen(found))
    with torch.no_grad():
        found.agent.online.weights.add_(0.01)
    changed = export.Policy(found.one().agent)
    assert export._difference(file, changed, (seen(found),)) > 1e-4
