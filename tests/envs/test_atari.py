"""Atari as agents see it, resumed to the bit though actions stick; and what is said where an extra is missing."""

import gymnasium
import pytest
import torch

import envs
from envs import atari
from envs.gymworlds import GymWorlds
from lab import streams

GAME = "ALE/Pong-v5"


@pytest.fixture
def worlds() -> GymWorlds:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    return envs.load(GAME).simulate(streams.keys(0, "world", 2))  # type: ignore[return-value,union-attr]


def actions(worlds: GymWorlds, t: int) -> torch.Tensor:
    return (streams.uniform(streams.keys(1, "a", worlds.n), t) * worlds.actions).long()


def test_four_frames_of_84_by_84_bytes(worlds: GymWorlds) -> None:
    world = envs.load(GAME)
    assert (world.obs_shape, world.actions, world.time_limit) == ((4, 84, 84), 6, 27_000)
    obs = worlds.reset()
    assert (obs.dtype, obs.shape) == (torch.uint8, (2, 4, 84, 84))
    for t in range(20):
        step = worlds.step(actions(worlds, t))
        assert torch.equal(step.obs[:, :3], obs[:, 1:])  # the window moves by one
        obs = step.obs
    assert obs.float().std() > 1
    assert not torch.equal(obs[0], obs[1])


def test_a_game_resumes_to_the_bit_though_actions_stick(worlds: GymWorlds) -> None:
    worlds.reset()
    for t in range(25):
        worlds.step(actions(worlds, t))
    other = envs.load(GAME).simulate(streams.keys(0, "world", 2))  # type: ignore[union-attr]
    other.load_state_dict(worlds.state_dict())
    for t in range(25, 40):
        one, two = worlds.step(actions(worlds, t)), other.step(actions(worlds, t))
        assert torch.equal(one.obs, two.obs)
        assert torch.equal(one.reward, two.reward)


def test_a_missing_extra_is_named_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atari, "find_spec", lambda name: None)
    with pytest.raises(
        envs.WorldError, match=r"^ALE/Pong-v5: needs ale-py and OpenCV: pip install 'quincunx\[atari\]'$"
    ):
        envs.load(GAME)

    def missing(*_: object, **__: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed, run `pip install swig`")

    monkeypatch.setattr("envs.catalog.make", missing)
    with pytest.raises(
        envs.WorldError, match=r"^LunarLander-v3: something is missing: pip install 'quincunx\[box2d\]'$"
    ):
        envs.load("LunarLander-v3")
