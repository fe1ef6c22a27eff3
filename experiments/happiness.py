"""How happy a story is, by a rule that counts words."""

from __future__ import annotations

import re

FEW = 50
"""Words that a story is taken to have at least: else one of two words could be the happiest of all."""
HAPPY = re.compile(
    r"happ(y|ier|iest|ily|iness)|joy(s|ful|fully)?|glad(ly)?|smil(e|es|ed|ing)|laugh(s|ed|ing|ter)?|giggl(e|es|ed|ing)"
    r"|lov(e|es|ed|ing|ely)|fun(ny)?|excit(ed|edly|ing|ement)|proud(ly)?|cheer(s|ed|ful|fully)?|hug(s|ged|ging)?"
    r"|enjoy(s|ed|ing)?|delight(s|ed|ful)?|thank(s|ed|ful)?|wonderful"
)
SAD = re.compile(
    r"sad(der|ly|ness)?|unhapp(y|ily|iness)|cr(y|ies|ied|ying)|tears?|scar(e|es|ed|y)|afraid|frighten(ed|ing)?"
    r"|hurt(s|ing)?|angr(y|ily)|mad|lonely|alone|worr(y|ies|ied|ying)|upset|sorry|fear(s|ed|ful)?|lost|bad(ly)?"
    r"|disappointed"
)
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def happiness(text: str) -> float:
    """Happy words less sad ones, of a hundred words (of `FEW` at least)."""
    words = words_of(text)
    count = sum(bool(HAPPY.fullmatch(word)) - bool(SAD.fullmatch(word)) for word in words)
    return 100 * count / max(len(words), FEW)


def words_of(text: str) -> list[str]:
    """Its words, in small letters."""
    return WORD.findall(text.lower())
