"""A2C and PPO against one ordinary network at a time, hand-worked advantages, and stable-baselines3's own loss."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from torch import nn

from backbones.mlp import MLP
from lab import streams
from rl.gradient.a2c import A2C, ActorCritic
from rl.gradient.ppo import PPO
from rl.gradient.rollout import shuffled
from rl.recipe import replica_seeds
from rl.types import Transition

D, A = 3, 2


def small(kind: type[ActorCritic], seeds: list[int], hidden: tuple[int, ...] = (16,), **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "gamma": 0.9,
        "rate": (1e-2, 1e-3),
        "rate_steps": 30,
        "clip": 0.3,
        "critic": lambda: MLP(D, hidden, 1),
        "critic_rate": (2e-2, 2e-2),
        "rollout": 4,
        "lam": 0.8,
        "entropy": 0.05,
    }
    if kind is PPO:
        arguments |= {"epochs": 2, "minibatches": 3, "clip_ratio": 0.05}
    return kind(lambda: MLP(D, hidden, A), (D,), seeds, **(arguments | changes))


def steps(count: int, R: int, W: int, seed: int = 0) -> list[Transition]:
    """What follows a step is its successor, but where an episode was over."""
    g = torch.Generator().manual_seed(seed)
    found, obs = [], torch.randn(R, W, D, generator=g)
    for _ in range(count):
        ended, cut = torch.rand(R, W, generator=g) < 0.15, torch.rand(R, W, generator=g) < 0.15
        after, begun = torch.randn(2, R, W, D, generator=g)
        found.append(
            Transition(
                obs=obs,
                memory=torch.zeros(R, W, 0),
                action=torch.randint(0, A, (R, W), generator=g),
                reward=torch.randn(R, W, generator=g),
                next_obs=after,
                discount=1 - ended.float(),
                last=ended | cut,
            )
        )
        obs = torch.where((ended | cut)[..., None], begun, after)
    return found


def only(transition: Transition, r: int) -> Transition:
    return Transition(**{name: value[r : r + 1] for name, value in vars(transition).items()})


def test_advantages_worked_by_hand() -> None:
    """Four steps at gamma 1/2, lambda 1/2, v = 10, 20, 30, 40 of the states and 20, 30, 40, 50 of the successors.

    The second ended the world, the third was cut by a limit. Errors: 1 + .5 20 - 10 = 1; 2 - 20 = -18; 3 + .5 40 - 30 =
    -7; 4 + .5 50 - 40 = -11. Advantages: 1 + .25 -18 = -3.5; then the errors themselves, since each is cut.
    """
    agent = small(A2C, [0], hidden=(), gamma=0.5, lam=0.5, rate=(0.0, 0.0), critic_rate=(0.0, 0.0))
    with torch.no_grad():
        agent.critic.weights[0, 0] = 10.0  # v = 10 x the first number of an observation
    seen = []
    agent.learn = lambda batch: seen.append(batch) or {}
    for t, (ended, cut) in enumerate([(False, False), (True, False), (False, True), (False, False)]):
        first, second = (torch.tensor([[[1.0, 0, 0]]]) * k for k in (t + 1, t + 2))
        agent.update(
            Transition(
                obs=first,
                memory=torch.zeros(1, 1, 0),
                action=torch.tensor([[t % 2]]),
                reward=torch.tensor([[t + 1.0]]),
                next_obs=second,
                discount=torch.tensor([[0.0 if ended else 1.0]]),
                last=torch.tensor([[ended or cut]]),
            )
        )
    [batch] = seen
    assert batch.advantage.tolist() == [[-3.5, -18, -7, -11]]
    assert batch.target.tolist() == [[6.5, 2, 23, 29]]
    assert batch.action.tolist() == [[0, 1, 0, 1]]


def gae(agent: ActorCritic, critic: nn.Module, history: list[Transition], r: int) -> tuple[Any, ...]:
    """(obs, actions, advantages, targets) of replica r, world after world, by a loop over numbers (Schulman 2016)."""
    rows: list[Any] = []
    for w in range(history[0].action.shape[1]):
        world, ahead = [], 0.0
        for t in reversed(history):
            with torch.no_grad():
                v, after = float(critic(t.obs[r, w][None])), float(critic(t.next_obs[r, w][None]))
            delta = float(t.reward[r, w]) + agent.gamma * float(t.discount[r, w]) * after - v
            ahead = delta + (0.0 if t.last[r, w] else agent.gamma * agent.lam * ahead)
            world.append((t.obs[r, w], t.action[r, w], ahead, ahead + v))
        rows += reversed(world)
    obs, action, advantage, target = zip(*rows, strict=True)
    return torch.stack(obs), torch.stack(action), torch.tensor(advantage), torch.tensor(target)


@pytest.mark.parametrize("kind", [A2C, PPO])
def test_learning_equals_plain_torch_on_one_network_at_a_time(kind: type[ActorCritic]) -> None:
    """Three replicas, five rollouts of 4 steps in 3 worlds, against modules, Adam and clipping of torch's own."""
    R, W, T = 3, 3, 4
    agent = small(kind, replica_seeds(0, R))
    history = steps(5 * T, R, W)
    peers = []
    for r in range(R):
        networks = MLP(D, (16,), A), MLP(D, (16,), 1)
        for network, learner in zip(networks, (agent.actor, agent.critic), strict=True):
            network.load_state_dict(learner.network.replica(r))
        adams = [torch.optim.Adam(n.parameters(), lr=rate) for n, rate in zip(networks, (1e-2, 2e-2), strict=True)]
        peers.append((networks, adams))
    for i, transition in enumerate(history):
        said = agent.update(transition)
        assert bool(said) == (i % T == T - 1)
        if not said:
            continue
        at = (i + 1) * W
        for r, ((actor, critic), adams) in enumerate(peers):
            obs, action, advantage, target = gae(agent, critic, history[i + 1 - T : i + 1], r)
            parts = [torch.arange(W * T)]
            with torch.no_grad():
                old = actor(obs).log_softmax(-1)[torch.arange(W * T), action]
            if kind is PPO:
                epochs = [shuffled(agent.shuffle_key, agent.shuffles - k, W * T) for k in (2, 1)]
                parts = [part for order in epochs for part in order[r].tensor_split(3)]
            for part in parts:
                log_pi = actor(obs[part]).log_softmax(-1)
                chosen, a = log_pi[torch.arange(len(part)), action[part]], advantage[part]
                if kind is PPO:
                    a = (a - a.mean()) / (a.std() + 1e-8)
                    ratio = (chosen - old[part]).exp()
                    surrogate = torch.min(ratio * a, ratio.clip(0.95, 1.05) * a)
                else:
                    surrogate = chosen * a
                entropy = -(log_pi.exp() * log_pi).sum(-1)
                losses = (
                    -(surrogate + 0.05 * entropy).mean(),
                    0.5 * (critic(obs[part])[:, 0] - target[part]).square().mean(),
                )
                for network, adam, loss in zip((actor, critic), adams, losses, strict=True):
                    adam.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(network.parameters(), 0.3)
                adams[0].param_groups[0]["lr"] = 1e-2 - min(at / 30, 1) * 9e-3
                for adam in adams:
                    adam.step()
    for r, (networks, _) in enumerate(peers):
        for network, learner in zip(networks, (agent.actor, agent.critic), strict=True):
            for name, ours in learner.network.replica(r).items():
                torch.testing.assert_close(ours, network.state_dict()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [A2C, PPO])
