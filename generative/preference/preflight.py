"""What a preference file holds, and what of it can teach: counted before an hour is spent on it.

A row that cannot teach is dropped, and counted under the first of the reasons that holds. What is only doubtful is
counted and kept.

    dropped    not_json, not_object, missing_column, not_string: no pair can be read there
               empty, identical: a side says nothing, nothing of it is left in tokens, or both say the same
               not_tokenised: the tokenizer refuses it
               overlong_prompt: the prompt fills all the room there is, so that no token of a completion is left
               unscored: no token of a side has a past, and with it a log-probability
               identical_when_cut: both sides are the same once they are cut: no gradient
    kept       duplicated, contradictory: the pair stood in the file before, or did with its sides exchanged
               merged: a tokenizer's token reaches over the boundary, so that the prompt loses its end
               overlong_chosen, overlong_rejected: a side is cut
               no_prompt: the prompt is nothing in tokens, so that the first token of either side is not scored: it has
               no past. Sides that differ there only can teach, since all that follows is judged after it
               more_keys: a message is more than role and content, or the row has tools or chat_template_kwargs; of a
               chat the template decides what of it is seen, of text nothing is
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from generative.jsonl import Fault
from generative.language.tokenizer import TokenizerError
from generative.preference.pairs import Pair, PairError, rows, said
from generative.preference.tokens import PairTokenizer, Tokens, doubts, shortened

UNREADABLE = ("not_json", "not_object", "missing_column", "not_string", "empty", "identical")
UNTEACHING = (*UNREADABLE, "not_tokenised", "overlong_prompt", "unscored", "identical_when_cut")
DOUBTFUL = (
    *("duplicated", "contradictory", "merged", "overlong_chosen", "overlong_rejected"),
    *("no_prompt", "more_keys"),
)


@dataclass
class Findings:
    """Counts, one for each thing that was looked for."""

    pairs: int = 0
    """Rows that are not blank."""
    usable: int = 0
    """Pairs that training takes."""
    not_json: int = 0
    not_object: int = 0
    missing_column: int = 0
    not_string: int = 0
    empty: int = 0
    identical: int = 0
    not_tokenised: int = 0
    overlong_prompt: int = 0
    unscored: int = 0
    identical_when_cut: int = 0
    duplicated: int = 0
    contradictory: int = 0
    merged: int = 0
    overlong_chosen: int = 0
    overlong_rejected: int = 0
    no_prompt: int = 0
    more_keys: int = 0
    chats: int = 0
    """Usable pairs of messages; the others are of text."""
    chosen_length: float = 0.0
    """Median length of the chosen side over usable pairs: in tokens where there is a tokenizer, else in characters."""
    rejected_length: float = 0.0
    chosen_longer: float = 0.0
    """Share of usable pairs whose chosen side is the longer; far from a half, length alone may be what is learned."""
    noted: list[tuple[str, str]] = field(default_factory=list)
    """(what was found, "PLACE: message") of every row with a fault or a doubt, in the order of the file."""

    @property
    def first(self) -> dict[str, str]:
        """The first of each that was found."""
        found = dict[str, str]()
        for kind, message in self.noted:
            found.setdefault(kind, message)
        return found

    @property
    def dropped(self) -> int:
        """Rows that training leaves out."""
        return self.pairs - self.usable

    def counts(self) -> dict[str, int | float]:
        """Every number by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "noted"}

    def note(self, kind: str, place: str, message: str) -> None:
        """One more of a kind."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.noted.append((kind, f"{place}: {message}"))


@dataclass(frozen=True)
class Checked:
    """What may be trained on, and what was found on the way."""

    pairs: Sequence[Pair]
    tokens: Sequence[Tokens]
    """Of each pair, cut to the limit; none without a tokenizer."""
    lengths: Sequence[tuple[int, int, int]]
    """Of prompt, chosen and rejected before anything is cut."""
    findings: Findings


def preflight(
    path: Path, tokenizer: PairTokenizer | None = None, limit: int | None = None, *, strict: bool = False
) -> Checked:
    """Look at every row.

    Args:
        path: a file or folder of pairs (`generative.preference.records`).
        tokenizer: of the model that is to learn; without one only texts are looked at.
        limit: the longest sequence in tokens, prompt and completion together.
        strict: raise at the first row that would be dropped.

    Raises:
        PairError: for a file that cannot be read; with `strict` for a row that would be dropped.
    """
    findings, pairs, tokens, lengths = Findings(), list[Pair](), list[Tokens](), list[tuple[int, int, int]]()
    seen: dict[Pair, str] = {}
    for place, found in rows(path):
        findings.pairs += 1
        fault = found if isinstance(found, Fault) else None
        kind, message = ("", "") if fault is None else (str(fault.kind), fault.message)
        sizes, part = (0, 0, 0), None
        if isinstance(found, Pair):
            sizes = (len(said(found.prompt)), len(said(found.chosen)), len(said(found.rejected)))
            if tokenizer is not None:
                kind, message, sizes, part = _tokenised(found, tokenizer, limit)
        if kind:
            findings.note(kind, place, message)
            if strict:
                raise PairError(f"{place}: {message}")
            continue
        assert isinstance(found, Pair)
        _doubt(findings, seen, place, found)
        for doubt, words in doubts(found, part):
            findings.note(doubt, place, words)
        if part is not None:
            _cut(findings, place, part, sizes, limit)
            tokens.append(part)
        findings.usable += 1
        findings.chats += found.chat
        pairs.append(found)
        lengths.append(sizes)
    _lengths(findings, lengths)
    return Checked(pairs, tokens, lengths, findings)


def _tokenised(
    pair: Pair, tokenizer: PairTokenizer, limit: int | None
) -> tuple[str, str, tuple[int, int, int], Tokens | None]:
    """(kind of fault or nothing, message, lengths, tokens)."""
    try:
        whole = tokenizer(pair)
    except TokenizerError as error:
        return "not_tokenised", str(error), (0, 0, 0), None
    sizes = (len(whole.prompt), len(whole.chosen), len(whole.rejected))
    for side, tokens in (("chosen", whole.chosen), ("rejected", whole.rejected)):
        if not tokens:
            return "empty", f"nothing of the {side} side is left in tokens; a pair needs two completions", sizes, None
    part = whole if limit is None else whole.cut(limit)
    if not part.chosen or not part.rejected:
        return "overlong_prompt", f"its prompt has {sizes[0]} tokens, and there is room for {limit}", sizes, part
    if not all(part.scored()):
        words = "" if limit is None or part == whole else f", cut to {limit}"
        side = "rejected" if part.scored()[0] else "chosen"
        words = f"nothing of the {side} side is scored: one token{words}, and no prompt before it"
        return "unscored", words, sizes, part
    if part.chosen == part.rejected:
        cut = "" if limit is None or part == whole else f" once they are cut to {limit}"
        return "identical_when_cut", f"both sides are the same tokens{cut}: no gradient", sizes, part
    return "", "", sizes, part


def _doubt(findings: Findings, seen: dict[Pair, str], place: str, pair: Pair) -> None:
    exchanged = replace(pair, chosen=pair.rejected, rejected=pair.chosen)
    for kind, earlier, words in (
        ("duplicated", pair, "the same pair as"),
        ("contradictory", exchanged, "the sides exchanged of"),
    ):
        if earlier in seen:
            findings.note(kind, place, f"{words} {seen[earlier]}")
    seen.setdefault(pair, place)


def _cut(findings: Findings, place: str, part: Tokens, sizes: tuple[int, int, int], limit: int | None) -> None:
    for kind, whole, kept in (("chosen", sizes[1], part.chosen), ("rejected", sizes[2], part.rejected)):
        if len(kept) < whole:
            findings.note(f"overlong_{kind}", place, shortened(f"the {kind} side", len(kept), whole, limit))


def _lengths(findings: Findings, lengths: Iterable[tuple[int, int, int]]) -> None:
    both = [(chosen, rejected) for _, chosen, rejected in lengths]
    if both:
        findings.chosen_length, findings.rejected_length, findings.chosen_longer = (
            *(float(statistics.median(side)) for side in zip(*both, strict=True)),
            sum(chosen > rejected for chosen, rejected in both) / len(both),
        )
