"""A trained policy as an ONNX file, for programs that know nothing of Python.

    observation [batch, *shape]  ->  action [batch]              of a policy that chooses
                                     probabilities [batch, A]    of one that draws
                                     scores [batch, A]           what it chooses by, where it has such: action values

An agent that remembers has `memory [batch, *m]` as second input, zeros where an episode begins, and `next_memory` as
last output, after its scores. A table becomes a gather: its observation is the state's number.

It needs `pip install -e '.[export]'`.
"""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from backbones.replicas import Replicas
from rl.saved import Saved
from rl.types import Agent

NOISY = ("torch.onnx", "onnxscript", "onnx_ir")  # loggers that speak of what no user can act on
NEEDED = ("onnx", "onnxscript", "onnxruntime")
EQUAL = 1e-5
"""How far an exported network may be from its original."""


class ExportError(ValueError):
    """This agent cannot be exported here."""


class Policy(nn.Module):
    """The policy of an agent of one replica: one observation for each row, no replica dimension."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent
        self.scores = _scores(agent)
        self.remembers = agent.memory(1).numel() > 0

    def names(self, obs: Tensor, memory: Tensor) -> tuple[list[str], list[str]]:
        """Names of the inputs and the outputs."""
        chosen, _ = self.agent.policy(obs.unsqueeze(0), memory.unsqueeze(0))
        outputs = ["probabilities" if chosen.is_floating_point() else "action"]
        outputs += ["scores"] if self.scores is not None else []
        if self.remembers:
            return ["observation", "memory"], [*outputs, "next_memory"]
        return ["observation"], outputs

    def forward(self, observation: Tensor, memory: Tensor | None = None) -> tuple[Tensor, ...]:
        """What `names` says."""
        batch = observation.shape[0]  # not len(), which is a plain number and would fix the size
        before = torch.zeros(batch, 0, device=observation.device) if memory is None else memory
        obs, before = observation.unsqueeze(0), before.unsqueeze(0)
        chosen, after = self.agent.policy(obs, before)
        scores = () if self.scores is None else (self.scores(obs, before)[0],)
        return (chosen[0], *scores, after[0]) if self.remembers else (chosen[0], *scores)


def _scores(agent: Agent) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What an agent chooses by, from observations and memory; None of one that has no such."""
    found: Any = next((one for name in ("scores", "q_values") if (one := getattr(agent, name, None))), None)
    if found is None:
        return None
    if "memory" in inspect.signature(found).parameters:
        return lambda obs, memory: found(obs, memory)[0]
    return lambda obs, memory: found(obs)


def onnx(saved: Saved, file: Path, obs: Shaped[Tensor, "B *shape"]) -> float:
    """Run the best replica's policy once beside its original, and write it where it is no further off than `EQUAL`.

    Args:
        saved: the agent, on the CPU.
        file: where to; what stood there is replaced at once, or stays.
        obs: two or more observations to compare on.

    Returns:
        The largest difference between a number of the file's and the original's, in parts of the largest number where
        that is above 1.

    Raises:
        ExportError: where an extra is missing, or the agent is no function that ONNX knows, of batches of any size.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ExportError(f"an export to ONNX needs {', '.join(missing)}: pip install -e '.[export]'")
    agent = copy.deepcopy(saved.one().agent)
    for several in _replicas(agent):
        several.forward = _without_vmap(several.network(0))  # type: ignore[method-assign]  # of this copy alone
    policy = Policy(agent).eval()
    memory = agent.memory(len(obs))[0]
    inputs = (obs, memory) if policy.remembers else (obs,)
    names = policy.names(obs, memory)
    aside = file.with_name(f".{file.name}.partial")
    try:
        with torch.no_grad(), _quiet():
            program: Any = torch.onnx.export(
                policy,
                inputs,
                dynamo=True,
                input_names=names[0],
                output_names=names[1],
                dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in inputs),
                verbose=False,
            )
            program.save(aside)
            later = (obs.flip(0), policy(*inputs)[-1]) if policy.remembers else inputs  # when there is much to remember
        rows = [tuple(one[:n] for one in looks) for looks in (inputs, later) for n in (1, len(obs))]
        difference = max(_difference(aside, policy, some) for some in rows)
        if difference <= EQUAL:
            aside.replace(file)
    except Exception as error:  # the exporter's own kinds are many, and private
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ExportError(f"{saved.name} cannot be exported to ONNX: {reason}") from error
    finally:
        aside.unlink(missing_ok=True)
    return difference


def _replicas(thing: Any) -> Iterator[Replicas]:
    """Every `Replicas` in an agent, wherever it holds them."""
    for value in vars(thing).values():
        if isinstance(value, Replicas):
            yield value
        elif type(value).__module__.startswith("rl.") and hasattr(value, "__dict__"):
            yield from _replicas(value)


def _without_vmap(network: nn.Module) -> Callable[..., Any]:
    """What `Replicas` of one network computes, without torch.vmap, in which the exporter fixes a batch's size."""

    def forward(*inputs: Tensor | None) -> Any:
        found = network(*(None if one is None else one[0] for one in inputs))
        return tree_map(lambda one: one.unsqueeze(0), found)

    return forward


def _difference(file: Path, policy: Policy, inputs: tuple[Tensor, ...]) -> float:
    """The largest between what the file and the original make of inputs; actions count where nothing else does."""
    with torch.no_grad():
        pairs = list(zip(run(file, inputs), policy(*inputs), strict=True))
    numbers = [(a, b) for a, b in pairs if b.is_floating_point()] or pairs  # of equal scores either action is right
    return max(float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1)) for a, b in numbers)


def run(file: Path, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What the file's network makes of inputs, by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = {one.name: tensor.numpy() for one, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, given)]


@contextmanager
def _quiet() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in NOISY}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
