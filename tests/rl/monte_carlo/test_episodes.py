"""What episodes teach, by hand: ends and limits, tails, visits; means and importance sampling by hand and by loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rl.monte_carlo.episodes import Ended, Episodes, Means, every_visit, first_visits, tail_of
from rl.monte_carlo.importance import ordinary, per_decision, products, weighted
from rl.returns import discounted_sums, lambda_returns
from rl.tabular.table import Table


def ended(reward: list[list[float]], ratio: list[list[float]] | None = None, length: list[int] | None = None) -> Ended:
    """Episodes of one replica; anything may stand behind their ends."""
    r = torch.tensor(reward, dtype=torch.float64)
    n = torch.tensor(length or [r.shape[1]] * len(r))[:, None]
    t = torch.arange(r.shape[1])
    columns = {"reward": r} | ({} if ratio is None else {"ratio": torch.tensor(ratio, dtype=torch.float64)})
    return Ended(torch.zeros(len(r), dtype=torch.int64), t < n, t == n - 1, t < n, columns)


def test_returns_of_whole_episodes_by_hand() -> None:
    """2 + 4/2 + 8/4 and so on; the second episode is over after two steps, whatever stands there."""
    found = ended([[2, 4, 8], [1, 6, 777]], length=[3, 2]).returns(0.5)
    assert found[0].tolist() == [2 + 2 + 2, 4 + 4, 8]
    assert found[1, :2].tolist() == [1 + 3, 6]


@pytest.mark.parametrize("T", [1, 2, 3, 7, 8, 9, 100])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_sums_by_doubling_are_returns_with_lambda_1(T: int, gamma: float) -> None:
    r = torch.from_numpy(np.random.default_rng(T).normal(size=(4, T)))
    nothing, last = torch.zeros_like(r), torch.zeros_like(r).bool()
    expected = lambda_returns(r, torch.full_like(r, gamma), nothing, last, 1.0)
    torch.testing.assert_close(discounted_sums(r, gamma), expected)
    padded = torch.cat([r, torch.zeros(4, 37, dtype=torch.float64)], 1)
    assert torch.equal(discounted_sums(padded, gamma)[:, :T], discounted_sums(r, gamma))


def test_first_visits_are_those_that_were_not_before() -> None:
    entry = torch.tensor([[3, 1, 3, 0, 1, 3], [5, 5, 5, 5, 5, 5], [0, 1, 2, 3, 4, 5]])
    T, F = True, False
    assert first_visits(entry).tolist() == [[T, T, F, T, F, F], [T, F, F, F, F, F], [T] * 6]
    assert every_visit(entry).all()


def test_the_tail_leaves_one_percent_unseen_or_half_of_the_steps() -> None:
    assert tail_of(100, 0.9) == 44  # 0.9^43 = 0.0108, 0.9^44 = 0.0097
    assert tail_of(60, 0.9) == 30
    assert tail_of(100, 1.0) == 50
    assert tail_of(100, 0.0) == 0


def test_a_world_that_ended_gives_its_episode_and_begins_another() -> None:
    """Two worlds of one replica, limit 4, tail 1: the first ends at its 2nd step, the second is cut at its 4th."""
    running = Episodes(1, limit=4, tail=1)
    assert running.begin(2).tolist() == [[True, True]]
    given = []
    for t, last in enumerate([[False, False], [True, False], [False, False], [False, True]]):
        one = running.add(
            torch.tensor([last]), entry=torch.tensor([[t, 10 + t]]), reward=torch.tensor([[1.0, 2.0 + t]]).double()
        )
        given.append(one)
        assert running.begin(2).tolist() == [last]
    assert given[0] is None
    assert given[2] is None
    first, second = given[1], given[3]
    assert first is not None
    assert second is not None
    assert first.columns["entry"].tolist() == [[0, 1]]
    assert first.teaches.tolist() == [[True, True]]
    assert second.columns["entry"].tolist() == [[10, 11, 12, 13]]
    assert second.teaches.tolist() == [[True, True, True, False]]  # the last step is within the tail
    assert second.returns(0.5)[0].tolist() == [2 + 1.5 + 1 + 0.625, 3 + 2 + 1.25, 4 + 2.5, 5]
    third = running.add(torch.tensor([[True, True]]), entry=torch.tensor([[7, 8]]), reward=torch.zeros(1, 2).double())
    assert third is not None
    assert third.there.tolist() == [[True, True, True], [True, False, False]]
    assert third.columns["entry"][0].tolist() == [2, 3, 7]


def test_an_episode_beyond_the_limit_is_an_error_and_so_is_nothing_to_learn_from() -> None:
    running = Episodes(1, limit=1, tail=0)
    step = {"entry": torch.zeros(1, 1).long(), "reward": torch.zeros(1, 1).double()}
    running.add(torch.tensor([[False]]), **step)
    with pytest.raises(ValueError, match="an episode goes on after 1 steps"):
        running.add(torch.tensor([[False]]), **step)
    with pytest.raises(ValueError, match="episodes of 3 steps with a tail of 3"):
        Episodes(1, limit=3, tail=3)


def test_means_are_weighted_means_however_many_come_at_once() -> None:
    rng = np.random.default_rng(0)
    table = Table(2, (3, 2), alpha=1.0, omega=1.0)
    means = Means(table)
    seen: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for m in (1, 5, 40, 0, 7):
        replica, entry = rng.integers(0, 2, m), rng.integers(0, 6, m)
        target, weight = rng.normal(size=m), rng.random(m) * (rng.random(m) < 0.7)
        means.add(*(torch.from_numpy(x) for x in (replica, entry, target, weight)))
        for key, pair in zip(zip(replica, entry, strict=True), zip(target, weight, strict=True), strict=True):
            seen.setdefault(key, []).append(pair)
        for (r, e), pairs in seen.items():
            g, w = np.array(pairs).T
            expected = (g * w).sum() / w.sum() if w.sum() else 0.0
            assert table.value[r].view(-1)[e].item() == pytest.approx(expected, abs=1e-12)
            assert table.n[r].view(-1)[e].item() == len(pairs)


def test_importance_sampling_by_hand() -> None:
    """Ratios 2, 0.5, 3: rho is 3, 1.5, 3; G at gamma 0.5 is 6, 8, 8; G~ is 2 (2 + .5 .5 (4 + .5 3 8)) and so on."""
    one = ended([[2, 4, 8, 99]], [[2, 0.5, 3, 99]], [3])
    assert products(one)[0, :3].tolist() == [3, 1.5, 3]

    def first_three(pair: tuple[Tensor, Tensor]) -> list[list[float]]:
        return [column[0, :3].tolist() for column in pair]

    assert first_three(ordinary(one, 0.5)) == [[3 * 6, 1.5 * 8, 3 * 8], [1, 1, 1]]
    assert first_three(weighted(one, 0.5)) == [[6, 8, 8], [3, 1.5, 3]]
    assert first_three(per_decision(one, 0.5)) == [
        [2 * (2 + 0.5 * 0.5 * (4 + 0.5 * 24)), 0.5 * (4 + 0.5 * 24), 24],
        [1] * 3,
    ]


def test_what_outgrows_float64_and_then_meets_a_zero_is_zero() -> None:
    huge = ended([[0.0] * 402], [[0.0, *[10.0] * 400, 0.5]])
    rho = products(huge)[0]
    assert rho[0] == 0
    assert rho[1] == 1e200
    assert rho[-1] == 0.5
