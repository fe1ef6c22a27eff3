"""Gymnasium's environments as Worlds: the same episodes as Gymnasium's own, resumed to the bit."""

import gymnasium
import numpy as np
import pytest
import torch

import envs
from envs.gymworlds import GymWorld, GymWorlds, bare, obs_shape
from lab import streams


def keys(n: int, seed: int = 0) -> torch.Tensor:
    return streams.bits(torch.tensor(seed), torch.arange(n))


def frozen_lake(n: int) -> GymWorlds:
    """FrozenLake without its table, cut after 7 steps."""
    made = [bare(gymnasium.make("FrozenLake-v1")) for _ in range(n)]
    return GymWorlds(made, keys(n), time_limit=7)


def cart_pole(n: int) -> GymWorlds:
    return envs.load("CartPole-v1", {"time_limit": "25"}).simulate(keys(n))


def walk(worlds: GymWorlds, begin: int, end: int) -> list[torch.Tensor]:
    seen = []
    for t in range(begin, end):
        step = worlds.step((streams.uniform(keys(worlds.n, 4), t) * worlds.actions).long())
        seen += [step.obs, step.reward, step.terminated, step.truncated]
        seen.append(worlds.reset(step.terminated | step.truncated))
    return seen


def test_it_steps_as_gymnasium_does_with_the_same_seeds():
    worlds = envs.load("CartPole-v1").simulate(keys(4))
    env = gymnasium.make("CartPole-v1")
    obs = worlds.reset()
    assert (obs.dtype, obs.shape, worlds.obs_shape, worlds.actions) == (torch.float32, (4, 4), (4,), 2)
    n, episode = 2, 1
    expected, _ = env.reset(seed=streams.derive(int(keys(4)[n]), "episode", episode) % 2**31)
    for t in range(300):
        np.testing.assert_array_equal(obs[n], expected)
        action = (streams.uniform(keys(4, 4), t) * 2).long()
        step = worlds.step(action)
        expected, reward, terminated, truncated, _ = env.step(int(action[n]))
        assert (step.reward[n], step.terminated[n], step.truncated[n]) == (reward, terminated, truncated)
        obs = worlds.reset(step.terminated | step.truncated)
        if terminated or truncated:
            np.testing.assert_array_equal(step.obs[n], expected)  # the true successor, not the next episode's first
            episode += 1
            expected, _ = env.reset(seed=streams.derive(int(keys(4)[n]), "episode", episode) % 2**31)
    assert episode > 5


@pytest.mark.parametrize("make", [cart_pole, frozen_lake])
def test_resuming_in_the_middle_of_episodes_is_exact(make):
    one = make(5)
    one.reset()
    ends = walk(one, 0, 61)
    assert any(t.any() for t in ends[2::5])  # some episodes ended,
    assert any(t.any() for t in ends[3::5])  # some were cut off,
    assert (one.state_dict()["length"] > 0).any()  # and some are under way
    saved = one.state_dict()
    expected = walk(one, 61, 130)
    other = make(5)
    other.load_state_dict(saved)
    assert all(torch.equal(a, b) for a, b in zip(walk(other, 61, 130), expected, strict=True))


@pytest.mark.parametrize("make", [cart_pole, frozen_lake])
def test_a_world_is_a_function_of_its_own_key(make):
    few, many = make(3), make(8)
    assert torch.equal(few.reset(), many.reset()[:3])
    for a, b in zip(walk(few, 0, 100), walk(many, 0, 100), strict=True):
        assert torch.equal(a, b[:3])


def test_an_end_at_the_limit_is_an_end_and_an_ended_world_stands_still():
    worlds = GymWorlds([bare(gymnasium.make("FrozenLake-v1", is_slippery=False))], keys(1), time_limit=6)
    worlds.reset()
    down, right = torch.tensor([1]), torch.tensor([2])
    for action in (down, down, right, down, right):
        step = worlds.step(action)
        assert not (step.terminated | step.truncated)
    step = worlds.step(right)  # the sixth step reaches the goal
    assert (step.reward.item(), step.terminated.item(), step.truncated.item()) == (1, True, False)
    after = worlds.step(right)
    assert (after.reward.item(), after.terminated.item(), after.truncated.item()) == (0, True, False)
    assert torch.equal(after.obs, step.obs)
    for _ in range(6):
        assert not worlds.reset(torch.tensor([True])).isnan().any()
        for t in range(6):
            step = worlds.step(torch.tensor([0]))  # against the wall
            assert (step.terminated.item(), step.truncated.item()) == (False, t == 5)


