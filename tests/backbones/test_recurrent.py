"""Recurrent networks against torch's own modules, whole and episode by episode."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from backbones.initialise import build
from backbones.recurrent import Recurrent
from backbones.shape import ShapeError

PEERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
KINDS = pytest.mark.parametrize("kind", PEERS)
LAYERS = pytest.mark.parametrize("layers", [1, 2, 3])
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True])
CLOSE = {"rtol": 0, "atol": 1e-12}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(kind: str, layers: int, bidirectional: bool, width: int = 6) -> tuple[Recurrent, nn.RNNBase]:
    """Ours and torch's with the same weights, float64, all entries random (biases too)."""
    ours = Recurrent(kind, 5, width, layers, bidirectional=bidirectional).double()
    with torch.random.fork_rng(devices=[]):
        peer = PEERS[kind](5, width, layers, bidirectional=bidirectional, batch_first=True, dtype=torch.float64)
    peer.load_state_dict({name: draw(*w.shape, seed=n) / 2 for n, (name, w) in enumerate(peer.state_dict().items())})
    ours.load_state_dict(peer.state_dict())
    return ours, peer


def to_peer(kind: str, state: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """[B, P, L, H] -> torch's [L, B, H], two of them for the LSTM."""
    parts = [part.transpose(0, 1).contiguous() for part in state.unbind(1)]
    return (parts[0], parts[1]) if kind == "lstm" else parts[0]


def from_peer(state: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    parts = state if isinstance(state, tuple) else (state,)
    return torch.stack([part.transpose(0, 1) for part in parts], dim=1)


def grads(output: torch.Tensor, state: torch.Tensor, of: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of a loss in which every output and every entry of the last state has a weight of its own."""
    loss = (output * draw(*output.shape, seed=71)).sum() + (state * draw(*state.shape, seed=72)).sum()
    return list(torch.autograd.grad(loss, of))


@KINDS
@LAYERS
@DIRECTIONS
def test_values_and_gradients_equal_torchs_module(kind: str, layers: int, bidirectional: bool):
    ours, peer = pair(kind, layers, bidirectional)
    x = draw(4, 7, 5).requires_grad_()
    state = draw(*ours.initial(4).shape, seed=3).requires_grad_()
    mine = ours(x, state)
    theirs = peer(x, to_peer(kind, state))
    theirs = (theirs[0], from_peer(theirs[1]))
    torch.testing.assert_close(mine, theirs, **CLOSE)
    found = grads(*mine, [x, state, *ours.parameters()])
    truth = grads(*theirs, [x, state, *(peer.get_parameter(name) for name, _ in ours.named_parameters())])
    torch.testing.assert_close(found, truth, **CLOSE)
    torch.testing.assert_close(ours(x), (peer(x)[0], from_peer(peer(x)[1])), **CLOSE)  # zeros where none is given


@KINDS
@DIRECTIONS
def test_names_and_shapes_are_torchs_so_that_weights_pass_both_ways(kind: str, bidirectional: bool):
    ours, peer = pair(kind, 2, bidirectional)
    assert {n: w.shape for n, w in ours.state_dict().items()} == {n: w.shape for n, w in peer.state_dict().items()}
    peer.load_state_dict(build(lambda: Recurrent(kind, 5, 6, 2, bidirectional=bidirectional), _seeded()).state_dict())


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


RESETS = torch.tensor(
    [
        [0, 0, 1, 0, 0, 0, 1, 0],
        [1, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ]
).bool()


def alone(kind: str, peer: nn.RNNBase, x: torch.Tensor, state: torch.Tensor, resets: torch.Tensor) -> torch.Tensor:
    """Every episode of every row by itself through torch's module; no bidirectional layer may see another's."""
    rows = []
    for b in range(len(x)):
        outs = []
        for start, end in pairwise([0, *(t for t in range(1, x.shape[1]) if resets[b, t]), x.shape[1]]):
            fresh = start > 0 or bool(resets[b, 0])
            first = torch.zeros_like(state[b : b + 1]) if fresh else state[b : b + 1]
            out, last = peer(x[b : b + 1, start:end], to_peer(kind, first))
            outs.append(out)
        rows.append((torch.cat(outs, dim=1), from_peer(last)))
    return torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows])


@KINDS
@LAYERS
def test_a_reset_begins_the_episode_as_if_it_were_alone(kind: str, layers: int):
    ours, peer = pair(kind, layers, False)
    x = draw(4, 8, 5).requires_grad_()
    state = draw(*ours.initial(4).shape, seed=3).requires_grad_()
    mine, theirs = ours(x, state, RESETS), alone(kind, peer, x, state, RESETS)
    torch.testing.assert_close(mine, theirs, **CLOSE)
    found = grads(*mine, [x, state, *ours.parameters()])
    truth = grads(*theirs, [x, state, *(peer.get_parameter(name) for name, _ in ours.named_parameters())])
    torch.testing.assert_close(found, truth, **CLOSE)


@KINDS
@LAYERS
def test_in_both_directions_an_episode_sees_only_itself(kind: str, layers: int):
    ours, peer = pair(kind, layers, True)
    x = draw(4, 8, 5).requires_grad_()
    mine = ours(x, None, RESETS)[0]
    theirs = alone(kind, peer, x, ours.initial(4), RESETS)[0]
    torch.testing.assert_close(mine, theirs, **CLOSE)
    weight = draw(*mine.shape, seed=5)
    found = torch.autograd.grad((mine * weight).sum(), [x, *ours.parameters()])
    named = [peer.get_parameter(name) for name, _ in ours.named_parameters()]
    torch.testing.assert_close(found, torch.autograd.grad((theirs * weight).sum(), [x, *named]), **CLOSE)


@KINDS
def test_what_came_before_a_reset_cannot_leak(kind: str):
    ours = build(lambda: Recurrent(kind, 5, 6, 2), _seeded())
    x, reset = draw(2, 6, 5).float(), torch.zeros(2, 6, dtype=torch.bool)
    reset[0, 3] = True
    before = ours(x, None, reset)[0]
    other = x.clone()
    other[0, :3] = 1e9
    after = ours(other, torch.full_like(ours.initial(2), torch.inf), reset)[0]
    assert torch.equal(after[0, 3:], before[0, 3:])
    assert not torch.equal(after[0, :3], before[0, :3])


@KINDS
def test_steps_with_a_carried_state_equal_the_whole_sequence(kind: str):
    ours = build(lambda: Recurrent(kind, 5, 6, 2), _seeded()).double()
    x = draw(4, 8, 5)
    whole, last = ours(x, None, RESETS)
    state, outs = ours.initial(4), []
    for t in range(8):
        out, state = ours(x[:, t : t + 1], state, RESETS[:, t : t + 1])
        outs.append(out)
    torch.testing.assert_close((torch.cat(outs, dim=1), state), (whole, last), **CLOSE)


@KINDS
def test_weights_start_by_the_stated_rule(kind: str):
    ours = build(lambda: Recurrent(kind, 200, 64, 2, bidirectional=True), _seeded())
    for name, w in ours.named_parameters():
        if name.startswith("weight_ih"):
            assert w.abs().max() <= 64**-0.5
            assert w.var().item() == pytest.approx(1 / (3 * 64), rel=0.03)
        elif name.startswith("weight_hh"):
            for gate in w.split(64):
                torch.testing.assert_close(gate @ gate.T, torch.eye(64), rtol=0, atol=1e-5)
        else:
            forget = torch.arange(len(w)) // 64 == 1
            expected = 1.0 if kind == "lstm" and name.startswith("bias_ih") else 0.0
            assert torch.equal(w, forget * expected)


@pytest.mark.usefixtures("as_in_use")
def test_wrong_shapes_and_kinds_are_named():
    ours = build(lambda: Recurrent("gru", 5, 6), _seeded())
    with pytest.raises(ShapeError, match=r"Recurrent: x has shape \[2, 7, 4\], expected \[B, T, 5\]"):
        ours(torch.zeros(2, 7, 4))
    with pytest.raises(ShapeError, match=r"state has shape \[3, 1, 1, 6\], expected \[2, 1, 1, 6\]"):
        ours(torch.zeros(2, 7, 5), torch.zeros(3, 1, 1, 6))
    with pytest.raises(ShapeError, match=r"reset has shape \[2, 6\], expected \[2, 7\]"):
        ours(torch.zeros(2, 7, 5), None, torch.zeros(2, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="recurrent kind 'qrnn': expected one of rnn, lstm, gru"):
        Recurrent("qrnn", 5, 6)
    with pytest.raises(ValueError, match="recurrent layers 0: expected 1 or more"):
        Recurrent("gru", 5, 6, 0)
