"""n steps against rl.returns on random episodes, by hand, and through a saved state."""

import pytest
import torch

from lab import tree
from rl.deep.n_step import NStep
from rl.returns import n_step_returns
from rl.types import Transition


def one(reward: float, obs: int, *, discount: float = 1.0, last: bool = False) -> Transition:
    return Transition(
        obs=torch.tensor([[[float(obs)]]]),
        memory=torch.zeros(1, 1, 0),
        action=torch.tensor([[obs]]),
        reward=torch.tensor([[reward]]),
        next_obs=torch.tensor([[[obs + 0.5]]]),
        discount=torch.tensor([[discount]]),
        last=torch.tensor([[last]]),
    )


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_three_steps_worked_by_hand(discount: float) -> None:
    """gamma 1/2. The episode 0, 1, 2 ends (0) or is cut (1) at 2; then another begins at 3."""
    steps = NStep(3, 0.5)
    said = [steps.add(one(4.0, 0)), steps.add(one(2.0, 1))]
    assert said == [None, None]
    full = steps.add(one(8.0, 2, discount=discount, last=True))
    short, shorter = steps.add(one(100.0, 3)), steps.add(one(100.0, 4))
    later = steps.add(one(100.0, 5))
    for out, obs, reward, factor, successor in [
        (full, 0, 4.0 + 1.0 + 2.0, discount / 8, 2.5),
        (short, 1, 2.0 + 4.0, discount / 4, 2.5),
        (shorter, 2, 8.0, discount / 2, 2.5),
        (later, 3, 175.0, 1 / 8, 5.5),
    ]:
        assert out is not None
        assert (out.obs.item(), out.action.item(), out.reward.item()) == (obs, obs, reward)
        assert (out.discount.item(), out.next_obs.item()) == (factor, successor)
        assert out.last.item() == (obs < 3)


def history(T: int, R: int, W: int, seed: int) -> list[Transition]:
    g = torch.Generator().manual_seed(seed)
    obs = torch.randn(T, R, W, 2, generator=g)
    ended = torch.rand(T, R, W, generator=g)
    return [
        Transition(
            obs=obs[t],
            memory=torch.zeros(R, W, 0),
            action=torch.randint(0, 2, (R, W), generator=g),
            reward=torch.randn(R, W, generator=g),
            next_obs=torch.randn(R, W, 2, generator=g),
            discount=(ended[t] > 0.15).float(),
            last=ended[t] < 0.3,  # half of them time limits
        )
        for t in range(T)
    ]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_it_equals_the_returns_of_whole_episodes(n: int) -> None:
    """Valued by any v(next_obs), reward + discount v(next_obs) is the n-step return of `rl.returns`."""
    T, R, W, gamma = 40, 2, 3, 0.9
    past, steps = history(T, R, W, seed=n), NStep(n, gamma)
    out = [found for one in past if (found := steps.add(one)) is not None]
    assert len(out) == T - n + 1

    def v(t: Transition) -> torch.Tensor:
        return t.next_obs.sum(-1) * 3 + 1

    reward, discount, last = (torch.stack([getattr(t, f) for t in past], -1) for f in ("reward", "discount", "last"))
    value = torch.stack([v(t) for t in past], -1)
    truth = n_step_returns(reward, gamma * discount, value, last, n)
    for t, found in enumerate(out):
        torch.testing.assert_close(found.reward + found.discount * v(found), truth[..., t], rtol=1e-5, atol=1e-5)
        assert torch.equal(found.obs, past[t].obs)
        assert torch.equal(found.action, past[t].action)


def test_one_step_goes_through_with_its_discount() -> None:
    (step,) = history(1, 2, 3, seed=9)
    found = NStep(1, 0.7).add(step)
    assert found is not None
    assert torch.equal(found.discount, 0.7 * step.discount)
    assert all(getattr(found, name) is getattr(step, name) for name in ("obs", "action", "reward", "next_obs"))


@pytest.mark.parametrize("turns", [0, 1, 7])
def test_state_goes_round_through_files(turns: int) -> None:
    past, first, second = history(12, 2, 3, seed=4), NStep(4, 0.9), NStep(4, 0.9)
    for step in past[:turns]:
        first.add(step)
    second.load_state_dict(tree.join(*tree.split(first.state_dict())))
    for step in past[turns:]:
        a, b = first.add(step), second.add(step)
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_a_saved_state_goes_to_the_device() -> None:
    first, second = NStep(4, 0.9), NStep(4, 0.9, "meta")
    for step in history(2, 2, 3, seed=4):
        first.add(step)
    saved = first.state_dict()
    second.load_state_dict(saved)
    assert {value.device.type for held in second.past for value in vars(held).values()} == {"meta"}
    first.load_state_dict(saved)
    saved["reward"].zero_()
    assert all((held.reward != 0).all() for held in first.past)


def test_less_than_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match="n = 0, expected 1 or more"):
        NStep(0, 0.9)
