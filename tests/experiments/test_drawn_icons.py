"""Icons by name: which are kept from the training, and that a drawing is judged by all icons."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments import drawn_icons
from experiments.claim import DataError, Setting
from generative.diffusion.data.split import Images
from generative.diffusion.pipeline import Pipeline

SETTING = Setting(seed=0, device=torch.device("cpu"))
TINY = dataclasses.replace(
    drawn_icons.ICONS,
    model=dataclasses.replace(drawn_icons.ICONS.model, width=16, blocks=1),
    parts=dataclasses.replace(
        drawn_icons.ICONS.parts, autoencoder_width=8, autoencoder_steps=2, text_width=16, text_layers=1
    ),
    train=dataclasses.replace(drawn_icons.ICONS.train, steps=2, batch_size=4),
)
THINGS = ("box", "cart", "page", "user")
PAIRS = tuple(f"{thing} {badge}" for thing in THINGS for badge in ("add", "delete", "go"))
NAMES = (*THINGS, *PAIRS, "lone add", "page red")


def icons() -> Images:
    draws = torch.Generator().manual_seed(0)
    return Images(torch.rand(len(NAMES), 3, 8, 8, generator=draws) * 2 - 1, None, NAMES)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn_icons, "FIRST", 0)
    monkeypatch.setattr(drawn_icons, "EVERY", 3)
    monkeypatch.setattr(drawn_icons, "NOWHERE", ("lone go", "box red"))


def test_pairs_of_a_known_thing_and_a_known_badge_are_kept() -> None:
    """Of twelve pairs ten are not asked for; every third of those, by name."""
    found = drawn_icons.kept(NAMES)
    assert found == ["box add", "cart add", "page delete", "user go"]
    for name in found:
        thing, badge = name.split()
        learned = [other for other in NAMES if other not in found]
        assert thing in learned
        assert sum(other.startswith(f"{thing} ") for other in learned) >= 1
        assert sum(other.endswith(f" {badge}") for other in learned) >= 2


def test_it_goes_through_at_a_tiny_size_and_does_not_hold() -> None:
    finding = drawn_icons.judge(SETTING, TINY, icons())
    assert list(finding.found) == list(drawn_icons.CLAIM.stated)
    assert all(len(row) == len(finding.header) for row in finding.rows)
    assert not finding.holds


def test_icons_without_such_names_are_refused() -> None:
    for names in (None, ("box", "cart", "page")):
        data = Images(torch.zeros(3, 3, 8, 8), None, names)
        with pytest.raises(DataError, match="no pair among them to keep away"):
            drawn_icons.judge(SETTING, TINY, data)


@pytest.mark.parametrize(("wrong", "holds"), [(0, True), (1, False)])
def test_a_drawing_counts_where_its_own_icon_is_the_nearest(
    wrong: int, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The icons themselves with noise; of the four unseen, some without their badge."""
    data = icons()
    unseen = drawn_icons.kept(NAMES)

    def real(self: Pipeline, told: list[str], *, guidance: float, **options: object) -> Tensor:
        asked = list(told)
        if asked == unseen and guidance == drawn_icons.JUDGED:
            asked[:wrong] = [name.split()[0] for name in asked[:wrong]]
        if set(asked) <= set(NAMES):
            return data.image[[NAMES.index(name) for name in asked]] * 0.9
        return torch.zeros(len(asked), 3, 8, 8)

    monkeypatch.setattr(Pipeline, "sample", real)
    finding = drawn_icons.judge(SETTING, TINY, data)
    assert finding.holds == holds
    assert list(finding.found.values()) == [1 - wrong / 4]
    assert finding.rows[-1][0] == "pasted pixels"
    assert finding.rows[1] == ("2", "100%", f"{1 - wrong / 4:.0%}", f"{wrong / 4:.0%}")


def test_a_missing_file_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"drawn-icons needs the icons: name silk\.npz"):
        drawn_icons.run(SETTING)
    np.savez(tmp_path / "other.npz", images=np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"name silk\.npz"):
        drawn_icons.run(dataclasses.replace(SETTING, data=tmp_path))
