"""A DQN with stable-baselines3's face as a folder: JSON that says what it is, safetensors with what it needs to act.

FOLDER/dqn.json           format version, arguments, spaces, how far the training is
FOLDER/dqn.safetensors    the tensors of the agent's `state_dict`, by path, without what learning alone needs
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium import spaces

from rl import saved
from rl.sb3_spaces import described, space_from
from rl.types import Agent

FORMAT = 1
HEADER, TENSORS = "dqn.json", "dqn.safetensors"


@dataclass(frozen=True)
class Model:
    """What there is to know of a model besides its agent."""

    arguments: dict[str, Any]
    """As its constructor was given them."""
    observation: spaces.Space[Any]
    actions: spaces.Discrete
    num_timesteps: int
    schedule: int
    """Steps that its schedules run over; 0 before it learned."""
    learns: int
    """How often it began to learn."""


def write(folder: Path, model: Model, agent: Agent) -> None:
    """Write a model; one that stood there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    payload, numbers = saved.packed(agent)
    header = {
        "format": FORMAT,
        "arguments": model.arguments,
        "observation": described(model.observation),
        "actions": [int(model.actions.n), int(model.actions.start)],
        "num_timesteps": model.num_timesteps,
        "schedule": model.schedule,
        "learns": model.learns,
        "numbers": numbers,
    }
    (folder / TENSORS).write_bytes(payload)
    (folder / HEADER).write_text(json.dumps(header, indent=1) + "\n")


def read(folder: Path) -> tuple[Model, bytes, dict[str, Any]]:
    """The model that was written, and what `rl.saved.unpack` gives its agent.

    Raises:
        SavedError: for a folder without one, a damaged one, or one of another format.
    """
    file = folder / HEADER
    try:
        header, payload = json.loads(file.read_bytes()), (folder / TENSORS).read_bytes()
    except (OSError, ValueError) as error:
        raise saved.SavedError(f"{folder}: no model can be read here ({error})") from None
    version = header.get("format") if isinstance(header, dict) else None
    if version != FORMAT:
        raise saved.SavedError(f"{file}: model format {version!r}, expected {FORMAT}")
    with saved.readable(file, folder / TENSORS):
        n, start = header["actions"]
        model = Model(
            arguments=dict(header["arguments"]),
            observation=space_from(header["observation"]),
            actions=spaces.Discrete(n, start=start),
            num_timesteps=header["num_timesteps"],
            schedule=header["schedule"],
            learns=header["learns"],
        )
        return model, payload, header["numbers"]
