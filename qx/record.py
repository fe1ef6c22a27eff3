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
from lab import streams
from lab.plots import INK
from qx.usage import UsageError
from qx.walk import Companion
from rl.evaluate import ENDLESS
from rl.saved import Saved

STRIP = 22  # pixels of the line below a picture
MOST = 25  # pictures a second; of a faster world some are left out
REST = 1200  # milliseconds that the end of an episode stays


@dataclass
class Episode:
    """One episode, and a picture of each moment where they were asked for."""

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


def episodes(saved: Saved, world: envs.World | envs.GymWorld, *, seed: int, count: int, draw: bool) -> list[Episode]:
    """`count` episodes of the best replica, a function of the seed; where the world sets no limit, of 1,000 steps.

    Raises:
        UsageError: where a picture needs an extra that is missing.
    """
    worlds, sight, frame = _stage(saved, world, seed, draw)
    companion = Companion(saved, seed)
    played = []
    for number in range(1, count + 1):
        raw, one, cut = worlds.reset(), Episode(), False
        companion.begin()
        played.append(one)
        for more in _steps(world.time_limit or ENDLESS):
            if draw:
                one.frames.append(frame(raw))
                one.said.append(f"episode {number}   step {one.steps}   return {one.returned:g}")
            if one.ended or cut or not more:
                break
            step = worlds.step(torch.tensor([companion.look(sight(raw)[0])]))
            raw = step.obs
            one.steps, one.returned = one.steps + 1, one.returned + float(step.reward)
            one.ended, cut = bool(step.terminated), bool(step.truncated)
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
        raise UsageError(f"--gif: pictures of {world.name} need pygame: pip install 'quincunx[render]'") from None
    worlds = GymWorlds([env], key, time_limit=world.time_limit)
    return worlds, lambda obs: obs, lambda obs: np.asarray(env.render(), np.uint8)


def write(file: Path, played: Sequence[Episode], world: envs.World | envs.GymWorld) -> None:
    """Write the frames of all episodes, one after another; the last of each stays for a while."""
    speed = FPS if isinstance(world, envs.World) else _speed(world)
    stride = max(1, round(speed / MOST))
    images, durations = [], []
    for one in played:
        last = len(one.frames) - 1
        for t in [*range(0, last, stride), last]:
            images.append(_captioned(one.frames[t], one.said[t]))
            durations.append(REST if t == last else round(1000 * stride / speed))
    first, *rest = images
    first.save(file, save_all=True, append_images=rest, duration=durations, loop=0)


def _speed(world: envs.GymWorld) -> float:
    """Pictures a second as the environment means them."""
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
