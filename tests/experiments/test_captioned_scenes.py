"""Scenes by caption: the experiment at a tiny size, and that its pictures are judged by their own captions."""

import dataclasses

import pytest
import torch
from torch import Tensor

from experiments import captioned_scenes
from experiments.claim import Setting
from generative.diffusion.data.scenes import SIDES, obeyed, scenes
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.recipes import SCENES

SETTING = Setting(seed=0, device=torch.device("cpu"))
TINY = dataclasses.replace(
    SCENES,
    model=dataclasses.replace(SCENES.model, width=16, blocks=1),
    parts=dataclasses.replace(SCENES.parts, autoencoder_width=8, autoencoder_steps=2, text_width=16, text_layers=1),
    train=dataclasses.replace(SCENES.train, steps=2, batch_size=4),
)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioned_scenes, "TRAINED", 40)


def test_it_goes_through_at_a_tiny_size_and_does_not_hold() -> None:
    finding = captioned_scenes.judge(SETTING, TINY, 9)
    assert list(finding.found) == list(captioned_scenes.CLAIM.stated)
    assert [row[0] for row in finding.rows] == list(SIDES)
    assert all(len(row) == len(finding.header) for row in finding.rows)
    assert not finding.holds


@pytest.mark.parametrize(("wrong", "holds"), [(1, True), (2, False)])
def test_each_picture_counts_by_its_own_caption(monkeypatch: pytest.MonkeyPatch, wrong: int, holds: bool) -> None:
    """Pictures of the data itself, some of them exchanged: 1 of 20 disobeys and the claim holds, 2 and it does not."""

    def real(self: Pipeline, told: list[str], *, guidance: float, solver: str, steps: int, seed: int) -> Tensor:
        assert (solver, steps) == SCENES.drawing[:2]
        sides = (captioned_scenes.asked(0, 20, side) for side in SIDES)
        found = next(data for data in sides if list(data.captions or ()) == told)
        images = found.image.clone()
        if guidance == SCENES.drawing.guidance:
            images[:wrong] = -1
        return images

    monkeypatch.setattr(Pipeline, "sample", real)
    finding = captioned_scenes.judge(SETTING, TINY, 20)
    assert finding.holds == holds
    assert list(finding.found.values()) == [1 - wrong / 20] * 3
    assert all(row[1:] == ("100.0%", f"{1 - wrong / 20:.1%}") for row in finding.rows)


def test_what_is_asked_for_is_not_what_the_recipe_was_found_with() -> None:
    for side in SIDES:
        tuned, judged = scenes(0, 64, side), captioned_scenes.asked(0, 64, side)
        assert obeyed(judged.image, list(judged.captions or ())).all()
        assert not (judged.image == tuned.image).flatten(1).all(1).any()
