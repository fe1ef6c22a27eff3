"""Value propagation against breadth-first search and against autograd through every sweep; no place is special."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import envs
from backbones import planner
from backbones.initialise import build
from backbones.planner import CLOSED, MARKED, Planner
from backbones.replicas import Replicas
from backbones.shape import ShapeError

GAMMA = 0.9


def surroundings(planes: Tensor) -> tuple[Tensor, Tensor]:
    """The four neighbours of every cell of one map, and the cell, numbered on the map with a margin."""
    H, W = planes.shape[-2:]
    here = (torch.arange(1, H + 1)[:, None] * (W + 2) + torch.arange(1, W + 1)).flatten()[:, None]
    return here + torch.tensor([-(W + 2), -1, 1, W + 2]), here


@pytest.mark.parametrize("seed", range(4))
def test_it_can_be_value_iteration(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights by hand, a maze: v after k sweeps is gamma to the distance of a goal within k steps, by breadth first."""
    world = envs.load("maze", {"maze.size": "5", "maze.seed": str(seed)})
    planes = world.observe("planes")[0].double()
    k = 25
    net = Planner(tuple(planes.shape), 4, width=2, sweeps=k).double()
    for weight in net.parameters():
        weight.data.zero_()
    first, last = net.judge.hidden[0], net.judge.output
    first.weight.data[0, 0] = 1  # the planes after the agent's: wall, goal, ...
    K = net.maps
    last.bias.data[:K] = -25.0
    last.weight.data[K:, 0] = -50.0  # a wall is closed in every map
    last.bias.data[K:] = torch.logit(torch.tensor(GAMMA, dtype=torch.float64))
    monkeypatch.setattr(planner, "MARKED", 50.0)
    monkeypatch.setattr(planner, "CLOSED", 0.0)
    neighbours, here = surroundings(planes)
    settled = net.values(planes[1:].expand(len(here), -1, -1, -1), neighbours, here)
    found = settled[:, 1, 4].view(planes.shape[1:])  # the map of the goal's plane
    wall, reached = planes[1] > 0, planes[2] > 0
    expected = reached.double()
    for distance in range(1, k + 1):
        grown = reached.clone()
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            grown |= reached.roll(shift, axis)
        new = grown & ~reached & ~wall
        expected[new] = GAMMA**distance
        reached |= new
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def swept(r: Tensor, p: Tensor, sweeps: int) -> Tensor:
    """The recursion as it is written, every sweep recorded."""
    v = r
    for _ in range(sweeps):
        w = torch.nn.functional.pad(v, (1, 1, 1, 1))
        best = torch.stack([w[:, :-2, 1:-1], w[:, 1:-1, :-2], w[:, 1:-1, 2:], w[:, 2:, 1:-1]]).amax(0)
        v = torch.maximum(v, r + p * (best - r))
    return v


def test_values_and_gradients_are_those_of_all_the_sweeps() -> None:
    """Random planes and weights: settled values of every cell, for each plane, and the gradients of a random sum."""
    g = torch.Generator().manual_seed(0)
    net = build(lambda: Planner((4, 5, 6), 3, sweeps=40), g).double()
    planes = torch.rand(3, 5, 6, generator=g, dtype=torch.float64)
    neighbours, here = surroundings(planes)
    found = net.values(planes.expand(30, -1, -1, -1), neighbours, here)
    judged = net.judge(planes.flatten(1).mT).view(5, 6, 2, 3)
    each = []
    for m in range(3):
        r = torch.sigmoid(judged[:, :, 0, m] + MARKED * planes[m])
        p = torch.sigmoid(judged[:, :, 1, m] - CLOSED * planes.amax(0))
        whole = torch.nn.functional.pad(swept(r[None], p[None], 40)[0], (1, 1, 1, 1)).flatten()
        each.append(whole[torch.cat([neighbours, here], 1)])
    expected = torch.stack(each, 1)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(30, 3, 5, generator=g, dtype=torch.float64)
    parameters = list(net.judge.parameters())
    ours = torch.autograd.grad((found * weight).sum(), parameters)
    theirs = torch.autograd.grad((expected * weight).sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_at_first_each_map_tells_how_near_its_own_kind_of_cell_is() -> None:
    """One goal far from one wall, for ten first weights: values of the goal's map fall with the distance from it."""
    planes = torch.zeros(4, 9, 9)
    planes[0, 0, 8], planes[1, 8, 0] = 1, 1
    neighbours, here = surroundings(planes)
    away = (torch.arange(9)[:, None] - 8).abs() + torch.arange(9)
    for seed in range(10):
        net = build(lambda: Planner((5, 9, 9), 4), torch.Generator().manual_seed(seed))
        v = net.values(planes.expand(81, -1, -1, -1), neighbours, here)[:, 1, 4].view(9, 9)
        rings = [v[away == distance] for distance in range(16)]
        assert all(near.amin() > far.amax() for near, far in pairwise(rings))


def test_a_plane_in_which_nothing_is_marked_says_nothing() -> None:
    """A goal on one map and none on the other, in one batch: each as by itself, and no values where no goal is."""
    net = build(lambda: Planner((4, 5, 6), 3), torch.Generator().manual_seed(0))
    x = torch.zeros(3, 4, 5, 6)
    x[:, 0, 2, 2] = 1
    x[:2, 1, :, 0] = 1  # walls; on the third map there is nothing at all
    x[0, 2, 4, 5] = 1
    found = net(x)
    for b in range(3):
        torch.testing.assert_close(found[b], net(x[b : b + 1])[0])
    neighbours, here = surroundings(x[0])
    v = net.values(x[:, 1:], neighbours[14:15].expand(3, -1), here[14:15].expand(3, -1))
    assert (v.abs().amax(-1) > 0).tolist() == [[True, True, False], [True, False, False], [False, False, False]]


def test_what_it_says_depends_on_the_surroundings_not_on_the_place() -> None:
    """The same walls, goal and agent two cells further on a larger map: the same output."""
    net = build(lambda: Planner((5, 11, 11), 4, sweeps=20), torch.Generator().manual_seed(0))
    x = torch.zeros(2, 5, 11, 11)
    x[:, 1] = 1
    for b, at in enumerate((2, 4)):
        x[b, 1, at : at + 4, at : at + 4] = 0
        x[b, 0, at + 1, at + 2] = 1
        x[b, 2, at + 3, at] = 1
    found = net(x)
    torch.testing.assert_close(found[0], found[1])


def test_replicas_are_networks_by_themselves() -> None:
    many = Replicas(lambda: Planner((4, 6, 6), 3), [torch.Generator().manual_seed(s) for s in range(2)])
    x = torch.rand(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(5))
    x[:, :, 0] = 0
    x[:, :, 0, 0, 3] = 1  # at the rim: beyond it everything is 0
    found = many(x)
    for r in range(2):
        one = Planner((4, 6, 6), 3)
        one.load_state_dict(many.replica(r))
        torch.testing.assert_close(found[r], one(x[r]))
    found.sum().backward()
    assert many.weights.grad is not None
    assert (many.weights.grad != 0).float().mean() > 0.2


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"Planner: x has shape \[1, 4, 5, 6\], expected \[B, 4, 6, 6\]"):
        Planner((4, 6, 6), 3)(torch.zeros(1, 4, 5, 6))
