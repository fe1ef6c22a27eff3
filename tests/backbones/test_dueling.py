"""The dueling head: worked by hand, and what makes values and advantages identifiable."""

import torch

from backbones.dueling import Dueling
from backbones.initialise import build
from backbones.mlp import MLP


def test_the_head_worked_by_hand() -> None:
    """v = 10, advantages 1, 2, 6 with mean 3."""
    head = Dueling(torch.nn.Identity(), 3)
    assert head(torch.tensor([[10.0, 1.0, 2.0, 6.0]])).tolist() == [[8.0, 9.0, 13.0]]


def test_the_head_over_two_atoms_worked_by_hand() -> None:
    """v = (1, 2); advantages (0, 1), (4, -1): means (2, 0)."""
    head = Dueling(torch.nn.Identity(), 2, 2)
    assert head(torch.tensor([[1.0, 2.0, 0.0, 1.0, 4.0, -1.0]])).tolist() == [[-1.0, 3.0, 3.0, 1.0]]


def test_a_number_added_to_all_advantages_changes_nothing_and_the_value_is_the_mean() -> None:
    """Wang et al. 2016, eq. 9: v is the mean of q over actions, atom by atom."""
    network = build(lambda: Dueling(MLP(4, [8], 8), 3, 2), torch.Generator().manual_seed(0))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    before = network(x).view(5, 3, 2)
    torch.testing.assert_close(before.mean(1), network.body(x)[:, :2])
    with torch.no_grad():
        network.body.output.bias[2:] += 7.0
    torch.testing.assert_close(network(x).view(5, 3, 2), before)
    with torch.no_grad():
        network.body.output.bias[:2] += 7.0
    torch.testing.assert_close(network(x).view(5, 3, 2), before + 7.0)
