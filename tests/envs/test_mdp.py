"""TabularMDP and lifting: tables are refused when they are none, and a lifted world is Gymnasium's own."""

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from envs.lift import lift
from envs.mdp import MDPError, TabularMDP


def two_states() -> TabularMDP:
    """Action 0 stays, action 1 crosses with probability 1/4 and ends there."""
    return TabularMDP(
        next_state=torch.tensor([[[0, 0], [0, 1]], [[1, 1], [1, 0]]], dtype=torch.int32),
        prob=torch.tensor([[[1.0, 0.0], [0.75, 0.25]]] * 2, dtype=torch.float64),
        reward=torch.tensor([[[0.0, 0.0], [-1.0, 8.0]]] * 2, dtype=torch.float64),
        terminated=torch.tensor([[[False, False], [False, True]]] * 2),
        start=torch.tensor([0.5, 0.5], dtype=torch.float64),
    )


def test_sizes_and_expected_reward():
    mdp = two_states()
    assert (mdp.states, mdp.actions, mdp.outcomes) == (2, 2, 2)
    assert mdp.expected_reward().tolist() == [[0.0, 1.25], [0.0, 1.25]]


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("prob", (1, 1, 0), -0.25, r"^prob of state 1, action 1, outcome 0 is -0\.25, expected a probability"),
        ("prob", (0, 1, 1), 0.5, r"^sum of prob of state 0, action 1 is 1\.25, expected 1$"),
        ("prob", (0, 0, 0), float("nan"), r"^prob of state 0, action 0, outcome 0 is nan"),
        ("next_state", (1, 0, 1), 2, r"^next_state of state 1, action 0, outcome 1 is 2, expected a state, 0 to 1$"),
        ("next_state", (0, 0, 0), -1, r"^next_state of state 0, action 0, outcome 0 is -1"),
        ("reward", (0, 1, 1), float("inf"), r"^reward of state 0, action 1, outcome 1 is inf, expected a finite"),
        ("start", (1,), 0.25, r"^start sums to 0\.75, expected 1$"),
        ("start", (0,), -0.5, r"^start of state 0 is -0\.5"),
    ],
)
def test_a_wrong_entry_is_named(field: str, index: tuple[int, ...], value: float, message: str):
    table = getattr(two_states(), field).clone()
    table[index] = value
    with pytest.raises(MDPError, match=message):
        dataclasses.replace(two_states(), **{field: table})


@pytest.mark.parametrize(
    ("field", "table", "message"),
    [
        ("prob", torch.ones(2, 2, 2), r"^prob is torch\.float32 \[2, 2, 2\], expected torch\.float64 \[2, 2, 2\]$"),
        (
            "start",
            torch.ones(3, dtype=torch.float64),
            r"^start is torch\.float64 \[3\], expected torch\.float64 \[2\]$",
        ),
        ("next_state", torch.zeros(2, 2, dtype=torch.int32), r"^next_state has shape \(2, 2\), expected \[S, A, K\]"),
    ],
)
def test_a_wrong_form_is_named(field: str, table: torch.Tensor, message: str):
    unchecked = object.__new__(TabularMDP)  # a user has no shape checker in front of the constructor
    unchecked.__dict__.update(two_states().__dict__ | {field: table})
    with pytest.raises(MDPError, match=message):
        unchecked.__post_init__()


def gathered(outcomes) -> dict[tuple[int, float, bool], float]:
    """Probability of each distinct outcome."""
    chances: dict[tuple[int, float, bool], float] = {}
    for p, s, r, end in outcomes:
        if p > 0:
            chances[int(s), float(r), bool(end)] = chances.get((int(s), float(r), bool(end)), 0.0) + float(p)
    return chances


WORLDS = [
    ("FrozenLake-v1", {}),
    ("FrozenLake-v1", {"is_slippery": False}),
    ("FrozenLake8x8-v1", {}),
    ("FrozenLake8x8-v1", {"is_slippery": False}),
    ("CliffWalking-v1", {}),
    ("CliffWalkingSlippery-v1", {}),
    ("Taxi-v4", {}),
    ("Taxi-v4", {"is_rainy": True}),
]


@pytest.mark.parametrize(("name", "options"), WORLDS)
def test_a_lifted_world_has_the_outcomes_of_gymnasium_in_every_state_and_action(name: str, options: dict[str, Any]):
    env = gymnasium.make(name, **options)
    mdp = lift(env)
    P = env.unwrapped.P
    assert (mdp.states, mdp.actions) == (env.observation_space.n, env.action_space.n)
    for s in P:
        for a in P[s]:
            tables = (mdp.prob, mdp.next_state, mdp.reward, mdp.terminated)
            ours = zip(*(table[s, a].tolist() for table in tables), strict=True)
            assert gathered(ours) == pytest.approx(gathered(P[s][a]), abs=1e-15)
    np.testing.assert_array_equal(mdp.start, env.unwrapped.initial_state_distrib)


