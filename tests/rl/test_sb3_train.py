"""stable-baselines3's own algorithms in our loop: nothing is lost by asking in pieces, resuming, or our worlds."""

import inspect
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.env_util import make_vec_env

from envs.catalog import load
from envs.world import World
from lab import streams, tree
from rl import agents, dp, sb3_agent, sb3_learners, sb3_train
from rl.evaluate import evaluate
from rl.recipe import AgentError
from rl.sb3_spaces import space_of
from rl.sb3_worlds import VecWorlds, WorldsVecEnv
from rl.train import TrainConfig
from tests.rl.test_resume import same

SMALL: dict[str, dict[str, Any]] = {
    "sb3:dqn": {"learning_starts": 60, "train_every": 40, "gradient_steps": 3, "batch_size": 8, "features": 8},
    "sb3:ppo": {"rollout": 20, "epochs": 2, "batch_size": 16, "features": 8},
    "sb3:a2c": {"features": 8},
}
AROUND = {"map": "S..\n.#.\n..G"}  # of the cliff: -1 a move, four moves home


def trainer(name: str, every: int = 60, world: str = "zhao-5x5", replicas: int = 2) -> sb3_train.Sb3Trainer:
    config = agents.RECIPES[name].config(**SMALL[name])
    return sb3_train.trainer(name, load(world), config, TrainConfig(240, 2, every), replicas=replicas, seed=3)


@pytest.mark.parametrize("name", sb3_learners.LEARNERS)
def test_learning_in_pieces_is_learning_at_once(name: str) -> None:
    """Their own `learn`, called once for all 240 steps, ends with the same weights: schedules are of the whole."""
    pieces = trainer(name)
    steps = [step for step, _ in pieces.run()]
    assert steps == [60, 120, 180, 240, 300, 360, 420, 480]
    with sb3_agent.Ambient().lent():
        model = pieces._make(1)
        model.learn(240, log_interval=None)
    expected = model.policy.state_dict()
    for weight, own in pieces.agent.policies[1].state_dict().items():
        assert torch.equal(own, expected[weight]), weight
    begun = trainer(name).agent.policies[1].state_dict()
    assert any(not torch.equal(expected[weight], begun[weight]) for weight in begun)


@pytest.mark.parametrize("name", sb3_learners.LEARNERS)
def test_a_run_killed_in_a_replica_begins_that_one_again_and_ends_the_same(name: str) -> None:
    whole, cut = trainer(name), trainer(name)
    reports = dict(whole.run())
    run = cut.run()
    while next(run)[0] < 360:  # amid the second
        pass
    assert (cut.step, cut.finished) == (240, 1)
    saved = tree.join(*tree.split(cut.state_dict()))
    resumed = trainer(name)
    resumed.load_state_dict(saved)
    again = dict(resumed.run())
    assert list(again) == [300, 360, 420, 480]
    assert all(same(metrics, reports[step]) for step, metrics in again.items())
    assert same(resumed.state_dict(), whole.state_dict())


def test_a_replica_is_a_function_of_its_seed_and_global_generators_stay_as_they_are() -> None:
    before = torch.random.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002 (looked at)
    two, one = trainer("sb3:dqn"), trainer("sb3:dqn", replicas=1)
    list(two.run()), list(one.run())
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]  # noqa: NPY002 (looked at)
    first, second = (policy.state_dict() for policy in two.agent.policies)
    assert all(torch.equal(weight, first[key]) for key, weight in one.agent.policies[0].state_dict().items())
    assert any(not torch.equal(weight, second[key]) for key, weight in first.items())


def test_it_is_judged_exactly_and_finds_the_optimum() -> None:
    """Their DQN on the way around a wall, one seed: within 3,000 steps it is at the exact optimum."""
    world = load("cliff", {**AROUND, "time_limit": 30})
    assert isinstance(world, World)
    rounds = {"train_every": 4, "gradient_steps": 1, "learning_starts": 100, "batch_size": 32, "target_every": 50}
    config = sb3_learners.Sb3DQNConfig(gamma=0.9, exploration_steps=1_800, **rounds)
    made = sb3_train.trainer("sb3:dqn", world, config, TrainConfig(3_000, 1, 3_000), replicas=1, seed=0)
    list(made.run())
    found = evaluate(made.agent, world, gamma=0.9, observation="one-hot", seed=0, episodes=2)
    assert found.optimal_return == pytest.approx(float(dp.value_iteration(world.mdp, 0.9).values @ world.mdp.start))
    assert found.iqm == pytest.approx(found.optimal_return)
    assert found.episode_returns is not None
    assert found.episode_returns.tolist() == [-4.0]


