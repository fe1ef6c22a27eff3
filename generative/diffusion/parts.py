"""What draws: a network with the parts around it, whoever made them; ours (`pipeline`), or diffusers' (`stock`)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.latents.text import Text
from generative.diffusion.solvers.table import Compiler
from generative.diffusion.stock.adapters import Latents
from lab import streams

P = TypeVar("P", bound="Parts")


class Parts:
    """A network that is called as the engine calls it, and what prompts and latents need.

    Attributes:
        network: ours.
        shape: of a sample: an image, or a latent where there are `latents`.
        classes: number of labels, or None for a network that is told none.
        latents: the autoencoder, where samples are latents.
        text: tokenizer and encoder, where the network reads prompts.
        learned_variance: whether the network also says the variance of DDPM's noise (`training.variance`).
        self_conditioned: whether it is shown its last estimate (`training.self_conditioning`).
    """

    network: nn.Module
    shape: tuple[int, int, int]
    classes: int | None
    latents: Latents | None
    text: Text | None
    learned_variance: bool = False
    self_conditioned: bool = False

    def compiler(self) -> Compiler:
        """What makes the tables of the solvers that requests name."""
        raise NotImplementedError

    @property
    def image(self) -> tuple[int, int, int]:
        """[C, H, W] of an image: of a sample, or of what the autoencoder makes of one."""
        if self.latents is None:
            return self.shape
        config, (_, height, width) = self.latents.autoencoder.config, self.shape
        times = 2 ** (len(config.block_out_channels) - 1)  # each level after the first halves an image
        return config.in_channels, height * times, width * times

    def engine(
        self,
        rows: int = 64,
        *,
        prove: bool = False,
        mode: str = "eager",
        network_dtype: torch.dtype | None = None,
    ) -> Engine:
        """The loop that samples it, on the network's device.

        `prove`, `mode`, `network_dtype`, to which the network was moved before, and what it raises: see `Engine`.
        """
        device = next(self.network.parameters()).device
        null = self.conditions([""])[0] if self.text is not None else None
        return Engine(
            self.network,
            self.shape,
            self.compiler(),
            rows=rows,
            classes=self.classes,
            null=null,
            device=device,
            variance=self.learned_variance,
            self_conditioned=self.self_conditioned,
            network_dtype=network_dtype,
            mode=mode,
            prove=prove,
        )

    def conditions(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """The condition of each prompt, for a request. Raises ValueError where the network reads none."""
        if self.text is None:
            raise ValueError(f"the network reads no prompts; given {len(prompts)}")
        told = self.text.encode(prompts)
        return [{name: each[i] for name, each in told.items()} for i in range(len(prompts))]

    def clip(self, solver: str) -> float | None:
        """Bound on a solver's estimates of the clean data, as it is usually drawn with; by default the solver's own."""
        return None

    def requests(
        self,
        told: Sequence[int | str | None],
        *,
        seed: int,
        solver: str = "dpmpp-2m",
        steps: int = 25,
        guidance: float = 1.0,
    ) -> list[Request]:
        """One request for each label or prompt (None: for anything), image i from stream i of the seed.

        So a longer list begins with the same images.

        Raises:
            ValueError: for a prompt to a network that reads none, or what is neither label nor prompt.
        """
        strange = [each for each in told if not (each is None or isinstance(each, Integral | str))]
        if strange:
            raise ValueError(f"told {strange[0]!r}; expected a label, a prompt or None")
        words = list(dict.fromkeys(each for each in told if isinstance(each, str)))
        condition: Mapping[str, Any] = dict(zip(words, self.conditions(words) if words else [], strict=True))
        return [
            Request(
                streams.derive(seed, "image", i),
                solver,
                steps,
                1.0 if each is None else guidance,
                int(each) if isinstance(each, Integral) else None,
                self.clip(solver),
                condition=condition[each] if isinstance(each, str) else None,
            )
            for i, each in enumerate(told)
        ]

    def sample(
        self,
        told: Sequence[int | str | None],
        *,
        seed: int,
        solver: str = "dpmpp-2m",
        steps: int = 25,
        guidance: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Float[Tensor, "N C H W"]:
        """One image in [-1, 1] for each label or prompt (None: for anything).

        `progress` hears how many were just finished.

        Raises:
            RequestError: for a label, solver or number of steps that there is not.
            ValueError: for a prompt to a network that reads none.
        """
        wanted = self.requests(told, seed=seed, solver=solver, steps=steps, guidance=guidance)
        return self.decode(self.engine().sample(wanted, progress))

    def decode(self, samples: Float[Tensor, "N c h w"]) -> Float[Tensor, "N C H W"]:
        """Images in [-1, 1], cut off there."""
        return samples.clamp(-1, 1) if self.latents is None else self.latents.decode(samples)

    def encode(
        self, images: Float[Tensor, "N C H W"], noise: Float[Tensor, "N c h w"] | None = None
    ) -> Float[Tensor, "N c h w"]:
        """The sample that each image in [-1, 1] is, for a request's `init`; `noise` as `Latents.encode` takes it."""
        return images if self.latents is None else self.latents.encode(images, noise)

    def using(self: P, network: nn.Module) -> P:
        """The same parts around another network."""
        made = copy.copy(self)
        object.__setattr__(made, "network", network)  # also of a frozen one
        return made

    def to(self: P, device: torch.device | str) -> P:
        """Move all parts there, and return this."""
        self.network.to(device)
        if self.latents is not None:
            self.latents.autoencoder.to(device)
        if self.text is not None:
            self.text.encoder.to(device)
        return self
