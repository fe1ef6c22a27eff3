"""Many turns in one call against the same turns one by one: all that is kept and all that is reported, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.catalog import load
from envs.mdp import TabularMDP
from envs.mixture import mix
from envs.simulator import Simulator
from envs.world import World
from lab import tree
from rl import order, train
from rl.explore import EpsilonGreedy
from rl.tabular import compiled
from rl.tabular.q_learning import QLearning
from rl.train import TrainConfig, Trainer, world_keys
from tests.oracles.dp import random_mdp

Report = list[tuple[int, dict[str, Tensor]]]


def world(name: str) -> World:
    found = load(name)
    assert isinstance(found, World)
    return found


def uneven() -> TabularMDP:
    """Four outcomes at random, rewards that are no whole numbers, ends, and some states to start from."""
    mdp = random_mdp(5, states=6, actions=5, outcomes=4, ending=0.15)
    return replace(mdp, start=torch.tensor([0.1, 0.2, 0.0, 0.3, 0.4, 0.0], dtype=torch.float64))


def lake(keys: Tensor) -> Simulator:
    """Bins instead of a search, one start, and a time limit of 100."""
    return world("FrozenLake-v1").simulate(keys)


def hidden(keys: Tensor) -> Simulator:
    """States that look alike, and share a row of the table."""
    return world("t-maze").simulate(keys)


def searched(keys: Tensor) -> Simulator:
    return Simulator(uneven(), keys, observation=torch.arange(6), time_limit=7)


def mixed(keys: Tensor) -> Simulator:
    """Worlds of two kinds, each with rewards of its own."""
    zhao = replace(world("zhao-5x5"), time_limit=9)
    other = replace(zhao, mdp=replace(zhao.mdp, reward=zhao.mdp.reward * 0.3))
    return mix([zhao, other]).simulate(keys)


PLACES: list[Callable[[Tensor], Simulator]] = [lake, hidden, searched, mixed]


def trainer(
    place: Callable[[Tensor], Simulator], replicas: int, worlds: int, turns: int = 120, **changes: Any
) -> Trainer:
    """Reports that are not of equally many turns; an epsilon that falls through half of the run."""
    acting = place(world_keys(2, replicas, worlds))
    given = {"gamma": 0.9, "alpha": 0.8, "omega": 0.6, "epsilon": (1.0, 0.1), "epsilon_steps": turns * worlds // 2}
    agent = QLearning(acting.states, acting.actions, list(range(replicas)), **given | changes)
    return Trainer(agent, acting, TrainConfig(steps=turns * worlds, worlds=worlds, report_every=7 * worlds + 2))


def by_turns(run: Trainer, until: int | None = None) -> Report:
    """Reports of a run that lives every turn by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.compiled, "stride", lambda agent, worlds: None)
        return list(run.run(until))


def at_once(run: Trainer, until: int | None = None) -> Report:
    """Reports of a run that is known to live many turns at once."""
    assert compiled.stride(run.agent, run.worlds) is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_turn", lambda self: pytest.fail("a turn was lived by itself"))
        return list(run.run(until))


def check_same(one: Any, other: Any) -> None:
    """Equal trees, bit for bit: zeros of one sign, and nan where nan is."""
    (tensors, skeleton), (others, other_skeleton) = tree.split(one), tree.split(other)
    assert skeleton == other_skeleton
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype, name
        assert tensor.contiguous().numpy().tobytes() == others[name].contiguous().numpy().tobytes(), name


@pytest.mark.parametrize("worlds", [1, 3, 16])
@pytest.mark.parametrize("place", PLACES)
def test_many_turns_at_once_are_the_same_turns(place: Callable[[Tensor], Simulator], worlds: int) -> None:
    """120 turns of 5 replicas; their worlds meet often, and several episodes end at one turn."""
    one, other = trainer(place, 5, worlds), trainer(place, 5, worlds)
    check_same(dict(enumerate(at_once(one))), dict(enumerate(by_turns(other))))
    check_same(one.state_dict(), other.state_dict())
    assert one.step == 120 * worlds
    assert one.episodes.sum() > 2
    assert one.agent.q.value.std() > 0.01


