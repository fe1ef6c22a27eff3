"""Targets worked by hand, updates against plain torch, and the exact optimum on small worlds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones.cnn import CNN, GRID
from backbones.mlp import MLP
from envs.catalog import load
from envs.world import World
from rl import dp
from rl.agents import simulate
from rl.backup import Backup
from rl.deep.pqn import PQN
from rl.evaluate import evaluate
from rl.gradient.rollout import shuffled
from rl.recipe import replica_seeds
from rl.recipes.parallel import PQNConfig, build_pqn, normalised
from rl.train import TrainConfig, Trainer
from rl.types import Transition

NUMBERS: dict[str, object] = {
    **{"gamma": 0.5, "lam": 0.5, "rollout": 4, "epochs": 2, "minibatches": 3, "learning_rate": (1e-2, 1e-3)},
    **{"learning_rate_steps": 40, "epsilon": (1.0, 0.2), "epsilon_steps": 50, "clip": 0.5},
}


def small(seeds: list[int]) -> PQN:
    return PQN(lambda: MLP(3, [16], 2, norm=True), (3,), seeds, **NUMBERS)


def steps(count: int, R: int, W: int, seed: int = 0) -> list[Transition]:
    g = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        last = torch.rand(R, W, generator=g) < 0.4
        ended = last & (torch.rand(R, W, generator=g) < 0.5)
        made.append(
            Transition(
                obs=torch.randn(R, W, 3, generator=g),
                memory=torch.zeros(R, W, 0),
                action=torch.randint(0, 2, (R, W), generator=g),
                reward=torch.randn(R, W, generator=g),
                next_obs=torch.randn(R, W, 3, generator=g),
                discount=1 - ended.float(),
                last=last,
            )
        )
    return made


class Read(nn.Module):
    """A network whose action values are written in the observation: half of it, and it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(1, 2, bias=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        self.scale.weight.copy_(torch.tensor([[0.5], [1.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale(x)


def test_targets_worked_by_hand() -> None:
    """gamma 1/2, lam 1/2, four steps in two worlds; v is the successor's own number.

    World 0 is cut by a limit at t = 1 (v 30) and goes on: G_3 = 4 + .5 50 = 29; G_2 = 3 + .25 40 + .25 29 = 20.25;
    G_1 = 2 + .5 30 = 17; G_0 = 1 + .25 20 + .25 17 = 10.25.
    World 1 ends at t = 2 (v 999 must not count): G_3 = 29; G_2 = 3; G_1 = 2 + .25 30 + .25 3; G_0 = 1 + 5 + G_1 / 4.
    """
    agent = PQN(Read, (1,), [0], **NUMBERS)
    v = torch.tensor([[20.0, 30.0, 40.0, 50.0], [20.0, 30.0, 999.0, 50.0]])
    last = torch.tensor([[False, True, False, False], [False, False, True, False]])
    for t in range(4):
        agent.rollout.add(
            Transition(
                obs=torch.zeros(1, 2, 1),
                memory=torch.zeros(1, 2, 0),
                action=torch.zeros(1, 2, dtype=torch.int64),
                reward=torch.full((1, 2), t + 1.0),
                next_obs=v[:, t].view(1, 2, 1),
                discount=1 - (v[:, t] == 999).float()[None],
                last=last[:, t][None],
            )
        )
    expected = torch.tensor([[[10.25, 17.0, 20.25, 29.0], [8.5625, 10.25, 3.0, 29.0]]])
    torch.testing.assert_close(agent.targets(), expected)


def test_updates_equal_plain_torch_on_one_network_at_a_time() -> None:
    """Rollouts of 4 steps in 3 worlds, two epochs of three shuffled parts: torch's own RAdam and clipping."""
    R, W = 2, 3
    agent = small(replica_seeds(0, R))
    history = steps(12, R, W)
    networks = []
    for r in range(R):
        network = MLP(3, [16], 2, norm=True)
        network.load_state_dict(agent.online.network.replica(r))
        networks.append((network, torch.optim.RAdam(network.parameters(), lr=1e-2)))
    for t in history:
        agent.update(t)
    assert agent.shuffles == 2 * 3
    order = [shuffled(agent.shuffle_key, epoch, 4 * W) for epoch in range(6)]
    for k in range(3):  # rollouts
        part = history[4 * k : 4 * k + 4]
        for r, (network, radam) in enumerate(networks):
            targets = torch.empty(W, 4)
            for w in range(W):
                g = 0.0
                for t in reversed(range(4)):
                    v = float(network(part[t].next_obs[r, w][None]).detach().max())
                    g = v if t == 3 or part[t].last[r, w] else 0.5 * v + 0.5 * g
                    g = float(part[t].reward[r, w]) + 0.5 * float(part[t].discount[r, w]) * g
                    targets[w, t] = g
            radam.param_groups[0]["lr"] = 1e-2 - min((k + 1) * 4 * W / 40, 1) * 9e-3
            for epoch in order[2 * k : 2 * k + 2]:
                assert sorted(epoch[r].tolist()) == list(range(12))
                for index in epoch[r].split(4):
                    w, t = index // 4, index % 4
                    obs = torch.stack([part[j].obs[r, i] for i, j in zip(w, t, strict=True)])
                    action = torch.stack([part[j].action[r, i] for i, j in zip(w, t, strict=True)])
                    q = network(obs)[torch.arange(4), action]
                    radam.zero_grad()
                    (0.5 * nn.functional.mse_loss(q, targets[w, t])).backward()
                    nn.utils.clip_grad_norm_(network.parameters(), 0.5)
                    radam.step()
    for r, (network, _) in enumerate(networks):
        for name, ours in agent.online.network.replica(r).items():
            torch.testing.assert_close(ours, network.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_a_replica_learns_the_same_whoever_rides_along() -> None:
    seeds = replica_seeds(4, 3)
    together, history = small(seeds), steps(13, 3, 4)
    for t in history:
        together.update(t)
    for r, seed in enumerate(seeds):
        alone = small([seed])
        for t in history:
            alone.update(Transition(**{name: value[r : r + 1] for name, value in vars(t).items()}))
        assert torch.equal(alone.online.weights[0], together.online.weights[r])


def test_the_cnn_is_normalised_throughout() -> None:
    made = normalised((4, 5, 5), (8,), 3)()
    assert isinstance(made, CNN)
    assert [type(layer).__name__ for layer in made.convolutions] == ["Conv2d", "GroupNorm", "ReLU"] * len(GRID)
    assert isinstance(made.head.norms[0], nn.LayerNorm)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    normal = made.convolutions[1](made.convolutions[0](x))
    torch.testing.assert_close(normal.mean((1, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)
    assert isinstance(normalised((6,), (8,), 3)(), MLP)


def test_what_a_rollout_looked_like_is_logged() -> None:
    """Values 0 of an untrained network that says 0: targets are rewards; of the later epoch nothing is told."""
    agent = small([0, 1])
    with torch.no_grad():
        agent.online.weights.zero_()
    history = steps(4, 2, 3)
    for transition in history:
        said = agent.update(transition)
    rewards = torch.stack([t.reward for t in history], -1).flatten(1)
    assert torch.equal(said["batch_reward_max"], rewards.max(1).values)
    assert (said["q_min"] <= said["q"]).all()
    assert (said["q"] <= said["q_max"]).all()
    assert (said["q_max"] - said["q_min"] < 0.2).all()  # two updates of 0.01 since the first minibatch
    truth = agent_targets_at_zero(history)
    torch.testing.assert_close(said["target"], truth.mean(1))
    torch.testing.assert_close(said["target_min"], truth.min(1).values)


def agent_targets_at_zero(history: list[Transition]) -> torch.Tensor:
    """Half-and-half returns [R, W T] where nothing is expected of any state: gamma lam = 1/4 of what follows."""
    rows = []
    for t in reversed(history):
        follows = rows[-1] if rows else torch.zeros_like(t.reward)
        rows.append(t.reward + 0.25 * t.discount * ~t.last * follows)
    return torch.stack(rows[::-1], -1).flatten(1)


def peng(world: World, gamma: float, lam: float, steps: int) -> torch.Tensor:
    """[S, A]: where Peng's Q(lambda) settles with rollouts of `steps` steps of random actions, by plain iteration.

    The last step of a rollout looks one step ahead, the one before two, and so on; a step is at each place as often.
    """
    mdp = world.mdp
    q = torch.zeros(mdp.states, mdp.actions, dtype=torch.float64)
    for _ in range(300):
        best, ahead, places = q.amax(1), None, []
        for _ in range(steps):
            follows = best if ahead is None else (1 - lam) * best + lam * ahead.mean(1)
            ahead = (mdp.prob * (mdp.reward + gamma * ~mdp.terminated * follows[mdp.next_state.long()])).sum(-1)
            places.append(ahead)
        q = torch.stack(places).mean(0)
    return q


def test_with_lambda_it_settles_where_pengs_returns_do() -> None:
    """lam 0.65 and random actions on zhao-2x2, two replicas: the root mean square error from the fixed point is below
    0.06; q* is more than 0.5 away from it, and what returns that are never cut would give more than 0.1."""
    config = PQNConfig(
        **{"gamma": 0.5, "hidden": (64,), "lam": 0.65, "rollout": 8, "minibatches": 4, "final_epsilon": 1.0},
        **{"learning_rate": 3e-3, "learning_rate_steps": 8_000},
    )
    agent, world = trained(config, "zhao-2x2", 2, 8_000, 16)
    truth = peng(world, 0.5, 0.65, 8)
    found = agent.q_values(world.observe("one-hot")).double()
    assert ((found - truth).square().mean((1, 2)).sqrt() < 0.06).all()
    exact = Backup(world.mdp, 0.5)(dp.value_iteration(world.mdp, 0.5).values)
    assert (truth - exact).square().mean().sqrt() > 0.5
    assert (truth - peng(world, 0.5, 0.65, 100)).square().mean().sqrt() > 0.1


def trained(config: PQNConfig, name: str, replicas: int, length: int, worlds: int) -> tuple[PQN, World]:
    found = load(name)
    assert isinstance(found, World)
    agent = build_pqn(config, found, replicas, seed=0)
    acting = simulate("pqn", config, found, replicas=replicas, worlds=worlds, seed=0)
    list(Trainer(agent, acting, TrainConfig(steps=length, worlds=worlds, report_every=length)).run())
    return agent, found


@pytest.mark.parametrize(
    ("name", "observation", "gamma", "length", "tolerance"),
    [("zhao-5x5", "one-hot", 0.9, 20_000, 0.3), ("zhao-2x2", "planes", 0.5, 4_000, 0.1)],
)
def test_pqn_finds_the_optimal_policy_and_its_values(
    name: str, observation: str, gamma: float, length: int, tolerance: float
) -> None:
    """One-step targets, all actions random: both replicas' greedy policies are optimal, and max q is near v*, which
    is up to 10 in the first world and 2 in the second."""
    config = PQNConfig(
        gamma=gamma,
        observation=observation,
        hidden=(64,),
        lam=0.0,
        rollout=8,
        minibatches=4,
        final_epsilon=1.0,
        learning_rate=3e-3,
        learning_rate_steps=length,
    )
    agent, world = trained(config, name, 2, length, 16)
    found = evaluate(agent, world, gamma=gamma, observation=observation, seed=0, episodes=0)
    assert found.optimal_return is not None
    assert (found.optimal_return - found.returns).abs().max() < 1e-9
    exact = dp.value_iteration(world.mdp, gamma).values
    assert (agent.values(world.observe(observation)) - exact).abs().max() < tolerance
