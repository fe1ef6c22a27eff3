"""Two networks that name what a small picture shows, a generation apart.

* `LeNet`: convolution, subsampling, convolution, subsampling, three layers. LeCun, Bottou, Bengio & Haffner,
  "Gradient-based learning applied to document recognition", Proc. IEEE 1998, fig. 2 and sec. II-B.
* `ResNet`: 6 n + 2 layers in three stages of residual blocks. He, Zhang, Ren & Sun, "Deep residual learning for image
  recognition", CVPR 2016, sec. 4.2 (the form for CIFAR-10), with the shortcuts of option A, which have no weights.

Key: B batch, C channels, H x W pixels, K classes, D channels of a stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.mlp import MLP
from backbones.shape import wrong


def squash(x: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """1.7159 tanh(2/3 x), which takes 1 to 1 and -1 to -1 (LeCun et al. 1998, eq. 6 and appendix A)."""
    return 1.7159 * torch.tanh(2 / 3 * x)


class LeNet(nn.Module):
    """LeNet-5: 61,706 weights for ten classes of 28 x 28 pixels.

    It departs from the paper where later use has settled: every map of the second convolution reads all maps of the
    first (the paper's table 1 leaves some out), subsampling is a plain mean, and the output is affine, not radial.

    Args:
        shape: (channels, height, width) of a picture.
        classes: K.
        padding: zeros around the input of each convolution. (2, 0) makes of 28 x 28 pixels the paper's field of 32;
            pictures below 12 pixels need (2, 2), which keeps their size.

    Raises:
        ValueError: where a picture is too small.
    """

    def __init__(self, shape: Sequence[int], classes: int, padding: tuple[int, int] = (2, 0)) -> None:
        super().__init__()
        self.shape = tuple(shape)
        channels, height, width = self.shape
        for p in padding:
            height, width = ((side + 2 * p - 4) // 2 for side in (height, width))
            if height < 1 or width < 1:
                raise ValueError(f"LeNet with padding {padding}: pictures of {self.shape} are too small")
        self.first = nn.Conv2d(channels, 6, 5, padding=padding[0])
        self.second = nn.Conv2d(6, 16, 5, padding=padding[1])
        self.head = MLP(16 * height * width, [120, 84], classes, activation=squash)

    def initialise(self, generator: torch.Generator) -> None:
        """Uniform of variance 1 / fan_in, which `squash` keeps (LeCun et al. 1998, "Efficient BackProp", eq. 16)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                bound = (3 / module.weight[0].numel()) ** 0.5
                module.weight.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Unnormalised log-probabilities of the classes."""
        if tuple(x.shape[1:]) != self.shape:
            raise wrong("LeNet: x", x, f"[B, {', '.join(map(str, self.shape))}]")
        for convolution in (self.first, self.second):
            x = functional.avg_pool2d(squash(convolution(x)), 2)
        return self.head(x)


class Residual(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))   (He et al. 2016, fig. 2 and eq. 1)

    The shortcut is x; where the block halves the picture and has more channels, it is every other pixel, with zeros
    for the channels that are new (option A).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.new = stride, out_channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + (functional.pad(x, (0, 0, 0, 0, 0, self.new)) if self.new else x))


class ResNet(nn.Module):
    """A convolution, three stages of `blocks` residual blocks, the mean over all pixels, an affine layer.

    The stages have `width`, 2 `width` and 4 `width` channels; the second and the third start by halving the picture.
    With width 16 and 3 blocks it is the paper's ResNet-20, of 0.27 million weights (table 6). Pictures may have any
    size from 1 x 1; activations are kept channels_last, which is faster.

    Args:
        channels: C.
        classes: K.
        width: channels of the first stage.
        blocks: n, residual blocks a stage; 6 n + 2 layers in all.
    """

    def __init__(self, channels: int, classes: int, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        layers = [Residual(width, width) for _ in range(blocks)]
        for stage in (1, 2):
            wide = width * 2**stage
            layers += [Residual(wide // 2, wide, stride=2), *(Residual(wide, wide) for _ in range(blocks - 1))]
        self.stages = nn.Sequential(*layers)
        self.output = nn.Linear(4 * width, classes)

    def initialise(self, generator: torch.Generator) -> None:
        """Convolutions from N(0, 2 / fan_out), fan_out = 9 D: He et al. 2015, eq. 14, as sec. 3.4 says."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                deviation = (2 / (module.out_channels * 9)) ** 0.5
                module.weight.normal_(std=deviation, generator=generator)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Unnormalised log-probabilities of the classes."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise wrong("ResNet: x", x, f"[B, {self.channels}, H, W]")
        x = self.stem(x).contiguous(memory_format=torch.channels_last)  # of one channel, torch cannot tell which last
        x = self.stages(torch.relu(self.norm(x)))
        return self.output(x.mean((2, 3)))