def test_a_replica_learns_the_same_bit_for_bit_whoever_rides_along(kind: type[ActorCritic]) -> None:
    seeds = replica_seeds(4, 3)
    together, alone = small(kind, seeds), [small(kind, [seed]) for seed in seeds]
    for transition in steps(20, 3, 2):
        acted = together.act(transition.obs, together.memory(2))[0]
        said = together.update(transition)
        for r, one in enumerate(alone):
            mine = only(transition, r)
            assert torch.equal(one.act(mine.obs, one.memory(2))[0][0], acted[r])
            own = one.update(mine)
            assert all(torch.equal(own[name][0], said[name][r]) for name in said)
    for r, one in enumerate(alone):
        assert torch.equal(one.actor.weights[0], together.actor.weights[r])
        assert torch.equal(one.critic.weights[0], together.critic.weights[r])


def test_a_shuffle_is_a_permutation_of_its_own_for_each_replica_and_epoch() -> None:
    keys = streams.keys(0, "x", 2)
    first = shuffled(keys, 0, 50)
    assert torch.equal(first.sort(1).values, torch.arange(50).expand(2, 50))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(shuffled(keys, 1, 50), first)


def test_minibatches_that_would_be_empty_are_refused() -> None:
    with pytest.raises(ValueError, match="2 epochs of 0 minibatches, expected 1 or more of both"):
        small(PPO, [0], minibatches=0)
    agent = small(PPO, [0], minibatches=9)
    *most, full = steps(4, 1, 2)
    for transition in most:
        agent.update(transition)
    with pytest.raises(ValueError, match="9 minibatches of 8 steps, expected one step in each or more"):
        agent.update(full)


