"""Value propagation against breadth-first search and against autograd through every sweep; no place is special."""

import pytest
import torch
from torch import Tensor

import envs
from backbones.initialise import build
from backbones.planner import MAPS, Planner
from backbones.replicas import Replicas
from backbones.shape import ShapeError

GAMMA = 0.9


def surroundings(planes: Tensor) -> tuple[Tensor, Tensor]:
    """The four neighbours of every cell of one map, and the cell, numbered on the map with a margin."""
    H, W = planes.shape[-2:]
    here = (torch.arange(1, H + 1)[:, None] * (W + 2) + torch.arange(1, W + 1)).flatten()[:, None]
    return here + torch.tensor([-(W + 2), -1, 1, W + 2]), here


@pytest.mark.parametrize("seed", range(4))
def test_it_can_be_value_iteration(seed: int) -> None:
    """Weights by hand, a maze: v after k sweeps is gamma to the distance of a goal within k steps, by breadth first."""
    world = envs.load("maze", {"maze.size": "5", "maze.seed": str(seed)})
    planes = world.observe("planes")[0].double()
    k = 25
    net = Planner(tuple(planes.shape), 4, width=2, sweeps=k).double()
    for weight in net.parameters():
        weight.data.zero_()
    first, last = net.judge.hidden[0], net.judge.output
    first.weight.data[0, 0] = first.weight.data[1, 1] = 1  # planes after the agent's: wall, goal, ...
    for m in range(MAPS):
        last.weight.data[2 * m, 1], last.bias.data[2 * m] = 50.0, -25.0
        last.weight.data[2 * m + 1, 0] = -50.0
        last.bias.data[2 * m + 1] = torch.logit(torch.tensor(GAMMA, dtype=torch.float64))
    neighbours, here = surroundings(planes)
    found = net.values(planes[1:].expand(len(here), -1, -1, -1), neighbours, here)[:, MAPS - 1, 4].view(
        planes.shape[1:]
    )
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
    """Random planes and weights: settled values of every cell in both maps, and the gradients of a random sum."""
    g = torch.Generator().manual_seed(0)
    net = build(lambda: Planner((4, 5, 6), 3, sweeps=40), g).double()
    planes = torch.rand(3, 5, 6, generator=g, dtype=torch.float64)
    neighbours, here = surroundings(planes)
    found = net.values(planes.expand(30, -1, -1, -1), neighbours, here)
    judged = torch.sigmoid(net.judge(planes.flatten(1).mT)).view(5, 6, MAPS, 2)
    both = []
    for m in range(MAPS):
        r, p = judged[:, :, m].unbind(-1)
        whole = torch.nn.functional.pad(swept(r[None], p[None], 40)[0], (1, 1, 1, 1)).flatten()
        both.append(whole[torch.cat([neighbours, here], 1)])
    expected = torch.stack(both, 1)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(30, MAPS, 5, generator=g, dtype=torch.float64)
    parameters = list(net.judge.parameters())
    ours = torch.autograd.grad((found * weight).sum(), parameters)
    theirs = torch.autograd.grad((expected * weight).sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_at_first_the_second_map_is_the_mirror_of_the_first() -> None:
    """What one map thinks worth more, the other thinks worth less, kind by kind of cell; and so with openness."""
    net = build(lambda: Planner((5, 6, 6), 4), torch.Generator().manual_seed(0))
    kinds = torch.cat([torch.zeros(1, 4), torch.eye(4)])
    said = net.judge(kinds).view(5, MAPS, 2)  # logits
    apart = said - said[:1]
    torch.testing.assert_close(apart[:, 0], -apart[:, 1])
    assert (apart[1:].abs() > 1e-3).all()


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
