"""Every backbone held three times in one module against three of them, each by itself: values and all gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from backbones.classifiers import LeNet, ResNet
from backbones.cnn import atari, grid, impala
from backbones.dit import DiT
from backbones.features import Fourier
from backbones.gated import GatedAttention, MixedChunkAttention
from backbones.initialise import build
from backbones.linear_attention import LinearAttention
from backbones.mlp import MLP, ResidualMLP
from backbones.recurrent import Recurrent
from backbones.replicas import Replicas
from backbones.seq2seq import Seq2Seq
from backbones.shape import ShapeError
from backbones.sliding import SlidingAttention
from backbones.transformer import Transformer
from backbones.translator import EncoderDecoder
from backbones.unet import UNet
from backbones.vision import ViT

R, B, T = 3, 4, 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 99) -> torch.Tensor:
    return torch.randn(R, B, *shape, generator=seeded(seed))


def words(below: int, *shape: int) -> torch.Tensor:
    return torch.randint(below, (R, B, *shape), generator=seeded(98))


class Remembering(nn.Module):
    """A picture a step, convolved, remembered, judged: layers of three kinds, not all of which stack."""

    def __init__(self) -> None:
        super().__init__()
        self.eye, self.memory, self.head = grid((2, 4, 4), 8), Recurrent("lstm", 8, 6, 2), MLP(6, [5], 3)

    def forward(self, x: torch.Tensor, state: torch.Tensor, reset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.eye(x.flatten(0, 1)).view(*x.shape[:2], -1)
        out, state = self.memory(seen, state, reset)
        return self.head(out.flatten(0, 1)).view(*x.shape[:2], -1), state


def gpt(**kind: Any) -> Callable[[], nn.Module]:
    return lambda: Transformer(vocabulary=20, width=16, depth=2, heads=4, **kind)


GPT2 = {"norm": "layer", "feed_forward": "gelu-tanh", "positions": "learned", "length": 8, "bias": True}
RESETS = torch.rand(R, B, T, generator=seeded(97)) < 0.3
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor | None, ...]]] = {
    "mlp": (lambda: MLP(6, [16, 8], 3, norm=True), (draw(2, 3),)),
    "residual mlp": (lambda: ResidualMLP(6, 8, 2, 3), (draw(2, 3),)),
    "linear in features": (lambda: nn.Sequential(Fourier(2, 3), nn.Linear(16, 3, bias=False)), (draw(2).sigmoid(),)),
    "atari": (lambda: atari((2, 36, 36), 3), (draw(2, 36, 36),)),
    "atari, bytes": (lambda: atari((2, 36, 36), 3), (words(256, 2, 36, 36).to(torch.uint8),)),
    "grid": (lambda: grid((2, 5, 4), 3), (draw(2, 5, 4),)),
    "impala": (lambda: impala((2, 9, 9), 3), (draw(2, 9, 9),)),
    "lenet": (lambda: LeNet((1, 12, 12), 4), (draw(1, 12, 12),)),
    "unet": (lambda: UNet(2, 2, 8, (1, 2), 1, (1,), 3, head_width=8), (draw(2, 8, 8), draw().abs(), words(3))),
    "vit": (lambda: ViT(8, 2, 4, 16, 2, 4, 5), (draw(2, 8, 8),)),
    "dit": (lambda: DiT(8, 2, 4, 16, 2, 4, 3), (draw(2, 8, 8), draw().abs(), words(3))),
    "llama": (gpt(groups=2), (words(20, T),)),
    "gpt-2": (gpt(**GPT2), (words(20, T),)),
    "encoder with relative positions": (gpt(positions="relative", causal=False), (words(20, T),)),
    "gated attention": (lambda: GatedAttention(8, 12, 6), (draw(T, 8),)),
    "mixed-chunk attention": (lambda: MixedChunkAttention(8, 12, 6, chunk=4), (draw(T, 8),)),
    "linear attention": (lambda: LinearAttention(8, 2), (draw(T, 8),)),
    "sliding window": (lambda: SlidingAttention(8, 2, 3), (draw(T, 8),)),
    "rnn": (lambda: Recurrent("rnn", 5, 6), (draw(T, 5),)),
    "gru": (lambda: Recurrent("gru", 5, 6, 2), (draw(T, 5), draw(1, 2, 6), RESETS)),
    "lstm": (lambda: Recurrent("lstm", 5, 6, 2), (draw(T, 5), draw(2, 2, 6), RESETS)),
    "lstm, one step": (lambda: Recurrent("lstm", 5, 6, 2), (draw(1, 5), draw(2, 2, 6), RESETS[:, :, :1])),
    "gru in both directions": (lambda: Recurrent("gru", 5, 6, 2, bidirectional=True), (draw(T, 5), None, RESETS)),
    "layers of three kinds": (Remembering, (draw(T, 2, 4, 4), draw(2, 2, 6), RESETS)),
    "recurrent translator": (lambda: Seq2Seq(9, 8, 6), (words(9, T), words(8, 5), words(T) + 1)),
    "translator": (
        lambda: EncoderDecoder(source=9, vocabulary=8, width=16, depth=2, heads=4),
        (words(9, T), words(8, 5)),
    ),
}


def lively(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """With what starts at zero moved away from it, so that there is something to compare."""

    class Lively(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make()
            self.stacks = getattr(self.net, "stacks", False)

        @torch.no_grad()
        def initialise(self, generator: torch.Generator) -> None:
            for weight in self.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))

        def forward(self, *inputs: torch.Tensor | None) -> Any:
            return self.net(*inputs)

    return Lively


def loss(out: Any) -> torch.Tensor:
    return sum(((part * torch.linspace(-1, 1, part.numel()).view_as(part)).sum() for part in out), torch.zeros(()))


@pytest.mark.parametrize("name", CASES)
def test_together_equals_alone(name: str):
    make, inputs = lively(CASES[name][0]), CASES[name][1]
    together, alone = Replicas(make, [seeded(r) for r in range(R)]), [build(make, seeded(r)) for r in range(R)]
    own = [tuple(None if x is None else x[r].clone() for x in inputs) for r in range(R)]
    learnable = [x.requires_grad_() for x in inputs if x is not None and x.is_floating_point()]
    of_own = [[x.requires_grad_() for x in xs if x is not None and x.is_floating_point()] for xs in own]
    out = together(*inputs)
    parts = out if isinstance(out, tuple) else (out,)
    grad, *from_inputs = torch.autograd.grad(
        sum(loss([part[r] for part in parts]) for r in range(R)), [together.weights, *learnable]
    )
    for r, network in enumerate(alone):
        truth = network(*own[r])
        truth = truth if isinstance(truth, tuple) else (truth,)
        assert len(parts) == len(truth)
        for part, true in zip(parts, truth, strict=True):
            assert true.std() > 1e-3
            torch.testing.assert_close(part[r], true, rtol=1e-4, atol=1e-5)
        weights = list(network.parameters())
        gradients = torch.autograd.grad(loss(truth), [*weights, *of_own[r]], allow_unused=True, materialize_grads=True)
        flat = torch.cat([g.flatten() for g in gradients[: len(weights)]])
        torch.testing.assert_close(grad[r, : len(flat)], flat, rtol=1e-3, atol=1e-4 * flat.abs().max().item())
        for mine, true in zip(from_inputs, gradients[len(weights) :], strict=True):
            torch.testing.assert_close(mine[r], true, rtol=1e-3, atol=1e-4 * true.abs().max().item())


def test_a_network_with_running_statistics_is_refused():
    with pytest.raises(ValueError, match=r"\(BatchNorm2d\) keeps running statistics"):
        Replicas(lambda: ResNet(1, 3), [seeded(0)])


def test_a_mixture_of_experts_is_refused():
    with pytest.raises(ValueError, match=r"stack\.blocks\.0\.feed_forward \(MoE\) reads its own numbers"):
        Replicas(gpt(experts=3), [seeded(0)])


def test_a_batch_for_another_number_of_networks_is_refused():
    with pytest.raises(ShapeError, match=r"Replicas: x has shape \[3, 4\], expected \[2, B, \.\.\.\]"):
        Replicas(lambda: MLP(4, [], 2), [seeded(0), seeded(1)])(torch.zeros(3, 4))
