"""A mixture: each world is its part's own, step by step, and sees what that part shows."""

import pytest
import torch

import envs
from envs import World, mix
from lab import streams
from rl import dp
from rl.recipes.deep import DQNConfig, build_dqn
from rl.train import TrainConfig, Trainer, world_keys

MAPS = ["S..\n.#.\n..G", "S.#\n...\n.G.", ".S.\n...\nG#."]


def part(m: int, **overrides: str) -> World:
    return envs.load("cliff", {"map": MAPS[m], "time_limit": "12", "start": "uniform", **overrides})


@pytest.fixture(scope="module")
def mixture() -> World:
    return mix([part(0), part(1, slip='{forward = "3/4", left = "1/4"}'), part(2)], name="three")


def test_world_n_is_the_own_simulator_of_part_n_modulo_m(mixture: World):
    keys = streams.bits(torch.tensor(2), torch.arange(31))
    together = mixture.simulate(keys, observation="planes")
    alone = [world.simulate(keys, observation="planes") for world in mixture.parts]
    mine = [torch.arange(31) % 3 == m for m in range(3)]
    obs, own = together.reset(), [worlds.reset() for worlds in alone]
    for t in range(60):
        for m in range(3):
            assert torch.equal(obs[mine[m]], own[m][mine[m]])
        action = (streams.uniform(keys, 1000 + t) * 4).long()
        step, steps = together.step(action), [worlds.step(action) for worlds in alone]
        for m in range(3):
            assert torch.equal(together.state[mine[m]], alone[m].state[mine[m]] + 8 * m)
            for name in ("obs", "reward", "terminated", "truncated"):
                assert torch.equal(getattr(step, name)[mine[m]], getattr(steps[m], name)[mine[m]])
        obs = together.reset(step.terminated | step.truncated)
        own = [worlds.reset(s.terminated | s.truncated) for worlds, s in zip(alone, steps, strict=True)]


def test_a_rollout_of_a_mixture_is_its_steps(mixture: World):
    keys = streams.bits(torch.tensor(2), torch.arange(31))
    one, other = mixture.simulate(keys), mixture.simulate(keys)
    one.reset()
    other.reset()
    record = one.rollout(40)
    for t in range(40):
        assert torch.equal(record.state[t].long(), other.state)
        step = other.step(record.action[t].long())
        other.reset(step.terminated | step.truncated)
    assert torch.equal(one.state, other.state)
    assert torch.equal(record.state // 8, (torch.arange(31) % 3).int().expand(40, 31))


def test_the_union_solves_to_the_parts_own_values(mixture: World):
    values = torch.cat([dp.policy_iteration(world.mdp, 0.9).values for world in mixture.parts])
    assert torch.allclose(dp.policy_iteration(mixture.mdp, 0.9).values, values)


def test_what_is_seen_is_what_the_parts_show_and_states_are_numbered_through(mixture: World):
    for kind in ("planes", "coordinates"):
        assert torch.equal(mixture.observe(kind), torch.cat([world.observe(kind) for world in mixture.parts]))
    assert torch.equal(mixture.observe("index"), torch.arange(24))
    assert torch.equal(mixture.observe("one-hot"), torch.eye(24))
    wide = mix([part(0), envs.load("cliff", {"map": "S.....GG", "time_limit": "12"})])
    with pytest.raises(envs.ObservationError, match=r"^observation 'planes' of the worlds of 'mixture' is \[5, 3, 3\]"):
        wide.observe("planes")


def test_worlds_of_other_sizes_and_limits_and_no_worlds_are_refused():
    smaller = envs.load("cliff", {"map": "SG", "time_limit": "12"})
    with pytest.raises(envs.MDPError, match=r"^states of world 1 of the mixture 'odd': 2, expected 8$"):
        mix([part(0), smaller], name="odd")
    with pytest.raises(envs.MDPError, match=r"^time limit of world 1 of the mixture 'mixture': 5, expected 12$"):
        mix([part(0), part(0, time_limit="5")])
    with pytest.raises(envs.MDPError, match=r"^a mixture of no worlds, expected at least one$"):
        mix([])


def test_an_agent_trains_on_a_mixture_of_mazes_from_planes():
    world = envs.load("maze", {"maze.size": "3", "maze.count": "5"})
    assert world.blocks == 5
    agent = build_dqn(DQNConfig(observation="planes"), world, replicas=2, seed=0)
    trainer = Trainer(agent, world.simulate(world_keys(0, 2, 5), observation="planes"), TrainConfig(200, worlds=5))
    assert [step for step, _ in trainer.run()][-1] == 200
