"""Linear learners: with a feature for each state they are the tables'; the books' boxes; the TD fixed point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from backbones.features import Fourier
from envs.catalog import load
from envs.mdp import TabularMDP
from envs.simulator import Simulator
from rl.agents import AGENTS, AgentError
from rl.linear.features import Active, Dense, OfStates, Scaled, Tiles, one_hot, read
from rl.linear.prediction import SemiGradientTDLambda
from rl.linear.sarsa import LinearSarsaLambda, TrueOnlineSarsaLambda, accumulating, replacing
from rl.tabular.sarsa_lambda import SarsaLambda
from rl.tabular.td_lambda import TDLambda
from rl.train import TrainConfig, Trainer, world_keys
from tests.oracles.dp import dense, random_mdp
from tests.rl.tabular.walks import Walk, walk

S, A, GAMMA, LAM, ALPHA, EPSILON = 4, 3, 0.9, 0.7, 0.3, 0.4


def some_features(binary: bool) -> OfStates:
    """Two of five features for each state, of strength 1 or any other."""
    rng = np.random.default_rng(3)
    index = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4]])
    strength = torch.ones(4, 2) if binary else torch.from_numpy(rng.uniform(0.3, 1.2, (4, 2)))
    return OfStates(Active(index, strength.double()), 5, 1.0)


def with_rates() -> OfStates:
    seen = some_features(False).seen
    return OfStates(seen, 5, torch.tensor([1.0, 0.5, 0.25, 0.8, 0.1], dtype=torch.float64))


def control(kind: Any, features: Any, seeds: list[int], **changes: Any) -> Any:
    arguments = {"gamma": GAMMA, "lam": LAM, "alpha": (ALPHA, ALPHA), "alpha_steps": 1} | changes
    return kind(features, A, seeds, epsilon=(EPSILON, EPSILON), epsilon_steps=1, **arguments)


def feed(learner: Any, experience: Walk) -> Any:
    for transition in experience.transitions():
        learner.update(transition)
    return learner


@pytest.mark.parametrize("worlds", [1, 3])
def test_with_a_feature_for_each_state_it_is_the_table(worlds: int) -> None:
    experience = walk(0, 60, 2, worlds, S, A)
    ours = feed(control(LinearSarsaLambda, one_hot(S), [1, 2], trace=accumulating), experience)
    table = {"alpha": ALPHA, "omega": 0.0}
    theirs = SarsaLambda(S, A, [1, 2], gamma=GAMMA, lam=LAM, epsilon=(EPSILON, EPSILON), epsilon_steps=1, **table)
    np.testing.assert_allclose(ours.w, feed(theirs, experience).q.value, rtol=1e-12, atol=1e-12)
    states = torch.arange(S)
    torch.testing.assert_close(ours.values(states), theirs.values(states))
    policy = torch.full((S, A), 1 / A, dtype=torch.float64)
    shared = {"gamma": GAMMA, "lam": LAM}
    linear = SemiGradientTDLambda(policy, [1, 2], features=one_hot(S), alpha=(ALPHA, ALPHA), alpha_steps=1, **shared)
    tabular = TDLambda(policy, [1, 2], **shared, **table)
    np.testing.assert_allclose(feed(linear, experience).w, feed(tabular, experience).v.value, rtol=1e-12, atol=1e-12)


def box(features: OfStates, episodes: list[Any], kind: str) -> np.ndarray:
    """Sutton & Barto's boxes of sec. 12.7 and 12.8 with vectors, one world; a limit bootstraps the expectation."""
    x = np.zeros((S, 5))
    for s in range(S):
        x[s, features.seen.which[s]] = features.seen.strength[s]
    w = np.zeros((5, A))

    def follow(episode: Any, t: int, over: bool) -> float | None:
        """What the next pair is worth; None when the next action is not known yet."""
        if t + 1 < len(episode):
            return float(x[episode[t + 1][0]] @ w[:, episode[t + 1][1]])
        if not over:
            return None
        values = x[episode[t][3]] @ w
        best = values == values.max()
        return float((EPSILON / A + (1 - EPSILON) * best / best.sum()) @ values)

    for number, episode in enumerate(episodes):
        z, old = np.zeros((5, A)), 0.0
        for t, (s, a, r, _, ended) in enumerate(episode):
            after = follow(episode, t, number < len(episodes) - 1)
            if after is None:
                break
            here = float(x[s] @ w[:, a])
            delta = r + (0 if ended else GAMMA * after) - here
            z *= GAMMA * LAM
            if kind == "true online":
                z[:, a] += (1 - ALPHA * z[:, a] @ x[s]) * x[s]
                w += ALPHA * (delta + here - old) * z
                w[:, a] -= ALPHA * (here - old) * x[s]
                old = after
                continue
            if kind == "replacing":
                z[x[s] > 0, a] = 1
            else:
                z[:, a] += x[s]
            w += ALPHA * np.broadcast_to(features.rates, 5)[:, None] * delta * z
    return w


CASES: list[tuple[str, Any, dict[str, Any], bool]] = [
    ("accumulating", LinearSarsaLambda, {"trace": accumulating}, False),
    ("replacing", LinearSarsaLambda, {"trace": replacing}, True),
    ("true online", TrueOnlineSarsaLambda, {}, False),
]


