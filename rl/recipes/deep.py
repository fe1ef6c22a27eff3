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
from rl.recipe import Backbone, Recipe, gamma_of, network_for, replica_seeds, shape_of
from rl.recipes import deep_tuned


@dataclass(frozen=True)
class DQNConfig:
    """Deep Q-network (Mnih et al. 2015); with `n` steps in a return, by default one."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead and is harder to learn."""
    n: int = 1
    """Steps in a return. More: news of a reward travels faster, with more variance, and with the bias of exploring."""
    observation: str = "one-hot"
    """What the agent sees of a world that is a table: one-hot, coordinates, or one of planes, window-5 and rgb, which a
    CNN reads. Other worlds show what they show."""
    backbone: Backbone = "auto"
    """The network: a perceptron, a CNN, or the residual one of IMPALA, which is larger and slower; auto takes the CNN
    where the observation is a picture."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the perceptron's hidden layers; a CNN has its own. Wider fits more and costs more."""
    norm: bool = True
    """Layer-normalise the perceptron's hidden layers: values follow the target network without running away
    (Gallici et al. 2024). Off is the plain network."""
    learning_rate: float = 1e-3
    """Adam's step size at first. Larger learns faster until it diverges."""
    final_learning_rate: float = 1e-4
    """Adam's step size in the end. Smaller settles on one policy; larger goes on learning."""
    learning_rate_steps: int = 50_000
    """Steps over which the step size goes from the one to the other. Larger settles later."""
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
    epsilon: float = 1.0
    """Chance of a random action at first. Larger explores more."""
    final_epsilon: float = 0.05
    """Chance of a random action in the end. Larger goes on exploring."""
    exploration_steps: int = 10_000
    """Steps over which the chance falls from the one to the other. Larger explores longer."""
    clip: float = 10.0
    """Largest norm of a replica's gradient. Smaller is safer and slower."""


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
    sigma: float = 0.5
    """Spread of the weights at first, in units of 1/sqrt(inputs). Larger explores more."""


@dataclass(frozen=True)
class CategoricalConfig(DQNConfig):
    """C51: learns a histogram of the return (Bellemare et al. 2017)."""

    atoms: int = 51
    """Returns in the histogram. More resolve finer; the work grows with their square."""
    low: float = -10.0
    """Smallest return that the histogram can say. Lower: coarser between."""
    high: float = 10.0
    """Largest return that the histogram can say. Higher: coarser between."""


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

    method: Callable[[Any, torch.device | str], Method] = lambda config, device: Expected()
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
    method = parts.method(config, device)
    return DQN(
        parts.network(config, shape, world.actions, method.atoms),
        shape,
        seeds,
        method=method,
        successor=parts.successor,
        replay=parts.replay(config, stream_keys(seeds, "replay").to(device)),
        gamma=gamma_of(config, world),
        n=config.n,
        learning_rate=(config.learning_rate, config.final_learning_rate),
        learning_rate_steps=config.learning_rate_steps,
        batch_size=config.batch_size,
        learning_starts=config.learning_starts,
        train_every=config.train_every,
        gradient_steps=config.gradient_steps,
        target_every=config.target_every,
        epsilon=(config.epsilon, config.final_epsilon),
        epsilon_steps=config.exploration_steps,
        clip=config.clip,
        device=device,
    )


def _histogram(config: CategoricalConfig, device: torch.device | str) -> Method:
    return Categorical(config.atoms, config.low, config.high, device)


def _quantiles(config: QuantileConfig, device: torch.device | str) -> Method:
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

AGENTS: dict[str, Recipe] = {name: Recipe(config, partial(assemble, parts)) for name, (config, parts) in PARTS.items()}

TUNED = deep_tuned.TUNED
