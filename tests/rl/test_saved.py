"""A saved agent, in another process or on another device, does what it did: every agent there is."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from envs.catalog import load
from envs.world import World
from rl import agents, saved, sb3_train
from rl.evaluate import policy_of
from rl.saved import Origin, Saved, SavedError
from rl.sb3_learners import LEARNERS
from rl.train import TrainConfig
from tests.rl.test_resume import SMALL

LAKE = "FrozenLake-v1"
STEPS = {"sb3:dqn": {"learning_starts": 50, "train_every": 50, "gradient_steps": 2}, "sb3:ppo": {"rollout": 16}}


def learned(name: str, world: str = LAKE, replicas: int = 3, **changed: Any) -> Saved:
    """An agent after some steps, so that its replicas differ from each other and from untrained ones."""
    config = agents.RECIPES[name].config(**{**SMALL.get(name, {}), **STEPS.get(name, {}), **changed})
    made, where = (sb3_train.trainer if name in LEARNERS else agents.trainer), load(world)
    length = TrainConfig(steps=240, worlds=3, report_every=120)
    trainer = made(name, where, config, length, replicas=replicas, seed=2)
    list(trainer.run())
    return Saved(trainer.agent, name, config, where, Origin(world), tuple(float(r) for r in range(replicas)))


def does(found: Saved) -> torch.Tensor:
    """What it does in every state as the first of an episode."""
    assert isinstance(found.world, World)
    return policy_of(found.agent, found.world, found.config.observation)


def worth(found: Saved) -> torch.Tensor:
    assert isinstance(found.world, World)
    values = found.agent.values(found.world.observe(found.config.observation).to(found.agent.device))
    return values.detach().cpu().nan_to_num(7.5)  # some have none


@pytest.mark.parametrize("name", agents.RECIPES)
def test_what_is_loaded_acts_and_values_bit_for_bit_as_what_was_saved(name: str, tmp_path: Path) -> None:
    ours = learned(name)
    saved.save(tmp_path, ours)
    found = saved.load(tmp_path)
    assert (found.name, found.config, found.returns, found.best) == (name, ours.config, (0.0, 1.0, 2.0), 2)
    assert torch.equal(does(found), does(ours))
    assert torch.equal(worth(found), worth(ours))
    fresh = agents.RECIPES[name].build(ours.config, ours.world, 3, 0)  # what loading begins with
    untrained = replace(ours, agent=fresh)
    same = torch.equal(worth(untrained), worth(ours)) and torch.equal(does(untrained), does(ours))
    assert not same  # else nothing was tested
    for r in (1, None):
        one = ours.one(r)
        assert one.agent.replicas == 1
        torch.testing.assert_close(worth(one), worth(ours)[[2 if r is None else r]])
        if does(ours).is_floating_point():
            torch.testing.assert_close(does(one), does(ours)[[2 if r is None else r]], atol=1e-6, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", agents.RECIPES)
def test_it_loads_on_another_device(name: str, tmp_path: Path) -> None:
    ours = learned(name)
    saved.save(tmp_path, ours)
    found = saved.load(tmp_path, "cuda")
    assert found.agent.device.type == "cuda"
    torch.testing.assert_close(worth(found), worth(ours))


def test_a_loaded_agent_learns_on(tmp_path: Path) -> None:
    ours = learned("dqn")
    saved.save(tmp_path, ours)
    agent: Any = saved.load(tmp_path).agent
    acting = agents.simulate("dqn", ours.config, ours.world, replicas=3, worlds=3, seed=5)
    before = worth(replace(ours, agent=agent))
    list(agents.Trainer(agent, acting, TrainConfig(steps=120, worlds=3)).run())
    assert agent.step == 360
    assert not torch.equal(worth(replace(ours, agent=agent)), before)


@pytest.mark.parametrize("name", ["dqn", "rainbow"])
def test_experience_is_not_saved_and_nothing_is_pickled(name: str, tmp_path: Path) -> None:
    """Two matrices of weights, and nothing of what a rainbow's three-step returns still wait for."""
    ours = learned(name)
    saved.save(tmp_path, ours)
    assert {file.name for file in tmp_path.iterdir()} == {"agent.json", "agent.safetensors"}
    tensors = safetensors.torch.load((tmp_path / "agent.safetensors").read_bytes())
    assert (
        {key for key, one in tensors.items() if one.shape[0] == 3} == {"online/weights", "target_weights"} == {*tensors}
    )
    assert json.loads((tmp_path / "agent.json").read_text())["numbers"].keys() == {"step", "updates"}
    if name == "rainbow":
        held: Any = ours.agent
        assert held.steps.past  # else nothing was left out
        loaded: Any = saved.load(tmp_path).agent
        assert not loaded.steps.past


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    saved.save(tmp_path, learned("dqn"))
    file = tmp_path / "agent.safetensors"
    weights = safetensors.torch.load(file.read_bytes())
    file.write_bytes(safetensors.torch.save({name: one[:, :-64].contiguous() for name, one in weights.items()}))
    with pytest.raises(SavedError, match=r"agent\.json: does not fit this version"):
        saved.load(tmp_path)


