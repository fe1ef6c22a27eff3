"""The picture of a trained agent: the map with exact and learned values, and the learning curve with its band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from matplotlib.axes import Axes
from torch import Tensor

import envs
from envs import render
from lab import plots
from lab.run import Run
from rl import dp
from rl.evaluate import PREDICTION, STATES, ci95, iqm, policy_of
from rl.types import Agent, Predictor


@runtime_checkable
class ActionValues(Protocol):
    """An agent whose policy goes by action values."""

    def q_values(self, obs: Shaped[Tensor, "R M *shape"]) -> Float[Tensor, "R M A"]: ...


WIDE = 2  # columns for each row of a map, from which the maps stand above each other
MAP = 5.4  # inches: the width of such a map


def draw(
    run: Run, world: envs.World | envs.GymWorld, agent: Agent, observation: str, gamma: float, result: Mapping[str, Any]
) -> None:
    """`report.png` in the run directory."""
    if isinstance(world, envs.World) and world.layout is not None:
        if world.layout.cols >= WIDE * world.layout.rows:
            tall = 2 * (MAP * world.layout.rows / world.layout.cols + 0.35) + 0.7
            places, inches, widths = [["exact", "curve"], ["learned", "curve"]], (MAP + 4.2, max(3.6, tall)), [MAP, 4.2]
        else:
            places, inches, widths = [["exact", "learned", "curve"]], (12.6, 4.2), [1.0, 1.0, 1.0]
        made, axes = plots.mosaic(places, inches, widths)
        for name in ("exact", "learned"):
            axes[name].set_axis_off()
        made.draw_without_rendering()  # so that a cell's size is known, and with it that of its words
        _maps(axes["exact"], axes["learned"], world, agent, observation, gamma, result)
        made.supxlabel(render.key(world), x=0.01, ha="left", fontsize=8, color=plots.INK)
        _curve(axes["curve"], run, result)
    else:
        made, [ax] = plots.figure(1, 1, width=6.0, height=3.8)
        _curve(ax, run, result)
    plots.save(made, run.path / "report.png")


def _maps(
    exact: Axes,
    learned: Axes,
    world: envs.World,
    agent: Agent,
    observation: str,
    gamma: float,
    result: Mapping[str, Any],
) -> None:
    """V* with every optimal action, beside the values and actions of the replica in the middle, in the same shades."""
    values, policy = _exact(world, gamma)
    scale = render.span(world, values)
    render.draw(world, values=values, policy=policy, title="exact: V* and its arrows", ax=exact, scale=scale)
    returns = [-np.inf if r is None else r for r in result["returns"]]  # None: a policy that costs for ever
    middle = int(np.argsort(returns)[len(returns) // 2])
    seen = world.observe(observation).to(agent.device)
    v = agent.values(seen)[middle].cpu().double()
    actions = _actions(agent, world, observation)[middle]
    title = f"learned: replica {middle + 1} of {len(returns)}, the median"
    if actions.is_floating_point() and not isinstance(agent, Predictor | ActionValues):  # a policy that draws
        if v.isnan().all():  # and learns no values
            v, scale, title = (
                actions.amax(-1),
                (0.0, 1.0),
                f"learned, replica {middle + 1}: likeliest actions, how likely",
            )
        actions = actions.argmax(-1)
    render.draw(world, values=v, policy=actions, title=title, ax=learned, scale=scale)


def _actions(agent: Agent, world: envs.World, observation: str) -> Shaped[Tensor, "R S"] | Float64[Tensor, "R S A"]:
    """What each replica does in every state, where it goes by action values each that is as good as its best."""
    policy = policy_of(agent, world, observation)
    sure = not policy.is_floating_point() and not agent.memory(1).numel()
    if not sure or not isinstance(agent, ActionValues) or world.mdp.states > STATES:
        return policy
    seen = world.observe(observation).to(agent.device)
    q = agent.q_values(seen.expand(agent.replicas, *seen.shape)).cpu().double()  # [R, S, A]
    most = q.amax(-1, keepdim=True)
    best = (q >= most - 1e-9 * (1 + most.abs())).double()  # what differs by rounding is equal
    return best / best.sum(-1, keepdim=True)


def _exact(world: envs.World, gamma: float) -> tuple[Tensor, Tensor]:
    """V* and a policy for it, as `rl.evaluate` measures: undiscounted values under the time limit, if there is one."""
    if gamma == 1 and world.time_limit is not None:
        within = dp.finite_horizon(world.mdp, world.time_limit, gamma)
        return within.values[-1], within.policy[-1]
    solution = dp.policy_iteration(world.mdp, gamma)
    return solution.values, solution.ties()


def _curve(ax: Axes, run: Run, result: Mapping[str, Any]) -> None:
    """Interquartile mean over replicas with its 95% band, of the exact value where it is known, else of the return."""
    exact, replicas = result["optimal_return"] is not None, len(result["returns"])
    key = "value" if exact and any("value" in line for line in run.metrics()) else "return"
    step, scores = _side_by_side(run.metrics(), key, replicas)
    title = _judged(str(result["measure"])) if key == "value" else "return while learning"
    if key == "value" and not scores:  # minus infinity throughout, which no axis has
        key, title = "return", "return while learning\n(the greedy policy never arrives)"
        step, scores = _side_by_side(run.metrics(), key, replicas)
    if not scores:
        never = "\nthe greedy policy never arrives: minus infinity" * bool(result.get("never_arrive"))
        ax.text(0.5, 0.5, f"no episode ended while learning{never}", ha="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    band = np.array([ci95(score, run.seed, resamples=400) for score in scores])
    middle = [float(iqm(score)) for score in scores]
    plots.curve(ax, step, middle, f"interquartile mean of {len(scores[0])} replicas", low=band[:, 0], high=band[:, 1])
    if exact and key == "value":
        plots.level(ax, result["optimal_return"], "exact optimum")
    plots.label(ax, title, "steps of a replica")
    plots.legend(ax, "below")


def _judged(measure: str) -> str:
    """What the curve of exact values is of, as `rl.evaluate` measures."""
    if measure == PREDICTION:
        return "minus the error of the values"
    return f"value of the {'learned' if measure.endswith('learned policy') else 'greedy'} policy"


def _side_by_side(lines: Sequence[Mapping[str, Any]], key: str, replicas: int) -> tuple[list[float], list[Tensor]]:
    """At most 80 steps and every replica's score there; of replicas that learned in turn, at their own steps."""
    lines = [line for line in lines if key in line and None not in line[key]]
    if not lines or "own_step" not in lines[0]:
        keep = lines[:: max(1, len(lines) // 80)]
        return [line["step"] for line in keep], [torch.tensor(line[key], dtype=torch.float64) for line in keep]
    own = [[line for line in lines if line["replica"] == [r + 1]] for r in range(replicas)]
    if not all(own):
        return [], []
    grid = np.unique([line["own_step"][0] for line in own[0]])
    grid = grid[:: max(1, len(grid) // 80)]
    curves = [np.interp(grid, [one["own_step"][0] for one in each], [one[key][0] for one in each]) for each in own]
    return grid.tolist(), list(torch.from_numpy(np.stack(curves, 1)))
