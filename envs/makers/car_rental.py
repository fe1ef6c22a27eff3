"""Jack's car rental, computed exactly (Sutton & Barto 2018, example 4.2).

    n          cars at a location in the evening, 0 ... max_cars; a state is (n1, n2)
    a          cars to be moved overnight from the first to the second location, at move_cost each
    m          cars there in the morning
    k, n'      cars rented and, after the returns, cars in the evening

The requests and returns of a day are Poisson and the locations independent, so all that is needed of a location are
P(n' | m) and E[k | m, n'], where requests beyond m are lost and returns beyond max_cars leave the business.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy import special  # type: ignore[import-untyped]  # scipy ships no types

from envs.layout import LOOKS, Layout
from envs.makers.made import Made
from envs.mdp import TabularMDP

NEGLIGIBLE = 1e-12  # outcomes less likely are left out, and the others scaled to sum to 1


def car_rental(
    max_cars: int,
    max_moved: int,
    rent: float,
    move_cost: float,
    requests_1: float,
    requests_2: float,
    returns_1: float,
    returns_2: float,
) -> Made:
    """The table of all evenings: S = (max_cars + 1)^2, A = 2 max_moved + 1, K at most S.

    A move of more cars than there are moves those there are, but is paid for as it was ordered: so it is never best,
    and the optimum is that of the book, which knows no such move. Cars beyond max_cars in the morning leave, as those
    returned do. The reward of an outcome is rent E[k1 + k2] - move_cost |a|.
    The task goes on for ever; an episode begins at any state with equal chance.

    Args:
        max_cars: cars that a location can hold overnight.
        max_moved: cars that can be moved in a night, in either direction.
        rent: earned for each car rented.
        move_cost: paid for each car that is to be moved.
        requests_1, requests_2: mean requests a day at the first and at the second location.
        returns_1, returns_2: mean returns a day.
    """
    n = max_cars + 1
    first, second = np.divmod(np.arange(n * n), n)  # [S]
    wish = np.arange(-max_moved, max_moved + 1)
    moved = np.clip(wish, -second[:, None], first[:, None])  # [S, A]
    m1 = np.minimum(first[:, None] - moved, max_cars)
    m2 = np.minimum(second[:, None] + moved, max_cars)
    (p1, k1), (p2, k2) = _day(max_cars, requests_1, returns_1), _day(max_cars, requests_2, returns_2)

    morning = np.arange(n * n)  # (m1, m2) as one number: every pair of state and action is one of S mornings
    prob = (p1[:, None, :, None] * p2[None, :, None, :]).reshape(n * n, n * n)  # [morning, S]
    rented = (k1[:, None, :, None] + k2[None, :, None, :]).reshape(n * n, n * n)
    prob = np.where(prob < NEGLIGIBLE, 0.0, prob)
    kept = int((prob > 0).sum(1).max())
    likely = np.argsort(prob == 0, axis=1, kind="stable")[:, :kept]  # [morning, K]: possible ones first, in order
    prob = prob[morning[:, None], likely]
    rented = np.where(prob > 0, rented[morning[:, None], likely], 0.0)
    last = likely[morning, (prob > 0).sum(1) - 1]
    evening = np.where(prob > 0, likely, last[:, None])
    prob = prob / prob.sum(1, keepdims=True)

    index = m1 * n + m2  # [S, A]
    reward = rent * rented[index] - move_cost * np.abs(wish)[:, None]  # [S, A, K]
    mdp = TabularMDP(
        next_state=torch.from_numpy(evening.astype(np.int32)[index]),
        prob=torch.from_numpy(prob[index]),
        reward=torch.from_numpy(reward),
        terminated=torch.zeros(reward.shape, dtype=torch.bool),
        start=torch.full((n * n,), 1 / (n * n), dtype=torch.float64),
    )
    layout = Layout(
        glyphs=("." * n,) * n,
        look=torch.full((1, n, n), LOOKS.index("floor")),
        cell=torch.from_numpy(np.stack([first, second], 1)),
        mode=torch.zeros(n * n, dtype=torch.int64),
    )
    return Made(mdp, layout, tuple(f"{a:+d}" if a else "0" for a in wish.tolist()))


def _day(
    max_cars: int, requests: float, returns: float
) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n n"]]:
    """P(n' | m) and E[k | m, n'] (0 where n' is impossible), each [m, n']."""
    n = max_cars + 1
    prob, rented = np.zeros((n, n)), np.zeros((n, n))
    for m in range(n):
        wanted = _lumped(requests, m)  # P(k), 0 ... m
        for k in range(m + 1):
            free = max_cars - (m - k)
            share = wanted[k] * _lumped(returns, free)  # P(k, returns kept), 0 ... free
            prob[m, m - k :] += share
            rented[m, m - k :] += k * share
    return prob, np.divide(rented, prob, out=np.zeros_like(rented), where=prob > 0)


def _lumped(mean: float, most: int) -> Float64[np.ndarray, "n"]:
    """Poisson probabilities of 0 ... most, all beyond counted as `most`."""
    count: Int64[np.ndarray, "n"] = np.arange(most + 1)
    prob: Float64[np.ndarray, "n"] = np.exp(special.xlogy(count, mean) - special.gammaln(count + 1) - mean)
    prob[most] = special.pdtrc(most - 1, mean) if most else 1.0
    return prob
