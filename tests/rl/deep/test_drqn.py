"""Replay of sequences against lists, the loss against a plain loop, burn-in against unrolling from the start."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from backbones.mlp import MLP
from envs.catalog import load
from envs.world import World
from lab import streams, tree
from rl.agents import trainer
from rl.deep.drqn import DRQN, sequence_targets
from rl.deep.sequence_replay import SequenceReplay, Sequences
from rl.deep.sequences import Recurrent, SequenceNetwork, Windowed
from rl.evaluate import optimum, play
from rl.recipe import replica_seeds
from rl.recipes.memory import DRQNConfig
from rl.train import TrainConfig
from rl.types import Transition


def step(t: int, R: int, W: int, ends: dict[tuple[int, int], str]) -> Transition:
    """Look t of world (r, w) is named 1000 t + 10 r + w; its successor, where the episode ends, minus that."""
    name = 1000 * t + 10 * torch.arange(R)[:, None] + torch.arange(W)
    how = [[ends.get((t, w), "") for w in range(W)] for _ in range(R)]
    last = torch.tensor([[bool(h) for h in row] for row in how])
    return Transition(
        obs=name[..., None].float(),
        memory=name[..., None].float() + 0.5,
        action=name,
        reward=name.float(),
        next_obs=torch.where(last, -name, name + 1000)[..., None].float(),
        discount=torch.tensor([[float(h != "end") for h in row] for row in how]),
        last=last,
    )


def told(history: list[Transition], r: int, w: int) -> list[tuple[float, bool, bool, bool, float]]:
    """A world's looks in time: (observation, begins, last, counts, discount), with what cut episodes led to."""
    looks, begins = [], True
    for t in history:
        last, discount = bool(t.last[r, w]), float(t.discount[r, w])
        looks.append((float(t.obs[r, w, 0]), begins, last, True, discount))
        if last and discount:
            looks.append((float(t.next_obs[r, w, 0]), False, True, False, 0.0))
        begins = last
    return looks


ENDS = {(2, 0): "end", (4, 1): "limit", (7, 1): "limit", (8, 0): "limit", (8, 1): "end", (11, 0): "end", (13, 1): "end"}


@pytest.mark.parametrize("steps", [6, 9, 15, 20])
def test_sequences_are_pieces_of_each_worlds_history(steps: int) -> None:
    """Two replicas, two worlds of 12 looks each, sequences of 5 every 3: every drawn one stands in the list."""
    R, W, length, stride = 2, 2, 5, 3
    replay, history = SequenceReplay(24, length, stride, streams.keys(0, "x", R)), []
    for t in range(steps):
        history.append(step(t, R, W, ENDS))
        replay.add(history[-1])
    drawn = replay.sample(200, draw=3)
    for r in range(R):
        lists = [told(history, r, w) for w in range(W)]
        possible = {
            tuple(looks[s : s + length]): (s, w)
            for w, looks in enumerate(lists)
            for s in range(0, len(looks) - length + 1, stride)
        }
        found = set()
        for b in range(200):
            columns = (drawn.obs[r, b, :, 0], drawn.begins[r, b], drawn.last[r, b], drawn.counts[r, b])
            looks = tuple(zip(*(column.tolist() for column in (*columns, drawn.discount[r, b])), strict=True))
            start, w = possible[looks]  # type: ignore[index]
            found.add((start, w))
            name, _, _, counts, _ = looks[0]
            if counts:
                assert drawn.memory[r, b].tolist() == [name + 0.5]
                assert int(drawn.action[r, b, 0]) == name == drawn.reward[r, b, 0]
        newest = {(s, w) for s, w in possible.values() if s > len(lists[w]) - 12}
        assert found == newest


