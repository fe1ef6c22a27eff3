"""Blackjack: card by card against Gymnasium's own code, the deal by playing it out, values by playing all cards."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product

import gymnasium
import pytest
import torch

import envs
from envs.makers.blackjack import CARDS, HIT, NATURAL, OVER, STICK, blackjack, dealers_total, state
from envs.mdp import TabularMDP
from envs.world import World
from rl import dp

DECK = {card: Fraction(4 if card == 10 else 1, 13) for card in range(1, 11)}


class OutOfCardsError(Exception):
    """The script of cards was too short."""


class Script:
    """Draws the cards that it was given, in order, and says when there are no more."""

    def __init__(self, cards: tuple[int, ...]) -> None:
        self.cards = iter(cards)

    def choice(self, deck: object) -> int:
        for card in self.cards:
            return card
        raise OutOfCardsError


def played(player: list[int], dealer: list[int], action: int) -> Iterator[tuple[Fraction, tuple[int, int, int], float]]:
    """Every way in which Gymnasium's step may go: (chance, what is seen, reward), ends seen as (0, 0, 0)."""
    env = gymnasium.make("Blackjack-v1", sab=True).unwrapped
    scripts: list[tuple[int, ...]] = [()]
    for script in scripts:
        env.player, env.dealer, env.np_random = list(player), list(dealer), Script(script)
        try:
            seen, reward, terminated, _, _ = env.step(action)
        except OutOfCardsError:
            scripts += [(*script, card) for card in DECK]
            continue
        chance = Fraction(1)
        for card in script:
            chance *= DECK[card]
        yield chance, (0, 0, 0) if terminated else seen, float(reward)


def chances(mdp: TabularMDP, s: int, action: int) -> dict[tuple[int, float, bool], float]:
    """The same of our table, by (successor, reward, terminated)."""
    out: dict[tuple[int, float, bool], float] = {}
    for k in range(mdp.outcomes):
        key = (int(mdp.next_state[s, action, k]), float(mdp.reward[s, action, k]), bool(mdp.terminated[s, action, k]))
        out[key] = out.get(key, 0.0) + float(mdp.prob[s, action, k])
    return {key: p for key, p in out.items() if p > 0}


def hand_of(total: int, usable: bool) -> list[int]:
    """Cards that are worth this and are no natural."""
    if usable:
        return [1, 5, 5] if total == 21 else [1, total - 11]
    return [10, total - 10] if total < 21 else [10, 9, 2]


@pytest.fixture(scope="module")
def mdp() -> TabularMDP:
    world = envs.load("blackjack")
    assert isinstance(world, World)
    return world.mdp


def test_hitting_is_gymnasiums_card_by_card(mdp: TabularMDP) -> None:
    for total, usable, dealer in product(range(12, 22), (True, False), (1, 6, 10)):
        expected: dict[tuple[int, float, bool], float] = {}
        for p, (after, _, ace), reward in played(hand_of(total, usable), [dealer, 2], HIT):
            over = after == 0
            key = (10 * OVER + dealer - 1 if over else state(after, bool(ace), dealer), reward, over)
            expected[key] = expected.get(key, 0.0) + float(p)
        assert chances(mdp, state(total, usable, dealer), HIT) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(("total", "usable"), [(13, True), (17, False), (19, False), (21, True)])
def test_sticking_is_gymnasiums_over_every_hand_of_the_dealer(mdp: TabularMDP, total: int, usable: bool) -> None:
    for dealer in (1, 2, 7, 10):
        expected: dict[tuple[int, float, bool], float] = {}
        for hidden, q in DECK.items():
            for p, _, reward in played(hand_of(total, usable), [dealer, hidden], STICK):
                key = (10 * OVER + dealer - 1, reward, True)
                expected[key] = expected.get(key, 0.0) + float(p * q)
        assert chances(mdp, state(total, usable, dealer), STICK) == pytest.approx(expected, abs=1e-13)


def test_a_natural_wins_but_against_another(mdp: TabularMDP) -> None:
    """As sticking is in Gymnasium; the dealer's natural is an ace and a ten of his first two cards."""
    for dealer in (1, 5, 10):
        win = sum(float(q * p) for x, q in DECK.items() for p, _, r in played([1, 10], [dealer, x], STICK) if r == 1)
        over = 10 * OVER + dealer - 1
        expected = {(over, 1.0, True): win} | ({(over, 0.0, True): 1 - win} if win < 1 - 1e-12 else {})
        for action in (STICK, HIT):
            assert chances(mdp, 10 * NATURAL + dealer - 1, action) == pytest.approx(expected, abs=1e-12)
    rich = blackjack(17, 1.5).mdp
    assert float(rich.expected_reward()[10 * NATURAL + 4, STICK]) == 1.5


def test_the_deal_is_that_of_two_cards_played_on(mdp: TabularMDP) -> None:
    """Every sequence of cards that reaches 12, by Gymnasium's way of counting a hand."""
    expected = torch.zeros(220, dtype=torch.float64)

    def deal(cards: tuple[int, ...], p: Fraction) -> None:
        usable = 1 in cards and sum(cards) + 10 <= 21
        total = sum(cards) + 10 * usable
        if len(cards) >= 2 and total >= 12:
            natural = sorted(cards) == [1, 10]
            for dealer, q in DECK.items():
                expected[10 * NATURAL + dealer - 1 if natural else state(total, usable, dealer)] += float(p * q)
            return
        for card, q in DECK.items():
            deal((*cards, card), p * q)

    deal((), Fraction(1))
    torch.testing.assert_close(mdp.start, expected, rtol=0, atol=1e-14)
    assert int(mdp.lived().sum()) == 210


def test_the_dealer_ends_as_the_tables_of_the_game_say() -> None:
    """Infinite deck, sticking on any 17: he busts with 0.4232 behind a 6 and with 0.1153 behind an ace."""
    six, ace = dealers_total(6, 17), dealers_total(1, 17)
    assert sum(p for total, p in six.items() if total > 21) == pytest.approx(0.4232, abs=5e-5)
    assert sum(p for total, p in ace.items() if total > 21) == pytest.approx(0.1153, abs=5e-5)
    assert sum(six.values()) == pytest.approx(1)
    assert set(dealers_total(10, 12)) - {*range(12, 27)} == set()
    assert sum(CARDS.values()) == pytest.approx(1)


def test_the_best_policy_is_that_of_the_books_figure(mdp: TabularMDP) -> None:
    """Figure 5.2: the least total to stick on, for the dealer's ace, 2, ... 10."""
    stick = dp.policy_iteration(mdp, 1.0).policy[:200].view(2, 10, 10) == STICK  # [usable, 21 ... 12, dealer]
    least = 22 - stick.sum(1)
    assert least[0].tolist() == [19, 18, 18, 18, 18, 18, 18, 18, 19, 19]
    assert least[1].tolist() == [17, 13, 13, 12, 12, 12, 17, 17, 17, 17]


def test_a_hand_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="a hand of 11 against 2, expected 12 to 21 against a card from 1"):
        state(11, False, 2)
    with pytest.raises(ValueError, match="a hand of 12 against 0"):
        state(12, False, 0)