@pytest.mark.parametrize(("name", "kind", "extra", "binary"), CASES)
def test_it_equals_a_plain_loop_of_the_book(name: str, kind: Any, extra: dict[str, Any], binary: bool) -> None:
    """3 replicas of one world, 60 steps on features that states share; the old value of true online begins at 0."""
    features, experience = some_features(binary), walk(5, 60, 3, 1, S, A)
    found = feed(control(kind, features, [1, 2, 3], **extra), experience).w
    expected = [box(features, experience.episodes(r, 0), name) for r in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_each_weight_has_the_rate_of_its_feature() -> None:
    """As above with accumulating traces: each feature of a Fourier basis has a step size of its own."""
    features, experience = with_rates(), walk(5, 60, 3, 1, S, A)
    found = feed(control(LinearSarsaLambda, features, [1, 2, 3], trace=accumulating), experience).w
    expected = [box(features, experience.episodes(r, 0), "accumulating") for r in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "kind", "extra", "binary"), CASES)
def test_worlds_that_live_the_same_teach_what_one_does(name: str, kind: Any, extra: Any, binary: bool) -> None:
    one = walk(1, 40, 2, 1, S, A)
    crowd = Walk(*(np.repeat(column, 3, axis=2) for column in vars(one).values()))
    found, expected = (feed(control(kind, some_features(binary), [1, 2], **extra), e).w for e in (crowd, one))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def fixed_point(mdp: TabularMDP, x: np.ndarray, lam: float) -> np.ndarray:
    """The TD(lambda) fixed point under the uniform policy, where an ended episode begins anew (A w = b, eq. 9.14)."""
    states = mdp.states
    P, r = dense(mdp, np.full((states, 2), 0.5))
    start = mdp.start.numpy()
    d = np.linalg.solve(np.eye(states) - P.T, start)  # how often an episode visits each state
    # E[z_t] in s is the sum over k of (gamma lambda)^k x(S_(t-k)): X^T D (I - gamma lambda P)^-1
    along = x.T @ (np.diag(d) @ np.linalg.inv(np.eye(states) - GAMMA * lam * P))
    return np.linalg.solve(along @ (np.eye(states) - GAMMA * P) @ x, along @ r)


@pytest.mark.parametrize("lam", [0.0, 0.8])
def test_prediction_converges_to_the_td_fixed_point(lam: float) -> None:
    """5 states, 2 features: a random world, 8 replicas of 40 worlds, 500 turns, step size 0.1 falling to 0.002.

    The fixed points of lambda 0 and 0.8 and the least squares differ by more than the margin.
    """
    mdp = random_mdp(4, states=5, actions=2, outcomes=3, ending=0.2)
    x = np.array([[1, 0.0], [1, 0.2], [0.5, 1], [0, 1], [0.8, 0.8]])
    index = torch.tensor([[0, 1]]).repeat(5, 1)
    learner = SemiGradientTDLambda(
        torch.full((5, 2), 0.5, dtype=torch.float64),
        list(range(8)),
        features=OfStates(Active(index, torch.from_numpy(x)), 2),
        gamma=GAMMA,
        alpha=(0.2, 0.002),
        alpha_steps=16_000,
        lam=lam,
    )
    worlds = Simulator(mdp, world_keys(2, 8, 40), observation=torch.arange(5))
    list(Trainer(learner, worlds, TrainConfig(steps=20_000, worlds=40, report_every=20_000)).run())
    points = {other: fixed_point(mdp, x, other) for other in (0.0, 0.8)}
    assert np.abs(x @ (points[0.0] - points[0.8])).max() > 0.1
    errors = np.abs(learner.w.numpy() @ x.T - x @ points[lam])
    assert errors.mean(0).max() < 0.05


def test_features_of_numbers_with_bounds() -> None:
    scale = Scaled(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0]))
    assert scale(torch.tensor([[0.0, 1.0], [-9.0, 9.0]])).tolist() == [[0.5, 0.25], [0.0, 1.0]]
    tiles, waves = Tiles(scale, 4, 8), Dense(scale, Fourier(2, 3))
    obs = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    w = torch.randn(3, tiles.size, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(read(w, tiles(obs)), tiles.coding(scale(obs)) @ w)
    w = w[:, : waves.size]
    torch.testing.assert_close(read(w, waves(obs)), waves.basis(scale(obs)) @ w)


def test_what_is_refused() -> None:
    for name, world, message in (
        ("tile-sarsa-lambda", "CartPole-v1", "needs numbers with bounds, and CartPole-v1 shows Box"),
        ("tile-sarsa-lambda", "Acrobot-v1", r"8 tiles along each of 6 numbers make 4,251,528 features"),
        ("semi-gradient-td-lambda", "CartPole-v1", "needs a world that is a table"),
    ):
        with pytest.raises(AgentError, match=message):
            AGENTS[name].build(AGENTS[name].config(), load(world), 1, 0)
    with pytest.raises(AgentError, match="cannot learn from 'planes': expected observation coordinates"):
        AGENTS["true-online-sarsa-lambda"].build(
            AGENTS["true-online-sarsa-lambda"].config(observation="planes"), load("zhao-5x5"), 1, 0
        )