def test_draws_belong_to_the_replica_and_state_goes_round() -> None:
    keys = streams.keys(0, "x", 3)
    together, alone = SequenceReplay(24, 5, 3, keys), SequenceReplay(24, 5, 3, keys[1:2])
    for t in range(17):
        whole = step(t, 3, 2, ENDS)
        together.add(whole)
        alone.add(Transition(**{name: value[1:2] for name, value in vars(whole).items()}))
    saved = SequenceReplay(24, 5, 3, keys)
    saved.load_state_dict(tree.join(*tree.split(together.state_dict())))
    for draw in range(4):
        mine, its, again = together.sample(9, draw), alone.sample(9, draw), saved.sample(9, draw)
        assert all(torch.equal(x[1:2], y) for x, y in zip(vars(mine).values(), vars(its).values(), strict=True))
        assert all(torch.equal(x, y) for x, y in zip(vars(mine).values(), vars(again).values(), strict=True))
    assert not torch.equal(mine.action[0] % 10, mine.action[1] % 10)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="sequences of 5 every 0 looks, expected 1 or more of both"):
        SequenceReplay(24, 5, 0, streams.keys(0, "x", 1))
    with pytest.raises(ValueError, match="capacity is 7, 7 for each of 1 worlds; expected at least 9 for each"):
        SequenceReplay(7, 5, 3, streams.keys(0, "x", 1))
    replay = SequenceReplay(24, 5, 3, streams.keys(0, "x", 1))
    with pytest.raises(ValueError, match="0 steps are remembered, expected at least 5"):
        replay.sample(1, 0)
    with pytest.raises(ValueError, match="capacity is 24, 8 for each of 3 worlds; expected at least 9 for each"):
        replay.add(step(0, 1, 3, {}))


