"""Turns of Q-learning as machine code: what `rl.train.Trainer` does in one, world by world, and the same bits.

Every number is drawn, rounded and added up in the order that the other way has: `lab.streams` draws, `rl.explore`
chooses, `envs.simulator` moves, `rl.td` finds the error, and `rl.tabular.table` corrects the entry. They cite their
sources; here they are named.

Three things make it fast, beside that nothing is laid out in memory. Draws and actions of a turn are computed in the
processor's vectors, some worlds at once. A choice among the actions has no branch, which would be guessed wrongly as
often as chance goes the other way. And these worlds then step alternately: a step waits for its own numbers all the
time, and those of others need not.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lab.streams import GOLDEN, MIX1, MIX2
from rl.tabular import arrays
from rl.tabular.arrays import Carry, Learner, Room, Tally, World

TOGETHER = 16  # worlds that step alternately; of more the tables do not stay in a core's first cache
LOW24, LOW31, LOW53 = 2**24 - 1, 2**31 - 1, 2**53 - 1
# What is kept on disk goes by this file and the function's name, so what stands elsewhere goes into the name.
ELSEWHERE = hashlib.sha256(f"{inspect.getsource(arrays)} {GOLDEN} {MIX1} {MIX2}".encode()).hexdigest()[:8]
F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """`function` as machine code, which is kept on disk, and holds no other thread up while it runs."""
    plain = inspect.unwrap(function)  # the tests wrap what they check
    plain.__qualname__ += f"_{ELSEWHERE}"
    try:
        made = numba.njit(cache=True, nogil=True)(plain)
    except RuntimeError:  # no directory that may be written to: made anew by every process
        made = numba.njit(nogil=True)(plain)
    return cast(F, made)


@compiled
def at(index: int) -> np.uintp:
    """An index that is not negative: of any other the compiled code asks whether it counts from the end."""
    return np.uintp(index)


@compiled
def mix(z: int) -> int:
    """`lab.streams.mix`."""
    z = (((z >> 30) & 0x3FFFFFFFF) ^ z) * MIX1
    z = (((z >> 27) & 0x1FFFFFFFFF) ^ z) * MIX2
    return ((z >> 31) & 0x1FFFFFFFF) ^ z


@compiled
def uniform(z: int) -> np.float32:
    """`lab.streams.uniform` of the stream's bits before they are mixed."""
    return np.float32((mix(z) >> 40) & LOW24) * np.float32(2.0**-24)


@compiled
def largest(q: Float64[np.ndarray, "E"], row: int, actions: tuple[int, ...]) -> float:
    """The largest value of a row; nan, if there is one, as `amax` has it."""
    best = q[at(row)]
    for a in range(1, len(actions)):
        value = q[at(row + a)]
        best = value if value > best or value != value else best
    return best


@compiled
def slot(row: int, width: int, last: np.ndarray, draw: int) -> int:
    """The search of `envs.simulator.sampling.Choice.slot`."""
    found, half = row * width, width // 2
    while half:
        if draw > last[at(found + half - 1)]:
            found += half
        half //= 2
    return found


@compiled
def begin(i: np.uintp, world: World, carry: Carry) -> None:
    """`envs.simulator.stepping.Tables.renew` of world i."""
    carry.episode[i] += 1
    clock = mix(carry.stream[i] + carry.episode[i] * GOLDEN) + GOLDEN
    first = slot(carry.block[i], world.first_width, world.first_last, (mix(clock) >> 11) & LOW53)
    carry.state[i], carry.elapsed[i], carry.clock[i] = world.start[at(first)], 0, clock


@compiled
def draw(
    coin: Int64[np.ndarray, "n"],
    clock: Int64[np.ndarray, "n"],
    jump: int,
    epsilon: np.float32,
    actions: tuple[int, ...],
    tie: Float32[np.ndarray, "n"],
    whim: Int32[np.ndarray, "n"],
    bits: Int32[np.ndarray, "n"],
) -> None:
    """All draws of a turn; the clocks tick.

    `tie` picks one of equally good actions, `whim` is the action of those that explore and -1 of the others, and the 24
    `bits` say what comes of it.
    """
    for k in range(len(coin)):
        tie[k] = uniform(coin[k] + jump)
        explores = uniform(coin[k] + jump + GOLDEN) < epsilon
        whim[k] = np.int32(tie[k] * np.float32(len(actions))) if explores else np.int32(-1)
    for k in range(len(clock)):
        clock[k] += GOLDEN
        bits[k] = (mix(clock[k]) >> 40) & LOW24


@compiled
def act(
    values: Float64[np.ndarray, "A n"],
    n: int,
    actions: tuple[int, ...],
    tie: Float32[np.ndarray, "n"],
    whim: Int32[np.ndarray, "n"],
    action: Int32[np.ndarray, "n"],
) -> None:
    """The `action` of n worlds: `rl.explore.best_at_random`, unless they explore.

    As many actions are passed over as leave the picked one of equals for later.
    """
    for k in range(n):
        best = values[0, k]
        for a in range(1, len(actions)):
            value = values[a, k]
            best = value if value > best or value != value else best
        equals = np.int32(0)
        for a in range(len(actions)):
            equals += np.int32(1) if values[a, k] == best else np.int32(0)
        pick = np.int32(tie[k] * np.float32(equals))
        found, passed = np.int32(0), np.int32(0)
        for a in range(len(actions)):
            found += np.int32(1) if values[a, k] == best else np.int32(0)
            passed += np.int32(1) if found <= pick else np.int32(0)
        greedy = passed if equals > 0 else np.int32(0)  # nan is equal to nothing
        action[k] = whim[k] if whim[k] >= 0 else greedy


