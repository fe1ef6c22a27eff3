"""Our worlds as Gymnasium environments: both checkers pass without a warning, and the tables are the simulator's."""

import copy
import io
import json
import pickle
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import envs
from envs import picture
from envs.gym import GridWorldEnv, gymnasium_ids
from lab import streams

SIMULATED = ["garden", "frozenlake-8x8", "four-rooms", "cliff"]


@pytest.mark.parametrize("name", envs.names())
def test_both_checkers_pass_without_a_warning(name: str):
    """Of every world, under both its ids, in every render mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        camel, plain = (gymnasium.make(one) for one in gymnasium_ids(name))
        assert camel.spec.max_episode_steps == plain.spec.max_episode_steps == plain.unwrapped.world.time_limit
        check_env(camel.unwrapped)  # makes each render mode too
        for mode in ("ansi", "rgb_array", "human"):
            check_env_sb3(gymnasium.make(gymnasium_ids(name)[0], render_mode=mode), skip_render_check=False)


@pytest.mark.parametrize("observation", ["state", "one-hot", "coordinates", "planes", "window-3", "rgb"])
@pytest.mark.parametrize("name", ["garden", "frozenlake-4x4"])
def test_the_checkers_pass_for_every_observation(name: str, observation: str):
    """Planes and windows are no images to stable-baselines3 (not 36 pixels, not bytes): it asks to flatten them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gymnasium.make(gymnasium_ids(name)[0], observation=observation)
        check_env(made.unwrapped, skip_render_check=True)
        check_env_sb3(FlattenObservation(made) if observation in ("planes", "window-3") else made)


def test_ids_follow_from_names():
    assert gymnasium_ids("four-rooms") == ("quincunx/FourRooms-v0", "quincunx/four-rooms-v0")
    assert gymnasium_ids("zhao-5x5") == ("quincunx/Zhao5x5-v0", "quincunx/zhao-5x5-v0")
    before = dict(gymnasium.registry)
    envs.register()
    assert before == gymnasium.registry
    assert envs.load("quincunx/FourRooms-v0").name == envs.load("quincunx/four-rooms-v0").name == "four-rooms"


def test_registering_builds_no_world():
    """No table is made while `envs` is imported; one is, when a world is loaded."""
    script = """
import sys, gymnasium, torch
built = []
sys.setprofile(lambda frame, event, _: built.append(event) if frame.f_code.co_name == "__post_init__"
    and frame.f_code.co_filename.endswith("mdp.py") and event == "call" else None)
import envs
print(len(built), "quincunx/cliff-v0" in gymnasium.registry)
envs.load("cliff")
print(len(built))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "1"]


def test_gymnasium_finds_our_worlds_without_an_import():
    script = "import gymnasium; print(gymnasium.make('envs:quincunx/FourRooms-v0').unwrapped.world.name)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["four-rooms"]


def test_the_time_limit_truncates_and_make_can_set_another():
    for limit, arguments in ((100, {}), (7, {"max_episode_steps": 7})):
        made = gymnasium.make("quincunx/Zhao5x5-v0", **arguments)
        made.reset(seed=1)
        flags = [made.step(4)[2:4] for _ in range(limit)]
        assert flags == [(False, False)] * (limit - 1) + [(False, True)]


@pytest.mark.parametrize("observation", ["index", "planes"])
@pytest.mark.parametrize("name", SIMULATED)
def test_it_walks_as_the_simulator_does(name: str, observation: str):
    """Draw for draw: the world of a seed is the simulator's of that key, episode after episode."""
    env = GridWorldEnv(name, observation=observation)
    worlds = env.world.simulate(torch.tensor([streams.derive(9, "world")]), observation=observation)
    rng = np.random.default_rng(1)
    for episode in range(12):
        obs, info = env.reset(seed=9 if episode == 0 else None)
        np.testing.assert_array_equal(obs, worlds.reset().numpy()[0])
        assert info == {}
        for _ in range(rng.integers(1, 60)):
            action = rng.integers(env.action_space.n)
            obs, reward, terminated, _, info = env.step(action)
            step = worlds.step(torch.tensor([action]))
            np.testing.assert_array_equal(obs, step.obs.numpy()[0])
            assert (np.float32(reward), terminated) == (step.reward.item(), step.terminated.item())
            if terminated:
                break


def test_what_comes_back_has_the_types_that_it_should():
    env = GridWorldEnv("garden")
    obs, _ = env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(np.int64(0))
    assert [type(one) for one in (obs, reward, terminated, truncated, info)] == [np.int64, float, bool, bool, dict]
    assert env.step(0)[1] == -0.01  # the number of the file, not float32's


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


def walk(env: gymnasium.Env, seed: int | None, steps: int = 60) -> list[tuple]:
    """A walk of its own actions, through as many episodes as it takes."""
    rng = np.random.default_rng(0)
    seen: list[tuple] = [env.reset(seed=seed)]
    for _ in range(steps):
        seen.append(env.step(int(rng.integers(4)))[:3])
        if seen[-1][2]:
            seen.append(env.reset())
    return seen


def test_seeds_reproduce_and_differ():
    env = GridWorldEnv("frozenlake-8x8")
    assert walk(env, 3) == walk(GridWorldEnv("frozenlake-8x8"), 3) == walk(env, 3)
    assert walk(env, 3) != walk(env, 4)
    assert walk(GridWorldEnv("frozenlake-8x8"), None) != walk(GridWorldEnv("frozenlake-8x8"), None)


def test_a_world_without_a_seed_tells_the_one_it_took():
    env = GridWorldEnv("frozenlake-8x8")
    seen = walk(env, None)
    assert seen == walk(GridWorldEnv("frozenlake-8x8"), env.np_random_seed)


