"""Any backbone under a stable-baselines3 agent.

    PPO("MlpPolicy", world, policy_kwargs=policy_kwargs(cnn.grid, features=64, seed=0))

stable-baselines3 splits a policy into a features extractor, which reads the observation, and heads, which give actions
and values. Here the extractor is the backbone, and the heads are affine maps of its outputs: the whole is the backbone
with an output for each head. No relu stands between, so a backbone whose last layer starts at zero learns too.

The backbone's weights are drawn from `seed` by `backbones.initialise` and stay so: the orthogonal weights that
stable-baselines3 gives PPO and A2C reach the heads alone. Its DQN makes two extractors (online and target), which begin
equal. Everything else that is random there follows its own `seed=`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gymnasium import spaces
from jaxtyping import Float, Shaped
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from backbones.initialise import build
from lab import streams

Make = Callable[[Sequence[int], int], nn.Module]  # (shape of one observation, numbers out) -> a network


class Features(BaseFeaturesExtractor):  # type: ignore[misc]  # the library is not typed here
    """A network as features extractor, with weights drawn from a seed.

    Args:
        observation_space: given by stable-baselines3. What is discrete there is read as one-hot vectors.
        make: constructs the network from an observation's shape and the numbers out, as `cnn.grid` does.
        features: numbers out.
        seed: of the first weights.

    Raises:
        ValueError: for a space whose observations are no single tensor.
    """

    def __init__(self, observation_space: spaces.Space[Any], make: Make, features: int, seed: int) -> None:
        if isinstance(observation_space, spaces.Dict | spaces.Tuple):
            raise ValueError(f"a backbone reads one tensor, and observations here are {observation_space}")
        super().__init__(observation_space, features)
        shape: tuple[int, ...] = (int(get_flattened_obs_dim(observation_space)),)  # of one-hot vectors
        if isinstance(observation_space, spaces.Box):
            shape = observation_space.shape
        self.network = build(lambda: make(shape, features), streams.generator(seed, "features"))

    def forward(self, observations: Shaped[Tensor, "B *shape"]) -> Float[Tensor, "B F"]:
        """What stable-baselines3 has preprocessed (bytes in [0, 1], states one-hot) -> what its heads read."""
        return self.network(observations)

    def apply(self, fn: Callable[[nn.Module], None]) -> Features:
        """Nothing: `fn` would draw the weights again, from torch's global generator, and by another rule."""
        return self


def policy_kwargs(make: Make, features: int = 64, *, seed: int) -> dict[str, Any]:
    """The `policy_kwargs` of any stable-baselines3 algorithm that put `make(shape, features)` under it.

    Args:
        make: as for `Features`: `cnn.grid`, `cnn.atari`, `cnn.impala`, or any function of a shape and a number.
        features: numbers that the backbone gives the heads. More tell them more.
        seed: of the backbone's first weights.
    """
    return {
        "features_extractor_class": Features,
        "features_extractor_kwargs": {"make": make, "features": features, "seed": seed},
        "net_arch": [],  # no further hidden layer
    }
