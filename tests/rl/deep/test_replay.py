"""The ring against a list, the draws against their law and their key."""

import pytest
import torch

from lab import streams, tree
from rl.deep.replay import Replay
from rl.types import Transition


def step(t: int, R: int, W: int) -> Transition:
    """A transition that carries its own name in every field: 1000 t + 10 r + w."""
    name = 1000 * t + 10 * torch.arange(R)[:, None] + torch.arange(W)
    return Transition(
        obs=name.unsqueeze(-1).to(torch.uint8).expand(R, W, 3),
        memory=torch.zeros(R, W, 0),
        action=name,
        reward=name.float(),
        next_obs=(name + 1).unsqueeze(-1).to(torch.uint8).expand(R, W, 3),
        discount=(name % 2).float(),
        last=torch.zeros(R, W, dtype=torch.bool),
    )


def test_it_holds_exactly_the_last_transitions() -> None:
    R, W, capacity = 3, 4, 10
    replay, history = Replay(capacity, streams.keys(0, "x", R)), []
    for t in range(7):
        replay.add(step(t, R, W))
        history.append(step(t, R, W).action)
        kept = torch.cat(history, 1)[:, -capacity:]
        assert len(replay) == kept.shape[1]
        assert torch.equal(replay.storage["action"][:, : len(replay)].sort(1).values, kept)


def test_fields_of_a_sample_belong_together_and_to_their_replica() -> None:
    replay = Replay(50, streams.keys(0, "x", 3))
    for t in range(5):
        replay.add(step(t, 3, 4))
    for batch in replay.sample(2, 16, draw=0):
        name = batch.action
        assert name.shape == (3, 16)
        assert torch.equal(name % 1000 // 10, torch.arange(3)[:, None].expand(3, 16))
        assert torch.equal(batch.obs, name.to(torch.uint8).unsqueeze(-1).expand(3, 16, 3))
        assert torch.equal(batch.next_obs, (name + 1).to(torch.uint8).unsqueeze(-1).expand(3, 16, 3))
        assert torch.equal(batch.reward, name.float())
        assert torch.equal(batch.discount, (name % 2).float())


def test_draws_are_uniform() -> None:
    """Chi-square over 20,000 draws from 20 transitions, 19 degrees, p > 1e-4, for each of two replicas."""
    replay = Replay(20, streams.keys(0, "x", 2))
    for t in range(9):
        replay.add(step(t, 2, 4))
    (batch,) = replay.sample(1, 20_000, draw=3)
    for r in range(2):
        found = torch.unique(batch.action[r], return_counts=True)[1].double()
        assert len(found) == 20
        assert ((found - 1000) ** 2 / 1000).sum() < 50.8


def test_a_replica_draws_the_same_whoever_rides_along_and_however_it_is_asked() -> None:
    keys = streams.keys(0, "x", 3)
    together, alone = Replay(30, keys), Replay(30, keys[1:2])
    for t in range(4):
        whole = step(t, 3, 2)
        together.add(whole)
        alone.add(Transition(**{name: value[1:2] for name, value in vars(whole).items()}))
    five = together.sample(5, 8, draw=10)
    for b in range(5):
        assert torch.equal(five[b].action[1:2], alone.sample(1, 8, draw=10 + b)[0].action)
    assert not torch.equal(five[0].action[0] % 10, five[0].action[1] % 10)


@pytest.mark.parametrize("turns", [0, 3, 9])
def test_state_goes_round_through_files(turns: int) -> None:
    first, second = Replay(10, streams.keys(0, "x", 2)), Replay(10, streams.keys(0, "x", 2))
    for t in range(turns):
        first.add(step(t, 2, 2))
    second.load_state_dict(tree.join(*tree.split(first.state_dict())))
    for t in range(turns, turns + 4):
        first.add(step(t, 2, 2))
        second.add(step(t, 2, 2))
        for one, other in zip(first.sample(2, 7, draw=t), second.sample(2, 7, draw=t), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="capacity is 0, expected at least 1"):
        Replay(0, streams.keys(0, "x", 1))
    with pytest.raises(ValueError, match="replay is empty"):
        Replay(5, streams.keys(0, "x", 1)).sample(1, 1, 0)
    with pytest.raises(ValueError, match="capacity is 3, expected at least 4"):
        Replay(3, streams.keys(0, "x", 1)).add(step(0, 1, 4))
