"""Many steps in one call: the same as step by step, whatever the mode, the blocks and the threads."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import chi2

import envs
from envs.simulator import Simulator
from envs.simulator import rollout as rollouts
from envs.simulator.rollout import Rollout
from envs.simulator.stepping import policy_of
from lab import streams
from rl import dp

FIELDS = [field.name for field in dataclasses.fields(Rollout)]


def worlds_of(name: str, n: int, limit: str = "9") -> Simulator:
    worlds = envs.load(name, {"time_limit": limit}).simulate(streams.bits(torch.tensor(4), torch.arange(n)))
    worlds.reset()
    return worlds


def same(a: Simulator, b: Simulator) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return all(torch.equal(one[k], other[k]) for k in ("state", "elapsed", "episode"))


def follow(record: Rollout, worlds: Simulator) -> None:
    """Step and reset with the recorded actions."""
    for t in range(len(record.action)):
        assert torch.equal(record.state[t].long(), worlds.state)
        step = worlds.step(record.action[t].long())
        assert torch.equal(worlds.observe(record.successor[t]), step.obs)
        for name in ("reward", "terminated", "truncated"):
            assert torch.equal(getattr(record, name)[t], getattr(step, name)), name
        worlds.reset(step.terminated | step.truncated)


def policies(worlds: Simulator) -> dict[str, torch.Tensor | None]:
    prob = streams.uniform(torch.tensor(1), torch.arange(worlds.states * worlds.actions)).double()
    prob = prob.view(worlds.states, worlds.actions)
    prob[:, 0] *= prob[:, 0] > 0.5  # some actions are impossible
    return {
        "random": None,
        "fixed": torch.arange(worlds.states) % worlds.actions,
        "stochastic": prob / prob.sum(1, keepdim=True),
    }


WORLDS = ["frozenlake-4x4", "four-rooms", "gambler", "car-rental", "t-maze", "zhao-5x5", "cliff"]


@pytest.mark.parametrize("kind", ["random", "fixed", "stochastic"])
@pytest.mark.parametrize("name", WORLDS)
def test_a_rollout_is_step_and_reset_with_its_actions(name: str, kind: str):
    one, other = worlds_of(name, 37), worlds_of(name, 37)
    record = one.rollout(40, policies(one)[kind])
    assert record.truncated.any()
    follow(record, other)
    assert same(one, other)
    follow(one.rollout(7), other)  # and it can go on


@pytest.mark.parametrize("name", WORLDS)
def test_totals_are_what_a_record_adds_up_to(name: str):
    one, other = worlds_of(name, 50), worlds_of(name, 50)
    record, totals = one.rollout(150), other.run(150)
    assert torch.allclose(record.reward.double().sum(0), totals.reward, rtol=1e-6)
    assert torch.equal((record.terminated | record.truncated).sum(0), totals.episodes)
    assert same(one, other)


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_and_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch):
    whole, parts = worlds_of("frozenlake-4x4", 101), worlds_of("frozenlake-4x4", 101)
    expected, record_a = whole.run(100), whole.rollout(20)
    monkeypatch.setattr(rollouts, "BLOCK", 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found, record_b = parts.run(100), parts.rollout(20)
    assert torch.equal(expected.reward, found.reward)
    assert torch.equal(expected.episodes, found.episodes)
    assert all(torch.equal(getattr(record_a, name), getattr(record_b, name)) for name in FIELDS)
    assert same(whole, parts)


@pytest.mark.parametrize("kind", ["fixed", "stochastic"])
def test_actions_are_the_policys(kind: str):
    worlds = worlds_of("frozenlake-4x4", 20_000, "none")
    policy = policies(worlds)[kind]
    record = worlds.rollout(20, policy)
    state, action = record.state.flatten().long(), record.action.flatten()
    if kind == "fixed":
        assert torch.equal(action.long(), policy[state])
        return
    counts = torch.zeros(16, 4).index_put((state, action.long()), torch.tensor(1.0), accumulate=True).double()
    expected = counts.sum(1, keepdim=True) * policy
    assert not counts[expected == 0].any()
    cells = expected > 5
    statistic = ((counts - expected) ** 2 / expected)[cells].sum().item()
    assert chi2.sf(statistic, int(cells.sum()) - int(cells.any(1).sum())) > 1e-6


def test_the_mean_return_of_a_fixed_policy_is_its_exact_value():
    """Random walks on FrozenLake, whose discount of 1 makes a return a success: 0.0139 by a linear solve."""
    world = envs.load("frozenlake-4x4", {"time_limit": "none"})
    uniform = torch.full((16, 4), 0.25, dtype=torch.float64)
    exact = float(dp.evaluate_exactly(world.mdp, uniform, 1.0) @ world.mdp.start)
    totals = worlds_of("frozenlake-4x4", 20_000, "none").run(300, uniform)
    episodes = int(totals.episodes.sum())
    error = np.sqrt(exact * (1 - exact) / episodes)
    assert abs(float(totals.reward.sum()) / episodes - exact) < 5 * error


def test_uniform_probabilities_are_the_random_policy_where_bins_are_exact():
    one, other = worlds_of("frozenlake-4x4", 50), worlds_of("frozenlake-4x4", 50)
    a, b = one.rollout(30), other.rollout(30, torch.full((16, 4), 0.25))
    assert torch.equal(a.action, b.action)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 5, 300, 2**16 + 1])  # also where the last ones fill no vector
def test_a_compiled_rollout_is_the_same_bit_for_bit(n: int):
    eager, compiled = worlds_of("frozenlake-4x4", n), worlds_of("frozenlake-4x4", n)
    a, b = eager.rollout(70), compiled.rollout(70, mode="compile")
    assert all(torch.equal(getattr(a, field), getattr(b, field)) for field in FIELDS)
    assert same(eager, compiled)


SCALAR = """
import torch, envs
torch._inductor.config.cpp.simdlen = 1  # as on a processor without vectors
worlds = envs.load("frozenlake-4x4").simulate(torch.arange(300))
worlds.reset()
worlds.rollout(8, mode="compile")
"""


@pytest.mark.slow
def test_where_compiled_code_does_not_wrap_integers_it_is_refused():
    """In a process of its own, as the compiler remembers which vectors there are."""
    found = subprocess.run([sys.executable, "-c", SCALAR], capture_output=True, text=True, timeout=300)
    said = "RuntimeError: the code compiled here does not wrap integers around, expected mode='eager'"
    assert found.stderr.splitlines()[-1] == said


@pytest.mark.slow
def test_compiled_totals_are_the_same_also_with_another_policy_of_the_same_form():
    eager, compiled = worlds_of("gambler", 300), worlds_of("gambler", 300)
    policy = policies(eager)["stochastic"]
    for probs in (policy, policy.flip(1)):
        a, b = eager.run(203, probs), compiled.run(203, probs, mode="compile")
        assert torch.equal(a.reward, b.reward)
        assert torch.equal(a.episodes, b.episodes)
        assert same(eager, compiled)
    assert len(compiled._walker._long) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", rollouts.MODES)
@pytest.mark.parametrize("name", WORLDS)
def test_a_cuda_device_gives_the_same_worlds_in_every_mode(name: str, mode: str):
    world = envs.load(name, {"time_limit": "9"})
    keys = streams.bits(torch.tensor(4), torch.arange(300))
    here, there = world.simulate(keys), world.simulate(keys, device="cuda")
    here.reset()
    there.reset()
    for policy in policies(here).values():
        a, b = here.rollout(70, policy), there.rollout(70, policy, mode=mode)
        assert all(torch.equal(getattr(a, field), getattr(b, field).cpu()) for field in FIELDS)
        a, b = here.run(203, policy), there.run(203, policy, mode=mode)
        assert torch.equal(a.reward, b.reward.cpu())
        assert torch.equal(a.episodes, b.episodes.cpu())


def test_what_is_no_policy_or_no_mode_is_refused():
    worlds = worlds_of("frozenlake-4x4", 2)
    with pytest.raises(ValueError, match=r"^mode is 'fast', expected one of eager, compile, cudagraph$"):
        worlds.rollout(1, mode="fast")
    with pytest.raises(ValueError, match=r"^mode is 'cudagraph' and the worlds are on the cpu, expected worlds on CUD"):
        worlds.run(1, mode="cudagraph")
    for policy, message in (
        (torch.full((16, 4), 0.3), r"^policy in state 0 is \[0.3.*\], expected probabilities that sum to 1$"),
        (torch.ones(16, 3) / 3, r"^policy has shape \[16, 3\], expected \[16, 4\]: probabilities$"),
        (torch.full((16,), 4), r"^policy holds action 4, expected 0 to 3$"),
        (torch.zeros(15, dtype=torch.int64), r"^policy has shape \[15\], expected \[16\]: one action a state$"),
    ):
        with pytest.raises(ValueError, match=message):
            policy_of(policy, 16, 4, "cpu")
    fresh = envs.load("cliff").simulate(torch.arange(2))
    with pytest.raises(RuntimeError, match=r"call reset\(\) before rollout\(\)"):
        fresh.rollout(1)


@pytest.mark.parametrize("name", ["four-rooms", "frozenlake-4x4"])
def test_beginning_the_ended_and_beginning_all_and_choosing_are_the_same(name: str):
    """What an accelerator does without asking which worlds ended, on the CPU."""
    worlds = worlds_of(name, 64)
    tables, roots, carry = worlds._tables, worlds._roots, worlds._carry
    over = torch.arange(64) % 3 == 0
    chosen = tables.renewed(carry, over, roots)
    tables.renew(carry, over.nonzero().squeeze(1), roots)
    assert all(torch.equal(a, b) for a, b in zip(chosen, carry, strict=True))