def test_a_number_as_observation_becomes_one_hot():
    obs = frozen_lake(2).reset()
    assert obs.tolist() == [[1.0] + [0.0] * 15] * 2


def test_a_space_without_a_fixed_shape_is_refused():
    with pytest.raises(ValueError, match=r"^observations are Sequence.*, expected a space of a fixed shape$"):
        obs_shape(gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)))


def test_stepping_before_reset_and_loading_another_number_of_worlds_are_refused():
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        cart_pole(1).step(torch.tensor([0]))
    with pytest.raises(ValueError, match=r"^the saved state is of 3 worlds, expected 2$"):
        cart_pole(2).load_state_dict(cart_pole(3).state_dict())


def test_the_state_of_worlds_that_have_not_begun_can_be_saved():
    worlds = cart_pole(2)
    worlds.load_state_dict(cart_pole(2).state_dict())
    assert torch.equal(worlds.reset(), cart_pole(2).reset())


def test_a_gym_world_says_what_it_is():
    world = envs.load("CartPole-v1")
    assert isinstance(world, GymWorld)
    assert (world.name, world.discount, world.time_limit, world.actions, world.obs_shape) == (
        "CartPole-v1",
        0.99,
        500,
        2,
        (4,),
    )


class Odd(gymnasium.Env):
    """Actions 3 to 5, observations a dict of a number and a vector: pays for the action that the number asks for."""

    action_space = gymnasium.spaces.Discrete(3, start=3)
    observation_space = gymnasium.spaces.Dict(
        {"asked": gymnasium.spaces.Discrete(3, start=3), "time": gymnasium.spaces.Box(0, 9, (2,), np.float32)}
    )

    def _seen(self):
        return {"asked": np.int64(self.asked), "time": np.full(2, self.t, np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.asked = 0, int(self.np_random.integers(3, 6))
        return self._seen(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        reward, self.t = float(action == self.asked), self.t + 1
        self.asked = int(self.np_random.integers(3, 6))
        return self._seen(), reward, self.t == 9, False, {}


def test_dicts_are_flattened_and_actions_may_begin_anywhere():
    gymnasium.register("Odd-v0", Odd)
    try:
        world = envs.load("Odd-v0")
        assert isinstance(world, GymWorld)
        assert (world.actions, world.obs_shape) == (3, (5,))
        worlds = world.simulate(keys(4))
        obs = worlds.reset()
        for t in range(9):
            assert torch.equal(obs[:, 3:], torch.full((4, 2), float(t)))
            assert torch.equal(obs[:, :3].sum(1), torch.ones(4))
            step = worlds.step(obs[:, :3].argmax(1))  # the one that is asked for, counted from 0
            assert step.reward.tolist() == [1.0] * 4
            obs = step.obs
        assert step.terminated.all()
    finally:
        del gymnasium.registry["Odd-v0"]


def test_blackjack_is_a_tuple_of_three_numbers():
    world = envs.load("Blackjack-v1")
    env = gymnasium.make("Blackjack-v1")
    worlds = world.simulate(keys(1))
    obs = worlds.reset()[0]
    sum_, dealer, ace = env.reset(seed=streams.derive(int(keys(1)[0]), "episode", 1) % 2**31)[0]
    assert (world.obs_shape, world.actions) == ((45,), 2)
    assert obs.nonzero().flatten().tolist() == [sum_, 32 + dealer, 43 + ace]


class Camera(gymnasium.Env):
    """A picture of bytes, colours last."""

    observation_space = gymnasium.spaces.Box(0, 255, (5, 6, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.arange(90, dtype=np.uint8).reshape(5, 6, 3), {}

    def step(self, action):
        return self.reset()[0] + np.uint8(1), 0.0, False, False, {}


def test_pictures_stay_bytes_and_their_colours_come_first():
    worlds = GymWorlds([Camera()], keys(1))
    picture = torch.arange(90).view(5, 6, 3)
    assert torch.equal(worlds.reset()[0], picture.permute(2, 0, 1).byte())
    step = worlds.step(torch.tensor([1]))
    assert (step.obs.dtype, step.obs[0, 2, 4, 5].item()) == (torch.uint8, 90)
    assert obs_shape(Camera.observation_space) == worlds.obs_shape == (3, 5, 6)
    stack = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert obs_shape(stack) == (4, 84, 84)
