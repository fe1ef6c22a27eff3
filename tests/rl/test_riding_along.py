"""A replica learns the same, bit for bit, whoever rides along: agents on tables or linear features, in 50 worlds."""

from dataclasses import replace

import pytest
import torch

from envs.catalog import load
from envs.world import World
from rl.agents import AGENTS, FAMILIES, trainer
from rl.evaluate import policy_of
from rl.train import TrainConfig

WORLDS, TURNS = 50, 24
LEARN = {
    "n-step-sarsa": {"n": 3},
    "n-step-expected-sarsa": {"n": 3},
    "tree-backup": {"n": 3},
    "n-step-td": {"n": 3},
    "dyna-q": {"planning": 2},
    "dyna-q-plus": {"planning": 2},
    **{f"mc{which}": {"limit": 7, "tail": 0} for which in ("", "-exploring-starts", "-off-policy")},
    **{f"mc{which}-prediction": {"limit": 7, "tail": 0} for which in ("", "-off-policy")},
}
"""What makes them learn within a few turns."""
NAMES = [
    name for family, module in FAMILIES.items() if family.startswith(("tables", "linear")) for name in module.AGENTS
]


def uneven() -> World:
    """Zhao's grid with rewards that are no whole numbers, so that the order of a sum shows; episodes of 7 steps."""
    world = load("zhao-5x5")
    assert isinstance(world, World)
    noise = torch.randn(world.mdp.reward.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return replace(world, mdp=replace(world.mdp, reward=world.mdp.reward + noise / 3), time_limit=7)


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_learns_the_same_bit_for_bit_whoever_rides_along(name: str) -> None:
    """The first of 1, 2 and 5 replicas, 24 turns of 50 worlds: values, policy, and every number that is logged."""
    world = uneven()
    found = []
    for replicas in (1, 2, 5):
        length = TrainConfig(steps=TURNS * WORLDS, worlds=WORLDS, report_every=8 * WORLDS)
        config = AGENTS[name].config(**LEARN.get(name, {}))
        run = trainer(name, world, config, length, replicas=replicas, seed=3)
        logged = [metrics for _, metrics in run.run()]
        values = run.agent.values(world.observe(config.observation))
        found.append((values, policy_of(run.agent, world, config.observation), logged))
    (values, policy, logged), *others = found
    assert (values != values.mean()).any()  # it has learnt something
    for other_values, other_policy, other_logged in others:
        assert torch.equal(other_values[0], values[0])
        assert torch.equal(other_policy[0], policy[0])
        for mine, others_ in zip(logged, other_logged, strict=True):
            assert [k for k in mine if not torch.equal(mine[k][0].nan_to_num(), others_[k][0].nan_to_num())] == []
    assert not torch.equal(others[-1][0][0], others[-1][0][1])
