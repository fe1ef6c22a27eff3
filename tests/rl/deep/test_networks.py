"""Every backbone as a Q-network: two replicas of each learn the optimal policy of a small world."""

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from backbones import cnn
from backbones.mlp import MLP
from backbones.recurrent import Recurrent
from backbones.vision import ViT
from envs.catalog import load
from envs.world import World
from rl import dp
from rl.agents import simulate
from rl.deep.dqn import DQN
from rl.deep.losses import Expected, online_chooses
from rl.deep.replay import Replay
from rl.evaluate import evaluate
from rl.explore import stream_keys
from rl.recipe import replica_seeds
from rl.recipes.deep import DQNConfig
from rl.train import TrainConfig, Trainer

SIDE, PLANES, ACTIONS = 2, 5, 5  # Zhao's world of 2 x 2 cells, as planes


class Rows(nn.Module):
    """A recurrent network reads a picture row by row, and a linear layer its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = Recurrent("lstm", PLANES * SIDE, 32)
        self.head = nn.Linear(32, ACTIONS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x.transpose(-3, -2).flatten(-2))[0][..., -1, :])


SHAPE = (PLANES, SIDE, SIDE)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP(PLANES * SIDE * SIDE, [32], ACTIONS, norm=True),
    "cnn": lambda: cnn.grid(SHAPE, ACTIONS),
    "impala": lambda: cnn.impala(SHAPE, ACTIONS),
    "lstm": Rows,
    "transformer": lambda: ViT(SIDE, PLANES, 1, 16, 1, 2, ACTIONS),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_backbone_learns_to_be_optimal(name: str) -> None:
    """Two replicas, 1,800 steps: every greedy policy is optimal, and max q is within 0.05 of v* (1 to 2)."""
    world = load("zhao-2x2")
    assert isinstance(world, World)
    assert world.observe("planes").shape[1:] == SHAPE
    config = DQNConfig(observation="planes")
    agent = DQN(
        NETWORKS[name],
        SHAPE,
        replica_seeds(0, 2),
        method=Expected(),
        successor=online_chooses,
        replay=Replay(1_800, stream_keys(replica_seeds(0, 2), "replay")),
        gamma=0.5,
        n=1,
        learning_rate=(3e-3, 3e-4),
        learning_rate_steps=1_800,
        batch_size=32,
        learning_starts=200,
        train_every=12,
        gradient_steps=3,
        target_every=10,
        epsilon=(1.0, 0.5),
        epsilon_steps=600,
        clip=10.0,
    )
    worlds = simulate("dqn", config, world, replicas=2, worlds=24, seed=0)
    list(Trainer(agent, worlds, TrainConfig(steps=1_800, worlds=24, report_every=1_800)).run())
    found = evaluate(agent, world, gamma=0.5, observation="planes", seed=0, episodes=0)
    assert (found.optimal_return - found.returns).abs().max() < 1e-9
    exact = dp.value_iteration(world.mdp, 0.5).values
    values = agent.q_values(world.observe("planes")).amax(-1)
    assert (values - exact).abs().max() < 0.05
