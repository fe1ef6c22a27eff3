"""A policy as a person gives it: `uniform`, or a JSON file with an action, or the chance of each action, for each cell.

Read is what `qx solve --json` prints and `result.json` holds: the list under "policy" (of a world with several modes
those under "modes"); or a plain list. Entries stand in map order, row by row with the walls, mode after mode, in lists
of their own for each row or in one, or in state order. Each is the name or the number of an action, a list of A
chances, an object of chances by name, or null where nothing is decided.
"""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

import envs
from qx.cells import cell_states, has_map
from qx.limits import UsageError
from rl.dp import soft


def chance_of(word: str) -> float | None:
    """The X of "epsilon:X", None for another word. Raises UsageError when X is no chance."""
    name, colon, number = word.partition(":")
    if not (colon and name == "epsilon"):
        return None
    try:
        epsilon = float(number)
    except ValueError:
        epsilon = math.nan
    if not 0 <= epsilon <= 1:
        raise UsageError(f"--policy {word}: expected a chance from 0 to 1, for example epsilon:0.1")
    return epsilon


def read(word: str, world: envs.World) -> Shaped[Tensor, "*policy"]:
    """The policy that `word` names: Int64 `[S]`, or Float64 `[S, A]`.

    Raises:
        UsageError: for a file that cannot be read, or an entry that does not fit the world; it names the entry.
    """
    S, A = world.mdp.states, world.actions
    if word == "uniform":
        return torch.full((S, A), 1 / A, dtype=torch.float64)
    path = Path(word)
    found = _loaded(path)
    entries = _listed(found, path)
    if has_map(world) and world.layout is not None:
        shape = (world.layout.rows, world.layout.cols)
        if all(isinstance(row, list) and (len(entries), len(row)) == shape for row in entries):
            entries = [entry for row in entries for entry in row]
    states = list(range(S))
    if has_map(world) and len(entries) != S:
        states = cell_states(world).ravel().tolist()
    if len(entries) != len(states):
        cells = f", one a state, or {len(states)}, one a cell" if len(states) != S else ", one a state"
        raise UsageError(f"{path}: its policy has {len(entries)} entries, expected {S}{cells}")
    rows: list[Any] = [0] * S  # a gate that looks like a wall has a state, but no entry
    idle = (~world.mdp.lived()).tolist()
    for index, (entry, state) in enumerate(zip(entries, states, strict=True)):
        if state >= 0 and not (entry is None and idle[state]):
            rows[state] = _entry(entry, f"{path}: entry {index}", world)
    certain = torch.eye(A, dtype=torch.float64).tolist()
    if any(isinstance(row, list) for row in rows):
        return torch.tensor([row if isinstance(row, list) else certain[row] for row in rows], dtype=torch.float64)
    policy = torch.tensor(rows, dtype=torch.int64)
    epsilon = found.get("epsilon") if isinstance(found, dict) else None  # of the best that act at random at times
    return policy if epsilon is None else soft(policy, A, chance_of(f"epsilon:{epsilon}") or 0.0)


def _loaded(path: Path) -> Any:
    """What a file holds, or its last line, where `--json` prints. Raises UsageError where there is none, or no JSON."""
    if not path.is_file():
        near = difflib.get_close_matches(str(path), ["uniform"])
        hint = "; did you mean 'uniform'?" if near else ""
        raise UsageError(f"--policy {path}: no such file; expected uniform, epsilon:0.1 or a JSON file{hint}")
    written = path.read_bytes().strip()
    last = written[written.rfind(b"\n") + 1 :]
    try:
        return json.loads(last if last.startswith(b"{") and last.endswith(b"}") else written)
    except ValueError as error:
        raise UsageError(f"{path}: not readable as JSON ({' '.join(str(error).split())})") from None


def _listed(found: Any, path: Path) -> list[Any]:
    """The entries of a list itself, or of what an object has under "modes" or "policy"."""
    if isinstance(found, dict) and isinstance(modes := found.get("modes"), list):
        return [entry for mode in modes for entry in _policy_of(mode, path)]
    return _policy_of(found, path)


def _policy_of(found: Any, path: Path) -> list[Any]:
    found = found.get("policy") if isinstance(found, dict) else found
    if not isinstance(found, list):
        raise UsageError(f'{path}: has no list of actions, expected one, or an object with one under "policy"')
    return found


def _entry(entry: Any, where: str, world: envs.World) -> int | list[float]:
    """The number of an action, or A chances that sum to 1."""
    names, A = world.action_names, world.actions
    if isinstance(entry, str) and entry in names:
        return names.index(entry)
    if isinstance(entry, int | float) and not isinstance(entry, bool) and entry in range(A):
        return int(entry)
    if isinstance(entry, dict) and entry.keys() <= set(names):
        entry = [entry.get(name, 0) for name in names]
    if isinstance(entry, list):
        numbers = [float(p) for p in entry if isinstance(p, int | float) and not isinstance(p, bool) and p >= 0]
        if len(numbers) == len(entry) == A and abs(sum(numbers) - 1) <= 1e-6:
            return [p / sum(numbers) for p in numbers]
        raise UsageError(f"{where} is {json.dumps(entry)}, expected {A} chances, at least 0, that sum to 1")
    near = difflib.get_close_matches(str(entry), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"{where} is {json.dumps(entry)}, expected one of {', '.join(names)}, or 0 to {A - 1}{hint}")