@pytest.mark.parametrize("kind", [A2C, PPO])
def test_what_a_rollout_looked_like_is_logged(kind: type[ActorCritic]) -> None:
    """Two worlds, four steps each; the critic says 0, so that at lambda 0 targets are the rewards, and advantages."""
    agent = small(kind, [0, 1], lam=0.0)
    history = steps(4, 2, 2)
    for transition in history:
        said = agent.update(transition)
    rewards = torch.stack([t.reward for t in history], -1).flatten(1)
    for name in ("batch_reward", "advantage", "target"):
        torch.testing.assert_close(said[name], rewards.mean(1))
        assert torch.equal(said[f"{name}_min"], rewards.min(1).values)
        assert torch.equal(said[f"{name}_max"], rewards.max(1).values)
    assert (said["value"] == 0).all()
    assert (said["critic_gradient_norm"] > 0).all()
    assert not torch.equal(said["critic_gradient_norm"], said["gradient_norm"])


def test_policies_begin_uniform_and_are_judged_by_exact_probabilities() -> None:
    agent = small(A2C, [1, 2])
    obs = torch.randn(2, 5, D)
    odds, _ = agent.policy(obs, agent.memory(5))
    assert (odds == 0.5).all()
    assert (agent.values(obs[0]) == 0).all()
    with torch.no_grad():
        agent.actor.weights.normal_(generator=torch.Generator().manual_seed(0))
    odds, _ = agent.policy(obs, agent.memory(5))
    torch.testing.assert_close(odds.sum(-1), torch.ones(2, 5, dtype=torch.float64), rtol=0, atol=1e-15)


