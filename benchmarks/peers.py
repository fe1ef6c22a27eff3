"""Random steps a second of one peer, on its own best terms: `python benchmarks/peers.py PEER SECONDS BUDGET SIZE...`.

A program by itself, so that a peer may live in an interpreter of its own: it imports nothing of ours. For each size it
prints one line of JSON, `{"worlds": N, "steps_per_second": x}`, or `{"worlds": N, "skipped": why}` where building and
one call would take more than BUDGET seconds, going by the size before.

What each peer is given: ended episodes begin anew by its own means, actions are uniformly random, and the rewards are
added up. The JAX peers run a jitted scan of 64 or more steps over vmapped worlds; compiling is not counted, nothing but
the sum and the last state leaves the scan (so that observations nobody looks at cost nothing), and they draw by that
of JAX's generators which is faster at 4,096 worlds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

STEPS = 64  # in one call of a JAX peer
GENERATORS = ("threefry2x32", "unsafe_rbg")
TRIED = 4096  # worlds at which the generators are compared


class Ready(NamedTuple):
    """N worlds, ready to be timed."""

    call: Callable[[], float]
    """Takes some steps in all worlds; returns a sum of rewards, which nobody can leave out then."""
    steps: int
    """Of one call."""
    built: float
    """Seconds of building, as far as they grow with the number of worlds."""


def gymnasium_sync(name: str) -> Callable[[int, str], Ready]:
    """Gymnasium's SyncVectorEnv of one of its environments."""

    def build(n: int, generator: str) -> Ready:
        import gymnasium

        if name.startswith("MiniGrid"):
            import minigrid  # noqa: F401  # registers its environments

        gymnasium.make(name).reset(seed=0)  # what is imported at first use
        began = time.perf_counter()
        made = gymnasium.make_vec(name, num_envs=n, vectorization_mode="sync")
        made.reset(seed=0)
        made.action_space.seed(0)
        built = time.perf_counter() - began
        return Ready(lambda: float(made.step(made.action_space.sample())[1].sum()), 1, built)

    return build


def navix(n: int, generator: str) -> Ready:
    """Navix-Empty-8x8-v0; its step resets by itself."""
    import jax
    import navix as nx

    env = nx.make("Navix-Empty-8x8-v0", observation_fn=nx.observations.none)
    actions = len(env.action_set)

    def one(timestep: Any, key: Any) -> tuple[Any, Any]:
        timestep = env.step(timestep, jax.random.randint(key, (), 0, actions))
        return timestep, timestep.reward

    return _scan(n, generator, env.reset, one)


def gymnax(n: int, generator: str) -> Ready:
    """FourRooms-misc; its step resets by itself."""
    import gymnax as peer
    import jax

    env, params = peer.make("FourRooms-misc")

    def one(state: Any, key: Any) -> tuple[Any, Any]:
        act, go = jax.random.split(key)
        _, state, reward, *_ = env.step(go, state, jax.random.randint(act, (), 0, 4), params)
        return state, reward

    return _scan(n, generator, lambda key: env.reset(key, params)[1], one)


def xminigrid(n: int, generator: str) -> Ready:
    """MiniGrid-Empty-8x8, with the wrapper that resets in the step that ends an episode."""
    import jax
    import xminigrid as peer
    from xminigrid.wrappers import GymAutoResetWrapper

    env, params = peer.make("MiniGrid-Empty-8x8")
    env = GymAutoResetWrapper(env)
    actions = env.num_actions(params)

    def one(timestep: Any, key: Any) -> tuple[Any, Any]:
        timestep = env.step(params, timestep, jax.random.randint(key, (), 0, actions))
        return timestep, timestep.reward

    return _scan(n, generator, lambda key: env.reset(params, key), one)


PEERS: dict[str, Callable[[int, str], Ready]] = {
    "gymnasium": gymnasium_sync("FrozenLake-v1"),
    "minigrid": gymnasium_sync("MiniGrid-Empty-8x8-v0"),
    "navix": navix,
    "gymnax": gymnax,
    "xminigrid": xminigrid,
}


def _scan(n: int, generator: str, reset: Callable[[Any], Any], one: Callable[[Any, Any], tuple[Any, Any]]) -> Ready:
    """STEPS steps of n worlds in one compiled scan."""
    import jax

    state = jax.jit(jax.vmap(reset))(jax.random.split(jax.random.key(1), n))
    key = jax.random.key(0, impl=generator)

    def run(state: Any, key: Any) -> tuple[Any, Any, Any]:
        key, own = jax.random.split(key)

        def step(carry: tuple[Any, Any], key: Any) -> tuple[tuple[Any, Any], None]:
            state, reward = jax.vmap(one)(carry[0], jax.random.split(key, n))
            return (state, carry[1] + reward.sum()), None

        (state, total), _ = jax.lax.scan(step, (state, 0.0), jax.random.split(own, STEPS))
        return state, key, total

    compiled = jax.jit(run, donate_argnums=0).lower(state, key).compile()
    held = [state, key]

    def call() -> float:
        *held[:], total = compiled(*held)
        return float(total.block_until_ready())

    return Ready(call, STEPS, 0.0)


def rate(ready: Ready, n: int, seconds: float) -> float:
    """Steps a second, after one call that does not count."""
    kept, count, began = ready.call(), 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        kept += ready.call()
        count += 1
    assert kept == kept  # no reward is nan
    return count * ready.steps * n / spent


def main() -> None:
    """Measure one peer at every size."""
    peer, seconds, budget = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    build, generator = PEERS[peer], GENERATORS[0]
    if build in (navix, gymnax, xminigrid):
        generator = max(GENERATORS, key=lambda name: rate(build(TRIED, name), TRIED, seconds))
    before, took = 1, 0.0  # the seconds of building and one call
    for n in map(int, sys.argv[4:]):
        if took * n / before > budget:
            found: dict[str, Any] = {"skipped": f"it would take {took * n / before:.0f} s"}
        else:
            ready = build(n, generator)
            found = {"steps_per_second": rate(ready, n, seconds)}
            before, took = n, ready.built + n * ready.steps / found["steps_per_second"]
        print(json.dumps({"worlds": n, **found}), flush=True)  # noqa: T201  # whoever began this process reads it


if __name__ == "__main__":
    main()
