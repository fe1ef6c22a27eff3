"""What a run leaves behind: agents of both libraries, GIFs, ONNX, and the word when a loss is lost."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import envs
from lab import checkpoint
from lab.run import Run
from qx import record
from qx.main import main
from qx.walk import Companion, Walk
from rl import saved
from rl.agents import AGENTS

KEYS = {"iqm", "ci95", "returns", "optimal_return", "gap", "seconds", "run"}


def json_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def frames_of(file: Path) -> list[Image.Image]:
    with Image.open(file) as opened:
        return [frame.copy() for frame in ImageSequence.Iterator(opened)]


@pytest.fixture(scope="module")
def cliff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two replicas, the better one at the optimum of the cliff walk."""
    run = tmp_path_factory.mktemp("cliff") / "run"
    more = ["--steps", "8000", "--exploration-steps", "20000", "--replicas", "2", "--episodes", "1", "--gamma", "0.9"]
    assert main(["train", "q-learning", "cliff", *more, "--out", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def pole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two replicas that have hardly begun to balance."""
    run = tmp_path_factory.mktemp("pole") / "run"
    more = ["--steps", "1200", "--replicas", "2", "--episodes", "2", "--out", str(run), "--hidden", "16"]
    assert main(["train", "dqn", "CartPole-v1", *more]) == 0
    return run


@pytest.mark.parametrize(
    ("name", "world"), [("sb3:dqn", "zhao-5x5"), ("sb3:ppo", "zhao-5x5"), ("sb3:a2c", "CartPole-v1")]
)
def test_theirs_are_trained_and_judged_as_ours(
    name: str, world: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    more = ["--steps", "400", "--replicas", "2", "--episodes", "2", "--out", run, "--json"]
    assert main(["train", name, world, *more]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert found.keys() >= KEYS
    assert "Warning" not in said.err
    assert (len(found["returns"]), found["steps"], found["replicas"]) == (2, 400, 2)
    assert (found["optimal_return"] is None) == (world == "CartPole-v1")
    assert {file.name for file in (tmp_path / "run").iterdir()} >= {
        "report.png",
        "metrics.jsonl",
        "checkpoint",
        "agent",
    }
    lines = Run.open(tmp_path / "run").metrics()
    assert lines[-1]["replica"] == [2]
    assert (lines[-1]["step"], lines[-1]["own_step"]) == (800, [400])
    assert main(["eval", run, "--json"]) == 0
    again = json_of(capsys)
    assert (again["returns"], again["iqm"]) == (found["returns"], found["iqm"])


def test_a_run_of_theirs_that_was_cut_goes_on_at_the_replica(tmp_path: Path) -> None:
    """As after a kill: the checkpoint of one replica is there, and lines of the second that no checkpoint knows."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    args = ["train", "sb3:a2c", "zhao-5x5", "--steps", "300", "--replicas", "2", "--episodes", "1", "--save-every", "0"]
    assert main([*args, "--out", str(whole)]) == 0
    assert main([*args, "--out", str(cut)]) == 0
    assert checkpoint.steps(cut / "checkpoint") == [0, 300, 600]
    for name in (
        "result.json",
        "checkpoint/step-0000000600/state.json",
        "checkpoint/step-0000000600/tensors.safetensors",
    ):
        (cut / name).unlink()
    (cut / "checkpoint/step-0000000600").rmdir()
    assert main(["resume", str(cut)]) == 0
    assert (cut / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    ends = [checkpoint.load(run / "checkpoint").state["weights"] for run in (whole, cut)]
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())


def test_the_agent_of_a_run_is_saved_with_its_returns(cliff: Path) -> None:
    found = saved.load(cliff / "agent")
    result = json.loads((cliff / "result.json").read_text())
    assert found.name == "q-learning"
    assert list(found.returns) == [-math.inf if one is None else one for one in result["returns"]]


def test_a_gif_of_a_map_shows_the_walk(cliff: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every frame is the picture of the state that the walk of the same seed is in; the last stays longest."""
    file = tmp_path / "cliff.gif"
    assert main(["play", "cliff", "--run", str(cliff), "--gif", str(file), "--episodes", "2", "--json"]) == 0
    found = json_of(capsys)
    assert (found["returns"], found["steps"], found["ended"]) == ([-13.0, -13.0], [13, 13], [True, True])
    world, agent = envs.load("cliff"), saved.load(cliff / "agent")
    assert isinstance(world, envs.World)
    walk, companion, states = Walk(world, 0, 0.9), Companion(agent, 0), []
    for _ in range(2):
        while True:
            states.append(walk.state)
            if walk.ended:
                break
            walk.act(companion.look(world.observe("index")[walk.state]))
        walk.restart()
    frames = frames_of(file)
    assert len(frames) == len(states) == 28
    durations = [frame.info["duration"] for frame in frames]
    assert durations == [*[250] * 13, 1200, *[250] * 13, 1200]
    for frame, state in zip(frames, states, strict=True):
        drawn = np.asarray(frame.convert("RGB"))[: 4 * 32, : 12 * 32].astype(int)
        assert np.abs(drawn - envs.picture.rgb_array(world, state)).mean() < 6  # of 256, from few colours
        other = envs.picture.rgb_array(world, (state + 5) % 48)
        assert np.abs(drawn - other).mean() > np.abs(drawn - envs.picture.rgb_array(world, state)).mean()


def test_of_a_long_episode_the_first_pictures_and_the_last_are_kept(
    cliff: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cliff.gif"
    args = ["play", "cliff", "--run", str(cliff), "--gif", str(file), "--episodes", "2"]
    assert main([*args, "--frames", "10"]) == 0
    assert "of episodes 1, 2 the first 5 pictures and the last: --frames shows more" in capsys.readouterr().out
    short = [np.asarray(frame.convert("RGB")).astype(int) for frame in frames_of(file)]
    assert main([*args, "--frames", "100"]) == 0
    assert "--frames" not in capsys.readouterr().out
    whole = [np.asarray(frame.convert("RGB")).astype(int) for frame in frames_of(file)]
    kept = [0, 1, 2, 3, 4, 13, 14, 15, 16, 17, 18, 27]
    assert len(short) == len(kept)
    assert all(np.abs(one - whole[t]).mean() < 2 for one, t in zip(short, kept, strict=True))  # other colours
    assert [path.name for path in tmp_path.iterdir()] == ["cliff.gif"]


def test_the_last_picture_is_of_the_end_also_where_an_episode_is_cut() -> None:
    """By the world's own limit, on a table and in Gymnasium: a picture of every moment, the one after the cut too."""
    for name, changed, config in (
        ("cliff", {"time_limit": 3}, {}),
        ("Acrobot-v1", {"time_limit": 4}, {"hidden": (8,)}),
    ):
        if name == "Acrobot-v1":
            pytest.importorskip("pygame")
        world, recipe = envs.load(name, changed), AGENTS["q-learning" if name == "cliff" else "dqn"]
        chosen = recipe.config(**config)
        found = saved.Saved(recipe.build(chosen, world, 1, 0), "", chosen, world, saved.Origin(name))
        [one] = record.episodes(found, world, seed=0, count=1, frames=50)
        steps = 3 if name == "cliff" else 4
        assert (one.ended, one.steps, len(one.frames)) == (False, steps, steps + 1)
        assert one.said[-1] == f"episode 1   step {steps}   return {-steps:g}"
        if isinstance(world, envs.World):
            walk, companion = Walk(world, 0, 1.0), Companion(found, 0)
            for _ in range(steps):
                walk.act(companion.look(world.observe("index")[walk.state]))
            assert np.array_equal(one.frames[-1], envs.picture.rgb_array(world, walk.state))
        else:
            assert not np.array_equal(one.frames[-1], one.frames[-2])


def test_a_gymnasium_world_is_played_and_recorded(
    pole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pygame")
    assert main(["play", "CartPole-v1", "--run", str(pole), "--episodes", "2", "--json"]) == 0
    plain = json_of(capsys)
    file = tmp_path / "pole.gif"
    assert main(["play", "CartPole-v1", "--run", str(pole), "--episodes", "2", "--gif", str(file), "--json"]) == 0
    found = json_of(capsys)
    assert found["steps"] == plain["steps"]  # pictures change nothing
    assert found["returns"] == [float(steps) for steps in found["steps"]]
    frames = frames_of(file)
    assert frames[0].size == (600, 422)
    assert len({frame.convert("RGB").tobytes() for frame in frames}) > 3
    assert abs(len(frames) - sum(1 + math.ceil(steps / 2) for steps in found["steps"])) <= 2


def test_what_cannot_be_played_is_refused_in_a_line(
    pole: Path, cliff: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gif = str(tmp_path / "x.gif")
    for args, words in (
        (["CartPole-v1"], "its dynamics are not known"),
        (["cliff", "--gif", gif], "expected --run with a run"),
        (["cliff", "--run", str(pole), "--gif", gif], "its world is CartPole-v1, expected cliff"),
        (["cliff", "--run", str(cliff), "--gif", str(tmp_path / "x.mp4")], "expected a name that ends in .gif"),
        (["cliff", "--run", str(tmp_path)], "no run here"),
    ):
        assert main(["play", *args]) == 2
        assert words in capsys.readouterr().err.replace("\n", " ")
    assert not Path(gif).exists()


def test_an_agent_of_chances_draws_by_its_seed() -> None:
    """And one that remembers carries what it remembers along the walk; begin() forgets."""
    heard: list[float] = []

    class Chances:
        replicas, device = 1, torch.device("cpu")

        def memory(self, worlds: int) -> torch.Tensor:
            return torch.zeros(1, worlds, 1)

        def policy(self, obs: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            heard.append(float(memory))
            return torch.tensor([[[0.25, 0.75]]]), memory + 1

        act = update = values = state_dict = load_state_dict = policy

    world = envs.load("random-walk-5")
    found: Any = saved.Saved(Chances(), "", None, world, saved.Origin(""))
    one, two, other = (Companion(found, seed) for seed in (0, 0, 1))
    draws = [[each.look(torch.tensor(0)) for _ in range(400)] for each in (one, two, other)]
    assert draws[0] == draws[1] != draws[2]
    assert abs(sum(draws[0]) / 400 - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 400)
    assert heard[:400] == list(range(400))
    one.begin()
    one.look(torch.tensor(0))
    assert heard[-1] == 0


@pytest.mark.parametrize("which", ["cliff", "pole"])
def test_export_writes_what_onnxruntime_runs(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    run, file = request.getfixturevalue(which), tmp_path / "policy.onnx"
    assert main(["export", str(run), "--onnx", str(file), "--json"]) == 0
    found = json_of(capsys)
    assert found["difference"] <= 1e-5
    assert found["bytes"] == file.stat().st_size
    assert found["replica"] == 1 + saved.load(run / "agent").best
    assert main(["export", str(run), "--onnx", str(tmp_path / "no" / "p.onnx")]) == 2
    assert "its folder does not exist" in capsys.readouterr().err.replace("\n", " ")


def test_a_run_that_was_cut_has_an_agent_too(cliff: Path, tmp_path: Path) -> None:
    """From its checkpoint, where nothing was saved at the end."""
    from qx.artifacts import learned
    from qx.usage import Common

    before = learned(cliff, Common())
    (cliff / "agent").rename(tmp_path / "agent")
    after = learned(cliff, Common())
    (tmp_path / "agent").rename(cliff / "agent")
    assert torch.equal(before.agent.q.value, after.agent.q.value)  # type: ignore[attr-defined]
    assert before.returns == pytest.approx(after.returns)


def test_a_loss_that_is_lost_names_step_replicas_numbers_and_the_last_good_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    rates = ["--learning-rate", "1e30", "--final-learning-rate", "1e30", "--no-norm", "--learning-starts", "1000"]
    args = ["train", "dqn", "zhao-5x5", *rates, "--steps", "4000", "--replicas", "2", "--out", str(run), "--json"]
    assert main([*args, "--save-every", "0"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert found["failed"] == "loss"
    assert found["replicas"] == [0, 1]
    assert 1000 <= found["step"] < 1300
    assert found["checkpoint"] == checkpoint.steps(run / "checkpoint")[-1] < found["step"]
    assert set(found["metrics"]) >= {"reward", "return", "loss", "gradient_norm", "epsilon"}
    assert set(found["metrics"]["reward"]) == {"mean", "min", "max"}
    err = said.err.replace("\n", " ")
    assert f"loss is not finite at step {found['step']} in replicas 1, 2 of 2" in err
    assert f"would begin again from step {found['checkpoint']}" in err
    good = checkpoint.load(run / "checkpoint").state["agent"]["online"]["weights"]
    assert good.isfinite().all()


def test_only_the_replica_that_diverged_is_named(tmp_path: Path) -> None:
    from qx.jobs import WorkFailedError, _guard

    run = Run.create(tmp_path / "r", "train", {}, 0)
    fine = {"return": torch.tensor([math.nan, 1.0, 2.0]), "loss": torch.tensor([0.1, 0.2, 0.3])}
    _guard(run, 5, fine)  # no episode has ended: that is no failure
    with pytest.raises(WorkFailedError, match="value_loss is not finite at step 7 in replica 3 of 3") as caught:
        _guard(run, 7, {**fine, "value_loss": torch.tensor([1.0, 2.0, math.inf])})
    assert "from the beginning, for there is no checkpoint yet" in str(caught.value)
    assert caught.value.result["metrics"]["loss"]["max"] == pytest.approx(0.3)
    with pytest.raises(WorkFailedError, match="td_error is not finite"):
        _guard(run, 7, {"td_error": torch.tensor([math.nan])})


def test_what_an_agent_would_refuse_at_its_first_step_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for args, words in (
        (["drqn", "zhao-5x5", "--capacity", "40"], "expected at least 48 for each"),
        (["dqn", "zhao-5x5", "--capacity", "4"], "expected at least the 8 worlds"),
        (["sb3:ppo", "zhao-5x5", "--clip-range", "0"], "--clip-range 0: expected more than 0"),
        (["drqn", "zhao-5x5", "--stride", "0"], "--stride 0: expected"),
    ):
        assert main(["train", *args, "--out", str(tmp_path / "run")]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_every_agent_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in [*AGENTS, "sb3:dqn, sb3:ppo, sb3:a2c"])
