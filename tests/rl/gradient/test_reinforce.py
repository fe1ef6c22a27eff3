"""Whole episodes: what is learnt from them, worked by hand and by a plain loop, cut ones and long ones included."""

from typing import Any

import pytest
import torch

from backbones.mlp import MLP
from rl.gradient.reinforce import BLOCK, Reinforce, ReinforceBaseline, to_go
from rl.gradient.softmax import Softmax
from rl.returns import lambda_returns
from rl.types import Transition

S, A = 3, 2
EYE = torch.eye(S)


def small(kind: type[Reinforce], seeds: list[int], **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "gamma": 0.5,
        "rate": (0.1, 0.1),
        "rate_steps": 1,
        "clip": 1e9,
        "horizon": 10,
    } | changes
    if kind is ReinforceBaseline:
        arguments |= {"critic": lambda: MLP(S, [], 1), "critic_rate": (0.2, 0.2)}
    return kind(lambda: MLP(S, [], A), (S,), seeds, **arguments)


def step(s: int, a: int, r: float, after: int, *, ended: bool = False, cut: bool = False) -> Transition:
    """One step of one replica in one world."""
    return Transition(
        obs=EYE[s].view(1, 1, S),
        memory=torch.zeros(1, 1, 0),
        action=torch.tensor([[a]]),
        reward=torch.tensor([[r]]),
        next_obs=EYE[after].view(1, 1, S),
        discount=torch.tensor([[0.0 if ended else 1.0]]),
        last=torch.tensor([[ended or cut]]),
    )


def logits(agent: Softmax) -> torch.Tensor:
    """h(s, a) [S, A] of the first replica."""
    return agent.actor(EYE.expand(agent.replicas, S, S))[0].detach()


def test_an_episode_worked_by_hand() -> None:
    """Rewards 1, 4 at gamma 1/2: G = 3, 4, and gamma^t G = 3, 2. Equal odds: grad log pi is +-1/2.

    A logit is a weight and a bias that moves with every state: state 0 gets 0.1 * 3/2 through its weight for action 1,
    state 1 -0.1 * 2/2 (action 0 was taken there), and both their sum, 0.05, through the bias.
    """
    agent = small(Reinforce, [0])
    assert agent.update(step(0, 1, 1.0, 1))["loss"] == 0
    assert (logits(agent) == 0).all()
    said = agent.update(step(1, 0, 4.0, 2, ended=True))
    expected = torch.tensor([[-0.2, 0.2], [0.05, -0.05], [-0.05, 0.05]])
    torch.testing.assert_close(logits(agent), expected)
    log2 = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(said["loss"], 5 * log2[None])
    torch.testing.assert_close(said["entropy"], log2[None])
    assert (agent.rollout.length == 0).all()
    assert agent.values(EYE).isnan().all()


@pytest.mark.parametrize("kind", [Reinforce, ReinforceBaseline])
@pytest.mark.parametrize("how", ["ended", "cut", "horizon"])
def test_a_cut_episode_is_completed_by_the_baseline_alone(kind: type[Reinforce], how: str) -> None:
    """The same two steps: an end is worth nothing, a cut is worth what the baseline says (8), 0 where there is none."""
    agent = small(kind, [0], horizon=2 if how == "horizon" else 10)
    if kind is ReinforceBaseline:
        with torch.no_grad():
            agent.critic.weights[0, :S] = torch.tensor([0.0, 0.0, 8.0])
    agent.update(step(0, 1, 1.0, 1))
    agent.update(step(1, 0, 4.0, 2, ended=how == "ended", cut=how == "cut"))
    after = 8.0 if kind is ReinforceBaseline and how != "ended" else 0.0
    g1 = 4 + 0.5 * after
    g0 = 1 + 0.5 * g1
    moved = 0.1 / 2 * torch.tensor([[-g0, g0], [0.5 * g1, -0.5 * g1], [0.0, 0.0]])
    torch.testing.assert_close(logits(agent), moved + moved.sum(0))
    if kind is ReinforceBaseline:  # the critic's own step: 0.2 (G - 0) / 2 at each state and at the bias
        w = 0.1 * torch.tensor([g0, g1, 0]) + torch.tensor([0, 0, 8.0])
        torch.testing.assert_close(agent.values(EYE)[0], w + 0.1 * (g0 + g1))


@pytest.mark.parametrize("T", [1, 2, 7, 64, 100])
def test_returns_to_go_are_lambda_returns_at_lambda_one(T: int) -> None:
    g = torch.Generator().manual_seed(T)
    r = torch.randn(4, T, generator=g, dtype=torch.float64)
    last, ended = torch.rand(4, T, generator=g) < 0.1, torch.rand(4, T, generator=g) < 0.5
    last[:, -1] = True
    discount, v = 0.97 * (~(last & ended)).double(), torch.randn(4, 1, generator=g, dtype=torch.float64)
    expected = lambda_returns(r, discount, v.expand(4, T), last, 1.0)
    torch.testing.assert_close(to_go(r, discount, v, last), expected)


def random_steps(count: int, R: int, W: int, seed: int = 0) -> list[Transition]:
    g = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        ended = torch.rand(R, W, generator=g) < 0.02
        found.append(
            Transition(
                obs=EYE[torch.randint(0, S, (R, W), generator=g)],
                memory=torch.zeros(R, W, 0),
                action=torch.randint(0, A, (R, W), generator=g),
                reward=torch.randn(R, W, generator=g),
                next_obs=EYE[torch.randint(0, S, (R, W), generator=g)],
                discount=1 - ended.float(),
                last=ended | (torch.rand(R, W, generator=g) < 0.01),
            )
        )
    return found


