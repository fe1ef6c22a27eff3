"""Off-policy Q-learning from one recorded episode: it learns the optimum from whoever walks, if he goes everywhere.

R walkers make one endless episode each, by a policy that Q-learning has no say in: uniform, or epsilon-greedy around
the optimal one. What a pair was not tried for it cannot know: how often the rarest is tried follows exactly from the
walk's distribution, d_(t+1) = d_t P, summed over the episode.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from envs.catalog import load
from envs.mdp import TabularMDP
from envs.simulator.rollout import Rollout
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from experiments.episodes import interval
from lab import plots, streams
from rl import dp
from rl.chain import Chain
from rl.tabular.q_learning import QLearning
from rl.types import Transition

ALPHA, EVERY = 0.1, 500
BEHAVIOURS = {"uniform": 1.0, "epsilon 0.5": 0.5, "epsilon 0.1": 0.1}

CLAIM = Claim(
    claim="Q-learning learns the optimal values from one episode of 100,000 uniformly random steps; from an episode "
    "that explores less it does not.",
    source="Zhao 2025, sec. 7.4 and fig. 7.4: 5 x 5 grid world, alpha 0.1; its less exploring policies are not given, "
    "and here are epsilon-greedy around an optimal one",
    stated={
        "value error: uniform": "< 0.01",
        "value error: epsilon 0.5": "> uniform's",
        "value error: epsilon 0.1": "> 1",
    },
    minutes=2.0,
)


def run(setting: Setting) -> Finding:
    """One episode of 100,000 steps for each of 20 replicas and each behaviour."""
    return compare(setting, replicas=20, steps=100_000)


def compare(setting: Setting, replicas: int, steps: int) -> Finding:
    """The experiment at any size. Values reach 10."""
    world = load("zhao-5x5", {"time_limit": "none"})
    assert isinstance(world, World)
    mdp, gamma = world.mdp, world.discount
    best = dp.value_iteration(mdp, gamma, tolerance=1e-12)
    policies = [dp.soft(best.policy, mdp.actions, epsilon) for epsilon in BEHAVIOURS.values()]
    walks = [walk(world, policy, streams.keys(setting.seed, name, replicas), steps) for name, policy in
             zip(BEHAVIOURS, policies, strict=True)]  # fmt: skip
    seeds = range(replicas * len(walks))
    learner = QLearning(
        mdp.states, mdp.actions, seeds, gamma=gamma, alpha=ALPHA, omega=0.0, epsilon=(1.0, 1.0), epsilon_steps=1
    )
    errors = []
    for t, transition in enumerate(transitions(walks), 1):
        learner.update(transition)
        if t % EVERY == 0 or t == steps:
            v = learner.values(torch.arange(mdp.states))
            errors.append((v - best.values).abs().amax(-1).view(len(walks), replicas))
            setting.report(t / steps, f"step {t}")
    error = torch.stack(errors, -1)  # [behaviours, R, reports]
    rarest = [float(tries(mdp, policy, steps).amin()) for policy in policies]
    numbers = [float(each[:, -1].mean()) for each in error]
    return Finding(
        found=dict(zip(CLAIM.stated, numbers, strict=True)),
        holds=judge(*numbers),
        verdict=f"the largest value error after {steps} steps is {numbers[0]:.2g} from a uniform walk and "
        f"{numbers[2]:.2g} from one of epsilon 0.1, which tries the rarest pair {rarest[2]:.2g} times, the "
        f"uniform one {rarest[0]:.0f} times (expected, exactly; {replicas} replicas)",
        figure=_picture(error, rarest),
        header=("behaviour", "largest value error [95%]", "tries of the rarest pair, expected"),
        rows=[
            [name, interval(each[:, -1], setting.seed), f"{tried:.3g}"]
            for name, each, tried in zip(BEHAVIOURS, error, rarest, strict=True)
        ],
    )


def judge(uniform: float, half: float, tenth: float) -> bool:
    """The rule, on the numbers of the claim in their order."""
    return uniform < 0.01 and half > uniform and tenth > 1


def walk(world: World, policy: Float64[Tensor, "S A"], keys: Tensor, steps: int) -> Rollout:
    """One episode of each key."""
    worlds = world.simulate(keys)
    worlds.reset()
    return worlds.rollout(steps, policy)


def transitions(walks: list[Rollout]) -> Iterator[Transition]:
    """Step by step, the walks side by side as replicas."""

    def column(name: str) -> Tensor:
        return torch.cat([getattr(record, name) for record in walks], 1)[..., None]  # [T, R, 1]

    state, action, reward = column("state").long(), column("action").long(), column("reward")
    after, ended = column("successor").long(), column("terminated")
    nothing = torch.zeros(*state.shape[1:], 0)
    for t in range(len(state)):
        yield Transition(state[t], nothing, action[t], reward[t], after[t], (~ended[t]).float(), ended[t])


def tries(mdp: TabularMDP, policy: Float64[Tensor, "S A"], steps: int) -> Float64[Tensor, "S A"]:
    """How often each pair is tried in `steps` steps of one episode, in the mean: start (I + P + ... + P^(steps-1)).

    The sum of the first 2 n powers is that of the first n, and P^n times it.
    """
    chain = Chain.of(mdp, policy)
    S = mdp.states
    P = torch.zeros(S, S, dtype=torch.float64)
    P.index_put_((torch.arange(S)[:, None].expand_as(chain.next), chain.next), chain.weight, accumulate=True)
    total, power = torch.zeros_like(P), torch.eye(S, dtype=torch.float64)
    for bit in f"{steps:b}":
        total, power = total + power @ total, power @ power
        if bit == "1":
            total, power = total + power, power @ P
    return (mdp.start @ total)[:, None] * policy


def _picture(error: Float64[Tensor, "B R T"], rarest: list[float]) -> Figure:
    figure, [ax] = plots.figure(width=6.4, height=3.8)
    steps = EVERY * torch.arange(1, error.shape[-1] + 1).numpy()
    for i, (name, each, tried) in enumerate(zip(BEHAVIOURS, error, rarest, strict=True)):
        low, high = (torch.quantile(each, share, dim=0).clamp(min=1e-15).numpy() for share in (0.05, 0.95))
        label = f"{name}: rarest pair {tried:.3g} times"
        plots.curve(ax, steps, each.mean(0).clamp(min=1e-15).numpy(), label, i, low, high)
    ax.set_yscale("log")
    title = "One episode teaches all, if it goes everywhere"
    plots.label(ax, title, "steps of the episode", "largest value error (values reach 10)")
    plots.legend(ax, "lower left")
    return figure
