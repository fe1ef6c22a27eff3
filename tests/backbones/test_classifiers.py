"""LeNet-5 and the ResNet: sizes by the papers, values and gradients by torch's functions one after another."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from backbones.classifiers import LeNet, Residual, ResNet
from backbones.initialise import build
from backbones.shape import ShapeError


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def same(network: nn.Module, oracle: Callable[[Tensor, dict[str, Tensor]], Tensor], x: Tensor) -> None:
    """Outputs, and gradients for the input and every weight, of a loss that weighs all outputs differently."""
    weights = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = network(ours), oracle(theirs, weights)
    torch.testing.assert_close(y, z)
    weigh = torch.randn(y.shape, generator=generator(9), dtype=y.dtype)
    (y * weigh).sum().backward()
    (z * weigh).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.grad, weights[name].grad, msg=lambda m, name=name: f"{name}: {m}")


def test_lenet_has_the_weights_of_the_paper() -> None:
    assert count(build(lambda: LeNet((1, 28, 28), 10), generator(0))) == 61_706
    sizes = [tuple(p.shape) for p in LeNet((1, 32, 32), 10, padding=(0, 0)).parameters() if p.ndim > 1]
    assert sizes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]


def test_lenet_equals_torchs_layers_in_the_order_of_the_paper() -> None:
    network = build(lambda: LeNet((2, 9, 12), 5, padding=(2, 2)), generator(0)).double()

    def oracle(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        def convolve(x: Tensor, name: str, out: int) -> Tensor:  # patches times a matrix
            patches = functional.unfold(x, 5, padding=2)
            y = w[f"{name}.weight"].flatten(1) @ patches + w[f"{name}.bias"][:, None]
            y = 1.7159 * (y.view(len(x), out, *x.shape[2:]) * (2 / 3)).tanh()
            rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2  # an odd row or column is left out
            y = y[:, :, :rows, :columns]
            return (y[:, :, ::2, ::2] + y[:, :, 1::2, ::2] + y[:, :, ::2, 1::2] + y[:, :, 1::2, 1::2]) / 4

        x = convolve(convolve(x, "first", 6), "second", 16).reshape(len(x), -1)
        for i in range(2):
            x = 1.7159 * ((x @ w[f"head.hidden.{i}.weight"].T + w[f"head.hidden.{i}.bias"]) * (2 / 3)).tanh()
        return x @ w["head.output.weight"].T + w["head.output.bias"]

    same(network, oracle, torch.randn(3, 2, 9, 12, generator=generator(1), dtype=torch.float64))


def test_lenet_refuses_pictures_too_small() -> None:
    with pytest.raises(ValueError, match=r"LeNet with padding \(2, 0\): pictures of \(1, 8, 8\) are too small"):
        LeNet((1, 8, 8), 10)


@pytest.mark.parametrize(("blocks", "weights"), [(3, 269_722), (5, 464_154), (9, 853_018)])
def test_resnet_has_the_weights_of_the_paper(blocks: int, weights: int) -> None:
    """Table 6 of He et al. 2016: 0.27 M at 20 layers, 0.46 M at 32, 0.85 M at 56."""
    network = ResNet(3, 10, blocks=blocks)
    assert count(network) == weights
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 6 * blocks + 2


def batch_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * gain[:, None, None] + shift[:, None, None]


def block(x: Tensor, w: dict[str, Tensor], at: str, stride: int) -> Tensor:
    """Of fig. 2, by hand: the shortcut picks every other pixel and appends zeros."""
    y = functional.conv2d(x, w[f"{at}conv1.weight"], stride=stride, padding=1)
    y = batch_norm(y, w[f"{at}norm1.weight"], w[f"{at}norm1.bias"]).clamp(min=0)
    y = functional.conv2d(y, w[f"{at}conv2.weight"], padding=1)
    y = batch_norm(y, w[f"{at}norm2.weight"], w[f"{at}norm2.bias"])
    if stride == 2:
        picked = functional.avg_pool2d(x, 1, stride=2)
        x = torch.cat([picked, torch.zeros_like(picked)], dim=1)
    return (x + y).clamp(min=0)


def random_norms(network: nn.Module) -> nn.Module:
    """Gains and shifts away from 1 and 0, so that leaving one out would show."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator(2))
                module.bias.uniform_(-0.5, 0.5, generator=generator(3))
    return network


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7])
def test_residual_block_equals_its_equation(stride: int, side: int) -> None:
    network = random_norms(build(lambda: Residual(3, 3 * stride, stride), generator(0)).double())
    x = torch.randn(4, 3, side, side, generator=generator(1), dtype=torch.float64)
    same(network, lambda x, w: block(x, w, "", stride), x)


def test_resnet_equals_its_layers_one_after_another() -> None:
    network = random_norms(build(lambda: ResNet(2, 4, width=3, blocks=2), generator(0)).double())

    def oracle(x: Tensor, w: dict[str, Tensor]) -> Tensor:
        x = functional.conv2d(x, w["stem.weight"], padding=1)
        x = batch_norm(x, w["norm.weight"], w["norm.bias"]).clamp(min=0)
        for i, stride in enumerate((1, 1, 2, 1, 2, 1)):
            x = block(x, w, f"stages.{i}.", stride)
        return x.flatten(2).mean(2) @ w["output.weight"].T + w["output.bias"]

    same(network, oracle, torch.randn(4, 2, 9, 8, generator=generator(1), dtype=torch.float64))


def test_in_use_a_picture_is_read_the_same_in_any_company() -> None:
    network = build(lambda: ResNet(1, 3, width=4, blocks=1), generator(0))
    x = torch.randn(6, 1, 8, 8, generator=generator(1))
    network(x)  # moves the running statistics
    network.eval()
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]))


def test_activations_stay_channels_last() -> None:
    network = build(lambda: ResNet(1, 3, width=4, blocks=1), generator(0))
    seen: list[bool] = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | Residual) or (isinstance(module, nn.Conv2d) and module.in_channels > 1):
            module.register_forward_hook(
                lambda module, args, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    network(torch.randn(2, 1, 8, 8, generator=generator(1)))
    assert len(seen) == 16
    assert all(seen)


def test_resnets_first_weights_have_the_variance_of_he_2015() -> None:
    network = build(lambda: ResNet(3, 10, width=32), generator(0))
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5_000:
            assert module.weight.var().item() == pytest.approx(2 / (9 * module.out_channels), rel=0.05)


@pytest.mark.parametrize(
    ("network", "x", "message"),
    [
        (LeNet((1, 28, 28), 10), torch.zeros(2, 28, 28, 1), r"LeNet: x has shape \[2, 28, 28, 1\], expected \[B, 1"),
        (ResNet(3, 10), torch.zeros(2, 1, 8, 8), r"ResNet: x has shape \[2, 1, 8, 8\], expected \[B, 3, H, W\]"),
    ],
)
def test_a_wrong_shape_is_named(network: nn.Module, x: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        network(x)
