"""Counts of numbers and operations against formulas worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones.attention import Attention
from backbones.cnn import CNN, Convolution
from backbones.cost import flops, parameters
from backbones.feed_forward import Plain
from backbones.masks import CAUSAL
from backbones.mlp import MLP
from backbones.moe import MoE
from backbones.recurrent import GATES, Recurrent
from backbones.transformer import Transformer
from generative.language.model import LanguageModel


def test_perceptron():
    network = MLP(10, [20, 30], 5)
    assert parameters(network) == 10 * 20 + 20 + 20 * 30 + 30 + 30 * 5 + 5
    assert flops(network, torch.zeros(7, 10)) == 2 * (10 * 20 + 20 * 30 + 30 * 5)


def test_convolutions():
    """Each of the outgoing pixels is a product with one filter of incoming channels x size x size."""
    network = CNN((3, 20, 16), [Convolution(8, 4, stride=2, padding=1), Convolution(6, 3)], [11], 2)
    pixels = (10 * 8, 8 * 6)
    convolutions = pixels[0] * 8 * 3 * 4 * 4 + pixels[1] * 6 * 8 * 3 * 3
    assert flops(network, torch.zeros(5, 3, 20, 16)) == 2 * (convolutions + pixels[1] * 6 * 11 + 11 * 2)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent(kind: str, bidirectional: bool):
    """A step of a layer: every gate of every unit is a product with the inputs and the units."""
    network = Recurrent(kind, 5, 16, 2, bidirectional=bidirectional)
    ways = 1 + bidirectional
    step = ways * 2 * GATES[kind] * 16 * ((5 + 16) + (ways * 16 + 16))
    assert flops(network, torch.zeros(3, 9, 5)) == 9 * step


@pytest.mark.parametrize("groups", [4, 2])
def test_llama_costs_two_a_weight_and_four_t_d_a_layer(groups: int):
    """Kaplan et al. 2020, table 1: 2 N a token, and for attention to T keys 2 T D for scores and 2 T D for values."""
    model = Transformer(vocabulary=50, width=32, depth=3, heads=4, groups=groups, tied=False)
    tokens = torch.zeros(2, 13, dtype=torch.int64)
    matrices = sum(w.numel() for name, w in model.stack.named_parameters() if w.ndim == 2)
    assert flops(model, tokens) == 13 * (2 * matrices + 3 * 4 * 13 * 32)


def test_shared_weights_count_once_and_frozen_ones_not():
    tied, free = (Transformer(vocabulary=50, width=32, depth=1, heads=4, tied=tied) for tied in (True, False))
    assert parameters(free) - parameters(tied) == 50 * 32
    tied.embedding.requires_grad_(False)
    assert parameters(free) - parameters(tied) == 2 * 50 * 32


def test_a_mixture_costs_its_active_experts_and_counts_no_load_meanwhile():
    mixture = MoE(lambda: Plain(8, 16, torch.relu, bias=False), 8, 6, 2, shared=1)
    with torch.no_grad():
        mixture.router.weight.copy_(torch.eye(6, 8))
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
    assert flops(mixture, x) == 5 * 2 * (8 * 6 + (2 + 1) * 2 * 8 * 16)
    assert not mixture.load.any()


@pytest.mark.parametrize("experts", [None, 4])
def test_the_head_of_a_large_vocabulary_counts_for_the_tokens_that_are_judged(experts: int | None):
    """Which those are is read from the numbers; the product is then oneDNN's, where torch has it."""
    width, words, length = 128, 4096, 10
    transformer = Transformer(vocabulary=words, width=width, depth=1, heads=4, hidden=24, experts=experts)
    score = torch.zeros(2, length, dtype=torch.bool)
    score[:, 4:] = True
    network = 2 * 3 * width * 24 * (2 if experts else 1) + 2 * width * (experts or 0)  # two experts, and the router
    expected = length * (2 * 4 * width**2 + network + 4 * length * width) + 6 * 2 * words * width
    assert flops(LanguageModel(transformer), torch.zeros(2, length, dtype=torch.int64), score) == expected


class Reader(nn.Module):
    """Looks at a number before it attends, so that no pass without numbers can count it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(8, 4, 2)
        self.lstm = nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.attention(x, CAUSAL))[0] if x.sum().item() == 0 else x


def test_a_pass_with_numbers_counts_the_kernels_of_the_cpu_alike():
    projections = 2 * (8 * 8 + 8 * 4 * 2 + 8 * 8)
    assert flops(Reader(), torch.zeros(3, 9, 8)) == 9 * (projections + 4 * 9 * 8 + 2 * 4 * 6 * (8 + 6))


def test_nothing_is_moved_and_the_sizes_may_be_absurd():
    with torch.device("meta"):
        network = MLP(10**6, [10**6], 10**6)
    assert flops(network, torch.zeros(1, 10**6)) == 4 * 10**12
    small = MLP(4, [], 2)
    before = [w.clone() for w in small.parameters()]
    flops(small, torch.zeros(1, 4))
    assert all(torch.equal(a, b) and a.device.type == "cpu" for a, b in zip(small.parameters(), before, strict=True))


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="needs a batch as first input"):
        flops(MLP(4, [], 2), torch.zeros(0, 4))
