"""Where the reference's answers cannot be kept: one warning, tried before anything is asked, and the same answers."""

from __future__ import annotations

import errno
import os
import resource
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from generative.preference import reference as kept
from generative.preference.reference import CacheWarning
from tests.generative.preference import test_reference
from tests.generative.preference.test_reference import asked, model, pairs

small = test_reference.small  # portions, for all tests here


def refuse(number: int) -> Callable[..., Any]:
    def refused(*given: Any, **asked: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize("when", ["no folder", "read-only", "full", "full later"])
def test_a_folder_that_cannot_be_written_is_one_warning_and_no_fault(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, folder = asked(model(), pairs(), None), tmp_path / "file" / "cache"
    if when == "no folder":
        (tmp_path / "file").write_text("no folder")
    elif when == "full later":
        monkeypatch.setattr(kept, "replace", refuse(errno.ENOSPC))
    else:
        monkeypatch.setattr("tempfile.TemporaryFile", refuse(errno.EROFS if when == "read-only" else errno.ENOSPC))
    reason = {"no folder": "Not a directory", "read-only": "Read-only file system"}.get(when, "No space left on device")
    counting = model()
    with pytest.warns(CacheWarning) as said:
        assert torch.equal(asked(counting, pairs(), folder), truth)
    [line] = [str(each.message) for each in said]
    assert line.startswith(f"{folder}: cannot be written ({reason}), so what the reference says is not kept")
    assert counting.calls > 3
    assert not list(tmp_path.rglob("*.npy"))


def test_whether_there_is_room_is_tried_before_anything_is_asked(tmp_path: Path) -> None:
    """A file may have 100 bytes; the numbers alone are 144."""
    dying, usual = model(), resource.getrlimit(resource.RLIMIT_FSIZE)
    dying.dies_at = 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, usual[1]))
    try:
        with pytest.warns(CacheWarning, match=r"\(File too large\)"), pytest.raises(KeyboardInterrupt):
            asked(dying, pairs(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def test_what_is_complete_is_read_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, again = asked(model(), pairs(), tmp_path), model()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse(errno.EROFS))
    monkeypatch.setattr(kept, "replace", refuse(errno.EROFS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(asked(again, pairs(), tmp_path), truth)
    assert again.calls == 0
