"""Noisy layers against the weights written out, their variance against the closed form, R at a time against one."""

import pytest
import torch

from backbones.cnn import grid
from backbones.dueling import Dueling
from backbones.initialise import build
from backbones.mlp import MLP
from backbones.noisy import Noisy, NoisyLinear
from backbones.replicas import Replicas
from backbones.shape import ShapeError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def f(e: torch.Tensor) -> torch.Tensor:
    return e.sign() * e.abs().sqrt()


def test_it_is_the_layer_whose_weights_are_written_out() -> None:
    """Fortunato et al. 2018, eq. 9 to 11, for noise of each sample and for one of the batch; in float64."""
    layer = build(lambda: NoisyLinear(5, 3), seeded(0)).double()
    with torch.no_grad():
        layer.spread.weight.normal_(generator=seeded(1))
    x, noise = (torch.randn(4, n, dtype=torch.float64, generator=seeded(2 + n)) for n in (5, 8))
    for own in (noise, noise[:1]):
        rows = own.expand(4, 8)
        truth = []
        for b in range(4):
            into, out = f(rows[b, :5]), f(rows[b, 5:])
            weight = layer.mean.weight + layer.spread.weight * torch.outer(out, into)
            truth.append(weight @ x[b] + layer.mean.bias + layer.spread.bias * out)
        torch.testing.assert_close(layer(x, own), torch.stack(truth))
    assert torch.equal(layer(x, torch.zeros(1, 8, dtype=torch.float64)), layer.mean(x))


def test_first_weights_are_those_of_the_paper() -> None:
    layer = build(lambda: NoisyLinear(16, 3, sigma=0.4), seeded(0))
    assert torch.equal(layer.spread.weight, torch.full((3, 16), 0.1))
    assert torch.equal(layer.spread.bias, torch.full((3,), 0.1))
    assert layer.mean.weight.abs().max() <= 1 / 4


def test_its_variance_is_the_closed_form() -> None:
    """E f(e)^2 = E|e| = sqrt(2/pi) = m, f(e_in), f(e_out) independent: var y = sigma^2 (m^2 |x|^2 + m), here m .8."""
    layer = build(lambda: NoisyLinear(6, 2), seeded(0)).double()
    x = torch.randn(1, 6, generator=seeded(1), dtype=torch.float64)
    y = layer(x.expand(200_000, 6), torch.randn(200_000, 8, generator=seeded(2), dtype=torch.float64))
    m, sigma = (2 / torch.pi) ** 0.5, 0.5 / 6**0.5
    truth = sigma**2 * (m**2 * x.square().sum() + m)
    for column in y.var(0):
        assert column.item() == pytest.approx(truth.item(), rel=0.03)
    torch.testing.assert_close(y.mean(0), layer.mean(x)[0], atol=0.01, rtol=0)


@pytest.mark.parametrize("rows", [1, 6])
def test_r_networks_at_a_time_are_r_networks(rows: int) -> None:
    """A perceptron, whose layers stack, and a CNN, under vmap; the dueling head above both."""
    cases = {
        (7,): lambda: Dueling(Noisy(MLP(7, [], 8), [8, 5], 8, norm=True), 3, 2),
        (2, 4, 4): lambda: Dueling(Noisy(grid((2, 4, 4), 6), [6], 8), 3, 2),
    }
    for shape, make in cases.items():
        together = Replicas(make, [seeded(s) for s in (1, 2)])
        noise = make().noise
        assert together.template.noise == noise
        x, e = torch.randn(2, 6, *shape, generator=seeded(3)), torch.randn(2, rows, noise, generator=seeded(4))
        said = together(x, e)
        assert said.shape == (2, 6, 6)
        for r in range(2):
            alone = make()
            alone.load_state_dict(together.replica(r))
            torch.testing.assert_close(said[r], alone(x[r], e[r]), atol=1e-5, rtol=1e-5)


def test_noise_of_another_width_is_refused() -> None:
    with pytest.raises(ShapeError, match="Noisy: noise"):
        Noisy(MLP(3, [], 4), [4], 2)(torch.zeros(1, 3), torch.zeros(1, 5))
    with pytest.raises(ShapeError, match="NoisyLinear: noise"):
        NoisyLinear(3, 2)(torch.zeros(1, 3), torch.zeros(1, 4))
