"""Losses against hand-worked numbers, and against what torch's own distributions say."""

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from rl.gradient import losses


def logs(*odds: float) -> torch.Tensor:
    return torch.tensor(odds, dtype=torch.float64).log()


def test_log_probabilities_and_entropy_are_those_of_a_softmax() -> None:
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    action = torch.tensor([[0, 1, 2, 2, 1], [1, 1, 0, 2, 0]])
    torch.testing.assert_close(losses.log_prob(logits, action), Categorical(logits=logits).log_prob(action))
    torch.testing.assert_close(losses.entropy(logits), Categorical(logits=logits).entropy())
    assert losses.entropy(torch.zeros(4)).item() == pytest.approx(math.log(4))
    assert losses.entropy(torch.tensor([200.0, 0.0, -200.0])).item() == 0


def test_policy_gradient_worked_by_hand() -> None:
    """Three equal actions, the first taken, A = 6: minus 6 times one-hot minus the odds."""
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([6.0], dtype=torch.float64, requires_grad=True)
    loss = losses.policy_gradient(losses.log_prob(logits, torch.tensor([0])), advantage)
    assert loss.tolist() == pytest.approx([6 * math.log(3)])
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-4.0, 2.0, 2.0]], dtype=torch.float64))
    assert advantage.grad is None


def test_clipped_surrogate_worked_by_hand() -> None:
    """Old odds 0.4, clip 0.2: ratios 1.5, 0.5 and 1.1, each with A = 2 and A = -2.

    What went too far in the direction of A is cut (1.2 * 2; 0.8 * -2) and has no gradient; what went the wrong way is
    not (0.5 * 2; 1.5 * -2), nor is what stayed within. The gradient with respect to log pi is minus rho A.
    """
    log_pi = logs(0.6, 0.2, 0.44, 0.6, 0.2, 0.44).requires_grad_()
    old = logs(*6 * [0.4]).requires_grad_()
    advantage = torch.tensor([2.0, 2, 2, -2, -2, -2], dtype=torch.float64, requires_grad=True)
    loss = losses.clipped_surrogate(log_pi, old, advantage, 0.2)
    assert loss.tolist() == pytest.approx([-2.4, -1.0, -2.2, 3.0, 1.6, 2.2])
    loss.sum().backward()
    assert log_pi.grad is not None
    assert log_pi.grad.tolist() == pytest.approx([0, -1.0, -2.2, 3.0, 0, 2.2])
    assert old.grad is None
    assert advantage.grad is None


def test_at_a_ratio_of_one_the_surrogate_has_the_policy_gradient() -> None:
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 7, 3, generator=g, dtype=torch.float64)
    action, advantage = torch.randint(0, 3, (4, 7), generator=g), torch.randn(4, 7, generator=g, dtype=torch.float64)
    gradients = []
    for kind in ("surrogate", "policy gradient"):
        own = logits.clone().requires_grad_()
        log_pi = losses.log_prob(own, action)
        if kind == "surrogate":
            losses.clipped_surrogate(log_pi, log_pi.detach(), advantage, 0.2).sum().backward()
        else:
            losses.policy_gradient(log_pi, advantage).sum().backward()
        gradients.append(own.grad)
    torch.testing.assert_close(*gradients)


def test_squared_errors_have_the_error_as_gradient() -> None:
    v = torch.tensor([1.0, -2.0], requires_grad=True)
    target = torch.tensor([4.0, 0.0], requires_grad=True)
    loss = losses.squared(v, target)
    assert loss.tolist() == [4.5, 2.0]
    loss.sum().backward()
    assert v.grad is not None
    assert v.grad.tolist() == [-3.0, -2.0]
    assert target.grad is None


def test_approximate_kl_is_on_average_the_divergence_of_the_new_policy_from_the_old() -> None:
    """The mean over actions weighted by the old policy, exactly."""
    old, new = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]), torch.tensor([[0.4, 0.4, 0.2], [0.3, 0.3, 0.4]])
    each = losses.approximate_kl(new.log(), old.log())
    assert (each >= 0).all()
    assert each[0, 2] == 0
    expected = kl_divergence(Categorical(probs=old), Categorical(probs=new))
    torch.testing.assert_close((old * each).sum(-1), expected)


def test_what_is_beyond_the_clip() -> None:
    """Ratios 1.3, 1.1, 0.9 and 0.7."""
    found = losses.beyond(logs(0.52, 0.44, 0.36, 0.28), logs(0.4, 0.4, 0.4, 0.4), 0.2)
    assert found.tolist() == [True, False, False, True]


def test_explained_variance() -> None:
    """All, none, worse than none (errors 0, 1, 2 against targets 1, 2, 3), and nothing to explain."""
    target = torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 2, 3], [5, 5, 5]])
    v = torch.tensor([[2.0, 3, 4], [7, 7, 7], [1, 1, 1], [1, 2, 3]])
    assert losses.explained_variance(v, target).tolist() == pytest.approx([1, 0, 0, 0])
    assert losses.explained_variance(-v[:1], target[:1]).tolist() == pytest.approx([1 - 4])


def test_advantages_are_normalised_replica_by_replica() -> None:
    advantage = torch.tensor([[1.0, 2, 3, 4], [100, 100, 100, 100], [0, 0, 0, 8]])
    found = losses.normalised(advantage)
    torch.testing.assert_close(found[0], (advantage[0] - 2.5) / advantage[0].std())
    torch.testing.assert_close(found[2], (advantage[2] - 2) / 4)
    assert (found[1] == 0).all()
    assert losses.normalised(torch.tensor([[3.0]])).item() == 0
