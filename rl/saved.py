"""A trained agent as a folder: JSON that says what it is, safetensors with what it needs to act. Nothing is pickled.

    FOLDER/agent.json            format version, agent, its config, the world it learned in, shapes, returns of replicas
    FOLDER/agent.safetensors     the tensors of its `state_dict`, by path, without what learning alone needs
    FOLDER/NAME.toml             the world itself, where it was a file

    agent = rl.saved.load(Path("runs/train-dqn-cliff-1/agent"), "cuda").agent

A loaded agent acts as the saved one did, bit for bit on the CPU, on any device; it can learn on, with no experience and
with fresh moments. A run itself goes on from its checkpoint, which keeps everything.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from envs import catalog
from envs.gymworlds import GymWorld
from envs.world import World
from rl.agents import recipe_of
from rl.recipe import shape_of
from rl.types import Agent

FORMAT = 1
LEARNING_ONLY = ("replay", "steps", "moments", "rollout")
"""Parts of a state that no policy reads and learning can begin without: former experience (`steps`: what
waits for its n-step return), the optimiser's moments."""


class SavedError(ValueError):
    """A folder holds no agent, a damaged one, or one of another format; the message names the file."""


@dataclass(frozen=True)
class Origin:
    """How to find a world again."""

    name: str
    """What `envs.load` takes: a name, a Gymnasium id, or the path of a file."""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def load(self) -> World | GymWorld:
        """The world. Raises WorldError as `envs.load` does."""
        return catalog.load(self.name, self.overrides)


@dataclass(frozen=True)
class Saved:
    """An agent, and all that is to be known in order to use it."""

    agent: Agent
    name: str
    config: Any
    world: World | GymWorld
    origin: Origin
    returns: tuple[float, ...] = ()
    """Of each replica, as it was judged; empty where it was not."""

    @property
    def best(self) -> int:
        """The replica with the highest return; the first where none was judged."""
        return max(range(len(self.returns)), key=lambda r: self.returns[r], default=0)

    def one(self, replica: int | None = None) -> Saved:
        """The same with a single replica, by default the best."""
        replica = self.best if replica is None else replica
        if self.agent.replicas == 1:
            return self
        agent = recipe_of(self.name).build(self.config, self.world, 1, 0, self.agent.device)
        agent.load_state_dict(_filled(agent.state_dict(), kept(self.agent), lambda of, like: _row(of, like, replica)))
        return dataclasses.replace(self, agent=agent, returns=self.returns[replica : replica + 1])


def save(folder: Path, saved: Saved) -> None:
    """Write the agent; what stood in the folder under the same names is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    file = Path(saved.origin.name)
    if file.is_file():
        shutil.copyfile(file, folder / file.name)
    payload, numbers = packed(saved.agent)
    (folder / "agent.safetensors").write_bytes(payload)
    header = {
        "format": FORMAT,
        "agent": saved.name,
        "config": dataclasses.asdict(saved.config),
        "world": {"name": file.name if file.is_file() else str(saved.origin.name), "file": file.is_file()},
        "overrides": dict(saved.origin.overrides),
        "observation": list(shape_of(saved.config, saved.world)),
        "actions": saved.world.actions,
        "replicas": saved.agent.replicas,
        "returns": [r if math.isfinite(r) else None for r in saved.returns],
        "numbers": numbers,
    }
    (folder / "agent.json").write_text(json.dumps(header, indent=1) + "\n")


def load(folder: Path, device: torch.device | str = "cpu") -> Saved:
    """The agent that was saved in `folder`, on `device`.

    Raises:
        SavedError: for a folder without one, or a damaged one.
        WorldError, AgentError: where its world or agent is not known here.
    """
    file = folder / "agent.json"
    try:
        header = json.loads(file.read_bytes())
        payload = (folder / "agent.safetensors").read_bytes()
    except OSError as error:
        raise SavedError(f"{error.filename}: {error.strerror}; expected a folder with a saved agent") from None
    except ValueError as error:
        raise SavedError(f"{file}: not readable as JSON ({_line(error)})") from None
    version = header.get("format") if isinstance(header, dict) else None
    if version != FORMAT:
        raise SavedError(f"{file}: agent format {version!r}; this version of quincunx reads format {FORMAT}")
    with readable(file, folder / "agent.safetensors"):
        name, here = header["agent"], header["world"]
        origin = Origin(str(folder / here["name"]) if here["file"] else here["name"], header["overrides"])
        recipe = recipe_of(name)
        config = recipe.config(**{key: _tuples(value) for key, value in header["config"].items()})
        world = origin.load()
        shape = shape_of(config, world)
        if (list(shape), world.actions) != (header["observation"], header["actions"]):
            found = f"observations {list(shape)} and {world.actions} actions"
            expected = f"{header['observation']} and {header['actions']} as when the agent was saved"
            raise SavedError(f"{file}: {world.name} has {found}, expected {expected}")
        agent = recipe.build(config, world, header["replicas"], 0, device)
        unpack(agent, payload, header["numbers"])
        returns = tuple(-math.inf if r is None else float(r) for r in header["returns"])
        if len(returns) not in (0, agent.replicas):
            raise SavedError(f"{file}: {len(returns)} returns of {agent.replicas} replicas, expected one for each")
        return Saved(agent, name, config, world, origin, returns)


@contextmanager
def readable(header: Path, tensors: Path) -> Iterator[None]:
    """What reading damaged files runs into, as a SavedError that names the file; refusals with a name stay."""
    try:
        yield
    except SafetensorError as error:
        raise SavedError(f"{tensors}: damaged ({_line(error)})") from None
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and type(error) is not ValueError:
            raise
        raise SavedError(f"{header}: does not fit this version ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def kept(agent: Agent) -> dict[str, Any]:
    """The leaves of an agent's state, by path, without what `LEARNING_ONLY` names."""
    return {path: leaf for path, leaf in _leaves(agent.state_dict()) if not _learning(path)}


