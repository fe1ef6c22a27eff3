"""Expected values: targets and losses against hand-worked numbers, an end and a time limit told apart."""

import pytest
import torch

from rl.deep.losses import Expected, Method, Successor, huber, of, online_chooses, target_chooses

METHOD = Expected()
ONLINE = torch.tensor([[1.0, 2.0], [0.5, 0.0], [3.0, -1.0], [0.0, 1.0]])  # Q of states 0 ... 3
TARGET = torch.tensor([[4.0, 2.0], [10.0, 10.0], [1.0, 6.0], [-1.0, 5.0]])

# 0 by action 1 to 3, reward 1; 1 by 0 to 2, where the world ends; 2 by 1 to 0, cut by a time limit: no end.
OBS, ACTION = torch.tensor([[0, 1, 2]]), torch.tensor([[1, 0, 1]])
REWARD, DISCOUNT = torch.tensor([[1.0, -1.0, 0.5]]), torch.tensor([[0.9, 0.0, 0.9]])
NEXT = torch.tensor([[3, 2, 0]])


def online(obs: torch.Tensor) -> torch.Tensor:
    return ONLINE[obs]


def lagging(obs: torch.Tensor) -> torch.Tensor:
    return TARGET[obs]


@pytest.mark.parametrize(
    ("successor", "y", "loss"),
    [
        # Errors 1 + .9 5 - 2 = 3.5;  -1 - .5 = -1.5;  .5 + .9 4 + 1 = 5.1: each half less than its size.
        (target_chooses, [5.5, -1.0, 4.1], [3.0, 1.0, 4.6]),
        # The online network chooses 1 in state 3 and 1 in state 0: errors 3.5, -1.5 and .5 + .9 2 + 1 = 3.3.
        (online_chooses, [5.5, -1.0, 2.3], [3.0, 1.0, 2.8]),
    ],
)
def test_targets_and_losses_worked_by_hand(successor: Successor, y: list[float], loss: list[float]) -> None:
    follows = successor(METHOD, online, lagging, NEXT)
    target = METHOD.target(REWARD, DISCOUNT, follows)
    torch.testing.assert_close(METHOD.target_mean(target), torch.tensor([y]))
    said = of(METHOD.apart(online(OBS)), ACTION)
    torch.testing.assert_close(METHOD.mean(said), torch.tensor([[2.0, 0.5, -1.0]]))
    torch.testing.assert_close(METHOD.loss(said, target), torch.tensor([loss]))


def test_huber_is_quadratic_then_linear() -> None:
    error = torch.tensor([0.0, 0.5, -1.0, 3.0, -10.0], requires_grad=True)
    loss = huber(error)
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.125, 0.5, 2.5, 9.5]))
    loss.sum().backward()
    torch.testing.assert_close(error.grad, torch.tensor([0.0, 0.5, -1.0, 1.0, -1.0]))


def test_the_surprise_of_a_huber_loss_is_the_size_of_its_error() -> None:
    error = torch.tensor([0.0, 0.25, -0.5, 0.999, -1.0, 1.001, 7.0])
    torch.testing.assert_close(METHOD.surprise(huber(error)), error.abs())


def test_the_numbers_of_an_action_stand_side_by_side() -> None:
    class Two(Expected):
        atoms = 2

        def mean(self, said: torch.Tensor) -> torch.Tensor:
            return said.sum(-1)

    method: Method = Two()
    said = torch.tensor([[1.0, 2.0, 10.0, 20.0, 5.0, 6.0]])  # three actions
    assert method.q(said).tolist() == [[3.0, 30.0, 11.0]]
    assert of(method.apart(said), torch.tensor([2])).tolist() == [[5.0, 6.0]]
