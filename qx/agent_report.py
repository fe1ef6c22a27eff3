"""The picture of a trained agent: the map with exact and learned values, and the learning curve with its band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

import envs
from envs import render
from lab import plots
from lab.run import Run
from rl import dp
from rl.evaluate import ci95, iqm, policy_of
from rl.types import Agent


def draw(
    run: Run, world: envs.World | envs.GymWorld, agent: Agent, observation: str, gamma: float, result: Mapping[str, Any]
) -> None:
    """`report.png` in the run directory."""
    if isinstance(world, envs.World) and world.layout is not None:
        made, axes = plots.figure(1, 3, width=4.2, height=4.0)
        _maps(axes[0], axes[1], world, agent, observation, gamma, result)
        _curve(axes[2], run, result)
    else:
        made, axes = plots.figure(1, 1, width=6.0, height=3.6)
        _curve(axes[0], run, result)
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
    """V* with every optimal action, beside the values and greedy actions of the replica in the middle."""
    values, policy = _exact(world, gamma)
    render.draw(world, values=values, policy=policy, title="exact: V* and its arrows", ax=exact)
    returns = [-np.inf if r is None else r for r in result["returns"]]  # None: a policy that costs for ever
    middle = int(np.argsort(returns)[len(returns) // 2])
    v = agent.values(world.observe(observation).to(agent.device))[middle].cpu().double()
    policy = policy_of(agent, world, observation)[middle]
    title = f"learned: replica {middle + 1} of {len(result['returns'])}, the median"
    render.draw(world, values=v, policy=policy, title=title, ax=learned)


def _exact(world: envs.World, gamma: float) -> tuple[Tensor, Tensor]:
    """V* and a policy for it, as `rl.evaluate` measures: undiscounted values under the time limit, if there is one."""
    if gamma == 1 and world.time_limit is not None:
        within = dp.finite_horizon(world.mdp, world.time_limit, gamma)
        return within.values[-1], within.policy[-1]
    solution = dp.policy_iteration(world.mdp, gamma)
    return solution.values, solution.ties()


def _curve(ax: Axes, run: Run, result: Mapping[str, Any]) -> None:
    """Interquartile mean over replicas with its 95% band, of the exact value where it is known, else of the return."""
    exact = result["optimal_return"] is not None
    key = "value" if exact and any("value" in line for line in run.metrics()) else "return"
    step, scores = _side_by_side(run.metrics(), key, len(result["returns"]))
    if not scores:
        ax.text(0.5, 0.5, "no episode ended", ha="center", transform=ax.transAxes)
        return
    band = np.array([ci95(score, run.seed, resamples=400) for score in scores])
    middle = [float(iqm(score)) for score in scores]
    plots.curve(ax, step, middle, f"interquartile mean of {len(scores[0])} replicas", low=band[:, 0], high=band[:, 1])
    if exact and key == "value":
        plots.level(ax, result["optimal_return"], "exact optimum")
    title = "value of the greedy policy" if key == "value" else "return while learning"
    plots.label(ax, title, "steps of a replica")
    plots.legend(ax, "lower right")


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