CERTAIN = [WORLDS[1], WORLDS[3], WORLDS[4], WORLDS[6]]


@pytest.mark.parametrize(("name", "options"), CERTAIN)
def test_every_transition_of_a_deterministic_world_is_gymnasiums_step(name: str, options: dict[str, Any]):
    env = gymnasium.make(name, **options).unwrapped
    mdp = lift(env)
    env.reset(seed=5)
    for s in range(mdp.states):
        for a in range(mdp.actions):
            env.s = s
            arrived, reward, terminated, truncated, _ = env.step(a)
            k = mdp.prob[s, a].argmax()
            ours = tuple(table[s, a, k].item() for table in (mdp.next_state, mdp.reward, mdp.terminated))
            assert mdp.prob[s, a, k] == 1, (s, a)
            assert (arrived, reward, terminated, truncated) == (*ours, False), (s, a)


class Hidden(gymnasium.Env):
    """Shows P, but not where it starts."""

    observation_space, action_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(1)

    def __init__(self, starts: int):
        self.P = {s: {0: [(1.0, 0, 0.0, False)]} for s in range(2)}
        self.starts = starts

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return int(self.np_random.integers(self.starts)), {}


def test_the_start_is_read_off_resets_only_where_they_agree():
    assert lift(Hidden(1)).start.tolist() == [1.0, 0.0]
    with pytest.raises(MDPError, match=r"^Hidden starts in states \[0, 1\] but has no initial_state_distrib"):
        lift(Hidden(2))


def test_p_may_be_of_lists_and_of_numpy_numbers():
    rows = [
        [[(0.5, 0, 0.0, False), (0.5, 1, 2.0, True)], [(1.0, 1, -1.0, False)]],
        [[(np.float64(1.0), np.int64(1), np.float32(0.0), np.True_)], [(0.2, 0, 0, 0), (0.3, 0, 1, 0), (0.5, 1, 0, 1)]],
    ]
    by_number = {s: dict(enumerate(row)) for s, row in enumerate(rows)}
    for P in (rows, tuple(rows), by_number, dict(enumerate(rows)), [dict(enumerate(row)) for row in rows]):
        env = Hidden(1)
        env.P, env.action_space = P, gymnasium.spaces.Discrete(2)
        mdp = lift(env)
        assert mdp.next_state.tolist() == [[[0, 1, 1], [1, 1, 1]], [[1, 1, 1], [0, 0, 1]]]
        assert mdp.prob.tolist() == [[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]]
        assert mdp.reward.tolist() == [[[0, 2, 2], [-1, -1, -1]], [[0, 0, 0], [0, 1, 0]]]
        assert mdp.terminated[1].tolist() == [[True, True, True], [False, False, True]]


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        (
            [(1.0, 0, 0.0)],
            r"^Hidden: P\[1\]\[0\] has \(1\.0, 0, 0\.0\), expected \(prob, next_state, reward, terminated\)$",
        ),
        ([(1.0, 0.5, 0.0, False)], r"^Hidden: P\[1\]\[0\] leads to 0\.5, expected the number of a state$"),
        ([(1.0, 2, 0.0, False)], r"^next_state of state 1, action 0, outcome 0 is 2, expected a state, 0 to 1$"),
        ([(0.9, 0, 0.0, False)], r"^sum of prob of state 1, action 0 is 0\.9, expected 1$"),
        ([(1.0, 0, float("nan"), False)], r"^reward of state 1, action 0, outcome 0 is nan"),
        ([], r"^Hidden: P\[1\]\[0\] is missing or empty, expected 1 actions in each of 2 states$"),
    ],
)
def test_a_malformed_outcome_is_named(outcomes: list[tuple[float, ...]], message: str):
    env = Hidden(1)
    env.P[1][0] = outcomes
    with pytest.raises(MDPError, match=message):
        lift(env)


def test_what_cannot_be_lifted_says_why():
    with pytest.raises(MDPError, match=r"^CartPoleEnv has no table P, expected P\[state\]\[action\]"):
        lift(gymnasium.make("CartPole-v1"))
    with pytest.raises(MDPError, match=r"^TaxiEnv with a fickle passenger does more than its table P says"):
        lift(gymnasium.make("Taxi-v4", fickle_passenger=True))
    gap = Hidden(1)
    gap.P[1] = {}
    with pytest.raises(MDPError, match=r"^Hidden: P\[1\]\[0\] is missing or empty, expected 1 actions in each of 2"):
        lift(gap)
