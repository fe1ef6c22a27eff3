"""Deep Q-networks: each name a composition of the parts in `rl.deep` (see `rl.deep.dqn`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backbones.dueling import Dueling
from backbones.noisy import Noisy
from envs.gymworlds import GymWorld
from envs.world import World
from rl.deep.distributional import Categorical, Quantiles
from rl.deep.dqn import DQN
from rl.deep.losses import Expected, Method, Successor, online_chooses, target_chooses
from rl.deep.prioritised import PrioritisedReplay
from rl.deep.replay import Memories, Replay
from rl.explore import stream_keys
from rl.recipe import AgentError, Backbone, Recipe, network_for, replica_seeds, shape_of
from rl.recipes import deep_tuned
from rl.recipes.histogram import range_of
from rl.recipes.schedules import QConfig, scheduled


@dataclass(frozen=True)
class DQNConfig(QConfig):
    """Deep Q-network (Mnih et al. 2015); with `n` steps in a return, by default one."""

    n: int = 1
    """Steps in a return. More: news of a reward travels faster, with more variance, and with the bias of exploring."""
    backbone: Backbone = "auto"
    """The network: a perceptron, a CNN, the residual one of IMPALA, which is larger and slower, or one that plans over
    the planes of a grid; auto takes the CNN where the observation is a picture."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the perceptron's hidden layers; a CNN has its own. Wider fits more and costs more."""
    norm: bool = True
    """Layer-normalise the perceptron's hidden layers: values follow the target network without running away
    (Gallici et al. 2024). Off is the plain network."""
    batch_size: int = 64
    """Transitions in an update. Larger: smoother gradients, more work."""
    capacity: int = 50_000
    """Transitions remembered. Larger forgets later, and learns more from the past."""
    learning_starts: int = 1_000
    """Steps before the first update. Larger begins with more varied memories."""
    train_every: int = 16
    """Steps between two rounds of updates. Larger: fewer updates for each step."""
    gradient_steps: int = 8
    """Updates in a round. Larger learns more from each step, and overfits old ones sooner."""
    target_every: int = 100
    """Updates between two copies to the target network. Larger is stabler and slower."""


@dataclass(frozen=True)
class NStepConfig(DQNConfig):
    """Deep Q-network with returns of several steps (Sutton & Barto 2018, eq. 7.1), by default three."""

    n: int = 3
    """Steps in a return. More: news of a reward travels faster, with more variance, and with the bias of exploring."""


@dataclass(frozen=True)
class PrioritisedConfig(DQNConfig):
    """Deep Q-network that replays most what surprised most (Schaul et al. 2016), double as there."""

    priority: float = 0.6
    """Exponent of a surprise: 0 draws uniformly, 1 in proportion. Larger replays the surprising more."""
    importance: float = 0.4
    """How much of the bias of these draws is taken away at first, 1 being all. Larger is safer and slower."""
    importance_steps: int = 50_000
    """Steps over which that rises to 1. Larger keeps the bias longer."""


@dataclass(frozen=True)
class NoisyConfig(DQNConfig):
    """Deep Q-network whose weights are noisy and explore by themselves (Fortunato et al. 2018), without epsilon."""

    epsilon: float = 0.0
    """Chance of a random action at first, besides the noise. Larger explores more."""
    final_epsilon: float = 0.0
    """Chance of a random action in the end, besides the noise. Larger goes on exploring."""
    norm: bool = True
    """Layer-normalise what the first noisy layer reads, and no other layer: between noisy ones the noise decides. Off
    is the network of the paper."""
    sigma: float = 0.5
    """Spread of the weights at first, in units of 1/sqrt(inputs). Larger explores more."""


@dataclass(frozen=True)
class CategoricalConfig(DQNConfig):
    """C51: learns a histogram of the return (Bellemare et al. 2017)."""

    atoms: int = 51
    """Returns in the histogram. More resolve finer; the work grows with their square."""
    low: float | None = None
    """Smallest return that the histogram can say; by default from the exact values of a world that is a table. Lower:
    coarser between."""
    high: float | None = None
    """Largest return that the histogram can say; by default likewise. Higher: coarser between."""


@dataclass(frozen=True)
class QuantileConfig(DQNConfig):
    """QR-DQN: learns quantiles of the return (Dabney et al. 2018)."""

    quantiles: int = 32
    """How many. More resolve finer; the work of the loss grows with their square."""


@dataclass(frozen=True)
class RainbowConfig(NoisyConfig, PrioritisedConfig, CategoricalConfig):
    """Rainbow: double, dueling, prioritised, three steps, noisy, C51 (Hessel et al. 2018)."""

    n: int = 3
    """Steps in a return. More: news of a reward travels faster, with more variance, and with the bias of exploring."""


@dataclass(frozen=True)
class DoubleConfig(DQNConfig):
    """Deep Q-network whose target's action the online network chooses (van Hasselt et al. 2016)."""


