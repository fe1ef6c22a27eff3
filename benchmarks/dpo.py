"""Pairs a second and peak memory: our DPO beside trl's, the same model and pairs, in one run.

    ours        the defaults of `qx dpo` on a model of transformers, and the same in bf16
    default     trl as it comes: bf16, activations computed twice, the reference in every update
    best        the fastest of trl with its own switches: the reference once before and activations kept, in bf16 or
                float32, with the pairs in their order or in batches of alike lengths; and in bf16 with activations
                computed twice, which needs less memory
    patched     trl's best settings with its head on scored positions only; not counted as trl's best

On a CPU trl takes a fallback. On CUDA it multiplies its head only where a completion is scored; on every other device
at all positions, prompts and filling included (trl 1.16, trl/trainer/utils.py, `compact = _use_triton(device)`), and it
has no switch for that. A user of trl on a CPU gets the fallback, so ours is compared with it. How much of the ratio is
the fallback's is told by "patched": that one name says yes, and nothing else is changed. On CUDA this is what trl does
anyway, and the way is left out.

Each way trains one epoch in a process of its own, after an epoch of a tiny model, which loads and allocates what any
training needs once. Pairs a second are those of the epoch over all its seconds, the reference's included; memory is
the peak of the resident set above what it was before the epoch (on CUDA: what torch allocated at most), the model
included. Every way trains once; ours, the default, the fastest of trl then, and that one patched take turns in further
rounds, every other one backwards, and their medians are compared.

`speed_ratio` is ours as it comes over the default; `best_speed_ratio` and `patched_speed_ratio` are the faster of ours
over the best and the patched. `memory_ratio` and `patched_memory_ratio` are of the same ways; `best_memory_ratio` is
the peak of the faster of ours over the least of any way of trl that is not patched, trained once or in all rounds.

With a `lora_rank` in the size every way trains adapters of that rank in place of the weights, from the same draws; the
reference is the model without them.

Before times are compared, so are numbers: log pi of the first batch's chosen, and the losses of all updates.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch

from benchmarks import dpo_ours, dpo_peer, resident
from benchmarks.dpo_load import Size
from benchmarks.dpo_ours import Epoch, Ours
from benchmarks.dpo_peer import Theirs

Way = Ours | Theirs
OURS, HALF, DEFAULT, PATCHED = "quincunx", "quincunx, bf16", "trl, default", "trl, patched"
AGREE = {"float32": 1e-4, "bf16": 2e-2}
"""Relative difference of losses and log-probabilities; bf16 has 8 bits."""
TINY = Size(vocabulary=64, width=16, depth=1, heads=2, hidden=16, pairs=4, batch=2, prompt=(2, 4), completion=(2, 4))


@dataclass(frozen=True)
class Measured:
    """One epoch of one way."""

    pairs_per_second: float
    peak: float | None
    """Bytes; None where the system does not tell."""
    epoch: Epoch


def settings() -> dict[str, Way]:
    """Everything that is tried before the rounds, but for the patched, which has the settings of the fastest of trl."""
    ways: dict[str, Way] = {OURS: Ours(), HALF: Ours("bf16"), DEFAULT: Theirs()}
    for bf16, grouped in product((True, False), (True, False)):
        name = f"trl, {'bf16' if bf16 else 'float32'}{', grouped' if grouped else ''}"
        ways[name] = Theirs(bf16=bf16, checkpointing=False, precomputed=True, grouped=grouped)
    ways["trl, bf16, checkpointing"] = Theirs(bf16=True, checkpointing=True, precomputed=True)
    return ways


def run(size: Size, how: Way, device: str) -> Measured:
    """An epoch in a process of its own. Raises RuntimeError with its last line when it stops."""
    asked = {"size": asdict(size), "ours": isinstance(how, Ours), "how": asdict(how), "device": device}
    found = resident.apart("benchmarks.dpo", asked, "training")
    epoch = Epoch(**found["epoch"])
    return Measured(size.pairs / (epoch.reference + epoch.training), found["peak"], epoch)


def measure(size: Size, device: str, rounds: int) -> Iterator[tuple[str, dict[str, list[Measured]]]]:
    """(whose turn it is, what was found so far) before each epoch, and at last ("", all)."""
    ways, found = settings(), dict[str, list[Measured]]()
    for name, how in ways.items():
        yield name, found
        found[name] = [run(size, how, device)]
    best = peers_best(found)
    going = [OURS, HALF, DEFAULT, best]
    if device != "cuda":
        ways[PATCHED] = Theirs(**{**asdict(ways[best]), "compact": True})
        going.append(PATCHED)
        yield PATCHED, found
        found[PATCHED] = [run(size, ways[PATCHED], device)]
    for number in range(1, rounds):
        for name in going[::-1] if number % 2 else going:
            yield f"{name}, round {number + 1} of {rounds}", found
            found[name].append(run(size, ways[name], device))
    yield "", found


def epochs(device: str, rounds: int) -> int:
    """How many `measure` trains."""
    patched = device != "cuda"
    return len(settings()) + patched + (4 + patched) * (rounds - 1)


def peers_best(found: Mapping[str, Sequence[Measured]]) -> str:
    """The fastest way of trl with switches of its own, of those that trained in all rounds."""
    rounds = len(found[OURS])
    tried = [name for name, how in settings().items() if isinstance(how, Theirs) and name != DEFAULT]
    return fastest({name: found[name] for name in tried if len(found[name]) == rounds})


def fastest(found: Mapping[str, Sequence[Measured]]) -> str:
    """The way of the largest median."""
    return max(found, key=lambda name: rate(found[name]))


def rate(found: Sequence[Measured]) -> float:
    """Pairs a second: the median of its epochs."""
    return statistics.median(one.pairs_per_second for one in found)


def peak(found: Sequence[Measured]) -> float | None:
    """Bytes: the median of its epochs."""
    known = [one.peak for one in found if one.peak is not None]
    return statistics.median(known) if known else None


def compared(found: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    """Ours as it comes over trl's default, the faster of ours over trl's best and over that patched; memory likewise.

    A ratio is left out where there is nothing to form it of: no way is patched, or the system tells no peak.
    """
    mine, best = fastest({name: found[name] for name in (OURS, HALF)}), peers_best(found)
    told: dict[str, Any] = {"ours_best": mine, "peer_best": best, "rounds": len(found[OURS])}
    speed = ("speed_ratio", OURS, DEFAULT), ("best_speed_ratio", mine, best), ("patched_speed_ratio", mine, PATCHED)
    for key, a, b in speed:
        if b in found:
            told[key] = rate(found[a]) / rate(found[b])
            told[f"{key}_spread"] = _spread(found[a], found[b])
    peaks = {name: bytes_ for name, each in found.items() if (bytes_ := peak(each)) is not None}
    theirs = {name: peaks[name] for name, how in settings().items() if isinstance(how, Theirs) and name in peaks}
    told["peer_least"] = least = min(theirs, key=lambda name: theirs[name], default="")
    memory = (
        ("memory_ratio", OURS, DEFAULT),
        ("best_memory_ratio", mine, least),
        ("patched_memory_ratio", mine, PATCHED),
    )
    for key, a, b in memory:
        if a in peaks and peaks.get(b):
            told[key] = peaks[a] / peaks[b]
    return told


def _spread(one: Sequence[Measured], other: Sequence[Measured]) -> list[float]:
    """The least and the most of the ratio, round by round."""
    ratios = [a.pairs_per_second / b.pairs_per_second for a, b in zip(one, other, strict=True)]
    return [min(ratios), max(ratios)]


def apart(found: Mapping[str, Sequence[Measured]], kind: str) -> float:
    """The largest relative difference between ours and a way of trl's that sees the pairs in the same order.

    And between trl's best patched and as it is, whatever their order.

    Args:
        found: one epoch of each way at least.
        kind: "float32" or "bf16", of both.
    """
    ways, mine = settings(), OURS if kind == "float32" else HALF
    theirs = {name: how for name, how in ways.items() if isinstance(how, Theirs) and how.bf16 == (kind == "bf16")}
    beside = [(mine, name) for name, how in theirs.items() if not how.grouped]
    if PATCHED in found and (best := peers_best(found)) in theirs:
        beside.append((PATCHED, best))
    worst = 0.0
    for names in beside:
        one, other = (found[name][0].epoch for name in names)
        pairs = [(one.likelihood, other.likelihood), *zip(one.losses, other.losses, strict=True)]
        worst = max(worst, *(abs(a - b) / max(abs(b), 1e-9) for a, b in pairs))
    return worst


def ablation(size: Size, device: str) -> Iterator[tuple[str, dict[str, Measured]]]:
    """(whose turn it is, what was found so far), for ours without each of what makes it fast; at last ("", all)."""
    found = dict[str, Measured]()
    for name, how in dpo_ours.without(Ours()).items():
        yield name, found
        found[name] = run(size, how, device)
    yield "", found


def _work(asked: Mapping[str, Any]) -> dict[str, Any]:
    """In the child: a tiny epoch, then the one that counts."""
    lengths: Any = {name: tuple(asked["size"][name]) for name in ("prompt", "completion")}
    size = Size(**{**asked["size"], **lengths})
    if asked["ours"]:
        how: Way = Ours(**asked["how"])
        train: Any = dpo_ours.epoch
    else:
        how, train = Theirs(**asked["how"]), dpo_peer.epoch
    train(replace(TINY, lora_rank=size.lora_rank), how, asked["device"])
    if asked["device"] == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = resident.began()
    done = train(size, how, asked["device"])
    peak = float(torch.cuda.max_memory_allocated()) if asked["device"] == "cuda" else resident.since(started)
    return {"epoch": asdict(done), "peak": peak}


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))  # noqa: T201  # whoever began this process reads it
