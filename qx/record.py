"""Episodes of an agent as a GIF: pictures of a map, or what Gymnasium renders, and below each how it goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import envs
from envs import gymworlds, picture
from envs.gym import FPS
from envs.gymworlds import GymWorlds
from envs.types import Worlds
from lab import console, streams
from lab.plots import INK
from qx.usage import UsageError
from qx.walk import Companion
from rl.evaluate import ENDLESS
from rl.saved import Saved

STRIP = 22  # pixels of the line below a picture
MOST = 25  # pictures a second; of a faster world some are left out
CALM = 30  # pictures of a walk that are shown at a walk's pace
REST = 1200  # milliseconds that the end of an episode stays


@dataclass
class Episode:
    """One episode, and pictures of its moments where they were asked for."""

    returned: float = 0.0
    """Undiscounted."""
    steps: int = 0
    ended: bool = False
    """By the world, not by a limit."""
    frames: list[UInt8[np.ndarray, "H W 3"]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def check(file: Path, world: envs.World | envs.GymWorld) -> None:
    """Raises UsageError where nothing could be written, or drawn."""
    if file.suffix.lower() != ".gif":
        raise UsageError(f"--gif {file}: expected a name that ends in .gif")
    if not file.resolve().parent.is_dir():
        raise UsageError(f"--gif {file}: its folder does not exist")
    if isinstance(world, envs.World) and any(part.layout is None for part in world.parts or (world,)):
        raise UsageError(f"--gif {file}: {world.name} has no map to draw")


def episodes(
    saved: Saved, world: envs.World | envs.GymWorld, *, seed: int, count: int, frames: int = 0
) -> list[Episode]:
    """`count` episodes of the best replica, a function of the seed; where the world sets no limit, of 1,000 steps.

    Args:
        saved: the agent.
        world: where it plays.
        seed: root of all draws.
        count: how many episodes.
        frames: pictures of each episode, at most: its first moments, and the last besides. Of a fast world some moments
            have none.

    Raises:
        UsageError: where a picture needs an extra that is missing.
    """
    worlds, sight, frame = _stage(saved, world, seed, frames > 0)
    companion, stride = Companion(saved, seed), _stride(world)
    played = []
    with console.progress(f"play {saved.name}", count) as bar:
        for number in range(1, count + 1):
            raw, one, cut = worlds.reset(), Episode(), False
            companion.begin()
            played.append(one)
            for more in _steps(world.time_limit or ENDLESS):
                last = one.ended or cut or not more
                if frames and (last or (one.steps % stride == 0 and len(one.frames) < frames)):
                    one.frames.append(frame(raw))
                    one.said.append(f"episode {number}   step {one.steps}   return {one.returned:g}")
                if last:
                    break
                step = worlds.step(torch.tensor([companion.look(sight(raw)[0])]))
                raw = step.obs
                one.steps, one.returned = one.steps + 1, one.returned + float(step.reward)
                one.ended, cut = bool(step.terminated), bool(step.truncated)
                bar.update(number - 1, f"step {one.steps}")
            bar.update(number)
    return played


def _steps(limit: int) -> Iterator[bool]:
    """Whether there is another step, after 0, 1, ... limit of them."""
    yield from (t < limit for t in range(limit + 1))


def _stage(
    saved: Saved, world: envs.World | envs.GymWorld, seed: int, draw: bool
) -> tuple[Worlds, Callable[[Tensor], Tensor], Callable[[Tensor], UInt8[np.ndarray, "H W 3"]]]:
    """One world; what the agent sees of what it shows; and a picture of it."""
    key = torch.tensor([streams.derive(seed, "world")])
    if isinstance(world, envs.World):
        table = world.observe(saved.config.observation)
        return (
            world.simulate(key, observation="state"),
            lambda state: table[state],
            lambda state: picture.rgb_array(world, int(state)),
        )
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures need no window
    arguments: dict[str, Any] = {**world.arguments, **({"render_mode": "rgb_array"} if draw else {})}
    try:
        env = gymworlds.bare(gymworlds.make(world.name, arguments))
        if draw:
            env.reset(seed=0)
            env.render()  # what is missing for pictures is missed here
    except gymnasium.error.DependencyNotInstalled:
        raise UsageError(f"--gif: pictures of {world.name} need pygame: pip install -e '.[render]'") from None
    worlds = GymWorlds([env], key, time_limit=world.time_limit)
    return worlds, lambda obs: obs, lambda obs: np.asarray(env.render(), np.uint8)


def write(file: Path, played: Sequence[Episode], world: envs.World | envs.GymWorld) -> None:
    """Write the frames of all episodes, one after another; the last of each stays for a while.

    A long walk on a map goes up to five times as fast. Written aside, so that there is the whole file or none.
    """
    images, durations = [], []
    for one in played:
        hurry = min(5.0, max(1.0, len(one.frames) / CALM)) if isinstance(world, envs.World) else 1.0
        each = round(1000 * _stride(world) / (_speed(world) * hurry))
        images += [_captioned(*moment) for moment in zip(one.frames, one.said, strict=True)]
        durations += [*[each] * (len(one.frames) - 1), REST]
    first, *rest = images
    aside = file.with_name(file.name + ".tmp")
    first.save(aside, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    aside.replace(file)


def cut(played: Sequence[Episode], frames: int) -> str:
    """A line about the episodes that are longer than their pictures; "" where there are none."""
    longer = [str(number) for number, one in enumerate(played, 1) if len(one.frames) > frames]
    which = f"episode{'s' * (len(longer) > 1)} {', '.join(longer)}"
    return f"of {which} the first {frames} pictures and the last: --frames shows more" if longer else ""


def _stride(world: envs.World | envs.GymWorld) -> int:
    """Steps from one picture to the next."""
    return max(1, round(_speed(world) / MOST))


def _speed(world: envs.World | envs.GymWorld) -> float:
    """Pictures a second, of a Gymnasium world as the environment means them."""
    if isinstance(world, envs.World):
        return FPS
    spec = gymnasium.spec(world.name)
    made: Any = (
        gymnasium.envs.registration.load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else None
    )
    return float(getattr(made, "metadata", {}).get("render_fps", 30))


def _captioned(frame: UInt8[np.ndarray, "H W 3"], said: str) -> Image.Image:
    """The picture with a line of text below it, in few enough colours for a GIF."""
    height, width, _ = frame.shape
    whole = Image.new("RGB", (max(width, 210), height + STRIP), "white")
    whole.paste(Image.fromarray(frame), ((whole.width - width) // 2, 0))
    ImageDraw.Draw(whole).text((6, height + 4), said, fill=INK, font=ImageFont.load_default(12))
    return whole.quantize(128, Image.Quantize.FASTOCTREE)
