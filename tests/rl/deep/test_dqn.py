"""Losses against hand-worked numbers, the learner against separate ones, and against exact values on a small grid."""

import copy

import pytest
import torch

from backbones.mlp import MLP
from envs.catalog import load
from envs.world import World
from rl import dp
from rl.agents import simulate
from rl.deep import dqn
from rl.deep.dqn import DQN, double_dqn_loss, dqn_loss, huber
from rl.deep.learner import clip_each
from rl.deep.replay import Batch
from rl.evaluate import evaluate
from rl.recipe import replica_seeds
from rl.recipes.deep import DQNConfig, build_dqn
from rl.train import TrainConfig, Trainer
from rl.types import Transition

ONLINE = torch.tensor([[1.0, 2.0], [0.5, 0.0], [3.0, -1.0], [0.0, 1.0]])  # Q of states 0 ... 3
TARGET = torch.tensor([[4.0, 2.0], [10.0, 10.0], [1.0, 6.0], [-1.0, 5.0]])

# 0 by action 1 to 3, reward 1; 1 by 0 to 2, where the world ends; 2 by 1 to 0, cut by a time limit: no end.
BATCH = Batch(
    obs=torch.tensor([[0, 1, 2]]),
    action=torch.tensor([[1, 0, 1]]),
    reward=torch.tensor([[1.0, -1.0, 0.5]]),
    next_obs=torch.tensor([[3, 2, 0]]),
    discount=torch.tensor([[1.0, 0.0, 1.0]]),
)


def online(obs: torch.Tensor) -> torch.Tensor:
    return ONLINE[obs]


def target(obs: torch.Tensor) -> torch.Tensor:
    return TARGET[obs]


def test_dqn_loss_worked_by_hand() -> None:
    """Errors 1 + .9 5 - 2 = 3.5;  -1 - .5 = -1.5;  .5 + .9 4 + 1 = 5.1: each half less than its size."""
    torch.testing.assert_close(dqn_loss(online, target, BATCH, 0.9), torch.tensor([[3.0, 1.0, 4.6]]))


def test_double_dqn_loss_worked_by_hand() -> None:
    """The online network chooses 1 in state 3 and 1 in state 0: errors 3.5, -1.5 and .5 + .9 2 + 1 = 3.3."""
    torch.testing.assert_close(double_dqn_loss(online, target, BATCH, 0.9), torch.tensor([[3.0, 1.0, 2.8]]))


def test_huber_is_quadratic_then_linear() -> None:
    error = torch.tensor([0.0, 0.5, -1.0, 3.0, -10.0], requires_grad=True)
    loss = huber(error)
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.125, 0.5, 2.5, 9.5]))
    loss.sum().backward()
    torch.testing.assert_close(error.grad, torch.tensor([0.0, 0.5, -1.0, 1.0, -1.0]))


def test_each_replica_is_clipped_by_its_own_norm() -> None:
    weights = torch.zeros(3, 4, requires_grad=True)
    weights.grad = torch.tensor([[3.0, 4.0, 0.0, 0.0], [30.0, 40.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]])
    small = weights.grad[2].clone()
    assert clip_each(weights, 10.0).tolist() == pytest.approx([5.0, 50.0, 0.1])
    assert weights.grad[0].tolist() == [3.0, 4.0, 0.0, 0.0]
    assert weights.grad[1].tolist() == pytest.approx([6.0, 8.0, 0.0, 0.0])
    assert torch.equal(weights.grad[2], small)


def small(seeds: list[int], **changes: object) -> DQN:
    arguments = {
        "gamma": 0.9,
        "loss": dqn.double_dqn_loss,
        "learning_rate": (1e-2, 1e-3),
        "learning_rate_steps": 30,
        "batch_size": 16,
        "capacity": 40,
        "learning_starts": 12,
        "train_every": 4,
        "gradient_steps": 2,
        "target_every": 3,
        "epsilon": (1.0, 0.2),
        "epsilon_steps": 50,
        "clip": 0.5,
    } | changes
    return DQN(lambda: MLP(3, [16], 2), (3,), seeds, **arguments)


def steps(count: int, R: int, W: int, seed: int = 0) -> list[Transition]:
    g = torch.Generator().manual_seed(seed)
    return [
        Transition(
            obs=torch.randn(R, W, 3, generator=g),
            memory=torch.zeros(R, W, 0),
            action=torch.randint(0, 2, (R, W), generator=g),
            reward=torch.randn(R, W, generator=g),
            next_obs=torch.randn(R, W, 3, generator=g),
            discount=(torch.rand(R, W, generator=g) < 0.8).float(),
            last=torch.rand(R, W, generator=g) < 0.3,
        )
        for _ in range(count)
    ]


