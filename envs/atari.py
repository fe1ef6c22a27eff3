"""Atari 2600 games, `ALE/Pong-v5` and its like, as agents have learned them since Mnih et al. 2015.

A frame is the brighter of two screens, gray, 84 x 84; an action lasts 4 of them; an agent sees the last 4: uint8
[4, 84, 84]. Episodes begin with up to 30 frames of no action, end with the game (not with a life), and are cut after 30
minutes of play. Actions stick with probability 0.25; this and how many frames an episode begins with are all its
chance, both functions of the episode's seed: so a resume, which plays the actions again, is exact.

It needs `pip install 'quincunx[atari]'`: ale-py, which brings the games, and OpenCV, which shrinks the screens.

Source: Mnih et al., Nature 2015, Methods; sticky actions and ends: Machado, Bellemare, Talvitie, Veness, Hausknecht &
Bowling, "Revisiting the Arcade Learning Environment", JAIR 2018, sec. 4.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gymnasium
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

NAMESPACE = "ALE/"
SKIP, FRAMES = 4, 4
LONGEST = 108_000 // SKIP  # steps: 30 minutes at 60 screens a second
MISSING = "needs ale-py and OpenCV: pip install 'quincunx[atari]'"


def register() -> None:
    """Tell Gymnasium of the games. Raises ImportError where an extra is missing."""
    if find_spec("ale_py") is None or find_spec("cv2") is None:
        raise ImportError(MISSING)
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner for each of the worlds
    gymnasium.register_envs(ale_py)


def make(name: str, **arguments: Any) -> gymnasium.Env[Any, Any]:
    """One game as agents see it. Raises ImportError where an extra is missing."""
    register()
    game = gymnasium.make(name, disable_env_checker=True, **{**arguments, "frameskip": 1})
    return FrameStackObservation(AtariPreprocessing(game, frame_skip=SKIP), FRAMES)