# One replica, one sequence of 6 looks: the second step is cut by its limit and leaves look 2, the fifth ends the world.
LOOKS = Sequences(
    obs=torch.zeros(1, 1, 6, 1),
    action=torch.tensor([[[0, 1, 0, 1, 0, 0]]]),
    reward=torch.tensor([[[1.0, 2.0, 0.0, 3.0, 4.0, 5.0]]]),
    discount=torch.tensor([[[1.0, 1.0, 0.0, 1.0, 0.0, 1.0]]]),
    last=torch.tensor([[[False, True, True, False, True, False]]]),
    begins=torch.tensor([[[True, False, False, True, False, True]]]),
    counts=torch.tensor([[[True, True, False, True, True, True]]]),
    memory=torch.zeros(1, 1, 0),
)
Q = torch.tensor([[[[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [0.0, 1.0], [5.0, 4.0], [9.0, 8.0]]]])
TARGET = torch.tensor([[[[10.0, 20.0], [30.0, 40.0], [50.0, 60.0], [70.0, 80.0], [90.0, 100.0], [999.0, 999.0]]]])


def test_the_targets_worked_by_hand() -> None:
    """gamma 1/2, lam 1/2. G_4 = 4 (an end); G_3 = 3 + .5 (45 + 2) = 26.5, the action at 4 was the best;
    G_1 = 2 + .5 50 = 27, from what the limit cut off; G_0 = 1 + .5 (20 + 13.5). Look 2 is no step."""
    target = sequence_targets(Q, TARGET, LOOKS, 0.5, 0.5)[0, 0]
    assert target[[0, 1, 3, 4]].tolist() == [17.75, 27.0, 26.5, 4.0]


def test_the_trace_is_cut_where_an_action_was_not_the_best() -> None:
    """With another action at look 1: G_0 = 1 + .5 40 = 21, by the online network's choice in the target network."""
    action = LOOKS.action.clone()
    action[0, 0, 1] = 0
    target = sequence_targets(Q, TARGET, replace(LOOKS, action=action), 0.5, 0.5)
    assert target[0, 0, :2].tolist() == [21.0, 27.0]


def test_no_gradient_flows_into_a_target() -> None:
    assert not sequence_targets(
        Q.clone().requires_grad_(), TARGET.clone().requires_grad_(), LOOKS, 0.5, 0.5
    ).requires_grad


def network(kind: str) -> SequenceNetwork:
    numbers = {"eye": lambda: MLP(3, [], 32), "shape": (3,), "width": 32, "actions": 2}
    return Recurrent(**numbers, kind=kind, span=8) if kind in ("gru", "lstm") else Windowed(**numbers, window=5)


def small(seeds: list[int], kind: str = "gru", **changes: object) -> DRQN:
    arguments = {
        **{"gamma": 0.9, "lam": 0.8, "learning_rate": (1e-2, 1e-3), "learning_rate_steps": 60, "batch_size": 5},
        **{"burn_in": 3, "length": 4, "stride": 2, "capacity": 80, "learning_starts": 20, "train_every": 8},
        **{"gradient_steps": 2, "target_every": 3, "epsilon": (1.0, 0.2), "epsilon_steps": 50, "clip": 0.5},
    } | changes
    return DRQN(lambda: network(kind), seeds, **arguments)


def lived(agent: DRQN, W: int, count: int, seed: int = 0) -> list[Transition]:
    """Steps at random through made-up worlds, remembered by the agent as it acts, and forgotten where they end."""
    g, R = torch.Generator().manual_seed(seed), agent.replicas
    memory, obs, history = agent.memory(W), torch.randn(R, W, 3, generator=g), []
    for _ in range(count):
        after = agent.act(obs, memory)[1]
        last, ended = torch.rand(R, W, generator=g) < 0.2, torch.rand(R, W, generator=g) < 0.5
        follows, begun = torch.randn(R, W, 3, generator=g), torch.randn(R, W, 3, generator=g)
        history.append(
            Transition(
                obs=obs,
                memory=memory,
                action=torch.randint(0, 2, (R, W), generator=g),
                reward=torch.randn(R, W, generator=g),
                next_obs=follows,
                discount=1 - (last & ended).float(),
                last=last,
            )
        )
        obs = torch.where(last[..., None], begun, follows)
        memory = after.masked_fill(last.view(R, W, *[1] * (after.ndim - 2)), 0)
    return history


@pytest.mark.parametrize("kind", ["gru", "lstm", "transformer"])
def test_burn_in_from_the_stored_state_equals_unrolling_from_the_start(kind: str) -> None:
    """With the weights that acted, values along any sequence are those of its whole history, from its first step."""
    agent = small([3, 4], kind)
    for t in lived(agent, W=3, count=20):
        agent.replay.add(t)
    stored = agent.replay.storage
    looks = agent.replay.sample(40, draw=1)
    found, compared = agent.unrolled(agent.online, looks), 0
    for r in range(2):
        alone = network(kind)
        alone.load_state_dict(agent.online.network.replica(r))
        for w in range(3):
            n = int(stored["added"][r, w])
            whole = alone(stored["obs"][r, w, None, :n], alone.initial(1), stored["begins"][r, w, None, :n])[0][0]
            for b in range(40):
                for s in range(0, n - 7, 2):
                    if torch.equal(looks.obs[r, b], stored["obs"][r, w, s : s + 8]):
                        torch.testing.assert_close(found[r, b], whole[s + 3 : s + 8], rtol=1e-4, atol=1e-5)
                        compared += 1
    assert compared == 80


def plain_loss(one: SequenceNetwork, lagging: SequenceNetwork, looks: Sequences, r: int, n: int) -> torch.Tensor:
    """The mean loss of replica r, with numbers and loops; n looks of burn-in."""
    losses = []
    for b in range(looks.action.shape[1]):
        values = []
        for net in (one, lagging):
            state, rows = looks.memory[r, b][None], []
            for t in range(looks.action.shape[2]):
                if looks.begins[r, b, t]:
                    state = torch.zeros_like(state)
                q, state = net(looks.obs[r, b, t][None, None], state, torch.zeros(1, 1, dtype=torch.bool))
                state = state.detach() if t == n - 1 else state
                rows.append(q[0, 0])
            values.append(torch.stack(rows))
        q, lag = values
        T, g = len(q), 0.0
        for t in reversed(range(n, T - 1)):
            best = int(q[t + 1].argmax())
            v = float(lag[t + 1, best].detach())
            cut = bool(looks.last[r, b, t]) or t == T - 2
            lam = 0.8 if not cut and int(looks.action[r, b, t + 1]) == best else 0.0
            g = float(looks.reward[r, b, t]) + 0.9 * float(looks.discount[r, b, t]) * ((1 - lam) * v + lam * g)
            if looks.counts[r, b, t]:
                losses.append(torch.nn.functional.huber_loss(q[t, looks.action[r, b, t]], torch.tensor(g)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_updates_equal_plain_torch_on_one_network_at_a_time(kind: str) -> None:
    """R networks learn as R ordinary modules with ordinary Adam, torch's own clipping and a copied target do."""
    R = 2
    agent = small(replica_seeds(0, R), kind)
    networks = []
    for r in range(R):
        one, lagging = network(kind), network(kind)
        for net in (one, lagging):
            net.load_state_dict(agent.online.network.replica(r))
        networks.append((one, lagging, torch.optim.Adam(one.parameters(), lr=1e-2)))
    drawn: list[tuple[int, Sequences]] = []
    sample = agent.replay.sample

    def watched(size: int, draw: int) -> Sequences:
        drawn.append((agent.step, sample(size, draw)))
        return drawn[-1][1]

    agent.replay.sample = watched  # type: ignore[method-assign]
    for transition in lived(agent, W=2, count=24):
        agent.update(transition)
    assert len(drawn) == agent.updates == 2 * 4  # rounds at 24, 32, 40 and 48 of 48 steps
    for updates, (at, looks) in enumerate(drawn):
        for r, (one, lagging, adam) in enumerate(networks):
            adam.zero_grad()
            plain_loss(one, lagging, looks, r, n=3).backward()
            torch.nn.utils.clip_grad_norm_(one.parameters(), 0.5)
            adam.param_groups[0]["lr"] = 1e-2 - min(at / 60, 1) * 9e-3
            adam.step()
            if (updates + 1) % 3 == 0:
                lagging.load_state_dict(one.state_dict())
    for r, (one, lagging, _) in enumerate(networks):
        for held, alone in ((agent.online.network, one), (agent.target, lagging)):
            for name, ours in held.replica(r).items():
                torch.testing.assert_close(ours, alone.state_dict()[name], rtol=2e-3, atol=2e-4)


def test_what_the_last_batch_looked_like_is_logged() -> None:
    """Rewards of -1 to 1 in steps, 99 in looks that are none: only those of steps are told."""
    agent = small([0, 1], burn_in=0)
    made = replace(LOOKS, reward=LOOKS.reward.where(LOOKS.counts, 99.0), action=LOOKS.action % 2)
    looks = Sequences(**{name: column.expand(2, 5, *column.shape[2:]) for name, column in vars(made).items()})
    looks = replace(looks, obs=torch.zeros(2, 5, 6, 3), memory=agent.memory(5))
    loss, said = agent.loss(looks)
    assert set(said) == {f"{name}{end}" for name in ("batch_reward", "q", "target") for end in ("", "_min", "_max")}
    for end, number in (("", 2.5), ("_min", 1.0), ("_max", 4.0)):  # rewards 1, 2, 3, 4
        assert said[f"batch_reward{end}"].tolist() == [number, number]
    assert not any(value.requires_grad for value in said.values())
    assert loss.requires_grad


def test_more_worlds_than_steps_between_rounds_lose_none() -> None:
    """24 worlds, a round of 2 updates every 8 steps: six updates a turn, from the first turn with 8 looks on."""
    agent = small([0], capacity=24 * 12, learning_starts=24)
    for transition in lived(agent, W=24, count=10):
        agent.update(transition)
    assert agent.updates == 3 * 6


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_a_replica_learns_the_same_whoever_rides_along(kind: str) -> None:
    seeds = replica_seeds(4, 2)
    together = small(seeds, kind)
    history = lived(together, W=2, count=24)
    for t in history:
        together.update(t)
    for r, seed in enumerate(seeds):
        alone = small([seed], kind)
        for t in history:
            alone.update(Transition(**{name: value[r : r + 1] for name, value in vars(t).items()}))
        assert torch.equal(alone.online.weights[0], together.online.weights[r])
        assert torch.equal(alone.target.weights[0], together.target.weights[r])


@pytest.mark.parametrize(
    ("kind", "steps", "worlds", "every", "updates"),
    [("gru", 6_400, 16, 32, 2), ("transformer", 4_800, 32, 64, 3), ("none", 3_840, 32, 32, 2)],
)
def test_who_remembers_the_cue_reaches_the_optimum_and_who_does_not_guesses(
    kind: Literal["gru", "transformer", "none"], steps: int, worlds: int, every: int, updates: int
) -> None:
    """A T-maze of 2 steps, two replicas: in every episode the optimal return 4 0.9^2, and the value of both starts
    within 0.4 of it; without a memory only where the guess was right, in about half."""
    world = load("t-maze", {"t-maze.length": 2, "time_limit": 20})
    assert isinstance(world, World)
    config = DRQNConfig(
        **{"gamma": 0.9, "window": 4, "burn_in": 2, "length": 8, "stride": 4, "batch_size": 16},
        **{"learning_rate": 3e-3, "learning_rate_steps": steps, "exploration_steps": 1_600, "final_epsilon": 0.2},
        **{"memory": kind, "learning_starts": 200, "train_every": every, "gradient_steps": updates},
    )
    length = TrainConfig(steps=steps, worlds=worlds, report_every=steps)
    loop = trainer("drqn", world, config, length, replicas=2, seed=0)
    list(loop.run())
    played = play(loop.agent, world, gamma=0.9, observation="one-hot", seed=1, episodes=60)
    best = optimum(world, 0.9)[0]
    assert best == pytest.approx(4 * 0.9**2)
    right = (played.discounted - best).abs() < 1e-5  # [R, E]
    if kind == "none":
        assert ((right.double().mean(1) > 0.25) & (right.double().mean(1) < 0.75)).all()
    else:
        assert right.all()
        starts = world.observe("one-hot")[world.mdp.start > 0]
        assert (loop.agent.values(starts) - best).abs().max() < 0.4
