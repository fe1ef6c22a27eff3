"""Every claim says what it claims, who said it, and which numbers show it; the quick ones run here, all in `slow`."""

from __future__ import annotations

import re

import pytest
import torch
from matplotlib.figure import Figure

from experiments.catalog import EXPERIMENTS, GROUPS, NEEDS, NOT_HELD, NOT_RUN
from experiments.claim import Claim, DataError, Finding, Setting

QUICK = ("vanishing-gradients",)  # seconds each


def found(name: str) -> tuple[Claim, Finding]:
    """What a run finds, and that it reports how far it is, forwards."""
    shares: list[float] = []
    claim, run = EXPERIMENTS[name]
    finding = run(Setting(seed=0, device=torch.device("cpu"), report=lambda share, note: shares.append(share)))
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 + 1e-9 for share in shares)
    return claim, finding


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_claim_is_a_sentence_with_a_dated_source_and_numbers(name: str) -> None:
    claim, run = EXPERIMENTS[name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert claim.claim.endswith(".")
    assert re.search(r"\b(19|20)\d\d\b", claim.source)
    assert claim.stated
    assert "-" not in claim.stated.values()  # each number has its bar
    assert callable(run)


def test_each_claim_is_in_one_group_and_lists_name_claims() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(EXPERIMENTS)
    assert set(EXPERIMENTS) >= NOT_HELD | NOT_RUN | set(NEEDS)
    assert not NOT_HELD & NOT_RUN


def complete(claim: Claim, finding: Finding) -> None:
    """The same names stated and found, a picture, and a table that is one."""
    assert list(finding.found) == list(claim.stated)
    assert isinstance(finding.figure, Figure)
    assert finding.verdict
    assert all(len(row) == len(finding.header) for row in finding.rows)


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_one_finds_what_its_claim_states(name: str) -> None:
    claim, finding = found(name)
    complete(claim, finding)
    assert finding.holds


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in QUICK])
def test_the_others_find_what_their_claims_state(name: str) -> None:
    try:
        claim, finding = found(name)
    except DataError as error:
        pytest.skip(str(error))
    complete(claim, finding)
