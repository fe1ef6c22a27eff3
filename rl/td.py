"""Temporal differences: the errors that value learners reduce.

    v_tm1, q_tm1        values before the step: [...], [..., A]         a_tm1 [...]    the action taken
    r_t, discount_t     reward, and discount (gamma, or 0 where the world ended; a time limit is no end)
    v_t, q_t            values after it                                 a_t, probs_t   the next action, or its odds

Arguments stand in the order of rlax (DeepMind), and every function takes any leading dimensions and returns one error
for each. Targets are constants: no gradient flows into them. The learners differ by one line: what they take the
successor to be worth.

Source: Sutton & Barto 2018, eq. 6.2 (TD), 6.7 (Sarsa), 6.9 (Expected Sarsa), 6.8 (Q-learning); Zhao 2025, ch. 7.
"""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor


def td_learning(
    v_tm1: Float[Tensor, "*b"], r_t: Float[Tensor, "*b"], discount_t: Float[Tensor, "*b"], v_t: Float[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """r + discount v_t - v_tm1: Sutton, "Learning to predict by the methods of temporal differences", 1988, eq. 3."""
    return (r_t + discount_t * v_t).detach() - v_tm1


def sarsa(
    q_tm1: Float[Tensor, "*b A"],
    a_tm1: Int64[Tensor, "*b"],
    r_t: Float[Tensor, "*b"],
    discount_t: Float[Tensor, "*b"],
    q_t: Float[Tensor, "*b A"],
    a_t: Int64[Tensor, "*b"],
) -> Float[Tensor, "*b"]:
    """r + discount q_t(a_t) - q_tm1(a): Rummery & Niranjan 1994; Sutton & Barto eq. 6.7."""
    return (r_t + discount_t * of(q_t, a_t)).detach() - of(q_tm1, a_tm1)


def expected_sarsa(
    q_tm1: Float[Tensor, "*b A"],
    a_tm1: Int64[Tensor, "*b"],
    r_t: Float[Tensor, "*b"],
    discount_t: Float[Tensor, "*b"],
    q_t: Float[Tensor, "*b A"],
    probs_t: Float[Tensor, "*b A"],
) -> Float[Tensor, "*b"]:
    """r + discount sum_a probs_t q_t - q_tm1(a): van Seijen et al. 2009; Sutton & Barto eq. 6.9."""
    return (r_t + discount_t * (probs_t * q_t).sum(-1)).detach() - of(q_tm1, a_tm1)


def q_learning(
    q_tm1: Float[Tensor, "*b A"],
    a_tm1: Int64[Tensor, "*b"],
    r_t: Float[Tensor, "*b"],
    discount_t: Float[Tensor, "*b"],
    q_t: Float[Tensor, "*b A"],
) -> Float[Tensor, "*b"]:
    """r + discount max_a q_t - q_tm1(a): Watkins & Dayan 1992, eq. 1; Sutton & Barto eq. 6.8."""
    return (r_t + discount_t * q_t.amax(-1)).detach() - of(q_tm1, a_tm1)


def double_q_learning(
    q_tm1: Float[Tensor, "*b A"],
    a_tm1: Int64[Tensor, "*b"],
    r_t: Float[Tensor, "*b"],
    discount_t: Float[Tensor, "*b"],
    q_t_value: Float[Tensor, "*b A"],
    q_t_selector: Float[Tensor, "*b A"],
) -> Float[Tensor, "*b"]:
    """r + discount q_t_value(argmax_a q_t_selector) - q_tm1(a): one judges the action that another chose.

    Source: van Hasselt, "Double Q-learning", NIPS 2010, eq. 6; van Hasselt, Guez & Silver, "Deep reinforcement learning
    with double Q-learning", AAAI 2016, eq. 4.
    """
    return (r_t + discount_t * of(q_t_value, q_t_selector.argmax(-1))).detach() - of(q_tm1, a_tm1)


def of(q: Float[Tensor, "*b A"], a: Int64[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """q(a)."""
    return q.gather(-1, a.unsqueeze(-1)).squeeze(-1)
