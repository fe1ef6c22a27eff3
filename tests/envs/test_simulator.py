"""The simulator: frequencies are the tables', worlds are their keys', limits are no ends, resuming is exact."""

import gymnasium
import numpy as np
import pytest
import torch
from scipy.stats import chi2

import envs
from envs.mdp import TabularMDP, lift
from envs.simulator import Simulator
from lab import streams


def keys(n: int, seed: int = 0) -> torch.Tensor:
    return streams.bits(torch.tensor(seed), torch.arange(n))


def simulator(mdp: TabularMDP, n: int, seed: int = 0, time_limit: int | None = None) -> Simulator:
    return Simulator(mdp, keys(n, seed), observation=torch.arange(mdp.states), time_limit=time_limit)


def chi_square_p(counts: np.ndarray, probs: np.ndarray) -> float:
    """How likely counts this uneven are, under probs; 0 where the impossible happened."""
    possible = probs > 0
    if counts[~possible].any():
        return 0.0
    expected = counts.sum() * probs[possible]
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    return float(chi2.sf(statistic, max(int(possible.sum()) - 1, 1))) if possible.sum() > 1 else 1.0


def merged(mdp: TabularMDP, s: int, a: int) -> np.ndarray:
    """P(s', terminated | s, a), [2 S]."""
    where = mdp.next_state[s, a].long() + mdp.states * mdp.terminated[s, a].long()
    return torch.zeros(2 * mdp.states, dtype=torch.float64).index_add(0, where, mdp.prob[s, a]).numpy()


@pytest.mark.parametrize("name", ["frozenlake-4x4", "four-rooms", "garden", "zhao-5x5", "cliff"])
def test_sampled_frequencies_match_the_tables(name: str):
    """Every pair 4,000 times. Among some 400 pairs the smallest p-value is below 1e-7 once in 25,000 suites."""
    mdp, times = envs.load(name).mdp, 4000
    pairs = torch.cartesian_prod(torch.arange(mdp.states), torch.arange(mdp.actions))  # [S A, 2]
    worlds = simulator(mdp, len(pairs), seed=3)
    worlds.reset()
    counts = np.zeros((len(pairs), 2 * mdp.states))
    saved = worlds.state_dict()
    for _ in range(times):  # put every world back to its pair's state, keep its clock running
        worlds.load_state_dict(saved | {"state": pairs[:, 0].int(), "time": worlds.state_dict()["time"]})
        step = worlds.step(pairs[:, 1])
        where = (step.obs + mdp.states * step.terminated).numpy()
        counts[np.arange(len(pairs)), where] += 1
    lowest = min(chi_square_p(counts[i], merged(mdp, s, a)) for i, (s, a) in enumerate(pairs.tolist()))
    assert lowest > 1e-7


def test_first_states_match_the_start_distribution():
    mdp = lift(gymnasium.make("Taxi-v4"))
    first = simulator(mdp, 60_000, seed=1).reset()
    assert chi_square_p(np.bincount(first, minlength=mdp.states), mdp.start.numpy()) > 1e-4


def test_later_episodes_begin_elsewhere():
    worlds = simulator(envs.load("four-rooms").mdp, 400)
    first, second = worlds.reset(), worlds.reset()
    third = worlds.reset(torch.arange(400) < 300)
    assert torch.equal(third[300:], second[300:])
    assert 0 < (first == second).float().mean() < 0.1  # 1 in 103 by chance
    assert 0 < (first == third)[:300].float().mean() < 0.1
    assert 0 < (second == third)[:300].float().mean() < 0.1


def test_rewards_and_ends_belong_to_the_outcome_that_was_drawn():
    mdp = lift(gymnasium.make("CliffWalkingSlippery-v1"))
    worlds = simulator(mdp, 64, seed=2)
    state = worlds.reset()
    for t in range(400):
        action = torch.full((64,), t % 4)
        step = worlds.step(action)
        for n in range(0, 64, 7):
            tables = (mdp.next_state, mdp.reward, mdp.terminated)
            rows = zip(*(table[state[n], action[n]].tolist() for table in tables), strict=True)
            assert (step.obs[n].item(), step.reward[n].item(), step.terminated[n].item()) in set(rows)
        state = worlds.reset(step.terminated)


@pytest.mark.parametrize("name", ["frozenlake-4x4", "four-rooms", "zhao-5x5"])
def test_a_world_is_a_function_of_its_own_key(name: str):
    world = envs.load(name)
    few, many = world.simulate(keys(10)[:3]), world.simulate(keys(10))
    assert torch.equal(few.reset(), many.reset()[:3])
    for t in range(700):  # past several blocks of draws, and through resets that the others do not share
        action = (streams.uniform(keys(10, 9), t) * world.actions).long()
        a, b = few.step(action[:3]), many.step(action)
        for field in ("obs", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(a, field), getattr(b, field)[:3])
        over = b.terminated | b.truncated
        assert torch.equal(few.reset(over[:3]), many.reset(over)[:3])


