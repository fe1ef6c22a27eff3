"""Rounds in which the ways to serve a load take turns, and what they come to: medians, with the least and the most."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from benchmarks.diffusion_ways import OURS, Served


def take_turns(
    part: str, ways: Mapping[str, Callable[[], Served]], rounds: int, *, narrow: bool = False
) -> Generator[tuple[str, str], None, dict[str, list[Served]]]:
    """Let every way serve once a round; every other round goes backwards, so that nobody always comes first or last.

    Args:
        part: what this is, said with every turn.
        ways: by name, `OURS` among them.
        rounds: at least one.
        narrow: whether later rounds are of ours and of the peer's fastest way in the first alone.

    Yields:
        (part, whose turn it is) before each turn.

    Returns:
        What each way served, round by round.
    """
    served: dict[str, list[Served]] = {way: [] for way in ways}
    going = list(ways)
    for number in range(rounds):
        for way in going if number % 2 == 0 else going[::-1]:
            yield part, f"round {number + 1} of {rounds}, {way}"
            served[way].append(ways[way]())
        if narrow and number == 0:
            going = [OURS, _fastest_peer(served)]
    return served


def compared(served: Mapping[str, Sequence[Served]]) -> dict[str, Any]:
    """Ours beside the peer's fastest way, the medians of images a second over the rounds.

    Ways that did not take part in every round that ours did are not looked at: their rates are of other moments. A
    spread is [the least, the most]; that of the ratio is over the rounds, each with the two rates of that round.
    """
    best = _fastest_peer({way: found for way, found in served.items() if len(found) == len(served[OURS])})
    rates = {way: [one.images_per_second for one in found] for way, found in served.items()}
    mine, theirs = median_rate(served[OURS]), median_rate(served[best])
    return {
        "ratio": mine / theirs,
        "images_per_second": mine,
        "peer": theirs,
        "peer_way": best,
        "rounds": len(served[OURS]),
        "ratio_spread": _spread([a / b for a, b in zip(rates[OURS], rates[best], strict=True)]),
        "spread": {way: _spread(found) for way, found in rates.items()},
    }


def median_rate(served: Sequence[Served]) -> float:
    """Images a second of one way, the median over its rounds."""
    return statistics.median(one.images_per_second for one in served)


def _fastest_peer(served: Mapping[str, Sequence[Served]]) -> str:
    return max((way for way in served if way != OURS), key=lambda way: median_rate(served[way]))


def _spread(rates: Sequence[float]) -> list[float]:
    return [min(rates), max(rates)]