def of(transition: Transition, r: int) -> Transition:
    return Transition(**{name: value[r : r + 1] for name, value in vars(transition).items()})


def test_updates_equal_plain_torch_on_one_network_at_a_time() -> None:
    """R networks learn as R ordinary modules with ordinary Adam, torch's own clipping and a copied target do."""
    R = 3
    agent = small(replica_seeds(0, R))
    networks = []
    for r in range(R):
        network = MLP(3, [16], 2)
        network.load_state_dict(agent.online.network.replica(r))
        networks.append((network, copy.deepcopy(network), torch.optim.Adam(network.parameters(), lr=1e-2)))
    drawn = []
    sample = agent.replay.sample
    agent.replay.sample = lambda *arguments: drawn.append(sample(*arguments)) or drawn[-1]  # type: ignore[method-assign]
    for transition in steps(20, R, 2):
        agent.update(transition)
    updates, rounds = 0, [12, 16, 20, 24, 28, 32, 36, 40]  # steps at which a round of two updates is due
    for batch in (batch for batches in drawn for batch in batches):
        step = rounds[updates // 2]
        updates += 1
        for r, (network, lagging, adam) in enumerate(networks):
            best = network(batch.next_obs[r]).argmax(-1)
            with torch.no_grad():
                bootstrap = lagging(batch.next_obs[r])[torch.arange(16), best]
            y = batch.reward[r] + 0.9 * batch.discount[r] * bootstrap
            q = network(batch.obs[r])[torch.arange(16), batch.action[r]]
            adam.zero_grad()
            torch.nn.SmoothL1Loss()(q, y).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            adam.param_groups[0]["lr"] = 1e-2 - min(step / 30, 1) * 9e-3
            adam.step()
            if updates % 3 == 0:
                lagging.load_state_dict(network.state_dict())
    assert updates == agent.updates == 2 * len(rounds)
    for r, (network, lagging, _) in enumerate(networks):
        for name, ours in agent.online.network.replica(r).items():
            torch.testing.assert_close(ours, network.state_dict()[name], rtol=1e-4, atol=1e-5)
        for name, ours in agent.target.replica(r).items():
            torch.testing.assert_close(ours, lagging.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_a_replica_learns_the_same_whoever_rides_along() -> None:
    """Three replicas together and each alone: equal bit for bit on one thread, weights, targets and actions."""
    seeds = replica_seeds(4, 3)
    together, history = small(seeds), steps(40, 3, 2)
    alone = [small([seed]) for seed in seeds]
    for transition in history:
        acted = together.act(transition.obs, together.memory(2))[0]
        together.update(transition)
        for r, one in enumerate(alone):
            assert torch.equal(one.act(transition.obs[r : r + 1], one.memory(2))[0][0], acted[r])
            one.update(of(transition, r))
    for r, one in enumerate(alone):
        assert torch.equal(one.online.weights[0], together.online.weights[r])
        assert torch.equal(one.target.weights[0], together.target.weights[r])


def test_q_values_of_shared_and_of_own_observations() -> None:
    agent = small([1, 2])
    seen = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(agent.q_values(seen), agent.q_values(seen.expand(2, 5, 3)))
    assert torch.equal(agent.q_values(seen).argmax(-1), agent.policy(seen.expand(2, 5, 3), agent.memory(5))[0])


def world(name: str) -> World:
    found = load(name)
    assert isinstance(found, World)
    return found


def trained(config: DQNConfig, found: World, replicas: int, steps: int, worlds: int) -> DQN:
    agent = build_dqn(config, found, replicas, seed=0)
    acting = simulate("dqn", config, found, replicas=replicas, worlds=worlds, seed=0)
    list(Trainer(agent, acting, TrainConfig(steps=steps, worlds=worlds, report_every=steps)).run())
    return agent


@pytest.mark.parametrize("loss", ["double", "single"])
def test_dqn_finds_the_optimal_policy_and_its_values(loss: str) -> None:
    """Zhao's grid, 3 replicas, 10,000 steps each: every greedy policy optimal, max q within 0.3 of v* (up to 10)."""
    zhao = world("zhao-5x5")
    config = DQNConfig(loss=loss, hidden=(64,), final_epsilon=0.5, exploration_steps=2000)  # type: ignore[arg-type]
    agent = trained(config, zhao, replicas=3, steps=10_000, worlds=16)
    found = evaluate(agent, zhao, gamma=0.9, observation="one-hot", seed=0, episodes=0)
    assert (found.optimal_return - found.returns).abs().max() < 1e-9
    values = agent.q_values(zhao.observe("one-hot")).amax(-1)
    assert (values - dp.value_iteration(zhao.mdp, 0.9).values).abs().max() < 0.3
