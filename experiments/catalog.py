"""Every claim by name. A name is what `qx reproduce` takes."""

from __future__ import annotations

from collections.abc import Callable

from experiments import (
    associative_recall,
    attention_cost,
    blackjack,
    captioned_scenes,
    cliff_walking,
    constant_memory,
    corrupted_mazes,
    deep_results,
    drawn_digits,
    drawn_icons,
    drawn_mnist,
    dyna_maze,
    handwriting,
    happier_stories,
    length_extrapolation,
    maximisation_bias,
    mc_basic,
    mc_vs_td,
    mnist,
    moe_balance,
    mountain_car,
    nadaraya_watson,
    normalisation,
    off_policy_q,
    parallel_in_time,
    preferred_mazes,
    random_walk,
    robbins_monro,
    scaling,
    short_corridor,
    stories,
    t_maze,
    thicker_digits,
    unseen_mazes,
    vanishing,
    windy_grid,
    zhao_values,
)
from experiments.claim import Claim, Finding, Setting

EXPERIMENTS: dict[str, tuple[Claim, Callable[[Setting], Finding]]] = {
    **deep_results.experiments(),
    "associative-recall": (associative_recall.CLAIM, associative_recall.run),
    "attention-cost": (attention_cost.CLAIM, attention_cost.run),
    "blackjack": (blackjack.CLAIM, blackjack.run),
    "captioned-scenes": (captioned_scenes.CLAIM, captioned_scenes.run),
    "cliff-walking": (cliff_walking.CLAIM, cliff_walking.run),
    "drawn-digits": (drawn_digits.CLAIM, drawn_digits.run),
    "drawn-icons": (drawn_icons.CLAIM, drawn_icons.run),
    "drawn-mnist": (drawn_mnist.CLAIM, drawn_mnist.run),
    "corrupted-mazes": (corrupted_mazes.CLAIM, corrupted_mazes.run),
    "dyna-maze": (dyna_maze.CLAIM, dyna_maze.run),
    "happier-stories": (happier_stories.CLAIM, happier_stories.run),
    "handwriting": (handwriting.CLAIM, handwriting.run),
    "layernorm-batchnorm": (normalisation.CLAIM, normalisation.run),
    "length-extrapolation": (length_extrapolation.CLAIM, length_extrapolation.run),
    "linear-attention-memory": (constant_memory.CLAIM, constant_memory.run),
    "maximisation-bias": (maximisation_bias.CLAIM, maximisation_bias.run),
    "mc-basic": (mc_basic.CLAIM, mc_basic.run),
    "mc-vs-td": (mc_vs_td.CLAIM, mc_vs_td.run),
    "mnist": (mnist.CLAIM, mnist.run),
    "moe-balance": (moe_balance.CLAIM, moe_balance.run),
    "mountain-car": (mountain_car.CLAIM, mountain_car.run),
    "nadaraya-watson": (nadaraya_watson.CLAIM, nadaraya_watson.run),
    "off-policy-q": (off_policy_q.CLAIM, off_policy_q.run),
    "parallel-in-time": (parallel_in_time.CLAIM, parallel_in_time.run),
    "preferred-mazes": (preferred_mazes.CLAIM, preferred_mazes.run),
    "random-walk-19": (random_walk.CLAIM, random_walk.run),
    "robbins-monro": (robbins_monro.CLAIM, robbins_monro.run),
    "short-corridor": (short_corridor.CLAIM, short_corridor.run),
    "sqrt-dk": (scaling.CLAIM, scaling.run),
    "stories": (stories.CLAIM, stories.run),
    "thicker-digits": (thicker_digits.CLAIM, thicker_digits.run),
    "t-maze": (t_maze.CLAIM, t_maze.run),
    "unseen-mazes": (unseen_mazes.CLAIM, unseen_mazes.run),
    "vanishing-gradients": (vanishing.CLAIM, vanishing.run),
    "windy-grid": (windy_grid.CLAIM, windy_grid.run),
    "zhao-values": (zhao_values.CLAIM, zhao_values.run),
}

GROUPS: dict[str, tuple[str, ...]] = {
    "tables": (
        "blackjack",
        "cliff-walking",
        "dyna-maze",
        "maximisation-bias",
        "mc-basic",
        "mc-vs-td",
        "off-policy-q",
        "random-walk-19",
        "robbins-monro",
        "windy-grid",
        "zhao-values",
    ),
    "features and deep networks": (
        "acrobot",
        "cartpole",
        "four-rooms-no-slip",
        "four-rooms-planes",
        "key-door-planes",
        "lunar-lander",
        "mountain-car",
        "mountain-car-v0",
        "short-corridor",
        "t-maze",
        "unseen-mazes",
    ),
    "backbones": (
        "associative-recall",
        "attention-cost",
        "handwriting",
        "layernorm-batchnorm",
        "length-extrapolation",
        "linear-attention-memory",
        "mnist",
        "moe-balance",
        "nadaraya-watson",
        "parallel-in-time",
        "sqrt-dk",
        "stories",
        "vanishing-gradients",
    ),
    "diffusion": ("captioned-scenes", "drawn-digits", "drawn-icons", "drawn-mnist"),
    "preferences": ("corrupted-mazes", "happier-stories", "preferred-mazes", "thicker-digits"),
}
"""What the claims are about."""

NEEDS = {
    "drawn-icons": "silk.npz",
    "drawn-mnist": "mnist.npz",
    "happier-stories": "stories260K.bin, tok512.bin",
    "mnist": "mnist.npz",
    "stories": "stories260K.bin, tok512.bin",
}
"""Claims that read a file which is no part of the lab, to be named by --data."""

NOT_RUN = frozenset[str]()
"""Claims that were not yet run whole as they are stated now."""

NOT_HELD = frozenset(
    {
        "corrupted-mazes",
        "four-rooms-planes",
        "handwriting",
        "layernorm-batchnorm",
        "length-extrapolation",
        "parallel-in-time",
        "short-corridor",
        "windy-grid",
    }
)
"""Claims that did not hold when last run whole with seed 0; their numbers are in docs, with those of their kind."""
