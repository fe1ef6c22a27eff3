"""What an agent is at a moment, by the names of its attributes: so that `state_dict` is one line and forgets nothing.

An attribute is a number, a tensor, or something that has a `state_dict` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def taken(owner: object, names: Sequence[str]) -> dict[str, Any]:
    """The attributes `names` of `owner` as a tree (see `lab.tree`) that shares no memory with them."""
    return {name: _taken(getattr(owner, name)) for name in names}


@torch.no_grad()
def put(owner: object, names: Sequence[str], state: dict[str, Any]) -> None:
    """Make the attributes of `owner` what they were; tensors are written in place.

    What has a size only since the first step, like a trace for each world, is an empty tensor until then: a tensor that
    holds nothing yet, here or in the saved state, is replaced.

    Raises:
        ValueError: when the state holds other names, or a tensor of another shape.
    """
    if sorted(state) != sorted(names):
        raise ValueError(f"the saved state holds {', '.join(sorted(state))}, expected {', '.join(sorted(names))}")
    for name in names:
        held, saved = getattr(owner, name), state[name]
        if isinstance(held, Tensor) and not (held.numel() and saved.numel()):
            setattr(owner, name, saved.to(held.device, copy=True))
        elif isinstance(held, Tensor):
            if held.shape != saved.shape:
                raise ValueError(f"the saved {name} is {list(saved.shape)}, expected {list(held.shape)}")
            held.copy_(saved)
        elif hasattr(held, "load_state_dict"):
            held.load_state_dict(saved)
        else:
            setattr(owner, name, saved)


def _taken(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return value.state_dict() if hasattr(value, "state_dict") else value
