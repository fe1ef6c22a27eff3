"""The judge of the digits, trained once (some seconds) for all tests of a process."""

from __future__ import annotations

import pytest

from generative.diffusion.data import digits
from generative.diffusion.measures.metrics import Judge


@pytest.fixture(scope="session")
def judge() -> Judge:
    split = digits(0)
    return Judge(split.train, split.test)
