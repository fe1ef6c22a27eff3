"""Recurrent networks over sequences: the plain one, LSTM and GRU, with a state that goes in and comes out.

    RNN    h' = tanh(W x + U h)                                                            Elman 1990
    LSTM   i, f, o = sigmoid(W x + U h);  g = tanh(W x + U h);  c' = f c + i g;  h' = o tanh(c')
                                                 Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000
    GRU    r, z = sigmoid(W x + U h);  n = tanh(W x + r (U h));  h' = (1 - z) n + z h
                                                 Cho et al. 2014, with r after the product as in torch and cuDNN

by torch's own kernels, under torch's own names of the weights. A sequence may hold several episodes: where one begins
(`reset`) the state is zeroed, so that what is computed of an episode never depends on the one before it. The kernels
know no resets, so the time axis is cut where any row has one, and they run in between: one call more for each such
column. An acting agent passes sequences of one step and keeps the state; who learns from a piece of an episode may hand
in the state that was stored with its first step (Kapturowski et al. 2019, "R2D2", sec. 3).

Weights start as torch's, uniform in +-1/sqrt(H), from the input; orthogonal, gate by gate, from the state, so that
what is remembered neither grows nor fades at first (Saxe et al. 2014, sec. 3; Arjovsky et al. 2016, sec. 1); biases 0,
but 1 at the LSTM's forget gate, which then begins by keeping its memory (Jozefowicz et al. 2015, sec. 2.2).

Key: B batch, T steps, I inputs, H width, L layers times directions, P parts of the state (h, and for the LSTM c).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from backbones import recurrent_replicas
from backbones.replicas import under_vmap
from backbones.shape import wrong

Kind = Literal["rnn", "lstm", "gru"]
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
PARTS = {"rnn": 1, "lstm": 2, "gru": 1}
ROLES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # the order in which torch's kernels take them


class Recurrent(nn.Module):
    """[B, T, I] -> [B, T, H] (both directions: [B, T, 2 H]) and the state after the last step.

    Args:
        kind: of the cell.
        inputs: I.
        width: H.
        layers: how many, one upon the other.
        bidirectional: whether a second network reads each layer's input from the end; its output is appended.

    Raises:
        ValueError: for a kind that does not exist, or no layers.
    """

    stacks = True  # weights may carry a leading replica dimension

    def __init__(self, kind: Kind, inputs: int, width: int, layers: int = 1, *, bidirectional: bool = False) -> None:
        super().__init__()
        if kind not in GATES:
            raise ValueError(f"recurrent kind {kind!r}: expected one of {', '.join(GATES)}")
        if layers < 1:
            raise ValueError(f"recurrent layers {layers}: expected 1 or more")
        self.kind, self.inputs, self.width, self.layers, self.bidirectional = kind, inputs, width, layers, bidirectional
        self.outputs = width * (1 + bidirectional)
        rows = GATES[kind] * width
        self.suffixes = [f"_l{n}{way}" for n in range(layers) for way in ("", "_reverse")[: 1 + bidirectional]]
        for n, suffix in enumerate(self.suffixes):
            columns = inputs if n <= bidirectional else self.outputs
            for role, shape in zip(ROLES, ((rows, columns), (rows, width), (rows,), (rows,)), strict=True):
                self.register_parameter(role + suffix, nn.Parameter(torch.zeros(shape)))

    def initialise(self, generator: torch.Generator) -> None:
        """The rule at the top of the file."""
        for suffix in self.suffixes:
            w, u, b, b_state = self._weights(suffix)
            w.uniform_(-(self.width**-0.5), self.width**-0.5, generator=generator)
            for gate in u.view(-1, self.width, self.width):
                nn.init.orthogonal_(gate, generator=generator)
            b.zero_()
            b_state.zero_()
            if self.kind == "lstm":
                b[self.width : 2 * self.width] = 1  # torch's order of gates: i, f, g, o

    def initial(self, batch: int) -> Float[Tensor, "B P L H"]:
        """The state before anything was seen: zeros."""
        return self._weights("_l0")[0].new_zeros(batch, PARTS[self.kind], len(self.suffixes), self.width)

    def forward(
        self,
        x: Float[Tensor, "*R B T I"],
        state: Float[Tensor, "*R B P L H"] | None = None,
        reset: Bool[Tensor, "*R B T"] | None = None,
    ) -> tuple[Float[Tensor, "*R B T O"], Float[Tensor, "*R B P L H"]]:
        """Outputs of the last layer and the state after the last step; held R times, all with a leading R.

        Args:
            x: the sequences.
            state: before the first step, by default zeros. `state[:, 0]` is torch's h, `state[:, 1]` the LSTM's c.
            reset: True where an episode begins: the state is zeroed before that step (in the reverse direction,
                before the last step of the episode that ended there). Reading it waits for the device.

        Raises:
            ShapeError: where one of them does not fit.
        """
        held = self._weights("_l0")[0].ndim - 2  # 1 where the weights are those of R networks
        if x.ndim != 3 + held or x.shape[-1] != self.inputs:
            raise wrong("Recurrent: x", x, f"[{'R, ' * held}B, T, {self.inputs}]")
        expected = (*x.shape[:-2], PARTS[self.kind], len(self.suffixes), self.width)
        if state is None:
            state = x.new_zeros(expected)
        elif state.shape != expected:
            raise wrong("Recurrent: state", state, str(list(expected)))
        if reset is not None and reset.shape != x.shape[:-1]:
            raise wrong("Recurrent: reset", reset, str(list(x.shape[:-1])))
        written_out = bool(held) or under_vmap(x)
        if written_out or (reset is not None and self.bidirectional):
            return self._one_by_one(x, state, reset, written_out=written_out)
        return self._through(x, state, reset, self.suffixes)

    def _weights(self, suffix: str) -> list[Tensor]:
        return [getattr(self, role + suffix) for role in ROLES]

    def _one_by_one(
        self, x: Tensor, state: Tensor, reset: Tensor | None, *, written_out: bool
    ) -> tuple[Tensor, Tensor]:
        """Layer by layer and direction by direction: each reads the episodes from its own end."""
        after: list[Tensor] = []
        for _ in range(self.layers):
            outs = []
            for backward in range(1 + self.bidirectional):
                at = len(after)
                y, r = (x.flip(-2), _mirrored(reset)) if backward else (x, reset)
                before, suffix = state[..., at : at + 1, :], self.suffixes[at]
                if written_out:
                    cell = recurrent_replicas.CELLS[self.kind]
                    y, last = recurrent_replicas.unroll(cell, y, before.squeeze(-2), r, *self._weights(suffix))
                    last = last.unsqueeze(-2)
                else:
                    y, last = self._through(y, before, r, [suffix])
                outs.append(y.flip(-2) if backward else y)
                after.append(last)
            x = torch.cat(outs, dim=-1)
        return x, torch.cat(after, dim=-2)

    def _through(
        self, x: Tensor, state: Tensor, reset: Tensor | None, suffixes: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Through torch's kernel, in pieces within which no row is reset."""
        if reset is None:
            return self._kernel(x, state, suffixes)
        steps = x.shape[1]
        cuts = (reset[:, 1:].any(0).nonzero()[:, 0] + 1).tolist() if steps > 1 else []
        outs = []
        for start, end in pairwise([0, *cuts, steps]):
            state = state.masked_fill(reset[:, start, None, None, None], 0)
            out, state = self._kernel(x[:, start:end], state, suffixes)
            outs.append(out)
        return torch.cat(outs, dim=1) if cuts else outs[0], state

    def _kernel(self, x: Tensor, state: Tensor, suffixes: Sequence[str]) -> tuple[Tensor, Tensor]:
        both = self.bidirectional and len(suffixes) > 1
        weights = [weight for suffix in suffixes for weight in self._weights(suffix)]
        shape = (True, len(suffixes) // (1 + both), 0.0, self.training, both, True)  # biases, layers, dropout, ...
        parts = state.permute(1, 2, 0, 3).contiguous()  # [P, L, B, H], as the kernels have it
        if self.kind == "lstm":
            out, h, c = torch.lstm(x, (parts[0], parts[1]), weights, *shape)
            return out, torch.stack([h, c]).permute(2, 0, 1, 3)
        kernel = torch.gru if self.kind == "gru" else torch.rnn_tanh
        out, h = kernel(x, parts[0], weights, *shape)
        return out, h[None].permute(2, 0, 1, 3)


def _mirrored(reset: Tensor | None) -> Tensor | None:
    """Where the reverse direction begins an episode, in its own order: at the step before each of `reset`."""
    if reset is None:
        return None
    return torch.cat([torch.zeros_like(reset[..., :1]), reset[..., 1:].flip(-1)], dim=-1)
