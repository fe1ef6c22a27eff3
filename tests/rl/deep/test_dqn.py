"""The learner against separate ones, replica by replica, and what it says of a batch that went wrong."""

import copy
import math
from collections.abc import Callable, Iterator

import pytest
import torch

from backbones.mlp import MLP
from envs.catalog import load
from rl.agents import AGENTS
from rl.deep.described import described
from rl.deep.dqn import DQN
from rl.deep.learner import clip_each
from rl.deep.losses import Expected, online_chooses
from rl.deep.prioritised import PrioritisedReplay
from rl.deep.replay import Batch, Memories, Replay
from rl.explore import stream_keys
from rl.recipe import AgentError, network_for, replica_seeds
from rl.recipes.deep import PARTS, CategoricalConfig
from rl.types import Transition


def test_each_replica_is_clipped_by_its_own_norm() -> None:
    weights = torch.zeros(3, 4, requires_grad=True)
    weights.grad = torch.tensor([[3.0, 4.0, 0.0, 0.0], [30.0, 40.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]])
    small = weights.grad[2].clone()
    assert clip_each(weights, 10.0).tolist() == pytest.approx([5.0, 50.0, 0.1])
    assert weights.grad[0].tolist() == [3.0, 4.0, 0.0, 0.0]
    assert weights.grad[1].tolist() == pytest.approx([6.0, 8.0, 0.0, 0.0])
    assert torch.equal(weights.grad[2], small)
    weights.grad[0] = torch.tensor([3e30, 4e30, 0.0, 0.0])
    as_it_was = weights.grad.clone()
    clip_each(weights, math.inf)
    assert torch.equal(weights.grad, as_it_was)


def small(seeds: list[int], **changes: object) -> DQN:
    arguments = {
        "method": Expected(),
        "successor": online_chooses,
        "replay": Replay(40, stream_keys(seeds, "replay")),
        "gamma": 0.9,
        "n": 1,
        "learning_rate": (1e-2, 1e-3),
        "learning_rate_steps": 30,
        "batch_size": 16,
        "learning_starts": 12,
        "train_every": 4,
        "gradient_steps": 2,
        "target_every": 3,
        "epsilon": (1.0, 0.2),
        "epsilon_steps": 50,
        "clip": 0.5,
    } | changes
    return DQN(lambda: MLP(3, [16], 2), (3,), seeds, **arguments)


def steps(count: int, R: int, W: int, seed: int = 0, shape: tuple[int, ...] = (3,)) -> list[Transition]:
    g = torch.Generator().manual_seed(seed)
    return [
        Transition(
            obs=torch.randn(R, W, *shape, generator=g),
            memory=torch.zeros(R, W, 0),
            action=torch.randint(0, 2, (R, W), generator=g),
            reward=torch.randn(R, W, generator=g),
            next_obs=torch.randn(R, W, *shape, generator=g),
            discount=(torch.rand(R, W, generator=g) < 0.8).float(),
            last=torch.rand(R, W, generator=g) < 0.3,
        )
        for _ in range(count)
    ]


def of(transition: Transition, r: int) -> Transition:
    return Transition(**{name: value[r : r + 1] for name, value in vars(transition).items()})


def by_priority(keys: torch.Tensor) -> PrioritisedReplay:
    return PrioritisedReplay(40, keys, alpha=0.7, beta=0.4, beta_steps=60)


