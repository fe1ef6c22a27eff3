"""`qx play`: keys from a pipe and from a terminal, and a walk that is Gymnasium's of the same seed."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import envs
from qx import keymap
from qx.keyboard import split
from qx.main import main
from qx.walk import Walk


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `qx play` with these keys and arguments; returns what it said and its JSON."""

    def run(keys: str, *args: str) -> tuple[str, dict[str, Any]]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
        assert main(["play", *args, "--json"]) == 0
        said = capsys.readouterr().out
        return said, json.loads(said.splitlines()[-1])

    return run


def test_a_walk_along_the_cliff(play: Any) -> None:
    said, found = play("w" + "d" * 11 + "\x1b[B", "cliff")
    assert (found["return"], found["steps"], found["ended"], found["optimal_return"]) == (-13, 13, True, -13)
    assert "down: reward -1, the end" in said
    assert "best from here -7" in said
    said, found = play("ddsr?q", "cliff")
    assert (found["return"], found["steps"], found["ended"], found["episodes"]) == (0, 0, False, 2)
    assert "best here: up" in said
    assert "right: reward -100" in said


def test_the_return_is_discounted_and_the_rewards_are_not(play: Any) -> None:
    _, found = play("dd..q", "zhao-5x5", "--gamma", "0.5", "--set", "start=map", "--set", "map=S..\n..G\n...")
    assert found["rewards"] == 0
    _, found = play("ddsq", "zhao-5x5", "--gamma", "0.5", "--set", "start=map", "--set", "map=S..\n..G\n...")
    assert (found["rewards"], found["return"]) == (1, 0.25)


def test_a_walk_is_held_against_the_best_from_where_it_began(play: Any) -> None:
    said, found = play("ddq", "zhao-5x5", "--seed", "1")
    began = envs.load("zhao-5x5")
    assert isinstance(began, envs.World)
    assert began.optimum is not None
    state = int(said.split("state ")[1].split()[0])
    value = began.optimum.values[state // 5][state % 5]
    assert found["optimal_return_from_this_start"] == pytest.approx(value, abs=0.05 + 1e-9)
    assert value != pytest.approx(found["optimal_return"], abs=0.1)
    assert f", discounted; from this start the best is {found['optimal_return_from_this_start']:.6g}" in said
    said, _ = play("q", "cliff")
    assert "with return 0; from this start the best is -13" in said


def test_after_the_end_only_a_restart_does_something(play: Any) -> None:
    said, found = play("wdddddddddddsddd?q", "cliff")
    assert found["steps"] == 13
    assert said.count("the episode is over: r begins another") == 4


@pytest.mark.parametrize("name", ["frozenlake-4x4", "windy-stochastic", "four-rooms", "t-maze"])
def test_the_walk_is_that_of_gymnasium_from_the_same_seed(name: str) -> None:
    world = envs.load(name)
    assert isinstance(world, envs.World)
    walk, env = Walk(world, seed=7, gamma=0.9), gymnasium.make(f"quincunx/{name}-v0", observation="state")
    seen, _ = env.reset(seed=7)
    total, t = 0.0, 0
    for i in range(300):
        assert walk.state == int(seen)
        action = (i * 7919) % world.actions
        seen, reward, terminated, truncated, _ = env.step(action)
        walk.act(action)
        total, t = total + 0.9**t * float(reward), t + 1
        assert walk.returned == pytest.approx(total)
        assert (walk.ended, walk.truncated) == (terminated or truncated, truncated and not terminated)
        if walk.ended:
            walk.restart()
            seen, _ = env.reset()
            total, t = 0.0, 0


def test_an_agent_takes_steps(play: Any, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert main(["train", "q-learning", "cliff", "--steps", "20000", "--replicas", "2", "--out", run]) == 0
    _, found = play("g" * 13, "cliff", "--run", run)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    best = max(r for r in result["returns"] if r is not None)
    assert found["return"] == pytest.approx(best)
    assert found["ended"]


def test_an_agent_of_another_world_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert main(["train", "q-learning", "zhao-5x5", "--steps", "10", "--replicas", "1", "--out", run]) == 0
    capsys.readouterr()
    assert main(["play", "cliff", "--run", run]) == 2
    assert "its world is zhao-5x5, expected cliff" in capsys.readouterr().err.replace("\n", " ")
    assert main(["play", "cliff", "--run", str(tmp_path)]) == 2
    assert main(["play", "CartPole-v1"]) == 2


def test_what_an_agent_sees(play: Any) -> None:
    said, _ = play("q", "key-door", "--observation", "coordinates")
    assert "observation -0.714286 -0.714286 0" in said
    said, _ = play("q", "four-rooms", "--observation", "window-3")
    assert "observation (by plane)\n" in said


def test_keys_are_split_and_mean_actions() -> None:
    assert list(split("a\x1b[A\x1bOC\x1b[3~\x1b[1;5D?")) == ["a", "up", "right", "left", "?"]
    king = ["up", "right", "down", "left", "up-right", "down-right", "down-left", "up-left", "stay"]
    assert [keymap.keys(king)[key] for key in "wdsaunby "] == list(range(9))
    taxi = ["south", "north", "east", "west", "pick up", "drop off"]
    assert list(keymap.actions(iter(["down", "w", "d", "a", "4", "5", "x"]), taxi)) == [0, 1, 2, 3, 4, 5, "x"]
    stakes = [f"stake {n}" for n in range(51)]
    assert list(keymap.actions(iter("12\n7\r99\nq"), stakes)) == [12, 7, "q"]
    moves = [f"{n:+d}" if n else "0" for n in range(-5, 6)]
    assert list(keymap.actions(iter("-5\n0\n3\n"), moves)) == [0, 5, 8]
    assert "0 to 10" not in keymap.legend(taxi)
    assert keymap.legend(taxi) == "arrows or wasd   4 pick up   5 drop off"


def test_a_terminal_is_put_back_as_it_was() -> None:
    """In a pseudo-terminal: a page of its own, keys without Enter, and the old settings after an interrupt."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "  # so that Ctrl-C is a signal
    command += "from qx.main import main; raise SystemExit(main(['play', 'cliff', '--json']))"
    ends: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", command], **ends) as child:
        said = b""

        def until(words: bytes) -> None:
            nonlocal said
            deadline = time.monotonic() + 60
            while words not in said and select.select([ours], [], [], deadline - time.monotonic())[0]:
                said += os.read(ours, 65536)
            if words not in said:
                child.kill()
            assert words in said

        until(b"q quit")
        os.write(ours, b"w\x1b[C")
        until(b"best from here -11")
        assert termios.tcgetattr(theirs)[3] & termios.ICANON == 0
        os.write(ours, b"\x03")  # Ctrl-C
        until(b'"episodes"')
        assert child.wait(30) == 0
    assert b"\x1b[?1049h" in said
    assert said.index(b"\x1b[?1049l") > said.index(b"\x1b[?1049h")
    after = termios.tcgetattr(theirs)
    assert after == before
    os.close(ours)
    os.close(theirs)
