"""What a model on a disk is called, where its path is nobody's business."""

from __future__ import annotations

from pathlib import Path

import pytest

from generative.language.adapter import base_name

NAMES = {
    "stories": "stories",
    "runs/first/model": "first",
    "hub/models--karpathy--tinyllamas/snapshots/0bd2": "karpathy/tinyllamas",
    "hub/models--gpt2/snapshots/607a": "gpt2",
    "models--a--b/c": "c",
    "snapshots/0bd2": "0bd2",
}


@pytest.mark.parametrize("path", NAMES)
def test_a_base_is_called_by_its_own_name_wherever_one_stands(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / path
    folder.mkdir(parents=True)
    assert base_name(folder) == NAMES[path]
    for here, relative in ((folder, "."), (folder.parent, folder.name)):
        monkeypatch.chdir(here)
        assert base_name(Path(relative)) == NAMES[path]


def test_a_config_that_names_what_the_model_was_made_from_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "config.json").write_text('{"_name_or_path": "meta-llama/Llama-2-7b-hf"}')
    assert base_name(tmp_path / "tuned") == "tuned"