@pytest.mark.parametrize("replay", [lambda keys: Replay(40, keys), by_priority], ids=["uniform", "by priority"])
def test_updates_equal_plain_torch_on_one_network_at_a_time(replay: Callable[[torch.Tensor], Memories]) -> None:
    """R networks learn as R ordinary modules with ordinary Adam, torch's own clipping and a copied target do."""
    R = 3
    agent = small(replica_seeds(0, R), replay=replay(stream_keys(replica_seeds(0, R), "replay")))
    networks = []
    for r in range(R):
        network = MLP(3, [16], 2)
        network.load_state_dict(agent.online.network.replica(r))
        networks.append((network, copy.deepcopy(network), torch.optim.Adam(network.parameters(), lr=1e-2)))
    drawn = []
    sample = agent.replay.sample

    def seen(*arguments: int) -> Iterator[Batch]:
        for batch in sample(*arguments):
            drawn.append(batch)
            yield batch

    agent.replay.sample = seen  # type: ignore[method-assign]
    for transition in steps(20, R, 2):
        agent.update(transition)
    updates, rounds = 0, [12, 16, 20, 24, 28, 32, 36, 40]  # steps at which a round of two updates is due
    assert (min(batch.weight.min() for batch in drawn) < 1) == (replay is by_priority)
    for batch in drawn:
        step = rounds[updates // 2]
        updates += 1
        for r, (network, lagging, adam) in enumerate(networks):
            best = network(batch.next_obs[r]).argmax(-1)
            with torch.no_grad():
                bootstrap = lagging(batch.next_obs[r])[torch.arange(16), best]
            y = batch.reward[r] + batch.discount[r] * bootstrap
            q = network(batch.obs[r])[torch.arange(16), batch.action[r]]
            adam.zero_grad()
            (batch.weight[r] * torch.nn.SmoothL1Loss(reduction="none")(q, y)).mean().backward()
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


def variant(name: str, R: int) -> DQN:
    """One of the family on CartPole, tiny."""
    config, _ = PARTS[name]
    own = {"low": 0.0, "high": 10.0} if issubclass(config, CategoricalConfig) else {}
    numbers = {"learning_starts": 12, "train_every": 4, "gradient_steps": 2, "target_every": 3, "batch_size": 8}
    small = config(hidden=(8, 8), **numbers, **own)
    return AGENTS[name].build(small, load("CartPole-v1"), R, 4)


@pytest.mark.parametrize("name", PARTS)
def test_a_replica_learns_the_same_whoever_rides_along(name: str) -> None:
    """Three replicas together and the first alone: equal bit for bit on one thread, weights, targets and actions."""
    together, alone, history = variant(name, 3), variant(name, 1), steps(24, 3, 2, shape=(4,))
    for transition in history:
        acted = together.act(transition.obs, together.memory(2))[0]
        together.update(transition)
        first = of(transition, 0)
        assert torch.equal(alone.act(first.obs, alone.memory(2))[0][0], acted[0])
        alone.update(first)
    assert alone.updates == 20
    assert torch.equal(alone.online.weights[0], together.online.weights[0])
    assert torch.equal(alone.target.weights[0], together.target.weights[0])
    assert not torch.equal(together.online.weights[0], together.online.weights[1])


@pytest.mark.parametrize("name", ["noisy-dqn", "rainbow"])
def test_noise_acts_and_is_silent_where_one_is_judged(name: str) -> None:
    """The same observation in 400 worlds: noise tells them apart, each turn anew; the policy draws nothing."""
    agent = variant(name, 2)
    obs = torch.full((2, 400, 4), 0.1)
    with torch.no_grad():  # nothing but noise tells the actions apart
        first, again = (agent.act(obs, agent.memory(400))[0] for _ in range(2))
        agent.step += 1
        later = agent.act(obs, agent.memory(400))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert all(set(row.tolist()) == {0, 1} for row in first)
    judged = agent.policy(obs, agent.memory(400))[0]
    assert all(len(row.unique()) == 1 for row in judged)


def test_a_batch_that_went_wrong_is_described() -> None:
    """Mean and extremes of each column; a number that is none shows in all three."""
    seen = {"q": torch.tensor([[1.0, 2.0, 6.0], [0.0, torch.nan, 1.0]])}
    said = described(seen)
    assert [said[name][0].item() for name in ("q", "q_min", "q_max")] == [3.0, 1.0, 6.0]
    assert all(said[name][1].isnan() for name in ("q", "q_min", "q_max"))
    said = described(seen, torch.tensor([[True, True, False], [True, False, True]]))
    assert [said[name].tolist() for name in ("q", "q_min", "q_max")] == [[1.5, 0.5], [1.0, 0.0], [2.0, 1.0]]


@pytest.mark.parametrize("worlds", [1, 3, 4, 6, 16])
def test_updates_do_not_depend_on_how_many_worlds_there_are(worlds: int) -> None:
    """A round of 2 updates every 4 steps from the 12th on: in 96 steps 22, and those that its turn brought."""
    agent = small([0])
    for transition in steps(96 // worlds, 1, worlds):
        agent.update(transition)
    assert agent.updates // 2 == {1: 22, 3: 22, 4: 22, 6: 23, 16: 24}[worlds]


@pytest.mark.parametrize("name", PARTS)
def test_what_is_logged_after_learning(name: str) -> None:
    agent = variant(name, 2)
    for transition in steps(12, 2, 2, shape=(4,)):
        said = agent.update(transition)
    told = ["batch_reward", "q", "target", "weight"] + ["target_clipped"] * (name in ("c51", "rainbow"))
    columns = {f"{column}{end}" for column in told for end in ("", "_min", "_max")}
    assert set(said) == {"epsilon", "loss", "gradient_norm"} | columns
    assert all(value.shape == (2,) and value.isfinite().all() and not value.requires_grad for value in said.values())
    assert (said["weight_max"] == 1).all()


def test_q_values_of_shared_and_of_own_observations() -> None:
    agent = small([1, 2])
    seen = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(agent.q_values(seen), agent.q_values(seen.expand(2, 5, 3)))
    assert torch.equal(agent.q_values(seen).argmax(-1), agent.policy(seen.expand(2, 5, 3), agent.memory(5))[0])


def test_backbones_by_name() -> None:
    assert type(network_for((3, 5, 5), (8,), 4, backbone="mlp")()).__name__ == "MLP"
    assert type(network_for((3, 5, 5), (8,), 4, backbone="impala")()).__name__ == "Impala"
    for backbone in ("cnn", "impala"):
        with pytest.raises(AgentError, match=rf"backbone {backbone} reads pictures, and observations are \[7\]"):
            network_for((7,), (8,), 4, backbone=backbone)  # type: ignore[arg-type]
