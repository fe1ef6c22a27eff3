"""What a network costs: the numbers it holds and the operations a forward pass takes.

The operations are a fact of the shapes, so the pass runs on torch's `meta` device, which computes shapes and no
numbers: it takes milliseconds, moves no weights and allocates nothing, however large the network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

_aten = torch.ops.aten


def parameters(module: nn.Module) -> int:
    """How many numbers training may change; a tensor that two layers share counts once."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


@torch.no_grad()
def flops(module: nn.Module, *inputs: Any) -> int:
    """Floating-point operations of `module(*inputs)`, divided by the batch: the length of the first tensor.

    A multiply-add is two operations. Counted are matrix products and convolutions, those within attention and recurrent
    kernels among them; a causal mask saves nothing, as is the custom. Left out are the elementwise operations (norms,
    activations, softmax), a small part at any width that matters.

    A module that reads the numbers themselves (a mixture of experts sorts its tokens) cannot be asked without them: it
    is run once, on copies of its weights and buffers, so that nothing of it is changed.

    Args:
        module: stays where it is, untouched.
        inputs: as `module` takes them.

    Raises:
        ValueError: when there is no first tensor with a batch dimension.
    """
    batch = next((len(x) for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.ndim), 0)
    if not batch:
        raise ValueError("flops needs a batch as first input: a tensor [B, ...] with B of 1 or more")
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    try:
        return _count(module, *tree_map_only(Tensor, lambda x: x.to("meta"), (state, inputs))) // batch
    except RuntimeError:  # torch's answer where a number of a meta tensor is asked for; any other comes again below
        return _count(module, {name: x.clone() for name, x in state.items()}, inputs) // batch


def _count(module: nn.Module, state: dict[str, Tensor], inputs: tuple[Any, ...]) -> int:
    with FlopCounterMode(display=False, custom_mapping=UNKNOWN) as counter:
        torch.func.functional_call(module, state, inputs)
    return counter.get_total_flops()


def _attention(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])  # scores, then values; of shapes [B, H, T or S, d]


def _lstm(x: torch.Size, w: torch.Size, u: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[1] * (w.numel() + u.numel())


def _linear(x: torch.Size, w: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * w[0]


UNKNOWN = {  # kernels of the CPU, which only a pass with numbers meets, and torch's counter does not know
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten.mkldnn_rnn_layer: _lstm,
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # not in every build of torch
    UNKNOWN[torch.ops.mkldnn._linear_pointwise] = _linear
