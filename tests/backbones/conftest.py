"""What the tests of the networks share."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def as_in_use() -> Iterator[None]:
    """The annotations unchecked, as they are outside of the tests: the entrance has to see by itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