def packed(agent: Agent) -> tuple[bytes, dict[str, Any]]:
    """What is kept of an agent: its tensors as safetensors, and its numbers by path."""
    state = kept(agent)
    tensors = {path: leaf.cpu().contiguous() for path, leaf in state.items() if isinstance(leaf, Tensor)}
    return safetensors.torch.save(tensors), {path: leaf for path, leaf in state.items() if path not in tensors}


def unpack(agent: Agent, payload: bytes, numbers: Mapping[str, Any]) -> None:
    """Give an agent, constructed alike, what was packed.

    Raises:
        KeyError: where something is missing.
        SafetensorError, RuntimeError, ValueError: where something does not fit (see `readable`).
    """
    state = {**numbers, **safetensors.torch.load(payload)}
    agent.load_state_dict(_filled(agent.state_dict(), state, lambda of, like: of))


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a state with its path."""
    if isinstance(tree, Mapping | list | tuple):
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for key, item in items:
            yield from _leaves(item, f"{path}/{key}" if path else str(key))
    else:
        yield path, tree


def _learning(path: str) -> bool:
    return any(part in LEARNING_ONLY for part in path.split("/"))


def _filled(fresh: Any, state: Mapping[str, Any], fit: Any, path: str = "") -> Any:
    """The tree `fresh` with the leaves of `state` in place of its own, fitted.

    What learning alone needs stays fresh, and so does a branch that has grown since it was: experience under way.

    Raises:
        KeyError: where a leaf is missing in `state`.
    """
    if isinstance(fresh, list | tuple):
        return list(_filled(dict(enumerate(fresh)), state, fit, path).values())
    if not isinstance(fresh, Mapping):
        return fresh if _learning(path) else fit(state[path], fresh)
    below = f"{path}/" if path else ""
    saved = {name.removeprefix(below).split("/")[0] for name in state if name.startswith(below)}
    if not saved <= {str(key) for key in fresh}:
        return fresh
    return {key: _filled(item, state, fit, f"{below}{key}") for key, item in fresh.items()}


def _row(leaf: Any, like: Any, replica: int) -> Any:
    """Replica r's part of a leaf, as `like` of one replica has it: along the one dimension in which they differ.

    What has another shape altogether belongs to worlds under way, and stays as in a fresh agent.
    """
    if not isinstance(leaf, Tensor) or leaf.shape == like.shape:
        return leaf
    differ = [d for d, (ours, one) in enumerate(zip(leaf.shape, like.shape, strict=False)) if ours != one]
    if leaf.ndim != like.ndim or len(differ) != 1 or like.shape[differ[0]] != 1:
        return like
    return leaf.narrow(differ[0], replica, 1)


def _tuples(value: Any) -> Any:
    """Lists, which JSON made of tuples, as tuples."""
    return (
        tuple(_tuples(item) for item in value) if isinstance(value, Sequence) and not isinstance(value, str) else value
    )
