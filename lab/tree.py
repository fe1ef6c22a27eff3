"""State as a tree: nested dicts, lists and scalars with tensors at the leaves, split into tensors and JSON.

Whatever has state (a network, an optimiser, a replay buffer, a world) returns such a tree from `state_dict`.
`split` turns it into flat named tensors (for safetensors) and a JSON skeleton; `join` puts it together again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def split(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """(tensors by path, JSON skeleton). Raises TypeError for a leaf that is neither a tensor nor JSON."""
    tensors: dict[str, Tensor] = {}
    return tensors, _split(tree, "", tensors)


def join(tensors: Mapping[str, Tensor], skeleton: Any) -> Any:
    """The inverse of `split`. Raises KeyError when a tensor that the skeleton names is missing."""
    if isinstance(skeleton, list):
        return [join(tensors, item) for item in skeleton]
    if isinstance(skeleton, dict):
        if "$tensor" in skeleton:
            return tensors[skeleton["$tensor"]]
        if "$items" in skeleton:
            return {key: join(tensors, item) for key, item in skeleton["$items"]}
        return {key: join(tensors, item) for key, item in skeleton.items()}
    return skeleton


def _split(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach()
        return {"$tensor": path}
    if isinstance(tree, Mapping):
        items = [(key, _split(item, f"{path}/{key}" if path else str(key), tensors)) for key, item in tree.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in tree):
            return dict(items)
        return {"$items": [list(pair) for pair in items]}  # JSON would turn integer keys into strings
    if isinstance(tree, list | tuple):
        return [_split(item, f"{path}/{i}" if path else str(i), tensors) for i, item in enumerate(tree)]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(
        f"state holds a {type(tree).__name__} at {path or 'the root'}; "
        "a state tree holds dicts, lists, numbers, strings, booleans, None and tensors"
    )
