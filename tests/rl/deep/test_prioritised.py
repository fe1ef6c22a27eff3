"""The tree against plain sums and torch.multinomial, weights against the paper's formula, state through files."""

import pytest
import torch

from lab import streams, tree
from rl.deep.prioritised import PrioritisedReplay, SumTree
from rl.types import Transition


def step(t: int, R: int, W: int) -> Transition:
    """A transition that carries its own name: t W + w, whatever its replica."""
    name = (t * W + torch.arange(W)).expand(R, W)
    return Transition(
        obs=name.unsqueeze(-1).float(),
        memory=torch.zeros(R, W, 0),
        action=name,
        reward=name.float(),
        next_obs=name.unsqueeze(-1).float(),
        discount=torch.ones(R, W),
        last=torch.zeros(R, W, dtype=torch.bool),
    )


def filled(turns: int, R: int = 2, W: int = 4, capacity: int = 50, **law: float) -> PrioritisedReplay:
    law = {"alpha": 0.7, "beta": 0.4, "beta_steps": 100} | law
    replay = PrioritisedReplay(capacity, streams.keys(0, "x", R), **law)  # type: ignore[arg-type]
    for t in range(turns):
        replay.add(step(t, R, W))
    return replay


@pytest.mark.parametrize("capacity", [1, 2, 5, 16, 33])
def test_every_node_is_the_sum_of_its_leaves_and_find_walks_the_running_sum(capacity: int) -> None:
    g = torch.Generator().manual_seed(capacity)
    sums, values = SumTree(3, capacity), torch.zeros(3, capacity, dtype=torch.float64)
    for _ in range(20):
        place = torch.stack([torch.randperm(capacity, generator=g)[: max(1, capacity // 3)] for _ in range(3)])
        value = torch.rand(place.shape, generator=g, dtype=torch.float64).round(decimals=1)  # zeros among them
        sums.put(place, value)
        values.scatter_(1, place, value)
    torch.testing.assert_close(sums.total, values.sum(1))
    assert torch.equal(sums.at(torch.arange(capacity).expand(3, -1)), values)
    mass = torch.rand(3, 200, generator=g, dtype=torch.float64) * values.sum(1, keepdim=True)
    found = sums.find(mass)
    running = values.cumsum(1)
    assert torch.equal(found, (running.unsqueeze(1) <= mass.unsqueeze(-1)).sum(-1))
    assert (sums.at(found) > 0).all()


def test_of_several_numbers_for_one_place_the_largest_holds() -> None:
    sums = SumTree(1, 4)
    sums.put(torch.tensor([[2, 2, 2, 0]]), torch.tensor([[1.0, 3.0, 2.0, 5.0]], dtype=torch.float64))
    assert sums.at(torch.arange(4)[None]).tolist() == [[5.0, 0.0, 3.0, 0.0]]
    assert sums.total.tolist() == [8.0]


def test_draws_have_the_odds_of_the_priorities_and_the_weights_of_the_paper() -> None:
    """Surprises 1 and 4 by turns at alpha 1/2: odds 1/30 and 2/30. At beta 1/2 weights stand as sqrt 2 to 1.

    Chi-square of 40,000 draws from 20 transitions, 19 degrees, p > 1e-4: 8,000 replicas draw 5 each, since draws that
    are stratified over a whole batch are too even for this test. In one batch of 30,000 each count is its expectation,
    up to the two ends of its share.
    """
    replay = filled(5, R=8_000, alpha=0.5, beta=0.5, beta_steps=10**9)
    (whole,) = replay.sample(1, 20, 0)
    assert whole.weight.eq(1).all()  # nothing learnt yet: all alike
    everything = replay.ring.at(torch.arange(20).expand(8_000, -1), torch.ones(8_000, 20))
    replay.learned(everything, torch.tensor([1.0, 4.0] * 10).expand(8_000, -1))
    odds = torch.tensor([1.0, 2.0] * 10, dtype=torch.float64) / 30
    (few,) = replay.sample(1, 5, 10)
    count = torch.bincount(few.action.flatten(), minlength=20).double()
    assert ((count - 40_000 * odds) ** 2 / (40_000 * odds)).sum() < 50.8
    alone = filled(5, R=1, alpha=0.5, beta=0.5, beta_steps=10**9)
    alone.learned(alone.ring.at(torch.arange(20)[None], torch.ones(1, 20)), torch.tensor([[1.0, 4.0] * 10]))
    (batch,) = alone.sample(1, 30_000, 5)
    share = torch.bincount(batch.action[0], minlength=20) - 30_000 * odds
    assert share.abs().max() <= 2
    expected = torch.where(batch.action[0] % 2 == 0, 1.0, 0.5**0.5)
    torch.testing.assert_close(batch.weight[0], expected, rtol=1e-5, atol=0)


def test_the_bias_is_gone_when_beta_has_risen_to_one() -> None:
    """Weighted by w, draws of any priorities have the uniform mean: N sum_i P(i) w_i x_i / sum is mean x."""
    replay = filled(5, R=1, beta_steps=20)
    surprise = 0.1 + torch.rand(1, 20, generator=torch.Generator().manual_seed(1))
    replay.learned(replay.ring.at(torch.arange(20)[None], torch.ones(1, 20)), surprise)
    (batch,) = replay.sample(1, 100_000, 0)
    mean = (batch.weight * batch.reward).sum() / batch.weight.sum()
    assert mean.item() == pytest.approx(9.5, abs=0.01)
    assert batch.reward.mean().item() != pytest.approx(9.5, abs=0.1)


def test_what_is_new_is_as_surprising_as_the_most_surprising_so_far() -> None:
    replay = filled(2, R=2, alpha=0.5)
    (batch,) = replay.sample(1, 6, 0)
    replay.learned(batch, torch.tensor([[0.1] * 6, [0.1] * 5 + [9.0]]))
    replay.add(step(2, 2, 4))
    new = replay.tree.at(torch.tensor([[8, 9, 10, 11]]).expand(2, 4))
    assert torch.equal(new[0], torch.ones(4, dtype=torch.float64))  # the first of all have 1
    torch.testing.assert_close(new[1], torch.full((4,), 3.0, dtype=torch.float64), rtol=1e-6, atol=0)


def test_each_batch_knows_what_the_one_before_taught() -> None:
    """A transition that no longer surprises is not drawn again in the same round."""
    replay = filled(5, R=1, alpha=1.0)
    batches = replay.sample(2, 400, 0)
    first = next(batches)
    assert (first.action == 7).any()
    replay.learned(first, torch.where(first.action == 7, 0.0, 1.0))
    assert not (next(batches).action == 7).any()


def test_a_ring_that_went_round_forgets_the_priority_of_what_it_lost() -> None:
    replay = filled(5, R=1, W=4, capacity=8)
    assert replay.tree.total.item() == 8
    (batch,) = replay.sample(1, 200, 0)
    assert set(batch.action[0].tolist()) == set(range(12, 20))


def test_a_replica_draws_the_same_whoever_rides_along() -> None:
    keys, law = streams.keys(0, "x", 3), {"alpha": 0.6, "beta": 0.4, "beta_steps": 40}
    together = PrioritisedReplay(30, keys, **law)  # type: ignore[arg-type]
    alone = PrioritisedReplay(30, keys[1:2], **law)  # type: ignore[arg-type]
    for t in range(9):
        together.add(step(t, 3, 4))
        alone.add(step(t, 1, 4))
        (all_,), (one,) = together.sample(1, 6, t), alone.sample(1, 6, t)
        assert torch.equal(all_.action[1:2], one.action)
        assert torch.equal(all_.weight[1:2], one.weight)
        surprise = torch.rand(3, 6, generator=torch.Generator().manual_seed(t))
        together.learned(all_, surprise)
        alone.learned(one, surprise[1:2])
    assert not torch.equal(all_.action[0], all_.action[1])


@pytest.mark.parametrize("turns", [0, 3, 20])
def test_state_goes_round_through_files(turns: int) -> None:
    first, second = filled(turns, capacity=30), filled(0, capacity=30)
    if turns:
        (batch,) = first.sample(1, 8, 0)
        first.learned(batch, torch.rand(2, 8, generator=torch.Generator().manual_seed(0)))
    second.load_state_dict(tree.join(*tree.split(first.state_dict())))
    for t in range(turns, turns + 3):
        for replay in (first, second):
            replay.add(step(t, 2, 4))
        (a,), (b,) = first.sample(1, 9, t), second.sample(1, 9, t)
        assert all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))
    assert torch.equal(first.tree.sums, second.tree.sums)


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(ValueError, match="replay is empty"):
        next(filled(0).sample(1, 1, 0))
