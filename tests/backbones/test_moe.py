"""The mixture of experts against a loop over tokens, against Hugging Face's two, and its balance against its rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DeepseekV3Config, MixtralConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from backbones import feed_forward, moe
from backbones.initialise import build
from backbones.moe import MoE, balance, max_violation
from backbones.shape import ShapeError
from backbones.transformer import Transformer

D, E, K, HIDDEN = 12, 6, 2, 20


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(**changes: Any) -> MoE:
    arguments: dict[str, Any] = {"experts": E, "active": K, "shared": 1, **changes}
    layer = build(lambda: MoE(lambda: feed_forward.SwiGLU(D, HIDDEN, bias=False), D, **arguments), generator()).double()
    layer.bias.copy_(torch.randn(arguments["experts"], generator=generator(1), dtype=torch.float64) / 4)
    return layer


def tokens(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, D, generator=generator(seed), dtype=torch.float64)


def by_hand(layer: MoE, x: Tensor, affinity: str) -> Tensor:
    """One token and one expert at a time."""
    rows = []
    for token in x:
        if affinity == "sigmoid":
            scores = [1 / (1 + torch.exp(-(r @ token))) for r in layer.router.weight]
        else:
            total = sum(torch.exp(r @ token) for r in layer.router.weight)
            scores = [torch.exp(r @ token) / total for r in layer.router.weight]
        wish = [float(s.detach()) + float(b) for s, b in zip(scores, layer.bias, strict=True)]
        chosen = sorted(range(len(wish)), key=lambda i: -wish[i])[: layer.active]
        total = sum(scores[i] for i in chosen)
        y = sum(scores[i] / total * layer.experts[i](token) for i in chosen)
        rows.append(y + sum(shared(token) for shared in layer.shared))
    return torch.stack(rows)


def compare(ours: nn.Module, x: Tensor, output: Tensor, reference: Tensor) -> None:
    """Outputs, and gradients with respect to the input and all parameters of `ours`."""
    torch.testing.assert_close(output, reference, rtol=0, atol=1e-12)
    weights = [x, *ours.parameters()]
    weight = torch.randn(output.shape, generator=generator(5), dtype=torch.float64)
    mine, theirs = (
        torch.autograd.grad((y * weight).sum(), weights, allow_unused=True, retain_graph=True)
        for y in (output, reference)
    )
    for a, b in zip(mine, theirs, strict=True):
        assert a is not None
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("affinity", moe.AFFINITIES)
def test_it_is_the_loop_over_tokens_and_experts(affinity: str) -> None:
    layer, x = make(affinity=affinity), tokens(15).requires_grad_()
    compare(layer, x, layer(x), by_hand(layer, x, affinity))


def test_an_expert_that_nobody_chose_has_a_gradient_of_zero() -> None:
    layer, x = make(), tokens(9)
    layer.bias[0] = -10
    layer(x).sum().backward()
    assert not layer.experts[0].up.weight.grad.any()
    assert layer.experts[1].up.weight.grad.any()


def test_no_row_depends_on_another() -> None:
    layer, x = make(), tokens(3, 5)
    before = layer(x)
    x[1] = 1e9
    after = layer(x)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=1e-12)


def test_the_bias_has_a_part_in_the_choice_and_none_in_the_gate() -> None:
    layer, x = make(), tokens(40)
    layer.bias.zero_()
    _, before = layer.route(x)
    layer.bias.fill_(3.0)  # the same for all: the same choice
    _, after = layer.route(x)
    assert torch.equal(before, after)
    layer.bias[4] = 9.0
    chosen, _ = layer.route(x)
    assert (chosen == 4).any(dim=1).all()


def same_gradients(ours: MoE, experts: nn.Module) -> None:
    """Those of our experts against those of theirs, which hold all of a kind in one tensor, gate and up together."""
    both = torch.stack([torch.cat([e.gate.weight.grad, e.up.weight.grad]) for e in ours.experts])
    down = torch.stack([e.down.weight.grad for e in ours.experts])
    assert both.any()
    torch.testing.assert_close(both, experts.gate_up_proj.grad, rtol=0, atol=1e-5)
    torch.testing.assert_close(down, experts.down_proj.grad, rtol=0, atol=1e-5)


def test_it_is_deepseek_v3s_layer() -> None:
    config = DeepseekV3Config(
        hidden_size=D, moe_intermediate_size=HIDDEN, n_routed_experts=E, n_shared_experts=2, num_experts_per_tok=K,
        n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=1.0, hidden_act="silu",
    )  # fmt: skip
    ours, peer = make(shared=2), DeepseekV3MoE(config).double()
    peer.gate.weight.data = ours.router.weight.data.float().double()
    ours.router.weight.data = ours.router.weight.data.float().double()
    peer.gate.e_score_correction_bias.data = ours.bias.clone()
    peer.experts.gate_up_proj.data = torch.stack([torch.cat([e.gate.weight, e.up.weight]) for e in ours.experts])
    peer.experts.down_proj.data = torch.stack([e.down.weight for e in ours.experts])
    for name in ("gate", "up"):
        getattr(peer.shared_experts, f"{name}_proj").weight.data = torch.cat(
            [getattr(e, name).weight.data for e in ours.shared]
        )
    peer.shared_experts.down_proj.weight.data = torch.cat([e.down.weight.data for e in ours.shared], dim=1)
    x = tokens(3, 7)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = ours(mine), peer(theirs)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)  # the peer's router computes in float32
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.router.weight.grad, peer.gate.weight.grad, rtol=0, atol=1e-5)
    same_gradients(ours, peer.experts)
    for name in ("gate", "up", "down"):
        mine = torch.cat([getattr(e, name).weight.grad for e in ours.shared], dim=int(name == "down"))
        theirs = getattr(peer.shared_experts, f"{name}_proj").weight.grad
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


def test_it_is_mixtrals_layer() -> None:
    config = MixtralConfig(hidden_size=D, intermediate_size=HIDDEN, num_local_experts=E, num_experts_per_tok=K)
    ours, peer = make(shared=0, affinity="softmax"), MixtralSparseMoeBlock(config).double()
    ours.bias.zero_()
    peer.gate.weight.data = ours.router.weight.data.clone()
    peer.experts.gate_up_proj.data = torch.stack([torch.cat([e.gate.weight, e.up.weight]) for e in ours.experts])
    peer.experts.down_proj.data = torch.stack([e.down.weight for e in ours.experts])
    x = tokens(3, 7)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = ours(mine), peer(theirs)
    b = b[0] if isinstance(b, tuple) else b
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.router.weight.grad, peer.gate.weight.grad, rtol=0, atol=1e-5)
    same_gradients(ours, peer.experts)


def test_a_step_of_the_balance_is_algorithm_1() -> None:
    layer, x = make(), tokens(50)
    before = layer.bias.clone()
    chosen, _ = layer.route(x)
    layer(x)
    counted = [int((chosen == i).sum()) for i in range(E)]
    (load,) = balance(nn.Sequential(layer), 0.01)
    assert load.tolist() == counted
    for i, count in enumerate(counted):
        error = 50 * K / E - count
        step = 0.01 if error > 0 else -0.01 if error < 0 else 0.0
        assert float(layer.bias[i]) == pytest.approx(float(before[i]) + step, abs=1e-12)
    assert not layer.load.any()
    assert max_violation(load) == pytest.approx(max(counted) / (50 * K / E) - 1)


def test_the_rule_alone_balances_a_crooked_router() -> None:
    """Without any training of the weights: the bias is a controller, and equal loads are where it rests."""
    layer, x = make(shared=0), tokens(2000)
    layer.bias.zero_()
    layer.router.weight.data[0] += 1.5 * x.mean(0) + 0.5
    x = x + 0.5
    layer(x)
    first = max_violation(layer.balance(0.01))
    for _ in range(200):
        layer(x)
        load = layer.balance(0.005)
    assert first > 0.5
    assert max_violation(load) < 0.15


def test_loads_are_counted_in_training_only() -> None:
    layer = make().eval()
    layer(tokens(5))
    assert not layer.load.any()


def test_what_a_model_in_training_writes_is_no_load() -> None:
    layer = make().train()
    with torch.no_grad():
        layer(tokens(5))
    assert not layer.load.any()
    layer(tokens(5))
    assert int(layer.load.sum()) == 5 * K


@pytest.mark.parametrize("affinity", moe.AFFINITIES)
@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, -120.0), (torch.float16, -30.0), (torch.bfloat16, -200.0)]
)
def test_gates_outlive_affinities_that_round_to_zero(affinity: str, dtype: torch.dtype, least: int) -> None:
    """A token whose two experts have affinities that are both 0 in this type: 0 / 0 is no gate.

    Far below 0 either affinity is exp(logit), up to a constant of the token. So s_i / (s_i + s_j) is
    sigmoid(logit_i - logit_j), and its slope sigmoid (1 - sigmoid).
    """
    layer = make(experts=3, active=2, shared=0, affinity=affinity).to(dtype)
    layer.bias.copy_(torch.tensor([0.0, 0.0, -9.0]))  # never the third
    x = torch.zeros(1, D, dtype=dtype)
    x[0, 0] = 1
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[:, 0] = torch.tensor([least, least - 1, 0.0])
    chosen, gate = layer.route(x)
    first = float(torch.sigmoid(torch.tensor(1.0)))
    expected = torch.tensor([first if i == 0 else 1 - first for i in chosen[0].tolist()])
    assert sorted(chosen[0].tolist()) == [0, 1]
    torch.testing.assert_close(gate[0].float(), expected, rtol=0, atol=5e-3 if dtype != torch.float32 else 1e-6)
    gate[0, chosen[0].tolist().index(0)].backward()
    slope = first * (1 - first)
    assert layer.router.weight.grad is not None
    found = layer.router.weight.grad[:, 0].float()
    torch.testing.assert_close(found, torch.tensor([slope, -slope, 0.0]), rtol=0, atol=5e-3)
    assert layer(x).isfinite().all()


def test_the_bias_stays_fine_where_the_weights_are_coarse_and_moves_along() -> None:
    layer = make()
    layer.bias.fill_(0.75)
    layer.bfloat16()
    assert layer.router.weight.dtype == torch.bfloat16
    assert layer.bias.dtype == torch.float64  # as make() left it
    layer.load[0] = 4
    layer.balance(1e-3)
    assert layer.bias.tolist() == pytest.approx([0.749] + [0.751] * (E - 1), abs=1e-12)
    assert layer.to("meta").bias.device.type == "meta"
    assert layer.to_empty(device="cpu").bias.device.type == "cpu"


def test_a_transformer_of_experts_learns_their_balance_with_its_weights() -> None:
    arguments = {"vocabulary": 20, "width": 16, "depth": 2, "heads": 2, "experts": 4, "active": 2, "shared": 1}
    model = build(lambda: Transformer(**arguments), generator())
    words = torch.randint(20, (3, 9), generator=generator(1))
    model.logits(model(words)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    loads = balance(model, 1e-3)
    assert [int(load.sum()) for load in loads] == [3 * 9 * 2] * 2
    again = Transformer(**model.arguments)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(words), model(words))
    assert set(again.state_dict()) >= {"stack.blocks.0.feed_forward.bias", "stack.blocks.1.feed_forward.router.weight"}
    deviation = model.stack.blocks[0].feed_forward.experts[0].down.weight.std()
    assert float(deviation.detach()) == pytest.approx((2 / (5 * 16)) ** 0.5 / 4**0.5, rel=0.15)


@pytest.mark.parametrize("active", [0, 7])
def test_more_active_experts_than_there_are_is_refused(active: int) -> None:
    with pytest.raises(ValueError, match=f"{active} active of 6 experts"):
        make(active=active)


def test_a_wrong_width_names_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"shape \[2, 5\], expected \[..., 12\]"):
        make()(torch.zeros(2, 5, dtype=torch.float64))
