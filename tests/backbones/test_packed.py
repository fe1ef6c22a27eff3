"""Products by other means, and models packed for generation: equal to float64, whatever the sizes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from backbones import packed as packing
from backbones import product
from backbones.initialise import build
from backbones.packed import Packed, packed
from backbones.transformer import Transformer


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 512), (1, 512), (2, 5, 512), (0, 512)])
@pytest.mark.parametrize("outputs", [7, 300])
def test_a_product_without_gradients_is_the_product(shape: tuple[int, ...], outputs: int):
    """300 x 512 is above the size from which oneDNN multiplies."""
    assert 7 * 512 < product.LARGE < 300 * 512
    x, weight = draw(*shape), draw(outputs, 512, seed=1)
    found = product.linear(x, weight)
    torch.testing.assert_close(found.double(), x.double() @ weight.double().T, rtol=1e-5, atol=1e-4)


def test_where_gradients_are_recorded_they_flow():
    x, weight = draw(3, 512).requires_grad_(), draw(300, 512, seed=1).requires_grad_()
    product.linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(3, -1))
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(300, -1))


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("asked", [1, 4, 16, 40])
def test_a_packed_weight_multiplies_any_number_of_rows(rows: int, asked: int):
    weight, bias, x = draw(300, 512), draw(300, seed=1), draw(asked, 1, 512, seed=2)
    expected = functional.linear(x.double(), weight.double(), bias.double())
    found = Packed(weight, bias, rows)(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


MODELS = {
    "llama": {"tied": True},
    "untied": {"tied": False, "groups": 1},
    "gpt-2": {"norm": "layer", "feed_forward": "gelu-tanh", "positions": "learned", "bias": True, "length": 16},
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("rows", [1, 4])
@torch.no_grad()
def test_a_packed_model_is_the_model_and_shares_what_is_small(monkeypatch: pytest.MonkeyPatch, kind: str, rows: int):
    for name in ("LARGE", "ROW"):
        monkeypatch.setattr(packing, name, 1)
    model = build(
        lambda: Transformer(vocabulary=40, width=24, depth=2, heads=2, **MODELS[kind]), torch.Generator().manual_seed(0)
    )
    for seed, weight in enumerate(model.parameters()):
        weight += 0.1 * draw(*weight.shape, seed=seed)  # biases begin at 0, norms at 1
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = packed(model, rows)
    tokens = torch.randint(40, (rows, 9), generator=torch.Generator().manual_seed(1))
    for length in (9, 1):
        found, truth = (m.logits(m(tokens[:, :length])) for m in (fast, model))
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-5)
    kinds = [type(module) for module in fast.modules()]
    many = 2 if rows == 1 else 4  # of a block: q, k and v, up (with gate); for several rows also the outputs of both
    assert kinds.count(Packed) == 1 + model.arguments["depth"] * many  # the head
    assert fast.embedding.weight is model.embedding.weight  # shared, as are the norms
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(isinstance(module, Packed) for module in model.modules())


def test_a_small_model_is_left_as_it_is():
    model = build(lambda: Transformer(vocabulary=40, width=24, depth=1, heads=2), torch.Generator().manual_seed(0))
    assert packed(model, 1) is model
    assert packed(model, 8) is model
    assert packed(model.double(), 8) is model
