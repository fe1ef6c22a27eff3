"""What `qx bench dpo` trains: every way computes the same numbers, of the same pairs, and all its seconds count."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import get_peft_model

from benchmarks import dpo, dpo_load, dpo_ours, dpo_peer, resident
from benchmarks.dpo import DEFAULT, TINY, Measured
from benchmarks.dpo_load import Size
from benchmarks.dpo_ours import Epoch, Ours
from benchmarks.dpo_peer import Theirs
from generative.language.adapter import body_layers
from generative.lora import Lora, adapt

SMALL = replace(TINY, pairs=6, prompt=(3, 9), completion=(2, 8))
ADAPTED = replace(SMALL, lora_rank=2)
GROUPED = Theirs(bf16=False, checkpointing=False, precomputed=True, grouped=True)


def test_lengths_are_within_their_bounds_and_completions_end() -> None:
    size = replace(dpo_load.Size(), pairs=200)
    made = dpo_load.pairs(size)
    for side, (least, most) in (("prompt", size.prompt), ("chosen", size.completion), ("rejected", size.completion)):
        lengths = [len(getattr(pair, side)) for pair in made]
        assert least <= min(lengths) < least + 8
        assert most - 8 < max(lengths) <= most
    assert all(side[-1] == dpo_load.END and 0 not in side for pair in made for side in (pair.chosen, pair.rejected))
    assert made == dpo_load.pairs(size)


@pytest.mark.parametrize("size", [SMALL, ADAPTED], ids=["all weights", "adapters"])
def test_without_any_of_the_four_the_numbers_are_the_same(size: Size) -> None:
    """The plain computation (padded, all logits, a reference in each update) beside the fast one: losses to 1e-5."""
    fast = dpo_ours.epoch(size, Ours(), "cpu")
    assert len(fast.losses) == 3
    assert max(abs(loss - fast.losses[0]) for loss in fast.losses) > 1e-5  # it moves
    for name, how in dpo_ours.without(Ours()).items():
        found = dpo_ours.epoch(size, how, "cpu")
        assert found.losses == pytest.approx(fast.losses, abs=1e-5), name
        assert found.likelihood == pytest.approx(fast.likelihood, rel=1e-5), name


def test_ours_begins_with_the_first_pairs() -> None:
    """log pi of the chosen of the first batch, as transformers tells all logits of each pair alone."""
    made, told = dpo_load.model(SMALL), []
    for pair in dpo_load.pairs(SMALL)[: SMALL.batch]:
        words = torch.tensor([*pair.prompt, *pair.chosen])
        with torch.no_grad():
            said = made(words[None]).logits[0].log_softmax(-1)  # [T, V]
        told.append(sum(said[t - 1, words[t]].item() for t in range(len(pair.prompt), len(words))))
    assert dpo_ours.epoch(SMALL, Ours(), "cpu").likelihood == pytest.approx(sum(told) / len(told), rel=1e-5)


def test_seconds_of_the_reference_count(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dpo_ours.reference

    def slow(*args: Any, **named: Any) -> Any:
        time.sleep(0.3)
        return asked(*args, **named)

    monkeypatch.setattr(dpo_ours, "reference", slow)
    assert dpo_ours.epoch(TINY, Ours(), "cpu").reference >= 0.3
    done = Epoch(reference=1.0, training=3.0, losses=[0.7], likelihood=-20.0)
    monkeypatch.setattr(resident, "apart", lambda *_: {"epoch": asdict(done), "peak": 5.0})
    for how in (Ours(), Theirs()):
        assert dpo.run(SMALL, how, "cpu") == Measured(6 / 4, 5.0, done)


@pytest.mark.parametrize("how", [Ours(), Theirs()], ids=["ours", "theirs"])
def test_a_tiny_epoch_comes_before_the_one_that_is_measured(how: dpo.Way, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def train(size: Any, way: Any, device: str) -> Epoch:
        told.append((size, way))
        return Epoch(0.0, 1.0, [0.7], -20.0)

    monkeypatch.setattr(dpo_ours if isinstance(how, Ours) else dpo_peer, "epoch", train)
    monkeypatch.setattr(resident, "began", lambda: told.append("began") or 7.0)
    monkeypatch.setattr(resident, "since", lambda started: told.append("since") or started)
    asked = {"size": asdict(SMALL), "ours": isinstance(how, Ours), "how": asdict(how), "device": "cpu"}
    assert dpo._work(json.loads(json.dumps(asked)))["peak"] == 7.0
    assert told == [(TINY, how), "began", (SMALL, how), "since"]


def test_adapters_begin_alike_whoever_put_them_in_and_learn_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[Any]()

    def kept(size: Size) -> Any:
        made.append(dpo_load.model(size))
        return made[-1]

    monkeypatch.setattr(dpo_ours, "model", kept)
    dpo_ours.epoch(ADAPTED, Ours(), "cpu")
    before = dict(dpo_load.model(ADAPTED).named_parameters())
    after = {name: x for name, x in made[0].named_parameters() if "lora_" not in name}
    assert {name.replace(".base_layer", "") for name in after} == before.keys()
    for name, x in after.items():
        torch.testing.assert_close(x, before[name.replace(".base_layer", "")], rtol=0.0, atol=0.0)
    assert all(x.abs().max() > 0 for name, x in made[0].named_parameters() if "lora_B" in name)
    ours, peers = (dpo_load.model(ADAPTED) for _ in range(2))
    adapt(ours, Lora(2, targets=body_layers(ours)), torch.Generator())
    peers = get_peft_model(peers, dpo_peer._adapters(2))
    for network in (ours, peers):
        dpo_load.draw_adapters(network)
    down = [[x for name, x in each.named_parameters() if "lora_A" in name] for each in (ours, peers)]
    assert len(down[0]) == len(down[1]) == 7 * SMALL.depth
    for mine, its in zip(*down, strict=True):
        torch.testing.assert_close(mine, its, rtol=0.0, atol=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [SMALL, ADAPTED], ids=["all weights", "adapters"])
def test_theirs_computes_the_same(size: Size) -> None:
    pytest.importorskip("trl")
    found = {name: dpo.run(size, how, "cpu") for name, how in dpo.settings().items()}
    told = {name: [one] for name, one in found.items()}
    assert dpo.apart(told, "float32") < 1e-4
    assert dpo.apart(told, "bf16") < 2e-2
    assert found[DEFAULT].epoch.reference == 0.0
    assert found["trl, float32"].epoch.reference > 0.0
    assert all(one.peak is None or one.peak > 0 for one in found.values())
    patched = dpo.run(size, replace(GROUPED, compact=True), "cpu").epoch
    assert patched.losses == pytest.approx(found["trl, float32, grouped"].epoch.losses, rel=1e-6)


@pytest.mark.slow
def test_patched_the_peer_multiplies_its_head_where_a_completion_is_scored() -> None:
    """Once for the reference, once for the update; else also at prompts and where batches are filled up."""
    pytest.importorskip("trl")
    from trl.trainer import utils

    asked, told = utils._use_triton, list[int]()
    head = utils._ChunkedLogProbFunction

    def counted(hidden: Any, *rest: Any) -> Any:
        told.append(len(hidden))
        return head.apply(hidden, *rest)

    scored = 2 * sum(len(pair.chosen) + len(pair.rejected) for pair in dpo_load.pairs(SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=counted))
        dpo_peer.epoch(SMALL, replace(GROUPED, compact=True), "cpu")
        assert sum(told) == scored
        assert utils._use_triton is asked
        told.clear()
        dpo_peer.epoch(SMALL, GROUPED, "cpu")
        assert sum(told) > 1.5 * scored
