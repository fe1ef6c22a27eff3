"""C51's projection against a loop over atoms; quantile regression against its formula and the quantiles of a sample."""

import math

import pytest
import torch

from rl.deep.distributional import Categorical, Quantiles


def projected(p: list[float], r: float, discount: float, low: float, high: float) -> list[float]:
    """Algorithm 1 of Bellemare et al. 2017, atom by atom, with its floor and ceiling."""
    N = len(p)
    gap, m = (high - low) / (N - 1), [0.0] * N
    for j in range(N):
        moved = min(max(r + discount * (low + j * gap), low), high)
        b = (moved - low) / gap
        below, above = math.floor(b), math.ceil(b)
        if below == above:  # the algorithm as printed loses this mass
            m[below] += p[j]
        else:
            m[below] += p[j] * (above - b)
            m[above] += p[j] * (b - below)
    return m


def test_the_projection_equals_a_loop_over_atoms() -> None:
    """Random distributions; discounts of a step, of three, and of an end; rewards within and beyond the support."""
    g = torch.Generator().manual_seed(0)
    method = Categorical(11, -3.0, 2.0)
    logits = torch.randn(2, 30, 11, generator=g)
    reward = 3 * torch.randn(2, 30, generator=g)
    reward[0, :3] = torch.tensor([0.0, 0.5, -3.0])
    discount = torch.tensor([0.0, 0.9, 0.9**3, 1.0])[torch.randint(4, (2, 30), generator=g)]
    y = method.target(reward, discount, logits)
    p = logits.softmax(-1)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(30)).tolist():
        truth = projected(p[i, j].tolist(), float(reward[i, j]), float(discount[i, j]), -3.0, 2.0)
        torch.testing.assert_close(y[i, j], torch.tensor(truth), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(y.sum(-1), torch.ones(2, 30))


def test_the_projection_worked_by_hand_at_an_end_and_at_a_time_limit() -> None:
    """Atoms 0, 1, 2; the successor is 2 for certain. Reward .5: at an end .5 alone, at a time limit .5 + .5 2 = 1.5."""
    method = Categorical(3, 0.0, 2.0)
    successor = torch.tensor([[-50.0, -50.0, 50.0]]).expand(2, 3)
    y = method.target(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 0.5]), successor)
    torch.testing.assert_close(y, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]))
    torch.testing.assert_close(method.target_mean(y), torch.tensor([0.5, 1.5]))


def test_the_loss_is_a_divergence_with_the_gradient_of_the_cross_entropy() -> None:
    g = torch.Generator().manual_seed(1)
    method = Categorical(5, 0.0, 1.0)
    said = torch.randn(4, 5, generator=g, requires_grad=True)
    y = torch.randn(4, 5, generator=g).softmax(-1)
    y[0] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])  # 0 log 0 is 0
    loss = method.loss(said, y)
    log_p = said.log_softmax(-1)
    torch.testing.assert_close(loss, torch.nn.functional.kl_div(log_p, y, reduction="none").sum(-1))
    (ours,) = torch.autograd.grad(loss.sum(), said, retain_graph=True)
    (theirs,) = torch.autograd.grad(torch.nn.functional.cross_entropy(said, y, reduction="sum"), said)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(method.loss(y[1:].log(), y[1:]), torch.zeros(3), atol=1e-6, rtol=0)


def test_the_mean_of_logits_is_that_of_their_distribution() -> None:
    method = Categorical(3, -1.0, 3.0)
    said = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]).log().flatten()  # two actions
    torch.testing.assert_close(method.q(said), torch.tensor([-0.2 + 0.3 + 1.5, -1.0]))


def test_the_quantile_loss_worked_by_hand() -> None:
    """theta = (0, 2) at the levels 1/4 and 3/4, y = (1, -2):
    u = 1, -2 and -1, -4; huber .5, 1.5, .5, 3.5; weights .25, .75 and .25, .25: (.125 + 1.125 + .125 + .875) / 2."""
    method = Quantiles(2)
    loss = method.loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, -2.0]]))
    torch.testing.assert_close(loss, torch.tensor([1.125]))


def test_its_minimum_is_the_quantiles_of_a_wide_sample() -> None:
    """A spread of 1,000 makes Huber's parabola a point: the minimiser's levels are those of the sample within 0.01."""
    sample = 1000 * torch.randn(4001, generator=torch.Generator().manual_seed(3))
    method = Quantiles(5)
    theta = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=30.0)
    for step in range(600):
        for group in optimizer.param_groups:
            group["lr"] = 30.0 * (1 - step / 600)
        optimizer.zero_grad()
        u = sample - theta[:, None]
        # The method wants as many targets as quantiles, so a mean over columns of the sample stands for the whole.
        loss = method.loss(theta.expand(800, 5), sample[:4000].view(800, 5)).mean()
        loss.backward()
        optimizer.step()
    assert u.shape == (5, 4001)
    levels = (sample[:4000] < theta.detach()[:, None]).float().mean(1)
    torch.testing.assert_close(levels, method.tau, atol=0.01, rtol=0)
    torch.testing.assert_close(method.q(theta.detach()), theta.detach().mean()[None])


def test_targets_of_quantiles_move_with_reward_and_discount() -> None:
    y = Quantiles(2).target(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.5]), torch.tensor([[2.0, 4.0], [2.0, 4.0]]))
    assert y.tolist() == [[1.0, 1.0], [2.0, 3.0]]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 atoms from 0\.0 to 1\.0: expected 2 or more"):
        Categorical(1, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"from 1\.0 to 1\.0: expected 2 or more, and low below high"):
        Categorical(5, 1.0, 1.0)
    with pytest.raises(ValueError, match="0 quantiles: expected 1 or more"):
        Quantiles(0)