@dataclass(frozen=True)
class DuelingConfig(DQNConfig):
    """Deep Q-network that learns values and advantages apart (Wang et al. 2016), double as there."""


Network = Callable[[Any, tuple[int, ...], int, int], Callable[[], nn.Module]]
"""(config, shape, actions A, atoms N) -> what constructs a network of A N outputs."""


def plain(config: DQNConfig, shape: tuple[int, ...], actions: int, atoms: int) -> Callable[[], nn.Module]:
    """The backbone itself."""
    return network_for(shape, config.hidden, actions * atoms, norm=config.norm, backbone=config.backbone)


def noisy(config: NoisyConfig, shape: tuple[int, ...], actions: int, atoms: int) -> Callable[[], nn.Module]:
    """A perceptron whose layers are noisy but for the first; a CNN, whose last layer of `hidden` width is."""
    if not config.hidden:
        raise AgentError("a noisy network has one hidden layer or more, expected their widths, as in --hidden 64 64")
    pictures = len(shape) == 3 and config.backbone != "mlp"
    widths = config.hidden[-1:] if pictures else config.hidden
    body = network_for(shape, (), widths[0], backbone=config.backbone)
    return lambda: Noisy(body(), widths, actions * atoms, norm=config.norm, sigma=config.sigma)


def dueling(under: Network) -> Network:
    """That network with the dueling head."""

    def make(config: Any, shape: tuple[int, ...], actions: int, atoms: int) -> Callable[[], nn.Module]:
        body = under(config, shape, 1 + actions, atoms)
        return lambda: Dueling(body(), actions, atoms)

    return make


def prioritised(config: PrioritisedConfig, keys: Tensor) -> Memories:
    """Memories by priority."""
    return PrioritisedReplay(
        config.capacity,
        keys,
        alpha=config.priority,
        beta=config.importance,
        beta_steps=config.importance_steps,
    )


@dataclass(frozen=True)
class Parts:
    """What an agent of this family is put together from."""

    method: Callable[[Any, World | GymWorld, torch.device | str], Method] = lambda config, world, device: Expected()
    successor: Successor = target_chooses
    network: Network = plain
    replay: Callable[[Any, Tensor], Memories] = lambda config, keys: Replay(config.capacity, keys)


def assemble(
    parts: Parts,
    config: Any,
    world: World | GymWorld,
    replicas: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> DQN:
    """R deep Q-networks of these parts for `world`."""
    shape, seeds = shape_of(config, world), replica_seeds(seed, replicas)
    method = parts.method(config, world, device)
    return DQN(
        parts.network(config, shape, world.actions, method.atoms),
        shape,
        seeds,
        method=method,
        successor=parts.successor,
        replay=parts.replay(config, stream_keys(seeds, "replay").to(device)),
        n=config.n,
        batch_size=config.batch_size,
        learning_starts=config.learning_starts,
        train_every=config.train_every,
        gradient_steps=config.gradient_steps,
        target_every=config.target_every,
        **scheduled(config, world),
        device=device,
    )


def has_room(config: DQNConfig, worlds: int) -> None:
    """AgentError where a step of every world is more than is remembered."""
    if config.capacity < worlds:
        raise AgentError(f"--capacity {config.capacity}: expected at least the {worlds} worlds of a replica")


def _histogram(config: CategoricalConfig, world: World | GymWorld, device: torch.device | str) -> Method:
    return Categorical(config.atoms, *range_of(config, world), device)


def _quantiles(config: QuantileConfig, world: World | GymWorld, device: torch.device | str) -> Method:
    return Quantiles(config.quantiles, device)


PARTS: dict[str, tuple[type[DQNConfig], Parts]] = {
    "dqn": (DQNConfig, Parts()),
    "double-dqn": (DoubleConfig, Parts(successor=online_chooses)),
    "dueling-dqn": (DuelingConfig, Parts(successor=online_chooses, network=dueling(plain))),
    "prioritised-dqn": (PrioritisedConfig, Parts(successor=online_chooses, replay=prioritised)),
    "n-step-dqn": (NStepConfig, Parts()),
    "noisy-dqn": (NoisyConfig, Parts(network=noisy)),
    "c51": (CategoricalConfig, Parts(method=_histogram)),
    "qr-dqn": (QuantileConfig, Parts(method=_quantiles)),
    "rainbow": (RainbowConfig, Parts(_histogram, online_chooses, dueling(noisy), prioritised)),
}

build_dqn = partial(assemble, Parts())
"""R plain deep Q-networks: `build_dqn(config, world, replicas, seed, device)`."""

AGENTS: dict[str, Recipe] = {
    name: Recipe(config, partial(assemble, parts), fits=has_room) for name, (config, parts) in PARTS.items()
}

TUNED = deep_tuned.TUNED