def test_a_world_that_is_a_file_comes_along(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text((Path(agents.__file__).parent.parent / "envs" / "worlds" / "zhao-2x2.toml").read_text())
    ours = learned("q-learning", str(file))
    saved.save(tmp_path / "agent", ours)
    file.unlink()
    found = saved.load(tmp_path / "agent")
    assert found.world.name == "mine"
    assert torch.equal(worth(found), worth(ours))


def test_returns_without_end_are_kept(tmp_path: Path) -> None:
    saved.save(tmp_path, replace(learned("q-learning"), returns=(-math.inf, -2.0, -3.0)))
    found = saved.load(tmp_path)
    assert (found.returns, found.best) == ((-math.inf, -2.0, -3.0), 1)


def test_what_is_no_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SavedError, match=r"agent\.json: No such file or directory; expected a folder with a saved"):
        saved.load(tmp_path)
    saved.save(tmp_path, learned("q-learning"))
    file, tensors = tmp_path / "agent.json", tmp_path / "agent.safetensors"
    header, payload = json.loads(file.read_text()), tensors.read_bytes()
    tensors.write_bytes(payload[:50])
    with pytest.raises(SavedError, match=r"agent\.safetensors: damaged"):
        saved.load(tmp_path)
    tensors.write_bytes(payload)
    less = {name: one[..., :-1] for name, one in safetensors.torch.load(payload).items()}
    tensors.write_bytes(safetensors.torch.save({name: one.contiguous() for name, one in less.items()}))
    with pytest.raises(SavedError, match=r"agent\.json: does not fit this version \(the saved value is"):
        saved.load(tmp_path)
    tensors.write_bytes(payload)
    without = {name: value for name, value in header.items() if name != "returns"}
    file.write_text(json.dumps(without))
    with pytest.raises(SavedError, match=r"does not fit this version \('returns'\)"):
        saved.load(tmp_path)
    for wrong, words in (
        ({"returns": [0.0, "much", 1.0]}, "does not fit this version .*'much'"),
        ({"returns": [0.0, 1.0]}, "2 returns of 3 replicas, expected one for each"),
        ({"world": "lake"}, "does not fit this version"),
        ({"config": ["alpha"]}, "does not fit this version"),
        ({"format": 9}, "agent format 9; this version of quincunx reads format 1"),
        ({"observation": [4]}, r"observations \[\] and 4 actions, expected \[4\] and 4 as when"),
        ({"config": {"alpa": 1}}, "does not fit this version"),
    ):
        file.write_text(json.dumps({**header, **wrong}))
        with pytest.raises(SavedError, match=words):
            saved.load(tmp_path)
