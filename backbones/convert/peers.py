"""What all conversions share: refusing what is not known, renaming, filling a module, and the folder of a peer.

A folder is `config.json` and `model.safetensors` (or the shards that `model.safetensors.index.json` names), as Hugging
Face's `save_pretrained` writes it and `from_pretrained` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
Weights = dict[str, Tensor]


def expect(peer: str, config: Mapping[str, Any], known: Mapping[str, Sequence[Any]]) -> None:
    """Raise ValueError for the first key whose value is none of the known ones; an absent key is taken as known."""
    for key, values in known.items():
        if key in config and config[key] not in values:
            choices = " or ".join(repr(value) for value in values)
            raise ValueError(f"{peer}: {key} is {config[key]!r}; known here: {choices}")


def need(peer: str, config: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise ValueError for the first key that is absent or None: what its absence means we will not guess."""
    for key in keys:
        if config.get(key) is None:
            raise ValueError(f"{peer}: {key} is not given; expected a number")


def under(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    """The weights whose names begin with `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in weights.items() if name.startswith(prefix + ".")}


def beneath(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    """The weights with `prefix.` before their names: the inverse of `under`."""
    return {f"{prefix}.{name}": tensor for name, tensor in weights.items()}


def fill(make: Callable[[], M], weights: Mapping[str, Tensor]) -> M:
    """`make()` with copies of these weights, in their own type; nothing is drawn.

    Raises ValueError when a weight is missing, not known, or of another shape.
    """
    with torch.device("meta"):
        module = make()
    wanted = module.state_dict()
    missing, unknown = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or unknown:
        what = "missing" if missing else "not known"
        raise ValueError(f"{type(module).__name__}: weights {', '.join((missing or unknown)[:4])} are {what}")
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            sizes = f"{list(tensor.shape)}, expected {list(wanted[name].shape)}"
            raise ValueError(f"{type(module).__name__}: weight {name} has shape {sizes}")
    module.load_state_dict({name: tensor.detach().clone() for name, tensor in weights.items()}, assign=True)
    return module


def read(folder: Path) -> tuple[dict[str, Any], Weights]:
    """The configuration and the weights of a folder, on the CPU. Raises OSError where a file is missing."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    weights: Weights = {}
    for shard in sorted(shards):
        weights |= safetensors.torch.load_file(folder / shard)
    return config, weights


def write(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write what `save` of a conversion gave, for the peer's `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    safetensors.torch.save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
