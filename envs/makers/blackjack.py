"""Blackjack against a dealer with a fixed strategy, as a table (Sutton & Barto 2018, example 5.1).

    total     what the hand is worth, 12 ... 21 where something is to be decided: with less no card can bust
    usable    the hand holds an ace that counts 11
    dealer    the dealer's card that shows, 1 (an ace) ... 10

Cards come from an infinite deck, so these three are all there is to know: 200 states. A natural (an ace and a ten from
the deal) wins whatever is done, unless the dealer has one too, and so stands in ten states of its own.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from envs.layout import LOOKS, Layout
from envs.makers.made import Made
from envs.mdp import TabularMDP

CARDS = {card: (4 if card == 10 else 1) / 13 for card in range(1, 11)}  # its chance; ten, jack, queen and king are one
LOW, HIGH = 12, 21
NATURAL, OVER = 20, 21  # rows of the map; rows 0 ... 9 hold a usable ace, and 10 ... 19 do not, from 21 down to 12
STICK, HIT = 0, 1

Chances = dict[tuple[int, bool], float]  # of each (total, usable)


def state(total: int, usable: bool, dealer: int) -> int:
    """The number of a state of `blackjack`.

    Raises:
        ValueError: for a hand that is none: a total outside 12 ... 21, or a dealer's card outside 1 ... 10.
    """
    if not (LOW <= total <= HIGH and dealer in CARDS):
        raise ValueError(
            f"a hand of {total} against {dealer}, expected {LOW} to {HIGH} against a card from 1 (an ace) to 10"
        )
    return 10 * ((0 if usable else 10) + HIGH - total) + dealer - 1


def blackjack(stands: int, natural: float) -> Made:
    """Hit or stick; winning earns 1, losing -1, a draw 0 (Sutton & Barto 2018, example 5.1).

    The map has a row for each total and a column for each card of the dealer: ten rows with a usable ace, from 21 down
    to 12, ten without, one of naturals and one of games that are over. An episode begins with the deal, cards that
    cannot bust taken. In a natural nothing is decided, whatever the action: the book's rule, and that of Gymnasium's
    Blackjack-v1 with sab=True, but that there one may hit and spoil it.

    Args:
        stands: the dealer hits below this total, and sticks from there on, with a usable ace or without.
        natural: what a natural earns. The book's 1; casinos pay 1.5.
    """
    S, K = 220, len(CARDS)
    next_state = np.repeat(np.arange(S, dtype=np.int32), 2 * K).reshape(S, 2, K)
    prob, reward, terminated = np.zeros((S, 2, K)), np.zeros((S, 2, K)), np.zeros((S, 2, K), np.bool_)
    prob[..., 0], terminated[10 * NATURAL :] = 1, True
    for dealer in CARDS:
        over = 10 * OVER + dealer - 1
        final = dealers_total(dealer, stands)
        next_state[over - 10] = over
        prob[over - 10, :, 0] = chance = {1: 1 - CARDS[10], 10: 1 - CARDS[1]}.get(dealer, 1.0)
        prob[over - 10, :, 1], reward[over - 10, :, 0] = 1 - chance, natural
        for usable in (True, False):
            for total in range(LOW, HIGH + 1):
                s = state(total, usable, dealer)
                lost = sum(p for theirs, p in final.items() if total < theirs <= HIGH)
                prob[s, STICK, :3] = 1 - lost - final.get(total, 0.0), final.get(total, 0.0), lost
                reward[s, STICK, :3] = 1, 0, -1
                next_state[s, STICK], terminated[s, STICK] = over, True
                for k, (card, p) in enumerate(CARDS.items()):
                    more, still = add(total, usable, card)
                    bust = more > HIGH
                    next_state[s, HIT, k] = over if bust else state(more, still, dealer)
                    prob[s, HIT, k], reward[s, HIT, k], terminated[s, HIT, k] = p, -float(bust), bust
    mdp = TabularMDP(
        next_state=torch.from_numpy(next_state),
        prob=torch.from_numpy(prob),
        reward=torch.from_numpy(reward),
        terminated=torch.from_numpy(terminated),
        start=_deal(),
    )
    look = torch.full((1, OVER + 1, 10), LOOKS.index("floor"))
    look[0, OVER] = LOOKS.index("hole")
    cell = torch.cartesian_prod(torch.arange(OVER + 1), torch.arange(10))
    layout = Layout(("." * 10,) * OVER + ("H" * 10,), look, cell, torch.zeros(S, dtype=torch.int64))
    return Made(mdp, layout, ("stick", "hit"))


def add(total: int, usable: bool, card: int) -> tuple[int, bool]:
    """What a hand is worth with another card: an ace counts 11 where it can, and 1 as soon as it cannot."""
    total, aces = total + card, int(usable)
    if card == 1 and total + 10 <= HIGH:
        total, aces = total + 10, aces + 1
    if total > HIGH and aces:
        total, aces = total - 10, aces - 1
    return total, aces > 0


def dealers_total(dealer: int, stands: int) -> dict[int, float]:
    """The chance of each total that the dealer ends with, busts counted as they fall (22 and more)."""

    @cache
    def from_here(total: int, usable: bool) -> dict[int, float]:
        if total >= stands:
            return {total: 1.0}
        final: dict[int, float] = {}
        for card, p in CARDS.items():
            for end, chance in from_here(*add(total, usable, card)).items():
                final[end] = final.get(end, 0.0) + p * chance
        return final

    return dict(sorted(from_here(*add(0, False, dealer)).items()))


def _deal() -> Float64[Tensor, "S"]:
    """The chance of each state to be the first: two cards, and more while the total is below 12."""
    hands: Chances = {}
    naturals = 2 * CARDS[1] * CARDS[10]
    for one, p in CARDS.items():
        for two, q in CARDS.items():
            if {one, two} != {1, 10}:
                hand = add(*add(0, False, one), two)
                hands[hand] = hands.get(hand, 0.0) + p * q
    while any(total < LOW for total, _ in hands):
        low = min(hands)
        chance = hands.pop(low)
        for card, p in CARDS.items():
            hand = add(*low, card)
            hands[hand] = hands.get(hand, 0.0) + chance * p
    start = torch.zeros(10 * (OVER + 1), dtype=torch.float64)
    for dealer, shows in CARDS.items():
        start[10 * NATURAL + dealer - 1] = naturals * shows
        for (total, usable), chance in hands.items():
            start[state(total, usable, dealer)] = chance * shows
    return start
