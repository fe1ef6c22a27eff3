"""What a person sees of long work where there is no terminal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lab import console


def test_without_a_terminal_there_is_a_line_whenever_one_is_due_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 59.0, 61.0, 61.0, 100.0, 122.0, 122.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with console.progress("learns", total=200) as bar:
        for completed, note in ((10, "early"), (50, "loss 1.0"), (60, "too soon"), (100, "")):
            bar.update(completed, note)
    assert capsys.readouterr().err.splitlines() == ["learns: 25%, loss 1.0", "learns: 50%", "learns: 200 done"]