@pytest.mark.parametrize(("name", "kind"), [("sb3:dqn", DQN), ("sb3:a2c", A2C)])
def test_policy_and_values_are_theirs(name: str, kind: Any) -> None:
    agent, world = trainer(name).agent, load("zhao-5x5")
    assert isinstance(world, World)
    obs = world.observe("one-hot")
    actions = agent.policy(obs.expand(2, -1, -1), agent.memory(25))[0]
    for r, policy in enumerate(agent.policies):
        assert actions[r].tolist() == policy.predict(obs.numpy(), deterministic=True)[0].tolist()
    values = agent.values(obs)
    scores = agent.scores(obs.expand(2, -1, -1))
    if kind is DQN:
        assert torch.equal(values, scores.amax(-1))
    else:
        logits = agent.policies[0].get_distribution(obs).distribution.logits
        torch.testing.assert_close(scores[0].log_softmax(-1), logits)


def test_worlds_as_a_vec_env_tell_an_end_from_a_limit_and_keep_what_was_last_seen() -> None:
    """Beside gymnasium's own corridor of the same seed: FrozenLake without ice, cut after 3 steps."""
    world = load("CartPole-v1", {"time_limit": 12})
    ours = WorldsVecEnv(world.simulate(streams.keys(0, "w", 3)), space_of(world, ""))  # type: ignore[arg-type]
    plain = world.simulate(streams.keys(0, "w", 3))
    assert np.array_equal(ours.reset(), plain.reset().numpy())
    ended = cut = 0
    running = np.zeros(3)
    for t in range(60):
        action = (streams.uniform(streams.keys(1, "a", 3), t) < 0.8).long()
        obs, reward, done, infos = ours.step(action.numpy())
        step = plain.step(action)
        last = step.terminated | step.truncated
        running += step.reward.numpy()
        assert np.array_equal(done, last.numpy())
        assert np.array_equal(reward, step.reward.numpy())
        for n in range(3):
            assert ("terminal_observation" in infos[n]) == bool(done[n])
            if done[n]:
                assert np.array_equal(infos[n]["terminal_observation"], step.obs[n].numpy())
                assert infos[n]["TimeLimit.truncated"] == bool(step.truncated[n])
                assert infos[n]["episode"]["r"] == running[n]
                ended, cut, running[n] = ended + bool(step.terminated[n]), cut + bool(step.truncated[n]), 0
        assert np.array_equal(obs, plain.reset(last).numpy())
    assert ended
    assert cut


def test_a_vec_env_as_worlds_gives_the_true_successor() -> None:
    env = make_vec_env("CartPole-v1", 2, seed=5, env_kwargs={"max_episode_steps": 12})
    twin = gymnasium.make("CartPole-v1", max_episode_steps=12)
    worlds, expected = VecWorlds(env), twin.reset(seed=5)[0]
    obs = worlds.reset()
    ends: list[tuple[bool, bool]] = []
    for t in range(80):
        np.testing.assert_array_equal(obs[0], expected)
        action = t % 2 if len(ends) % 2 else 1  # to and fro keeps the pole up for 12 steps, always right does not
        step = worlds.step(torch.tensor([action, 0]))
        expected, reward, terminated, truncated, _ = twin.step(action)
        np.testing.assert_array_equal(step.obs[0], expected)  # the successor, not the next episode's first
        assert (bool(step.terminated[0]), bool(step.truncated[0])) == (terminated, truncated)
        assert float(step.reward[0]) == reward
        if terminated or truncated:
            ends.append((terminated, truncated))
            expected = twin.reset()[0]
        obs = worlds.reset(step.terminated | step.truncated)
    assert set(ends) == {(True, False), (False, True)}
    with pytest.raises(NotImplementedError, match="does not say where it is"):
        worlds.state_dict()


def test_every_choice_is_documented_and_what_does_not_fit_is_refused() -> None:
    for recipe in sb3_learners.LEARNERS.values():
        for kind in recipe.config.__mro__[:-1]:
            assert inspect.getsource(kind).count('"""') == 2 * (1 + len(inspect.get_annotations(kind))), kind
    with pytest.raises(AgentError, match=r"--backbone cnn reads planes or pictures, and zhao-5x5 shows \[25\] numbers"):
        sb3_agent.untrained(sb3_learners.Sb3PPOConfig(backbone="cnn"), load("zhao-5x5"), 1, 0)
    with pytest.raises(AgentError, match=r"agent 'sb3:dqm' is unknown, .*; did you mean 'sb3:dqn'"):
        agents.defaults("sb3:dqm", "cliff")