@pytest.mark.parametrize("kind", [Reinforce, ReinforceBaseline])
def test_updates_equal_a_plain_loop_over_episodes(kind: type[Reinforce]) -> None:
    """Two replicas in three worlds, episodes of 1 to 50 steps (two blocks), ends, limits and the horizon."""
    R, W, T, gamma = 2, 3, 50, 0.9
    assert BLOCK < T
    agent = small(kind, [0, 1], gamma=gamma, horizon=T)
    if kind is ReinforceBaseline:
        agent.critic.rate = (0.3, 0.3)
    h, c = torch.zeros(R, S, A).double(), torch.zeros(R, S).double()  # weights
    hb, cb = torch.zeros(R, A).double(), torch.zeros(R).double()  # biases
    held: dict[tuple[int, int], list[Any]] = {(r, w): [] for r in range(R) for w in range(W)}
    lengths = set()
    for t in random_steps(300, R, W):
        agent.update(t)
        for r in range(R):
            actor, actor_bias = torch.zeros(S, A).double(), torch.zeros(A).double()
            critic, critic_bias, learnt = torch.zeros(S).double(), 0.0, 0
            for w in range(W):
                episode = held[r, w]
                state, after = int(t.obs[r, w].argmax()), int(t.next_obs[r, w].argmax())
                episode.append((state, int(t.action[r, w]), float(t.reward[r, w])))
                if not t.last[r, w] and len(episode) < T:
                    continue
                G = float(c[r, after] + cb[r]) * float(t.discount[r, w])
                for k in reversed(range(len(episode))):
                    s, a, reward = episode[k]
                    G = reward + gamma * G
                    error = G - float(c[r, s] + cb[r])
                    push = gamma**k * error * (torch.eye(A).double()[a] - (h[r, s] + hb[r]).softmax(-1))
                    actor[s] += push
                    actor_bias += push
                    critic[s] += error
                    critic_bias += error
                lengths.add(len(episode))
                learnt += len(episode)
                episode.clear()
            h[r] += 0.1 * actor
            hb[r] += 0.1 * actor_bias
            if kind is ReinforceBaseline:
                c[r] += 0.3 * critic / max(1, learnt)
                cb[r] += 0.3 * critic_bias / max(1, learnt)
    assert min(lengths) < 5
    assert max(lengths) == T
    assert 0.3 < float(h.abs().max()) < 10
    found = agent.actor(EYE.expand(R, S, S)).detach().double()
    torch.testing.assert_close(found, h + hb[:, None], rtol=1e-4, atol=1e-5)
    if kind is ReinforceBaseline:
        torch.testing.assert_close(agent.values(EYE).double(), c + cb[:, None], rtol=1e-4, atol=1e-5)


def only(transition: Transition, r: int) -> Transition:
    return Transition(**{name: value[r : r + 1] for name, value in vars(transition).items()})


def test_a_replica_learns_the_same_bit_for_bit_however_long_the_episodes_of_others_are() -> None:
    """Replica 0's episodes end within 5 steps, replica 1's never before the horizon of 90, three blocks."""
    changes: dict[str, Any] = {"gamma": 0.9, "horizon": 90, "clip": 1.0}
    together = small(ReinforceBaseline, [3, 4], **changes)
    alone = [small(ReinforceBaseline, [seed], **changes) for seed in (3, 4)]
    for i, t in enumerate(random_steps(200, 2, 2)):
        t.last[0], t.last[1] = i % 5 == 4, False
        t.discount[1] = 1
        acted = together.act(t.obs, together.memory(2))[0]
        said = together.update(t)
        for r, one in enumerate(alone):
            mine = only(t, r)
            assert torch.equal(one.act(mine.obs, one.memory(2))[0][0], acted[r])
            own = one.update(mine)
            assert all(torch.equal(own[name][0], said[name][r]) for name in said)
    for r, one in enumerate(alone):
        assert torch.equal(one.actor.weights[0], together.actor.weights[r])
        assert torch.equal(one.critic.weights[0], together.critic.weights[r])


def test_what_an_episode_looked_like_is_logged() -> None:
    """Rewards 1, 4 at gamma 1/2: returns 3, 4. The same before the next episode is over, 0 before the first."""
    agent = small(ReinforceBaseline, [0])
    assert agent.update(step(0, 1, 1.0, 1))["batch_return_max"] == 0
    said = agent.update(step(1, 0, 4.0, 2, ended=True))
    for name, three in {"batch_reward": (2.5, 1.0, 4.0), "batch_return": (3.5, 3.0, 4.0)}.items():
        assert tuple(float(said[name + end]) for end in ("", "_min", "_max")) == three
    # The critic said 0 of both: its gradient is minus 3/2 and 4/2 at two weights, and their sum at the bias.
    assert float(said["critic_gradient_norm"]) == pytest.approx((1.5**2 + 2**2 + 3.5**2) ** 0.5)
    later = agent.update(step(2, 0, 9.0, 1))
    assert all(torch.equal(later[name], said[name]) for name in said)


def test_a_rollout_needs_a_step() -> None:
    with pytest.raises(ValueError, match="a rollout of 0 steps, expected at least 1"):
        small(Reinforce, [0], horizon=0)
