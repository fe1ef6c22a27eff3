"""Our worlds as Gymnasium environments: both checkers pass without a warning, and the tables are the simulator's."""

import copy
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import envs
from envs.gym import GridWorldEnv, gymnasium_id


@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
@pytest.mark.parametrize("observation", ["index", "one-hot", "coordinates"])
@pytest.mark.parametrize("name", envs.names())
def test_both_checkers_pass_without_a_warning(name: str, observation: str, render_mode: str | None):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gymnasium.make(gymnasium_id(name), observation=observation, render_mode=render_mode)
        check_env(made.unwrapped)
        check_env_sb3(made, skip_render_check=False)


def test_ids_follow_from_names():
    assert gymnasium_id("four-rooms") == "quincunx/FourRooms-v0"
    assert gymnasium_id("zhao-5x5") == "quincunx/Zhao5x5-v0"
    before = dict(gymnasium.registry)
    envs.register()
    assert before == gymnasium.registry


def test_the_time_limit_truncates_and_make_can_set_another():
    for limit, arguments in ((100, {}), (7, {"max_episode_steps": 7})):
        made = gymnasium.make("quincunx/Zhao5x5-v0", **arguments)
        made.reset(seed=1)
        flags = [made.step(4)[2:4] for _ in range(limit)]
        assert flags == [(False, False)] * (limit - 1) + [(False, True)]


def test_outcomes_are_drawn_with_the_probabilities_of_the_tables():
    """30,000 draws of a pair with four outcomes: the largest deviation is below 4.5 standard errors."""
    env = GridWorldEnv("four-rooms")
    env.reset(seed=11)
    mdp, s, a = env.world.mdp, 44, 2
    times = 30_000
    counts = np.zeros(mdp.states)
    for _ in range(times):
        env.state = s
        counts[env.step(a)[0]] += 1
    probs = np.zeros(mdp.states)
    np.add.at(probs, mdp.next_state[s, a].numpy(), mdp.prob[s, a].numpy())
    assert (probs > 0).sum() == 4
    assert (np.abs(counts / times - probs) <= 4.5 * np.sqrt(probs * (1 - probs) / times)).all()


def test_seeds_reproduce_and_differ():
    def walk(seed: int) -> list[tuple]:
        env = GridWorldEnv("frozenlake-8x8")
        rng = np.random.default_rng(0)
        return [env.reset(seed=seed)] + [env.step(int(rng.integers(4)))[:3] for _ in range(60)]

    assert walk(3) == walk(3) != walk(4)


def test_a_copy_goes_on_alike():
    env = GridWorldEnv("garden", observation="planes")
    env.reset(seed=5)
    for _ in range(9):
        env.step(1)
    twin = copy.deepcopy(env)
    for _ in range(30):
        obs, *rest = env.step(2)
        other, *same = twin.step(2)
        np.testing.assert_array_equal(obs, other)
        assert rest == same


def test_overrides_and_renders():
    env = GridWorldEnv("garden", overrides={"reward.step": "-3"}, render_mode="ansi")
    env.reset(seed=0)
    assert env.step(0)[1] == -3
    assert env.render().splitlines()[0].count("@") == 1
    assert GridWorldEnv("garden").render() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": "CartPole-v1"}, r"^CartPole-v1 has no tables"),
        ({"world": "garden", "render_mode": "human"}, r"^render_mode is 'human', expected None, 'ansi' or 'rgb_array'"),
        ({"world": "Taxi-v4", "render_mode": "ansi"}, r"^render_mode is 'ansi' and Taxi-v4 has no map"),
        ({"world": "garden", "observation": "plans"}, r"^observation 'plans' is unknown.*did you mean 'planes'\?$"),
    ],
)
def test_what_cannot_be_made_says_why(arguments: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        GridWorldEnv(**arguments)


def test_an_action_that_is_none_is_refused():
    env = GridWorldEnv("garden")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"^action is 4, expected 0 to 3$"):
        env.step(4)


def test_stable_baselines3_trains_on_it():
    from stable_baselines3 import DQN

    model = DQN("MlpPolicy", gymnasium.make("quincunx/Zhao5x5-v0", observation="one-hot"), learning_starts=50, seed=0)
    model.learn(200)
    assert model.num_timesteps == 200
