"""One turn of the engine as arithmetic on tensors that stay where they are.

    x = input_scale h[source]                   what every row shows to its network row, and beside it, where the
                                                network is told of its last estimate, m of the step before
    output = null + g (network(x, t, ...) - null)
    h <- A h + B m + C z + D output             each row by its own row of the tables
    x <- mask x + (1 - mask) (alpha' init + sigma' noise0)

Nothing here depends on a number that the device holds: no branch, no size, no question. What the host knows (whether
any request draws noise, whether any keeps a part of an image) chooses between four variants. So a turn can be run as it
stands, compiled, or captured as a CUDA graph (see `modes`), while requests join and leave by changing what the tensors
hold.

Key: R network rows, P pixels of a sample, H registers of the solvers, as in `slots`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from generative.diffusion.engine import learned
from generative.diffusion.engine.shelf import Shelf
from generative.diffusion.engine.slots import Slots
from generative.diffusion.solvers.table import estimate, moved

Move = Callable[[bool, bool], None]
"""A turn: (whether any row draws noise, whether any keeps a part of an image)."""


def together(network: Callable[..., Tensor]) -> int | None:
    """The rows that a network takes at a time, where it does not take all; then others may be left out."""
    return getattr(network, "rows_together", None)


@dataclass(frozen=True, eq=False)
class Step:
    """The arithmetic of a turn, and the tensors that it reads and writes."""

    network: Callable[..., Tensor]
    slots: Slots
    shelf: Shelf
    network_dtype: torch.dtype
    """Floating type of what the network is shown, but for the timestep."""

    @torch.no_grad()
    def __call__(self, draws: bool, keeps: bool) -> None:
        """A turn: `draws` where any row takes noise, `keeps` where any keeps a part of an image."""
        if draws:
            self.draw()
        self.denoise(draws, keeps)

    def draw(self) -> None:
        """Noise of the step at hand into `z`, but in rows that bring their own: there the host has written it."""
        s = self.slots
        s.z.copy_(torch.where(s.brings[:, None], s.z, s.noise(s.key, s.drawn + 1)))

    def denoise(self, draws: bool, keeps: bool) -> None:
        """All but the noise."""
        s, tables = self.slots, self.shelf.tables
        shown = s.pointer[s.source]  # [R]
        x = s.h[s.source, 0] * tables.input_scale[shown, None]  # [R, P]
        x = x.view(s.inputs.rows, *s.inputs.shape)
        if s.estimate is not None:
            x = torch.cat([x, s.estimate[s.source].view(x.shape)], dim=1)
        label = None if s.inputs.classes is None else s.label
        told, v = self._parts(self._answer(x, tables.timesteps[shown], label))
        null = told[s.null]
        output = null + s.guidance[:, None] * (told - null)  # the answer itself where unguided: null is told
        rows = tables.rows(s.pointer)
        z = s.z if draws else None
        if z is not None and v is not None:
            z = z * learned.factor(v, s.learned * self.shelf.spread[s.pointer])
        m = estimate(rows, s.h, output, s.clip)
        h = moved(rows, s.h, m, output, z)
        if keeps:
            alpha, sigma = self.shelf.after[:, s.pointer, None]  # [R, 1]
            keep = alpha * s.kept["init"] + sigma * s.kept["noise"]
            h[:, 0] = s.kept["mask"] * h[:, 0] + (1 - s.kept["mask"]) * keep
        s.h.copy_(h)
        if s.estimate is not None:
            s.estimate.copy_(m)
        s.drawn.add_(1)
        s.pointer.copy_(self.shelf.next[s.pointer])

    def ask(
        self, x: Float[Tensor, "R *seen"], t: Float[Tensor, "R"], label: Int64[Tensor, "R"] | None, **conditions: Tensor
    ) -> Float[Tensor, "R *said"]:
        """The network's answer. Timesteps keep their precision: bfloat16 has no 999."""
        told = {name: c.to(self.network_dtype) if c.is_floating_point() else c for name, c in conditions.items()}
        return self.network(x.to(self.network_dtype), t, label, **told)

    def _answer(
        self, x: Float[Tensor, "R *seen"], t: Float[Tensor, "R"], label: Int64[Tensor, "R"] | None
    ) -> Float[Tensor, "R *said"]:
        """What the network says to the slots; one that takes rows by chunks (`backbones.cpu.swift`) skips idle ones."""
        s = self.slots
        awake = s.awake(together(self.network) or s.inputs.rows)
        if len(awake) == s.inputs.rows:
            return self.ask(x, t, label, **s.conditions)
        rows = s.index(awake)
        told = {name: condition[rows] for name, condition in s.conditions.items()}
        said = self.ask(x[rows], t[rows], None if label is None else label[rows], **told)
        return said.new_zeros(len(x), *said.shape[1:]).index_copy_(0, rows, said)

    def _parts(self, answer: Float[Tensor, "R *said"]) -> tuple[Float[Tensor, "R P"], Float[Tensor, "R P"] | None]:
        """What the network says of the sample, and of the variance of its noise where it does."""
        inputs, said = self.slots.inputs, answer.flatten(1).to(self.slots.dtype)
        size, count = len(self.slots.pixel), 1 + inputs.variance
        if said.shape != (inputs.rows, count * size):
            raise ValueError(f"the network answers with {list(answer.shape)}; expected {count} x {size} numbers a row")
        return (said[:, :size], said[:, size:]) if inputs.variance else (said, None)
