"""R networks in one module against R networks, each by itself."""

import copy

import pytest
import torch
from torch import nn

from backbones.cnn import grid
from backbones.initialise import build
from backbones.mlp import MLP
from backbones.replicas import Replicas

MAKERS = {
    "mlp": (lambda: MLP(4, [16, 16], 3), (4,)),
    "mlp with norm": (lambda: MLP(6, [16, 8], 3, norm=True), (2, 3)),
    "cnn under vmap": (lambda: grid((2, 5, 4), 3), (2, 5, 4)),
    "any module": (lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)), (4,)),
}


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(params=list(MAKERS))
def case(request: pytest.FixtureRequest) -> tuple:
    make, shape = MAKERS[request.param]
    x = torch.randn(3, 10, *shape, generator=generators(99)[0])
    alone = [build(make, g) for g in generators(1, 2, 3)]
    return make, x, Replicas(make, generators(1, 2, 3)), alone


def test_outputs_and_gradients_equal_those_of_each_network_alone(case: tuple) -> None:
    _, x, together, alone = case
    out = together(x)
    out.square().sum().backward()
    for r, network in enumerate(alone):
        own = network(x[r])
        torch.testing.assert_close(out[r], own, rtol=1e-5, atol=1e-5)
        own.square().sum().backward()
        flat = torch.cat([p.grad.flatten() for p in network.parameters()])
        torch.testing.assert_close(together.weights.grad[r, : len(flat)], flat, rtol=1e-4, atol=1e-5)
        assert not together.weights.grad[r, len(flat) :].any()  # the padding learns nothing


def test_a_replica_leaves_as_a_plain_network(case: tuple) -> None:
    make, _, together, alone = case
    for r, network in enumerate(alone):
        mine = make()
        mine.load_state_dict(together.replica(r))
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), network.parameters(), strict=True))


def test_a_network_is_the_same_whoever_rides_along(case: tuple) -> None:
    """Bit for bit where the layers stack; a grouped convolution may choose another algorithm for more groups."""
    make, x, together, _ = case
    others = Replicas(make, generators(7, 2, 8, 9, 3))
    x5 = torch.cat([x[:1] * 5, x[1:2], x[:2], x[2:]])
    ours, theirs = together(x)[1:], others(x5)[[1, 4]]
    if getattr(make(), "stacks", False):
        assert torch.equal(ours, theirs)
    else:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_one_optimiser_on_the_matrix_is_one_for_each_replica(case: tuple, optimizer: type) -> None:
    _, x, together, alone = case
    ours = optimizer([together.weights], lr=0.01)
    theirs = [optimizer(network.parameters(), lr=0.01) for network in alone]
    for _ in range(5):
        ours.zero_grad()
        together(x).square().mean((1, 2)).sum().backward()
        ours.step()
        for r, (network, own) in enumerate(zip(alone, theirs, strict=True)):
            own.zero_grad()
            network(x[r]).square().mean().backward()
            own.step()
    for r, network in enumerate(alone):
        flat = torch.cat([p.detach().flatten() for p in network.parameters()])
        torch.testing.assert_close(together.weights.detach()[r, : len(flat)], flat, rtol=1e-4, atol=2e-5)


def test_copies_are_independent_and_state_goes_round(case: tuple) -> None:
    make, x, together, _ = case
    out = together(x).detach()
    target = copy.deepcopy(together).requires_grad_(False)
    with torch.no_grad():
        together.weights.zero_()
    assert torch.equal(target(x), out)
    fresh = Replicas(make, generators(4, 5, 6))
    fresh.load_state_dict(target.state_dict())
    assert torch.equal(fresh(x), out)
    assert list(fresh.state_dict()) == ["weights"]


def test_no_replica_is_refused() -> None:
    with pytest.raises(ValueError, match="one generator a replica, and got none"):
        Replicas(lambda: MLP(1, [], 1), [])