def test_actions_are_drawn_with_their_probabilities() -> None:
    """20,000 worlds: the share of an action within 4 standard errors of its probability, in each replica."""
    agent = small(A2C, [1, 2])
    with torch.no_grad():
        agent.actor.weights.normal_(generator=torch.Generator().manual_seed(0))
    obs = torch.ones(2, 20_000, D)
    action, _ = agent.act(obs, agent.memory(20_000))
    p = agent.policy(obs[:, :1], agent.memory(1))[0][:, 0, 1]
    assert ((action.double().mean(1) - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt()).all()
    assert not torch.equal(action[0], action[1])
    assert torch.equal(action, agent.act(obs, agent.memory(20_000))[0])


class Still(gymnasium.Env[Any, Any]):
    """Only its spaces are asked for."""

    observation_space = spaces.Box(-10, 10, (D,), np.float32)
    action_space = spaces.Discrete(A)

    def reset(self, **_: Any) -> Any:
        return np.zeros(D, np.float32), {}


def test_an_update_of_ppo_has_the_gradient_of_stable_baselines3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its PPO is given our weights and our batch and trains for one epoch on one minibatch.

    The policy has moved since the batch was taken, so that ratios are on both sides of the clip. Its value loss is the
    square, ours half of it: its coefficient is 0.5.
    """
    W, T, coefficient = 16, 4, 0.05
    agent = small(PPO, [0], epochs=1, minibatches=1, clip_ratio=0.2, clip=1e9, rollout=T, entropy=coefficient)
    with torch.no_grad():
        for learner in (agent.actor, agent.critic):
            learner.weights.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    for transition in steps(T, 1, W):
        agent.rollout.add(transition)
    batch = agent.batch()
    # The odds that the actions had: those of a policy a little elsewhere.
    chosen = agent.actor(batch.obs).detach().log_softmax(-1).gather(-1, batch.action[..., None])[..., 0]
    old = chosen + 0.4 * torch.randn(1, W * T, generator=torch.Generator().manual_seed(2))
    peer = stable_baselines3.PPO(
        "MlpPolicy", Still(), n_steps=W * T, batch_size=W * T, n_epochs=1, ent_coef=coefficient, vf_coef=0.5,
        max_grad_norm=1e9, clip_range=0.2, seed=0, device="cpu",
        policy_kwargs={"net_arch": {"pi": [16], "vf": [16]}, "activation_fn": nn.ReLU},
    )  # fmt: skip
    theirs = peer.policy
    pairs = (
        (agent.actor, theirs.mlp_extractor.policy_net[0], theirs.action_net),
        (agent.critic, theirs.mlp_extractor.value_net[0], theirs.value_net),
    )
    for learner, hidden, output in pairs:
        ours = learner.network.replica(0)
        hidden.load_state_dict({"weight": ours["hidden.0.weight"], "bias": ours["hidden.0.bias"]})
        output.load_state_dict({"weight": ours["output.weight"], "bias": ours["output.bias"]})
    buffer = peer.rollout_buffer
    buffer.reset()
    buffer.observations[:, 0] = batch.obs[0].numpy()
    buffer.actions[:, 0, 0] = batch.action[0].numpy()
    buffer.log_probs[:, 0], buffer.advantages[:, 0] = old[0].numpy(), batch.advantage[0].numpy()
    buffer.returns[:, 0], buffer.full = batch.target[0].numpy(), True
    buffer.values[:, 0] = (batch.target - batch.advantage)[0].numpy()
    logged: dict[str, float] = {}
    monkeypatch.setattr(type(peer), "logger", property(lambda self: self._logger))
    peer._logger = type("Logger", (), {"record": lambda self, name, value, **_: logged.update({name: value})})()
    peer.policy.optimizer.step = lambda *_: None  # the gradients stay
    peer.train()
    for learner in (agent.actor, agent.critic):
        learner.optimizer.step = lambda *_: None
    said = agent.step_on(batch, old)
    for learner, hidden, output in pairs:
        parts = [hidden.weight, hidden.bias, output.weight, output.bias]
        gradient = torch.cat([p.grad.flatten() for p in parts])
        torch.testing.assert_close(learner.weights.grad[0, : len(gradient)], gradient, rtol=1e-4, atol=1e-6)
    assert 0.1 < float(said["clipped"]) < 0.9
    ours = {"policy_gradient_loss": "loss", "approx_kl": "kl", "clip_fraction": "clipped"}
    for name, own in ours.items():
        assert float(said[own]) == pytest.approx(float(logged[f"train/{name}"]), abs=1e-5)
    assert float(said["entropy"]) == pytest.approx(-logged["train/entropy_loss"], abs=1e-5)
    assert 2 * float(said["value_loss"]) == pytest.approx(float(logged["train/value_loss"]), rel=1e-4)
