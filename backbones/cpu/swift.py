"""A copy of a network that answers sooner, on a CPU and without gradients.

    quick = swift(network)      # the same answers, but for rounding: off by some 1e-5

Its 3x3 convolutions go Winograd's way (`winograd`), its linear layers (`linear`) and its attention (`attention`) by our
kernels; what those are not for stays as it was. A row of a batch depends on no other row, as before.
"""

from __future__ import annotations

import copy
from typing import cast

from torch import nn

from backbones.attention import Attention
from backbones.cpu import attention, linear, winograd
from backbones.unet_blocks import PixelAttention


def swift(module: nn.Module) -> nn.Module:
    """A copy of a network for sampling; it takes no gradients. Further training of `module` is not seen by it."""
    made = copy.deepcopy(module).eval().requires_grad_(False)
    for name, layer in list(made.named_modules()):
        if isinstance(layer, Attention | PixelAttention):
            layer.attend = attention.attend
        path, _, leaf = name.rpartition(".")
        if name and winograd.fits(layer):
            setattr(made.get_submodule(path), leaf, winograd.Winograd(cast(nn.Conv2d, layer)))
        elif name and linear.fits_pixels(layer):
            setattr(made.get_submodule(path), leaf, linear.Pointwise(cast(nn.Conv2d, layer)))
        elif name and linear.fits(layer):
            setattr(made.get_submodule(path), leaf, linear.Linear(cast(nn.Linear, layer)))
    return made
