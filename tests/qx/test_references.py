"""What is said of a cache that cannot be written is said at once, and nothing else is swallowed."""

from __future__ import annotations

import warnings

import pytest

from generative.preference.reference import CacheWarning
from qx.references import without_a_cache


def test_it_is_said_at_once_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Before the work is done, which an interrupt may end."""
    with without_a_cache():
        warnings.warn(CacheWarning("no [room]"), stacklevel=2)
        assert capsys.readouterr().err == "no [room]\n"
        warnings.warn(CacheWarning("no [room]"), stacklevel=2)
        warnings.warn(CacheWarning("still none"), stacklevel=2)
    assert capsys.readouterr().err == "still none\n"


def test_other_warnings_are_warnings_still() -> None:
    with pytest.warns(UserWarning, match=r"^of something else$"), without_a_cache():
        warnings.warn("of something else", stacklevel=2)
    with pytest.warns(CacheWarning, match=r"^after it$"):
        warnings.warn(CacheWarning("after it"), stacklevel=2)