@compiled
def meet(w: int, room: Room) -> float:
    """The mean error of the worlds in the entry of world w, summed as `rl.tabular.table.summed` does."""
    worlds, W = 0, len(room.entry)
    for v in range(W):
        same = room.entry[v] == room.entry[w]
        worlds += same
        room.sums[v] = (1.0 if same else 0.0) * room.error[v]  # a product: what is not finite spoils every sum
    while W > 1:
        for v in range(W // 2):
            room.sums[v] += room.sums[W // 2 + v]
        if W % 2:
            room.sums[W // 2] = room.sums[W - 1]
        W = W // 2 + W % 2
    return room.sums[0] / worlds


@compiled
def move(agent: Learner, r: int, entry: int, error: float) -> None:
    """Visit an entry of replica r, and correct it."""
    agent.n[at(r), at(entry)] += 1
    rate = agent.alpha * agent.power[at(agent.n[at(r), at(entry)])]
    agent.q[at(r), at(entry)] += rate * error


@compiled
def correct(agent: Learner, r: int, room: Room, calm: bool) -> None:
    """`rl.tabular.table.Table.move` of replica r; `calm`: all errors are finite."""
    for w in range(len(room.entry)):
        room.there[at(room.entry[w])] += 1
    for w in range(len(room.entry)):
        e = at(room.entry[w])
        if room.there[e]:  # the first of those that meet here
            move(agent, r, room.entry[w], room.error[w] if calm and room.there[e] == 1 else meet(w, room))
            room.there[e] = 0


@compiled
def live(
    turns: int, low: int, high: int, world: World, carry: Carry, agent: Learner, tally: Tally, room: Room | None
) -> None:
    """Live `turns` turns of the replicas from `low` to `high`; what changes is changed in place."""
    W, A = 1 if room is None else len(room.entry), len(world.actions)
    block = max(1, TOGETHER // W)
    tie, whim, bits = np.empty(block * W, np.float32), np.empty(block * W, np.int32), np.empty(block * W, np.int32)
    values, actions = np.empty((A, block * W)), np.empty(block * W, np.int32)
    for first in range(low, high, block):
        stop = min(first + block, high)
        coin, clock = agent.coin[first * W : stop * W], carry.clock[first * W : stop * W]
        for t in range(turns):
            jump = (2 * (agent.step + t * W) + 1) * GOLDEN
            draw(coin, clock, jump, agent.epsilon[at(t)], world.actions, tie, whim, bits)
            for r in range(first, stop):
                for w in range(W):
                    k = at((r - first) * W + w)
                    row = world.seen[at(carry.state[at(r * W + w)])] * A
                    for a in range(A):
                        values[at(a), k] = agent.q[at(r), at(row + a)]
            act(values, (stop - first) * W, world.actions, tie, whim, actions)
            for r in range(first, stop):
                q = agent.q[at(r)]
                rewards, errors, gained, length, ended = 0.0, 0.0, 0.0, 0.0, 0
                for w in range(W):
                    i, k = at(r * W + w), at((r - first) * W + w)
                    # Step: Tables.move.
                    state = carry.state[i]
                    row = world.seen[at(state)] * A
                    action = np.int64(actions[k])
                    chosen = state * A + action
                    if len(world.last):
                        chosen = slot(chosen, world.width, world.last, bits[k])
                    else:
                        chosen = chosen * world.width + ((np.int64(bits[k]) * world.width) >> 24)
                    successor, reward = world.successor[at(chosen)], np.float64(world.reward[at(chosen)])
                    terminated, state, elapsed = successor < 0, successor & LOW31, carry.elapsed[i] + 1
                    carry.state[i], carry.elapsed[i] = state, elapsed
                    # Learn: td.q_learning.
                    discount = agent.gamma * (0.0 if terminated else 1.0)
                    after = largest(q, world.seen[at(state)] * A, world.actions)
                    entry = row + action
                    error = (reward + discount * after) - q[at(entry)]
                    if room is not None:
                        room.entry[w], room.error[w] = entry, error
                    # Count: Trainer.
                    rewards += reward
                    errors += abs(error)
                    tally.running[0, i] += reward
                    tally.running[1, i] += 1
                    if terminated or elapsed >= world.limit:
                        gained += tally.running[0, i]
                        length += tally.running[1, i]
                        ended += 1
                        tally.running[0, i] *= 0.0
                        tally.running[1, i] = 0.0
                        begin(i, world, carry)
                if room is None:
                    move(agent, r, entry, error)
                else:
                    correct(agent, r, room, np.isfinite(errors))
                tally.reward[at(r)] += rewards / W
                tally.error[at(r)] += errors / W
                if ended:
                    tally.finished[0, at(r)] += gained
                    tally.finished[1, at(r)] += length
                    tally.ended[at(r)] += ended
