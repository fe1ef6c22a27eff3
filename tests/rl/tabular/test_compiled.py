"""Many turns in one call against the same turns one by one: all that is kept and all that is reported, bit for bit."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rl.tabular
from envs.simulator import Simulator
from lab import streams, tree
from rl import order
from rl.explore import EpsilonGreedy
from rl.tabular import arrays, compiled, kernel
from rl.tabular.q_learning import QLearning
from rl.train import world_keys
from tests.oracles.dp import random_mdp
from tests.rl.tabular.ways import PLACES, Report, at_once, by_turns, check_same, lake, searched, trainer, uneven


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


def test_short_calls_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of 40 turns of 6 worlds in calls of 100 steps of all worlds: 16 turns, 16, and the other 8."""
    monkeypatch.setattr(compiled, "A_CALL", 100)
    turns, live = list[int](), kernel.live
    monkeypatch.setattr(kernel, "live", lambda *given: (turns.append(given[0]), live(*given)))
    one, other = (trainer(searched, 3, 2) for _ in range(2))
    for run in (one, other):
        run.config = replace(run.config, report_every=80)
    check_same(dict(at_once(one)), dict(by_turns(other)))
    check_same(one.state_dict(), other.state_dict())
    assert turns == [16, 16, 8] * 3


def test_an_interrupt_leaves_all_that_was_lived_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes as the first thread is through with the third call, and the others have not begun theirs."""
    run, calls, live = trainer(lake, 37, 1), list[int](), kernel.live

    def slow(turns: int, low: int, *given: Any) -> None:
        calls.append(low)
        third = calls.count(low) == 3
        if low and third:
            time.sleep(0.1)
        live(turns, low, *given)
        if not low and third:
            raise KeyboardInterrupt

    monkeypatch.setattr(kernel, "live", slow)
    monkeypatch.setattr(compiled, "A_CALL", 37 * 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    run.config = replace(run.config, report_every=120)
    try:
        with pytest.raises(KeyboardInterrupt):
            at_once(run)
    finally:
        torch.set_num_threads(threads)
    assert (run.step, run.agent.step, run._turns) == (8, 8, 8)
    assert run.agent.q.n.sum((1, 2)).tolist() == [12] * 37  # no thread is still to come


def test_step_sizes_last_for_as_many_visits_as_a_window_may_hold() -> None:
    """700 turns in one call; the best action has more than twice as many as a table has step sizes at first."""

    def alone(keys: Tensor) -> Simulator:
        mdp = random_mdp(3, states=1, actions=5, outcomes=4, ending=0.1)
        mdp.reward[:, 1:] = 0.0
        mdp.reward[:, 0] = 1.0
        return Simulator(mdp, keys, observation=torch.zeros(1, dtype=torch.int64), time_limit=50)

    one, other = (trainer(alone, 2, 1, turns=700, epsilon=(0.1, 0.1)) for _ in range(2))
    for run in (one, other):
        run.config = replace(run.config, report_every=700)
    check_same(dict(at_once(one)), dict(by_turns(other)))
    check_same(one.state_dict(), other.state_dict())
    assert one.agent.q.n.amax((1, 2)).min() > 2 * 256


def test_what_is_kept_on_disk_goes_by_the_arrays_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name under which numba keeps its work: another one with two fields swapped, and with another constant."""

    def loaded(name: str, path: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def name() -> str:
        found: str = loaded("rl.tabular.kernel", kernel.__file__).live._cache._impl.filename_base
        return found

    names = {name(), name()}
    with monkeypatch.context() as patch:
        patch.setattr(streams, "MIX2", streams.MIX2 + 2)
        names.add(name())
    source, fields = Path(arrays.__file__).read_text(), ["    alpha: float\n", "    gamma: float\n"]
    other = tmp_path / "arrays.py"
    other.write_text(source.replace("".join(fields), "".join(fields[::-1])))
    assert other.read_text() != source
    monkeypatch.setattr(rl.tabular, "arrays", loaded("arrays", str(other)))
    names.add(name())
    assert len(names) == 3


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
    """Other classes, which may do other things; rows that the table lacks; step sizes that differ among replicas."""

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
        Simulator(uneven(), keys, observation=torch.arange(6) - 3),
        Simulator(uneven(), keys, observation=torch.arange(6), device="meta"),
    ):
        assert compiled.stride(agent, other) is None
    agent.q.alpha = torch.tensor([[0.1], [0.2]], dtype=torch.float64)
    assert compiled.stride(agent, worlds) is None


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