def test_worlds_with_different_keys_differ():
    worlds = envs.load("frozenlake-8x8").simulate(keys(500))
    worlds.reset()
    for _ in range(20):
        step = worlds.step(torch.full((500,), 2))
    assert len(step.obs.unique()) > 10


@pytest.mark.parametrize("name", ["frozenlake-4x4", "four-rooms", "cliff"])
def test_resuming_in_the_middle_of_episodes_is_exact(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("envs.simulator.BLOCK", 64)  # three steps are drawn at a time
    world = envs.load(name, {"time_limit": "30"})

    def walk(worlds: Simulator, begin: int, end: int) -> list[torch.Tensor]:
        seen = []
        for t in range(begin, end):
            step = worlds.step((streams.uniform(keys(20, 4), t) * world.actions).long())
            obs = worlds.reset(step.terminated | step.truncated)
            seen += [step.obs, step.reward, step.terminated, step.truncated, obs]
        return seen

    one = world.simulate(keys(20))
    one.reset()
    walk(one, 0, 77)
    saved = {name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in one.state_dict().items()}
    expected = walk(one, 77, 200)
    other = world.simulate(keys(20))
    other.load_state_dict(saved)
    assert all(torch.equal(a, b) for a, b in zip(walk(other, 77, 200), expected, strict=True))
    one.load_state_dict(saved)  # and back in time, in the same object
    assert all(torch.equal(a, b) for a, b in zip(walk(one, 77, 200), expected, strict=True))


def corridor(time_limit: int | None) -> Simulator:
    """... S . G: two steps to the right end it."""
    world = envs.load("cliff", {"map": "S.G", "actions": '["right", "left"]'})
    return Simulator(world.mdp, keys(2), observation=torch.arange(3), time_limit=time_limit)


def test_an_end_is_no_time_limit_and_a_time_limit_is_no_end():
    worlds = corridor(time_limit=2)
    worlds.reset()
    step = worlds.step(torch.tensor([0, 0]))
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([False, False], [False, False])
    step = worlds.step(torch.tensor([0, 1]))  # both at the limit: the one at the goal has ended, the other has not
    assert (step.obs.tolist(), step.terminated.tolist(), step.truncated.tolist()) == (
        [2, 0],
        [True, False],
        [False, True],
    )


def test_nothing_resets_by_itself_and_a_mask_resets_only_its_own():
    worlds = corridor(time_limit=3)
    worlds.reset()
    for _ in range(3):
        step = worlds.step(torch.tensor([0, 1]))
    assert step.obs.tolist() == [2, 0]  # the true successors
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([True, False], [False, True])
    assert worlds.step(torch.tensor([0, 0])).obs.tolist() == [2, 1]
    assert worlds.reset(torch.tensor([False, True])).tolist() == [2, 0]
    assert worlds.step(torch.tensor([0, 0])).truncated.tolist() == [False, False]  # its clock began again


def test_without_a_limit_nothing_is_truncated():
    worlds = corridor(time_limit=None)
    worlds.reset()
    assert not any(worlds.step(torch.tensor([1, 1])).truncated.any() for _ in range(500))


def test_an_outcome_of_probability_zero_never_happens():
    """A table whose sum falls short of 1 by rounding, with an impossible outcome at its end."""
    tenths = torch.full((1, 1, 11), 0.1, dtype=torch.float64)
    tenths[..., 10] = 0.0
    mdp = TabularMDP(
        next_state=torch.zeros(1, 1, 11, dtype=torch.int32),
        prob=tenths,
        reward=torch.arange(11, dtype=torch.float64).view(1, 1, 11),
        terminated=torch.zeros(1, 1, 11, dtype=torch.bool),
        start=torch.ones(1, dtype=torch.float64),
    )
    worlds = simulator(mdp, 200_000, seed=8)
    worlds.reset()
    reward = worlds.step(torch.zeros(200_000, dtype=torch.int64)).reward
    assert reward.max() == 9
    assert chi_square_p(np.bincount(reward.long(), minlength=11), tenths[0, 0].numpy()) > 1e-4


def test_stepping_before_reset_and_loading_another_number_of_worlds_are_refused():
    worlds = corridor(time_limit=None)
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        worlds.step(torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"^the saved state is of 3 worlds, expected 2$"):
        worlds.load_state_dict(simulator(envs.load("cliff").mdp, 3).state_dict())


def test_the_reset_that_waits_for_no_device_gives_the_same_worlds():
    """An accelerator draws for all worlds and keeps the masked ones; here on the CPU, by its other name."""
    world = envs.load("four-rooms", {"time_limit": "9"})
    here, there = world.simulate(keys(30)), world.simulate(keys(30))
    assert torch.equal(here.reset(), there.reset())
    for t in range(60):
        action = (streams.uniform(keys(30, 4), t) * 4).long()
        a, b = here.step(action), there.step(action)
        assert torch.equal(a.obs, b.obs)
        over = a.terminated | a.truncated
        there.device = torch.device("cuda")
        second = there.reset(over)
        there.device = torch.device("cpu")
        assert torch.equal(here.reset(over), second)
