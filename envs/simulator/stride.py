"""One step of a rollout, and several in one call: a step, and a new episode where one ended.

`apart` asks which worlds ended and begins those anew; `together` computes a new episode for every world and takes it
where one ended, so that it never waits for a device, and can be compiled or captured: `Compiled` and `Captured` take
several steps of `together` in one call. All give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from envs.simulator.stepping import Carry, Move, Policy, Roots, Tables

COMPILED, CAPTURED = 4, 32  # steps of one call: more cost time to compile, and memory; fewer cost calls
LANES = 64  # compiled code gets worlds by as many

Done = tuple[Carry, Tensor, list[tuple[Tensor, Move]]]
"""The carry, the sums of rewards [N], and for each step that is recorded its state [N] and what it did."""


@runtime_checkable  # the tests check types as they run
class Stride(Protocol):
    """Takes `steps` steps; `gained` [N] grows by the rewards."""

    @property
    def steps(self) -> int: ...

    def __call__(
        self, tables: Tables, carry: Carry, gained: Tensor, roots: Roots, policy: Policy, record: bool
    ) -> Done: ...


class Apart:
    """One step on the CPU. Overwrites `gained` and the episodes of the carry."""

    steps = 1

    def __call__(
        self, tables: Tables, carry: Carry, gained: Tensor, roots: Roots, policy: Policy, record: bool
    ) -> Done:
        after, move = tables.move(carry, policy)
        gained += move.reward
        which = torch.from_numpy(move.ended.bool().numpy().nonzero()[0])  # numpy finds them twice as fast
        if len(which):
            if record:  # the true successor is to stay
                after = after._replace(state=after.state.clone())
            tables.renew(after, which, roots)
        return after, gained, [(carry.state, move)] if record else []


class Together:
    """One step on any device. Changes nothing."""

    steps = 1

    def __call__(
        self, tables: Tables, carry: Carry, gained: Tensor, roots: Roots, policy: Policy, record: bool
    ) -> Done:
        after, move = tables.move(carry, policy)
        after = tables.renewed(after, move.ended != 0, roots)
        return after, gained + move.reward, [(carry.state, move)] if record else []


apart, together = Apart(), Together()


class _Flat:
    """Several steps of `together` as a function from tensors to tensors, which is what compilers and graphs take."""

    def __init__(self, steps: int, tables: Tables, roots: Roots, policy: Policy, record: bool) -> None:
        self.steps, self._record = steps, record
        self._tables, self._policy, self._blocks = tables, policy, roots.block is not None
        self.worlds = len(Carry._fields) + 2 + self._blocks  # inputs that have a row for each world

    def inputs(self, carry: Carry, gained: Tensor, roots: Roots, policy: Policy) -> list[Tensor]:
        return [tensor for tensor in (*carry, gained, *roots, policy.table) if tensor is not None]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        carry, gained, rest = Carry(*inputs[:4]), inputs[4], list(inputs[5:])
        roots = Roots(rest.pop(0), rest.pop(0) if self._blocks else None)
        policy = self._policy.filled(rest.pop(0)) if rest else self._policy
        moves = []
        for _ in range(self.steps):
            carry, gained, moved = together(self._tables, carry, gained, roots, policy, self._record)
            moves += [tensor for state, move in moved for tensor in (state, *move)]
        return [*carry, gained, *moves]

    def outputs(self, outputs: list[Tensor]) -> Done:
        size = 1 + len(Move._fields)
        moves = [outputs[i : i + size] for i in range(5, len(outputs), size)]
        return Carry(*outputs[:4]), outputs[4], [(state, Move(*move)) for state, *move in moves]


class Compiled:
    """Several steps by `torch.compile`, for any number of worlds; the first call takes some ten seconds.

    SplitMix64 multiplies modulo 2^64. So do vector instructions; but worlds that fill no vector get plain C++, in which
    such a product is undefined, and comes out wrong. Hence worlds are handed over in full vectors, and the first call
    is compared with `together`.

    Raises:
        RuntimeError: where the compiled code yields other bits, as on a processor without vectors.
    """

    steps = COMPILED

    def __init__(self, tables: Tables, carry: Carry, roots: Roots, policy: Policy, record: bool) -> None:
        self._flat = _Flat(self.steps, tables, roots, policy, record)
        inputs = self._flat.inputs(carry, carry.state.float(), roots, policy)
        # Traced first: the graph holds no sizes, and has a compiler's cache of its own, however many worlds there are.
        traced = make_fx(self._flat)(*self._filled(inputs, len(carry.state)))
        options: dict[str, str | int | bool | Callable[..., object]] = {
            "assert_indirect_indexing": False,  # no index leaves its table: `TabularMDP` has seen to that
            "realize_reads_threshold": 1,  # a search uses each of its gathers twice: written out anew at every use,
            "realize_opcount_threshold": 20,  # six of them are 64, and compiling takes minutes
        }
        self._call = torch.compile(traced, fullgraph=True, dynamic=True, options=options)
        if not all(map(torch.equal, self._in_lanes(inputs, len(carry.state)), self._flat(*inputs))):
            raise RuntimeError("the code compiled here does not wrap integers around, expected mode='eager'")

    def __call__(
        self, tables: Tables, carry: Carry, gained: Tensor, roots: Roots, policy: Policy, record: bool
    ) -> Done:
        inputs = self._flat.inputs(carry, gained, roots, policy)
        return self._flat.outputs(self._in_lanes(inputs, len(carry.state)))

    def _in_lanes(self, inputs: list[Tensor], n: int) -> list[Tensor]:
        outputs: list[Tensor] = self._call(*self._filled(inputs, n))
        return [output[:n] for output in outputs]

    def _filled(self, inputs: list[Tensor], n: int) -> list[Tensor]:
        """The last world is repeated until the lanes are full."""
        if not (lack := -n % LANES):
            return inputs
        each, rest = inputs[: self._flat.worlds], inputs[self._flat.worlds :]
        return [torch.cat([tensor, tensor[-1:].expand(lack)]) for tensor in each] + rest


class Captured:
    """Several steps as one CUDA graph, for one number of worlds. What it returns lasts until the next call."""

    steps = CAPTURED

    def __init__(self, tables: Tables, carry: Carry, roots: Roots, policy: Policy, record: bool) -> None:
        self._flat = _Flat(self.steps, tables, roots, policy, record)
        gained = torch.zeros_like(carry.state, dtype=torch.float32)
        self._inputs = [tensor.clone() for tensor in self._flat.inputs(carry, gained, roots, policy)]
        device = carry.state.device
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):  # whatever is made on first use is made before the capture
            self._flat(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(self._graph):
            self._outputs = self._flat(*self._inputs)

    def __call__(
        self, tables: Tables, carry: Carry, gained: Tensor, roots: Roots, policy: Policy, record: bool
    ) -> Done:
        for static, given in zip(self._inputs, self._flat.inputs(carry, gained, roots, policy), strict=True):
            static.copy_(given)
        self._graph.replay()
        return self._flat.outputs(self._outputs)
