"""The simulator: frequencies are the tables', worlds are their keys', limits are no ends, resuming is exact."""

from fractions import Fraction

import gymnasium
import numpy as np
import pytest
import torch
from scipy.stats import chi2

import envs
from envs.lift import lift
from envs.mdp import TabularMDP
from envs.simulator import Simulator
from lab import streams


def keys(n: int, seed: int = 0) -> torch.Tensor:
    return streams.bits(torch.tensor(seed), torch.arange(n))


def simulator(mdp: TabularMDP, n: int, seed: int = 0, time_limit: int | None = None) -> Simulator:
    return Simulator(mdp, keys(n, seed), observation=torch.arange(mdp.states), time_limit=time_limit)


def chi_square_p(counts: np.ndarray, probs: np.ndarray) -> float:
    """How likely counts this uneven are, under probs (rare outcomes together); 0 where the impossible happened."""
    possible = probs > 0
    if counts[~possible].any():
        return 0.0
    expected = counts.sum() * probs
    rare = possible & (expected < 5)
    often = possible & ~rare
    expected, counts = (np.append(x[often], x[rare].sum()) if rare.any() else x[often] for x in (expected, counts))
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(chi2.sf(statistic, len(counts) - 1)) if len(counts) > 1 else 1.0


def code(rewards: torch.Tensor, state: torch.Tensor, terminated: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    """A number for each (s', terminated, reward); `rewards` are all that there are, sorted."""
    assert torch.isin(reward, rewards).all()
    return (state.long() * 2 + terminated) * len(rewards) + torch.searchsorted(rewards, reward)


PAIRS, TIMES = 600, 4000


@pytest.mark.parametrize("name", envs.names())
def test_sampled_frequencies_match_the_tables(name: str):
    """Up to 600 pairs of state and action, each 4,000 times: in 1,000 worlds, and in each at 4 steps of its episode.

    Of some 15,000 pairs in all worlds that have chance the smallest p-value is below 1e-9 once in 60,000 suites.
    """
    mdp = envs.load(name).mdp
    rewards = mdp.reward.float().unique()
    outcomes = code(rewards, mdp.next_state, mdp.terminated, mdp.reward.float()).numpy()  # [S, A, K]
    pairs = torch.cartesian_prod(torch.arange(mdp.states), torch.arange(mdp.actions))  # [S A, 2]
    pairs = pairs[torch.linspace(0, len(pairs) - 1, min(len(pairs), PAIRS)).long()]
    s, a = pairs.repeat_interleave(TIMES // 4, 0).T
    worlds = simulator(mdp, len(s), seed=3)
    worlds.reset()
    saved, seen = worlds.state_dict(), []
    for t in range(4):  # every world back in its pair's state, at another step of its episode
        worlds.load_state_dict(saved | {"state": s.int(), "elapsed": torch.full_like(saved["elapsed"], t)})
        step = worlds.step(a)
        seen.append(code(rewards, step.obs, step.terminated, step.reward).view(len(pairs), -1))
    for row, (s, a) in zip(torch.cat(seen, 1).numpy(), pairs.tolist(), strict=True):
        kinds, which = np.unique(outcomes[s, a], return_inverse=True)
        assert np.isin(row, kinds).all(), (s, a)
        counts = np.bincount(np.searchsorted(kinds, row), minlength=len(kinds))
        assert chi_square_p(counts, np.bincount(which, mdp.prob[s, a].numpy())) > 1e-9, (s, a)


@pytest.mark.parametrize("name", envs.names())
def test_first_states_of_every_world_match_its_start_distribution(name: str):
    mdp = envs.load(name).mdp
    worlds = simulator(mdp, 30_000, seed=1)
    for _ in range(2):  # the first episode, and the next
        assert chi_square_p(np.bincount(worlds.reset(), minlength=mdp.states), mdp.start.numpy()) > 1e-6


def draw(key: int, index: int) -> int:
    """SplitMix64 at an index, in plain integers, unsigned."""
    mask = 2**64 - 1
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def pick(probs: list[float], u: Fraction) -> int:
    """The outcome whose share of the running sum holds u."""
    total, possible = 0.0, [k for k, p in enumerate(probs) if p > 0]
    for k in possible:
        total += probs[k]
        if u < Fraction(total):
            return k
    return possible[-1]


@pytest.mark.parametrize(
    "name", ["frozenlake-4x4", "four-rooms", "gambler", "car-rental", "t-maze", "zhao-5x5", "maximization-bias"]
)
def test_worlds_do_what_the_rule_says_number_by_number(name: str):
    """A world's course written out in integers and exact fractions: episodes, first states, outcomes, actions."""
    mdp, limit, T = envs.load(name).mdp, 7, 30
    worlds = simulator(mdp, 3, seed=5, time_limit=limit)
    worlds.reset()
    record = worlds.rollout(T)
    for n, key in enumerate(keys(3, 5).tolist()):
        root, episode, j = draw(key, -1), 0, 0
        stream = draw(root, episode)
        state = pick(mdp.start.tolist(), Fraction(draw(stream, 0) >> 11, 2**53))
        for t in range(T):
            h = draw(stream, j + 1)
            action = (h & 0xFFFFFF) * mdp.actions >> 24
            k = pick(mdp.prob[state, action].tolist(), Fraction(h >> 40, 2**24))
            seen = [x[t, n].item() for x in (record.state, record.action, record.successor, record.terminated)]
            truth = [table[state, action, k].item() for table in (mdp.next_state, mdp.terminated)]
            assert seen == [state, action, *truth], t
            assert record.reward[t, n] == mdp.reward[state, action, k].float()
            state, j = truth[0], j + 1
            assert record.truncated[t, n].item() == (j == limit and not truth[1])
            if truth[1] or j == limit:
                episode, j = episode + 1, 0
                stream = draw(root, episode)
                state = pick(mdp.start.tolist(), Fraction(draw(stream, 0) >> 11, 2**53))


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
def test_resuming_in_the_middle_of_episodes_is_exact(name: str):
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


def test_an_episode_does_not_depend_on_when_it_begins():
    """World 0 idles in its first episode while world 1, of the same key, has begun its second: then it catches up."""
    world = envs.load("frozenlake-8x8")
    worlds = world.simulate(keys(1).repeat(2))
    worlds.reset()
    worlds.step(torch.tensor([1, 2]))
    first = worlds.reset(torch.tensor([False, True]))[1]
    later = [worlds.step(torch.full((2,), t % 4)).obs[1] for t in range(20)]
    assert worlds.reset(torch.tensor([True, False]))[0] == first
    assert [worlds.step(torch.full((2,), t % 4)).obs[0] for t in range(20)] == later


def test_new_keys_begin_their_own_first_episode_and_leave_the_others_alone():
    world = envs.load("four-rooms")
    worlds, other = world.simulate(keys(6)), world.simulate(keys(6, seed=9))
    worlds.reset()
    worlds.reset()
    before, mask = worlds.state, torch.tensor([True, False] * 3)
    worlds.reseed(keys(6, seed=9), mask)
    assert torch.equal(worlds.reset(mask), torch.where(mask, other.reset(), before))
    assert torch.equal(worlds.reset()[mask], other.reset()[mask])


def test_tables_too_large_and_blocks_that_do_not_fit_are_refused():
    mdp = envs.load("frozenlake-4x4").mdp
    with pytest.raises(ValueError, match=r"^16 states in 3 blocks, expected blocks of equal size$"):
        Simulator(mdp, keys(2), observation=torch.arange(16), blocks=3)
    with pytest.raises(ValueError, match=r"^block 1 has no state to start from$"):
        Simulator(mdp, keys(2), observation=torch.arange(16), blocks=2)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([0, 9, 0], "^an action is 9, expected 0 to 3$"),
        ([0, -1, 0], "^an action is -1, expected 0 to 3$"),
        ([0, 1], r"^actions have shape \[2\], expected \[3\], one a world$"),
    ],
)
def test_what_is_no_action_is_refused(action: list[int], message: str):
    worlds = simulator(envs.load("cliff").mdp, 3)
    worlds.reset(torch.ones(3, dtype=torch.bool))  # all of them: that is a beginning too
    with pytest.raises(ValueError, match=message):
        worlds.step(torch.tensor(action))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"time": 7}, "^the saved state holds .*, time, expected state, elapsed, episode, begun$"),
        ({"state": torch.tensor([0, 48, 0], dtype=torch.int32)}, "^a saved state is 48, expected below 48$"),
    ],
)
def test_a_state_of_another_world_or_version_is_refused(changed: dict[str, object], message: str):
    worlds = simulator(envs.load("cliff").mdp, 3)
    worlds.reset()
    with pytest.raises(ValueError, match=message):
        worlds.load_state_dict(worlds.state_dict() | changed)


@pytest.mark.parametrize("limit", [0, 2**31])
def test_a_time_limit_that_cannot_be_counted_is_refused(limit: int):
    with pytest.raises(ValueError, match=f"^time_limit is {limit}, expected 1 to 2147483647 steps$"):
        simulator(envs.load("cliff").mdp, 3, time_limit=limit)
