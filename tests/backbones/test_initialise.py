"""First weights: every backbone gets all of its own from the generator alone, with the variance that is stated."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import backbones
from backbones.additive import AdditiveAttention
from backbones.classifiers import LeNet, ResNet
from backbones.cnn import atari, impala
from backbones.cpu.linear import Gated, Linear, Pointwise
from backbones.cpu.swift import Swift
from backbones.cpu.winograd import Winograd
from backbones.dit import DiT
from backbones.dueling import Dueling
from backbones.features import Fourier, Polynomial, TileCoding
from backbones.feed_forward import Plain
from backbones.gated import GatedAttention, MixedChunkAttention
from backbones.initialise import build
from backbones.linear_attention import LinearAttention
from backbones.mlp import MLP, ResidualMLP
from backbones.mlp_denoiser import MLPDenoiser
from backbones.moe import MoE
from backbones.noisy import Noisy
from backbones.packed import Packed, PackedAttention, PackedGate
from backbones.planner import Planner
from backbones.positions import Positions
from backbones.recurrent import Recurrent
from backbones.replicas import Replicas
from backbones.seq2seq import Seq2Seq
from backbones.sliding import SlidingAttention
from backbones.transformer import Transformer
from backbones.translator import EncoderDecoder
from backbones.unet import UNet
from backbones.vision import ViT


def gpt(**kind: Any) -> Callable[[], nn.Module]:
    return lambda: Transformer(vocabulary=20, width=16, depth=2, heads=4, length=8, **kind)


CASES: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP(6, [16, 8], 3, norm=True),
    "residual mlp": lambda: ResidualMLP(6, 8, 2, 3),
    "noisy dueling": lambda: Dueling(Noisy(MLP(6, [], 8), [8], 8, norm=True), 3, 2),
    "features": lambda: nn.Sequential(Polynomial(2, 3), Fourier(2, 3), TileCoding(2, 3, 4)),
    "atari": lambda: atari((2, 36, 36), 3),
    "impala": lambda: impala((2, 9, 9), 3),
    "planner": lambda: Planner((4, 5, 5), 3),
    "lenet": lambda: LeNet((1, 12, 12), 4),
    "resnet": lambda: ResNet(1, 4),
    "unet": lambda: UNet(2, 2, 8, (1, 2), 1, (1,), 3, head_width=8),
    "unet with a context": lambda: UNet(2, 2, 8, (1, 2), 1, (0,), 3, head_width=8, context=5),
    "perceptron of points": lambda: MLPDenoiser((2, 1, 1), 8, 2, 3),
    "vit": lambda: ViT(8, 2, 4, 16, 2, 4, 5),
    "vit, fixed positions": lambda: ViT(8, 2, 4, 16, 2, 4, 5, positions="sincos"),
    "vit, turned": lambda: ViT(8, 2, 4, 16, 2, 4, 5, positions="rotary"),
    "dit": lambda: DiT(8, 2, 4, 16, 2, 4, 3),
    "dit, each block for itself": lambda: DiT(8, 2, 4, 16, 2, 4, 3, own=True),
    **{f"transformer, {p}": gpt(positions=p) for p in ("rotary", "learned", "sinusoidal", "alibi", "relative")},
    "transformer, plain and untied": gpt(norm="layer", feed_forward="gelu", bias=True, tied=False),
    "mixture": lambda: MoE(lambda: Plain(8, 12, torch.relu, bias=True), 8, 4, 2, shared=1),
    "gated attention": lambda: GatedAttention(8, 12, 6),
    "mixed-chunk attention": lambda: MixedChunkAttention(8, 12, 6),
    "linear attention": lambda: LinearAttention(8, 2),
    "sliding window": lambda: SlidingAttention(8, 2, 3),
    "additive attention": lambda: AdditiveAttention(8, 8, 6),
    "recurrent": lambda: Recurrent("lstm", 5, 6, 2, bidirectional=True),
    "recurrent translator": lambda: Seq2Seq(9, 8, 6),
    "translator": lambda: EncoderDecoder(source=9, vocabulary=8, width=16, depth=2, heads=4),
}
APART = {Positions, Replicas, Packed, PackedAttention, PackedGate, Winograd, Linear, Pointwise, Gated, Swift}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", CASES)
def test_weights_are_a_function_of_the_generator(name: str):
    before = torch.random.get_rng_state()
    one = build(CASES[name], seeded(5)).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)  # the global generator has no part in it
        two, other = (build(CASES[name], seeded(seed)).state_dict() for seed in (5, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(weight.isfinite().all() for weight in one.values())
    drawn = [w for w in one if one[w].is_floating_point() and one[w].unique().numel() > 1 and "bias" not in w]
    fixed = {buffer for buffer, _ in CASES[name]().named_buffers()}
    assert all(not torch.equal(one[w], other[w]) for w in drawn if w not in fixed)


def modules() -> Iterator[type[nn.Module]]:
    """Every public module class of the package."""
    for found in pkgutil.walk_packages(backbones.__path__, "backbones."):
        for name, member in inspect.getmembers(importlib.import_module(found.name), inspect.isclass):
            if issubclass(member, nn.Module) and member.__module__ == found.name and not name.startswith("_"):
                yield member


def test_the_cases_are_all_there_are():
    built = {type(module) for make in CASES.values() for module in make().modules()}
    assert {module.__name__ for module in set(modules()) - built - APART} == set()


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: nn.Linear(300, 200), 300),
        (lambda: nn.Conv2d(30, 64, 3), 30 * 9),
        (lambda: nn.Conv2d(64, 96, 3, groups=4), 16 * 9),
        (lambda: nn.Conv1d(40, 64, 5), 200),
        (lambda: nn.ConvTranspose2d(64, 30, 3), 30 * 9),
    ],
)
def test_maps_are_uniform_with_the_variance_of_one_third_of_the_inverse_fan_in(
    layer: Callable[[], nn.Module], fan_in: int
):
    made = build(layer, seeded(0))
    weight = torch.cat([w.flatten() for w in made.parameters()])
    bound = 1 / math.sqrt(fan_in)
    assert weight.abs().max() <= bound
    assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.03)
    assert weight.mean().abs().item() < 0.02 * bound
    with torch.random.fork_rng(devices=[]):
        peer = layer().get_parameter("weight")  # torch's own draw of its default
    assert made.get_parameter("weight").std().item() == pytest.approx(peer.std().item(), rel=0.03)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(7), nn.BatchNorm2d(7), nn.GroupNorm(1, 7), nn.LayerNorm(7), nn.RMSNorm(7)], ids=repr
)
def test_norms_start_as_one_and_zero(norm: nn.Module):
    with torch.no_grad():
        for weight in norm.parameters():
            weight.fill_(5)
    made = dict(build(lambda: norm, seeded(0)).named_parameters())
    assert all(torch.equal(w, torch.full_like(w, float(name == "weight"))) for name, w in made.items())


def test_embeddings_have_unit_variance():
    weight = build(lambda: nn.Embedding(300, 50), seeded(0)).weight
    assert weight.var().item() == pytest.approx(1, rel=0.03)


def test_a_layer_without_a_rule_is_refused():
    with pytest.raises(TypeError, match="Bilinear has weights but neither a rule here nor a method initialise"):
        build(lambda: nn.Sequential(nn.Bilinear(2, 2, 2)), seeded(0))