def test_a_generator_of_ones_own_is_drawn_from():
    """Gymnasium then tells no seed but -1, which is none."""
    walks = []
    for seed in (1, 1, 2):
        env = GridWorldEnv("frozenlake-8x8")
        env.np_random = np.random.default_rng(seed)
        walks.append(walk(env, None))
    assert walks[0] == walks[1] != walks[2]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("observation", ["index", "planes"])
def test_a_copy_goes_on_alike(observation: str, again):
    """In the middle of an episode, through its end, time limit included."""
    env = gymnasium.make("quincunx/Garden-v0", observation=observation)
    env.reset(seed=5)
    for _ in range(9):
        env.step(1)
    twin = again(env)
    ended = 0
    for step in range(300):
        obs, *rest = env.step(step % 4)
        other, *same = twin.step(step % 4)
        np.testing.assert_array_equal(obs, other)
        assert rest == same
        if rest[1] or rest[2]:
            ended += 1
            np.testing.assert_array_equal(env.reset()[0], twin.reset()[0])
    assert ended >= 2


def test_a_copy_shares_the_tables_and_not_the_walk():
    env = GridWorldEnv("frozenlake-8x8")
    env.reset(seed=0)
    twin = copy.deepcopy(env)
    assert twin.world is env.world
    before = env.state
    for _ in range(5):
        twin.step(2)
    assert env.state == before != twin.state


def test_overrides_and_renders():
    env = GridWorldEnv("garden", overrides={"reward.step": "-3"}, render_mode="ansi")
    env.reset(seed=0)
    assert env.step(0)[1] == -3
    assert env.render().splitlines()[0].count("@") == 1
    assert GridWorldEnv("garden").render() is None
    env = GridWorldEnv("garden", render_mode="rgb_array")
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), picture.rgb_array(env.world, env.state))


class Terminal(io.StringIO):
    """A terminal of one page that knows the few escapes that are used."""

    def isatty(self) -> bool:
        return True

    def page(self) -> list[str]:
        lines, line = [""], 0
        for part in self.getvalue().replace("\x1b[0m", "").replace("\x1b[1m", "").split("\x1b["):
            move, rest = (part[0], part[1:]) if part[:1] == "J" else ("", part)
            if part[:1].isdigit():
                digits = len(part) - len(part.lstrip("0123456789;"))
                move, rest = part[: digits + 1], part[digits + 1 :]
            if move.endswith("F"):
                line -= int(move[:-1])
                lines[line] = ""
            elif move == "J":
                del lines[line + 1 :]
            for piece in rest.splitlines(keepends=True):
                lines[line] += piece.rstrip("\n")
                if piece.endswith("\n"):
                    line += 1
                    lines += [""] * (line == len(lines))
        return lines


def test_a_person_sees_the_map_in_place_and_at_a_pace(monkeypatch: pytest.MonkeyPatch):
    out, pauses = Terminal(), []
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr("envs.pixels.screen.time.sleep", pauses.append)
    env = GridWorldEnv("frozenlake-4x4", render_mode="human")
    env.reset(seed=0)
    for action in (2, 2, 1):
        env.step(action)
        page = out.page()
        assert len(page) == 5
        row, col = divmod(env.state, 4)
        assert [[half == "@" for half in line[::2]] for line in page[:4]] == [
            [(y, x) == (row, col) for x in range(4)] for y in range(4)
        ]
    assert env.render() is None
    assert [0.2 < pause <= 0.25 for pause in pauses] == [False] + [True] * 4


def test_a_map_that_wraps_is_drawn_over_whole(monkeypatch: pytest.MonkeyPatch):
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr("envs.pixels.screen.time.sleep", lambda _: None)
    monkeypatch.setenv("COLUMNS", "20")
    env = GridWorldEnv("cliff", overrides={"map": "S" + "." * 23 + "G"}, render_mode="human")  # 50 columns: 3 lines
    env.reset(seed=0)
    env.step(1)
    assert out.getvalue().count("\x1b[3F") == 1


def test_where_no_terminal_is_the_map_is_printed(capsys: pytest.CaptureFixture[str]):
    env = GridWorldEnv("frozenlake-4x4", render_mode="human")
    env.reset(seed=0)
    env.step(2)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printed.count("@") == 2
    assert printed.endswith(picture.text(env.world, env.state) + "\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": "CartPole-v1"}, r"^CartPole-v1 has no tables"),
        (
            {"world": "garden", "render_mode": "pixels"},
            r"^render_mode is 'pixels', expected None, 'ansi', 'rgb_array', ",
        ),
        ({"world": "Taxi-v4", "render_mode": "human"}, r"^render_mode is 'human' and Taxi-v4 has no map"),
        ({"world": "garden", "observation": "plans"}, r"^observation 'plans' is unknown.*did you mean 'planes'\?$"),
        ({"world": "garden", "overrides": {"time_limit": 9}}, r"^an override of time_limit .*max_episode_steps"),
    ],
)
def test_what_cannot_be_made_says_why(arguments: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        GridWorldEnv(**arguments)


def test_what_is_no_action_is_refused_and_so_is_a_step_before_the_start():
    env = GridWorldEnv("garden")
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"^the world has not begun: call reset\(\) before step\(\)$"):
        env.step(0)
    env.reset(seed=0)
    for action in (4, -1):
        with pytest.raises(ValueError, match=rf"^action is {action}, expected 0 to 3$"):
            env.step(action)


def test_a_spec_survives_as_text():
    spec = gymnasium.make("quincunx/Garden-v0", observation="coordinates").spec
    assert json.loads(spec.to_json())["kwargs"]["observation"] == "coordinates"
    made = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(spec.to_json()))
    assert made.observation_space.shape == (2,)
