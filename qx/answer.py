"""The exact answer to a question about a world: the best or a given policy, for ever or within a number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

from jaxtyping import Float64, Shaped
from torch import Tensor

import envs
from qx.limits import UsageError
from qx.methods import METHODS, told
from rl import dp, occupancy

SMALL = 10_000  # states; up to here policy iteration, which is exact; beyond value iteration, with a bound
MEMORY = 100_000_000  # entries of a plan that has an action for every state and step


@dataclass(frozen=True)
class Answer:
    """What `qx solve` shows. The policy in question is the best one where none is given."""

    values: Float64[Tensor, "S"]
    """Of the policy in question."""
    policy: Shaped[Tensor, "*policy"]
    """An action for each state, Int64 `[S]`, or the chance of each, Float64 `[S, A]`; what to do first, where there is
    a horizon."""
    arrows: Float64[Tensor, "S A"]
    """The same to be drawn: where the best is sought, every equally good action."""
    optimal_return: float | None
    """None where no policy has a finite best; then `trouble` says why."""
    returned: float | None
    """The return of the policy in question, where it is not simply the optimum."""
    visits: Float64[Tensor, "S"]
    """Expected number of actions taken in each state in an episode; the t-th counts `visit_gamma`^t."""
    visit_gamma: float
    steps: float
    """Expected length of an episode, perhaps inf."""
    method: str
    """In words, with its counts."""
    iterations: int | None = None
    """Sweeps, improvements or values moved, as `method` tells; None where there are none to count."""
    backups: int | None = None
    """How often some q(s, a) was computed (see `rl.dp.Solution`)."""
    error: float | None = None
    """No value is further than this from the truth; None where no bound is known."""
    trouble: str = ""


def best(world: envs.World, gamma: float, epsilon: float = 0.0, method: str | None = None) -> Answer:
    """The optimum, or with `epsilon` the best epsilon-greedy policy. Raises DPError where it is infinite.

    `method`: one of `METHODS`, for the optimum only; by default as `SMALL` tells.
    """
    if gamma == 1 and method is not None:
        _optimum(world, gamma)  # whether there is one: sweeps would look for it for ever
    solution, words = _optimum(world, gamma, epsilon, method)
    returned = from_start(world, solution.values)
    optimal, trouble = (returned, "") if epsilon == 0 else optimal_return(world, gamma)
    followed = dp.soft(solution.policy, world.actions, epsilon) if epsilon else solution.policy
    return Answer(
        values=solution.values,
        policy=solution.policy,
        arrows=solution.ties(),
        optimal_return=optimal,
        returned=returned if epsilon else None,
        **_visits(world, followed, gamma),
        method=words,
        iterations=solution.iterations,
        backups=solution.backups,
        error=None if math.isnan(solution.error) else solution.error,
        trouble=trouble,
    )


def given(world: envs.World, policy: Shaped[Tensor, "*policy"], gamma: float) -> Answer:
    """The value of a policy, Int64 `[S]` or Float64 `[S, A]`."""
    values = dp.evaluate_exactly(world.mdp, policy, gamma)
    optimal, trouble = optimal_return(world, gamma)
    return Answer(
        values=values,
        policy=policy,
        arrows=_chances(policy, world.actions),
        optimal_return=optimal,
        returned=from_start(world, values),
        **_visits(world, policy, gamma),
        method="a linear solve",
        trouble=trouble,
    )


def best_within(world: envs.World, gamma: float, horizon: int, epsilon: float = 0.0) -> Answer:
    """The optimum of `horizon` steps, or with `epsilon` the best that is epsilon-greedy in each of them."""
    _check(horizon, world)
    policies = []
    for values, q in islice(dp.backward(world.mdp, gamma, epsilon), horizon):  # noqa: B007  # the last ones stay
        policies.append(q.argmax(-1))
    soft = (dp.soft(policy, world.actions, epsilon) if epsilon else policy for policy in reversed(policies))
    returned = from_start(world, values)
    best = dp.ties(q)
    return Answer(
        values=values,
        policy=policies[-1],
        arrows=best.double() / best.sum(-1, keepdim=True),
        optimal_return=returned if epsilon == 0 else _within(world, gamma, horizon),
        returned=returned if epsilon else None,
        **_visits_within(world, soft),
        method=f"backward induction over {horizon} steps",
    )


def given_within(world: envs.World, policy: Shaped[Tensor, "*policy"], gamma: float, horizon: int) -> Answer:
    """The value of a policy in `horizon` steps."""
    _check(horizon, world)
    values = dp.policy_evaluation(world.mdp, policy, gamma, sweeps=horizon)
    return Answer(
        values=values,
        policy=policy,
        arrows=_chances(policy, world.actions),
        optimal_return=_within(world, gamma, horizon),
        returned=from_start(world, values),
        **_visits_within(world, repeat(policy, horizon)),
        method=f"{horizon} sweeps of evaluation",
    )


def tied(world: envs.World, found: Answer) -> bool:
    """Whether `found` has several best actions in some state where one is chosen."""
    chosen = not found.policy.is_floating_point()
    return chosen and bool(((found.arrows[world.mdp.lived()] > 0).sum(-1) > 1).any())


def optimal_return(world: envs.World, gamma: float) -> tuple[float | None, str]:
    """The most that any policy returns from the start; or None and why there is no such number."""
    try:
        return from_start(world, _optimum(world, gamma)[0].values), ""
    except dp.DPError as error:
        return None, f"no optimal return: {error}"


def from_start(world: envs.World, values: Float64[Tensor, "S"]) -> float:
    """The value over the start distribution; a state that cannot be first does not count, not even if infinite."""
    possible = world.mdp.start > 0
    return float((world.mdp.start[possible] * values[possible]).sum())


def _optimum(
    world: envs.World, gamma: float, epsilon: float = 0.0, method: str | None = None
) -> tuple[dp.Solution, str]:
    """The solution, and what was done for it."""
    if epsilon:
        found = dp.policy_iteration(world.mdp, gamma, epsilon)
        return found, told("policy-iteration", found)
    method = method or ("policy-iteration" if world.mdp.states <= SMALL else "value-iteration")
    found = METHODS[method][-1](world.mdp, gamma)
    return found, told(method, found)


def _check(horizon: int, world: envs.World) -> None:
    """Raises UsageError where a plan for every step would not fit into memory."""
    most = MEMORY // world.mdp.states
    if horizon > most:
        raise UsageError(f"--horizon {horizon}: a plan for {world.mdp.states} states, expected at most {most} steps")


def _within(world: envs.World, gamma: float, horizon: int) -> float:
    *_, (values, _) = islice(dp.backward(world.mdp, gamma), horizon)
    return from_start(world, values)


def _chances(policy: Shaped[Tensor, "*policy"], actions: int) -> Float64[Tensor, "S A"]:
    return policy.double() if policy.is_floating_point() else dp.soft(policy, actions, epsilon=0.0)


def _visits(world: envs.World, policy: Shaped[Tensor, "*policy"], gamma: float) -> dict[str, Any]:
    """Visits and steps; where episodes may go on for ever, visits are discounted as the world is."""
    visits = occupancy.visits(world.mdp, policy)
    steps = float(visits.sum())
    if math.isfinite(steps):
        return {"visits": visits, "visit_gamma": 1.0, "steps": steps}
    gamma = gamma if gamma < 1 else world.discount
    return {"visits": occupancy.visits(world.mdp, policy, gamma), "visit_gamma": gamma, "steps": steps}


def _visits_within(world: envs.World, policies: Iterable[Tensor]) -> dict[str, Any]:
    visits = occupancy.visits_within(world.mdp, policies)
    return {"visits": visits, "visit_gamma": 1.0, "steps": float(visits.sum())}