def test_threads_change_nothing() -> None:
    """37 replicas are shared out among three threads, unevenly."""
    one, other = trainer(searched, 37, 2), trainer(searched, 37, 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = at_once(one)
    finally:
        torch.set_num_threads(threads)
    check_same(dict(enumerate(found)), dict(enumerate(by_turns(other))))
    check_same(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("ways", [(at_once, by_turns), (by_turns, at_once)])
def test_a_run_goes_on_the_other_way(ways: tuple[Callable[..., Report], Callable[..., Report]]) -> None:
    """Stopped at a report amid episodes and put together from its saved tree; and the same run changing its way."""
    whole, first, resumed = (trainer(searched, 4, 3) for _ in range(3))
    reports = dict(by_turns(whole))
    ways[0](first, 161)
    assert (first.running[1] > 0).any()
    resumed.load_state_dict(tree.join(*tree.split(first.state_dict())))
    for run in (first, resumed):
        later = ways[1](run)
        check_same(dict(later), {step: reports[step] for step, _ in later})
        check_same(run.state_dict(), whole.state_dict())


@pytest.mark.parametrize("worlds", [1, 3])
def test_what_is_not_finite_spreads_alike(worlds: int) -> None:
    """Steps of 1e200 leave the numbers within a few visits: infinities, and then nan, which is no action's best."""
    one, other = (trainer(searched, 3, worlds, turns=60, alpha=1e200, omega=0.0) for _ in range(2))
    for mine, others in zip(at_once(one), by_turns(other), strict=True):
        check_same({k: v.nan_to_num() for k, v in mine[1].items()}, {k: v.nan_to_num() for k, v in others[1].items()})
    mine, others = one.agent.q.value, other.agent.q.value
    assert mine.isnan().any()
    assert torch.equal(mine.isnan(), others.isnan())
    check_same({"q": mine.nan_to_num()}, {"q": others.nan_to_num()})


def test_what_it_is_not_made_for_is_left_alone() -> None:
    """A learner, an explorer or worlds of another class, which may do other things; rows that the table lacks."""

    class Other(QLearning):
        pass

    class Explorer(EpsilonGreedy):
        pass

    class Worlds(Simulator):
        pass

    run = trainer(searched, 2, 1)
    agent, worlds = run.agent, run.worlds
    assert compiled.stride(agent, worlds) is not None
    given = {"gamma": 0.9, "alpha": 1.0, "omega": 0.0, "epsilon": (1.0, 1.0), "epsilon_steps": 1}
    assert compiled.stride(Other(6, 5, [0, 1], **given), worlds) is None
    assert compiled.stride(QLearning(5, 5, [0, 1], **given), worlds) is None
    strange = QLearning(6, 5, [0, 1], **given)
    strange.explorer = Explorer([0, 1], (1.0, 1.0), 1)
    assert compiled.stride(strange, worlds) is None
    keys = world_keys(0, 2, 1)
    for other in (
        Worlds(uneven(), keys, observation=torch.arange(6)),
        Simulator(uneven(), keys, observation=torch.eye(6)),
        Simulator(uneven(), keys, observation=torch.arange(6), device="meta"),
    ):
        assert compiled.stride(agent, other) is None


def test_sums_are_taken_one_by_one() -> None:
    """Numbers whose sum depends on the order: 1e16 and 1, 300 of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 300, generator=generator, dtype=torch.float64) * 10.0 ** torch.randint(
        0, 17, (4, 300), generator=generator
    )
    for row, found, mean in zip(x.tolist(), order.total(x).tolist(), order.mean(x).tolist(), strict=True):
        total = 0.0
        for number in row:
            total += number
        assert found == total
        assert mean == total / 300
