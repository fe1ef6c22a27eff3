"""Networks over histories: a sequence is its steps one by one, and no bit of one episode reaches the next."""

from __future__ import annotations

import pytest
import torch

from backbones.initialise import build
from backbones.mlp import MLP
from backbones.replicas import Replicas
from rl.deep.sequences import Memoryless, Recurrent, SequenceNetwork, Windowed

B, T, N, D, A = 3, 12, 5, 32, 4
REMEMBERED = {"gru": (1, 1, D), "lstm": (2, 1, D), "transformer": (4, N + 1), "two layers": (6, N + 1), "none": (0,)}


def make(kind: str) -> SequenceNetwork:
    numbers = {"eye": lambda: MLP(N, [], D), "shape": (N,), "width": D, "actions": A}
    if kind == "none":
        return Memoryless(**numbers)
    if kind in ("gru", "lstm"):
        return Recurrent(**numbers, kind=kind, span=10)
    return Windowed(**numbers, window=5 if kind == "transformer" else 4, layers=1 if kind == "transformer" else 2)


def built(kind: str, seed: int = 0) -> SequenceNetwork:
    return build(lambda: make(kind), torch.Generator().manual_seed(seed))


def looks(seed: int = 1, *lead: int) -> torch.Tensor:
    return torch.randn(*(lead or (B,)), T, N, generator=torch.Generator().manual_seed(seed))


RESET = torch.zeros(B, T, dtype=torch.bool)
RESET[0, 4] = RESET[1, 0] = RESET[1, 7] = RESET[1, 8] = True


@pytest.mark.parametrize("kind", REMEMBERED)
def test_a_sequence_in_one_call_is_its_steps_one_by_one(kind: str) -> None:
    """Longer than the windows, with episodes that end; the memory afterwards is the same as well."""
    network, x = built(kind), looks()
    whole, after = network(x, network.initial(B), RESET)
    state, steps = network.initial(B), []
    assert state.shape == (B, *REMEMBERED[kind])
    assert (state == 0).all()
    for t in range(T):
        q, state = network(x[:, t : t + 1], state, RESET[:, t : t + 1])
        steps.append(q)
    assert whole.shape == (B, T, A)
    assert whole.std() > 0.03
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", REMEMBERED)
def test_a_reset_is_a_memory_of_zeros(kind: str) -> None:
    """What the loop does where an episode begins, and what `reset` does within a sequence, are one thing."""
    network, x = built(kind), looks()
    state = network(x, network.initial(B), RESET)[1]
    begins = torch.ones(B, 1, dtype=torch.bool)
    reset, forgotten = network(x[:, :1], state, begins), network(x[:, :1], network.initial(B), ~begins)
    assert torch.equal(reset[0], forgotten[0])
    assert torch.equal(reset[1], forgotten[1])


@pytest.mark.parametrize("kind", REMEMBERED)
def test_nothing_leaks_across_episodes(kind: str) -> None:
    """With another past, looks and memory both, not a bit of the episode that begins at step 4 changes."""
    network, x = built(kind), looks()
    first, after = network(x, network.initial(B), RESET)
    other = x.clone()
    other[0, :4] = 7.0
    state = network(looks(5), network.initial(B), torch.zeros_like(RESET))[1]  # what another history left
    changed, then = network(other, state, RESET)
    assert torch.equal(first[0, 4:], changed[0, 4:])
    assert torch.equal(first[1], changed[1])  # begins at step 0: the memory does not count
    assert torch.equal(after[:2], then[:2])
    assert not torch.equal(first[0, :4], changed[0, :4])


@pytest.mark.parametrize(("kind", "reach"), [("gru", T), ("transformer", 5), ("two layers", 7), ("none", 1)])
def test_how_far_back_it_sees(kind: str, reach: int) -> None:
    """The last output changes with the look `reach` - 1 steps before, and not with any before that."""
    network = built(kind)
    x = looks().requires_grad_()
    network(x, network.initial(B), torch.zeros_like(RESET))[0][:, -1].sum().backward()
    felt = x.grad.abs().sum((0, 2)) > 0  # type: ignore[union-attr]
    assert felt.tolist() == [t >= T - reach for t in range(T)]


@pytest.mark.parametrize("kind", REMEMBERED)
def test_replicas_are_networks_by_themselves(kind: str) -> None:
    """Three held together equal three alone; and one of them is the same bit for bit whoever rides along."""
    seeds = [0, 1, 2]
    x, reset = looks(2, 3, B), RESET.expand(3, B, T)
    initial = built(kind).initial(3 * B).unflatten(0, (3, B))

    def held(which: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        together = Replicas(lambda: make(kind), [torch.Generator().manual_seed(seeds[r]) for r in which])
        return together(x[which], initial[which], reset[which])

    q, state = held([0, 1, 2])
    for r in range(3):
        alone = built(kind, r)(x[r], initial[r], reset[r])
        torch.testing.assert_close(q[r], alone[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state[r], alone[1], rtol=1e-4, atol=1e-5)
        assert torch.equal(held([r])[0][0], q[r])


def test_the_gates_that_keep_begin_with_many_spans_of_time() -> None:
    """log u for u in 1 ... 9: a unit keeps u / (u + 1) of its memory a step, between a half and nine tenths."""
    for kind, gate in (("gru", 1), ("lstm", 1)):
        bias = built(kind).cells.bias_ih_l0.detach().view(-1, D)  # type: ignore[union-attr]
        kept = bias[gate].sigmoid()
        assert ((kept >= 0.5) & (kept <= 0.9)).all()
        assert kept.std() > 0.05
    assert torch.equal(bias[0], -bias[1])


def test_bytes_are_scaled() -> None:
    network = built("transformer")
    x = (255 * looks().sigmoid()).to(torch.uint8)
    first = network(x, network.initial(B), RESET)
    second = network(x.float() / 255, network.initial(B), RESET)
    assert torch.equal(first[0], second[0])
