"""A learned variance: the network says, beside its prediction, how much noise a step of DDPM is to add to each pixel.

Its output has twice the channels of its input: the prediction, then v; with f = (v + 1) / 2

    ln variance = f ln beta + (1 - f) ln beta~       (Nichol & Dhariwal 2021, eq. 15)

between the largest and the smallest that are right for any data. It is learned by the variational bound, the mean by
the simple loss alone (eq. 16). In sampling it is no part of a `SolverTable`, being no linear function of the output,
but a factor on the noise of each pixel, e^(f spread / 2) with spread = ln(beta / beta~): so DDPM's rows serve.

Key: beta = s2, the variance added between two levels; beta~ = s2 sigma'^2 / sigma^2 that of x' given x and x_0 (as in
`solver`); bits, as in the authors' code: ln / ln 2, the mean over pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from generative.diffusion.noise.denoiser import Network, Prediction, column
from generative.diffusion.noise.schedule import Levels, NoiseSchedule
from generative.diffusion.solvers.solver import ddpm
from generative.diffusion.solvers.table import step
from generative.diffusion.training.objective import DDPM, Noised
from generative.train import Batch, Losses


def bounds(levels: Levels) -> tuple[Float64[Tensor, "S"], Float64[Tensor, "S"]]:
    """(ln beta~, ln beta) of each step. The last, onto clean data, has the step's before it, its own beta~ being 0.

    So the authors' code has it (`posterior_log_variance_clipped`).
    """
    alpha, sigma = levels.alphas, levels.sigmas
    large = sigma[:-1] ** 2 - (alpha[:-1] / alpha[1:] * sigma[1:]) ** 2
    small = large * (sigma[1:] / sigma[:-1]) ** 2
    if small[-1] == 0:
        small[-1] = small[-2] if len(small) > 1 else large[-1]
    return small.log(), large.log()


@dataclass(frozen=True, eq=False)
class Hybrid:
    """L_simple + 0.001 L_vlb: `objective` for the mean, the variational bound for the variance (eq. 16).

    Args:
        objective: what the first half of the output is trained for; its schedule is a table of timesteps.
        pixel: the distance between two values of a pixel, over which the last step's likelihood is integrated.

    Raises:
        ValueError: when the schedule is no table of timesteps, between which a step would be.
    """

    objective: DDPM
    pixel: float = 2 / 255

    def __post_init__(self) -> None:
        if not isinstance(self.objective.schedule, NoiseSchedule):
            raise ValueError(f"schedule is {self.objective.schedule}; a learned variance needs a table of timesteps")

    @cached_property
    def _steps(self) -> tuple[Float64[Tensor, "T"], ...]:
        """(weight of x, weight of x_0, ln beta~, ln beta) of the step from each timestep t to t - 1."""
        schedule = self.objective.schedule
        assert isinstance(schedule, NoiseSchedule)
        levels = Levels.through(schedule, torch.arange(schedule.steps).flip(0))
        table = ddpm(levels, "x0")
        return tuple(each.flip(0) for each in (table.A[:, 0, 0], table.B[:, 0], *bounds(levels)))

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """The sum for each sample; "bound" is the estimate of its bits a pixel, for all T steps."""
        noised = self.objective.noised(batch, key)
        said, v = self.objective.ask(model, noised).chunk(2, dim=1)
        bits = len(self._steps[0]) * self.bits(noised, said.detach(), v)  # T steps, of which one was drawn
        return Losses(self.objective.error(noised, said) + 0.001 * bits, {"bound": bits.detach()})

    def bits(self, noised: Noised, said: Float[Tensor, "B *shape"], v: Float[Tensor, "B *shape"]) -> Float[Tensor, "B"]:
        """L_t of the timestep at hand (eq. 4 to 7): KL(q(x' | x, x_0) || p(x' | x)), at t = 0 -ln p(x_0 | x).

        q has the exact x_0, p the estimate and the learned variance; at t = 0 p is integrated over a pixel's value, the
        outermost to infinity.
        """
        t = noised.level.told.long()
        of_x, of_x0, small, large = (column(each.to(t.device)[t], v) for each in self._steps)
        estimate = self.objective.estimate(noised, said)
        f = (v + 1) / 2
        logarithm = f * large + (1 - f) * small
        wrong = of_x0 * (noised.x0 - estimate)  # the two means differ by the share of x_0 alone
        divergence = 0.5 * (logarithm - small - 1 + (small - logarithm).exp() + wrong**2 * (-logarithm).exp())
        mean = of_x * noised.x + of_x0 * estimate
        likelihood = _log_mass(noised.x0, mean, (0.5 * logarithm).exp(), self.pixel)
        nats = torch.where(column(t.to(v), v) == 0, -likelihood, divergence)
        return nats.flatten(1).mean(1) / math.log(2)


def draw(
    network: Network,
    levels: Levels,
    prediction: Prediction,
    x: Float[Tensor, "B *shape"],
    noise: Float[Tensor, "S B *shape"],
    label: Int64[Tensor, "B"] | None = None,
    clip: float = torch.inf,
) -> Iterator[Float[Tensor, "B *shape"]]:
    """DDPM with the variance that the network says: the sample after each of the S steps, from x at the first level.

    `noise` is standard normal, `clip` a bound on the estimates of the data.
    """
    table, shape, bound = ddpm(levels, prediction).to(x.device, x.dtype), x.shape, x.new_full((len(x),), clip)
    small, large = bounds(levels)
    for k in range(len(levels)):
        rows = table.rows(torch.full((len(x),), k, device=x.device))
        told = rows.timesteps
        said, v = network(column(rows.input_scale, x) * x, told, label).chunk(2, dim=1)
        z = noise[k] * ((v + 1) / 4 * (large[k] - small[k]).to(x)).exp()  # e^(f spread / 2)
        x = step(rows, x.flatten(1)[:, None], said.flatten(1), z.flatten(1), bound)[:, 0].view(shape)
        yield x


def _log_mass(
    x: Float[Tensor, "B *shape"], mean: Float[Tensor, "B *shape"], std: Float[Tensor, "B *shape"], width: float
) -> Float[Tensor, "B *shape"]:
    """ln of a normal distribution's mass within width/2 of x, and beyond where x is the least or the largest value."""
    above, below = ((x + side * width / 2 - mean) / std for side in (1, -1))
    mass = torch.special.ndtr(above) - torch.special.ndtr(below)
    inner = mass.clamp(min=1e-12).log()  # as the authors bound it: a far miss has no gradient
    outer = torch.where(x < 0, torch.special.log_ndtr(above), torch.special.log_ndtr(-below))
    return torch.where(x.abs() > 0.999, outer, inner)
