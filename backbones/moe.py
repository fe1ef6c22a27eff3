"""Mixture of experts: a feed-forward network of which each token uses a part, balanced without an auxiliary loss.

    s_i = sigmoid(r_i . x)  or  softmax_i(r_i . x)              the affinity of a token to expert i
    chosen = the k largest s_i + b_i                            b_i takes part in the choice alone
    y = sum_{i chosen} (s_i / sum_{j chosen} s_j) f_i(x) + sum_m h_m(x)
    after each batch   b_i <- b_i + u sign(mean load - load_i)

Sources: Shazeer et al. 2017 (top-k routing); DeepSeek-V3 (2024), sec. 2.1.2, eq. 12-16 (shared experts h_m, sigmoid,
normalised gates); Wang et al. 2024, "Auxiliary-loss-free load balancing", alg. 1 (the rule for b). With "softmax" and
no shared expert it is Mixtral's layer (Jiang et al. 2024, sec. 2.1).

The bias has no gradient, so somebody has to move it: a training loop calls `balance(model, rate)` beside its optimiser
step, and says so where it is read. With `generative.train.Trainer`:

    for step, metrics in trainer.run():
        balance(trainer.bare, rate=1e-3)

Key: N tokens, D width, E experts, k of them active. A load is a number of tokens, so that all loads add up to k N.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.shape import wrong

AffinityName = Literal["sigmoid", "softmax"]
AFFINITIES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    # the affinity, and its logarithm up to a constant of the token
    "sigmoid": (torch.sigmoid, functional.logsigmoid),  # DeepSeek-V3, eq. 15
    "softmax": (lambda logits: logits.softmax(dim=-1), lambda logits: logits),  # Mixtral
}


class MoE(nn.Module):
    """E feed-forward networks, k of which each token passes, and some that all tokens pass.

    Tokens are sorted by expert, so that each expert multiplies its weights once with all that are its own.

    Args:
        make: constructs one expert, [N, D] -> [N, D].
        width: D.
        experts: E. More hold more, at the same cost a token.
        active: k of them, for each token. More cost more.
        shared: experts that every token passes besides.
        affinity: "sigmoid" or "softmax".

    Raises:
        ValueError: when `active` is not in 1 ... E, or the affinity has another name.
    """

    bias: Tensor
    load: Tensor

    def __init__(
        self,
        make: Callable[[], nn.Module],
        width: int,
        experts: int,
        active: int,
        *,
        shared: int = 0,
        affinity: AffinityName = "sigmoid",
    ) -> None:
        super().__init__()
        if not 1 <= active <= experts:
            raise ValueError(f"{active} active of {experts} experts: expected at least 1 and at most all")
        if affinity not in AFFINITIES:
            raise ValueError(f"affinity {affinity!r}: expected one of {', '.join(AFFINITIES)}")
        self.width, self.active = width, active
        self.affinity, self.logarithm = AFFINITIES[affinity]
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList([make() for _ in range(experts)])
        self.shared = nn.ModuleList([make() for _ in range(shared)])
        self.register_buffer("bias", torch.zeros(experts))  # b
        self.register_buffer("load", torch.zeros(experts, dtype=torch.int64))  # in training, since the last balance

    def route(self, x: Float[Tensor, "N D"]) -> tuple[Int64[Tensor, "N k"], Float[Tensor, "N k"]]:
        """The experts of each token, and the gates of their outputs, which add up to 1.

        Gates are the softmax of the logarithms of the affinities chosen: s_i / sum_j s_j, also where all s are so small
        that they round to 0.
        """
        logits = self.router(x)  # [N, E]
        score = self.affinity(logits.detach().to(torch.promote_types(logits.dtype, torch.float32)))  # in [0, 1]
        chosen = (score + self.bias).topk(self.active, dim=-1).indices
        return chosen, self.logarithm(logits).gather(1, chosen).softmax(dim=-1)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Each position by itself. The load of each expert is counted in training, where gradients are recorded."""
        if x.shape[-1] != self.width:
            raise wrong("MoE: x", x, f"[..., {self.width}]")
        tokens = x.reshape(-1, self.width)  # [N, D]
        chosen, gate = self.route(tokens)
        order = chosen.flatten().argsort(stable=True)  # [N k]: slots (token, choice), those of one expert together
        load = torch.bincount(chosen.flatten(), minlength=len(self.experts))
        if self.training and torch.is_grad_enabled():  # what a model in training writes meanwhile is no load
            self.load += load
        parts = torch.split(tokens[order // self.active], load.tolist())
        done = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])  # [N k, D]
        y = (done[order.argsort()].view(*chosen.shape, self.width) * gate[..., None]).sum(1)  # [N, D]
        for expert in self.shared:
            y = y + expert(tokens)
        return y.view_as(x)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> MoE:
        """The bias moves along, but stays float32 or finer: in bfloat16 steps of 1e-3 are lost from 0.5 on."""
        before = self.bias
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if self.bias.dtype.itemsize < 4 <= before.dtype.itemsize:
            self.bias = before.to(self.bias.device)
        return self

    @torch.no_grad()
    def balance(self, rate: float) -> Int64[Tensor, "E"]:
        """Move the bias by `rate` towards equal loads, begin to count anew, and return the loads since the last call.

        `rate` is u, in units of affinity: larger balances sooner, and swings further around balance (Wang et al. 2024,
        sec. 4.3: 1e-3). Loads of all processes of a distributed run are summed first, so that their biases stay equal.
        """
        load = self.load.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(load)
        self.bias += rate * (load.double().mean() - load).sign().to(self.bias.dtype)
        self.load.zero_()
        return load


def balance(model: nn.Module, rate: float) -> list[Int64[Tensor, "E"]]:
    """`MoE.balance` for every mixture in a model, first to last. Call it once after each step of the optimiser."""
    return [module.balance(rate) for module in model.modules() if isinstance(module, MoE)]


def max_violation(load: Int64[Tensor, "E"]) -> float:
    """How much more than its share the fullest expert has: max load / mean load - 1 (Wang et al. 2024, eq. 4)."""
    return float(load.max() / load.double().mean()) - 1
