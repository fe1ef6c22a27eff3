"""What is to be expected of a badge on an icon, without any model: the plain icon, and the badge's usual pixels on it.

A badge's usual pixels are the medians over the icons that have it, where most of them differ from their plain icon.
It is told what the model is not, that a name ends in a badge and which icons belong together, and takes the plain icon
as it is; so its share says how much of the composition is in the pixels themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

DIFFERENT = 0.2
"""Of a colour's range of 2: the distance from which on a pixel is another one."""


def pasted(icons: Mapping[str, Float[Tensor, "C H W"]], name: str) -> Float[Tensor, "C H W"]:
    """The icon expected for "thing badge", from the learned ones alone.

    Raises KeyError where the plain thing is not learned, and ValueError where no learned thing has the badge.
    """
    thing, _, badge = name.rpartition(" ")
    having = [other for other in icons if other.rpartition(" ")[2] == badge and other.rpartition(" ")[0] in icons]
    if not having:
        raise ValueError(f"{name!r}: no learned icon has the badge {badge!r} and is learned without it")
    badged = torch.stack([icons[other] for other in having])  # [N, C, H, W]
    plain = torch.stack([icons[other.rpartition(" ")[0]] for other in having])
    differs = (badged - plain).abs().amax(1) > DIFFERENT  # [N, H, W]
    return torch.where(differs.double().mean(0) > 0.5, badged.median(0).values, icons[thing])
