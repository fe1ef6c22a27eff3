"""A badge's usual pixels, on icons whose badge is known exactly."""

import pytest
import torch

from experiments.pasted_badges import pasted

THINGS = ("box", "cart", "page", "user")


def icons() -> dict[str, torch.Tensor]:
    """Four random things; "add" is a white corner of 3 x 3, "go" a black one of 2 x 2 elsewhere."""
    draws = torch.Generator().manual_seed(0)
    made = {thing: torch.rand(3, 8, 8, generator=draws) - 0.5 for thing in THINGS}
    for thing in THINGS:
        made[f"{thing} add"] = made[thing].clone()
        made[f"{thing} add"][:, 5:, 5:] = 1.0
        made[f"{thing} go"] = made[thing].clone()
        made[f"{thing} go"][:, :2, :2] = -1.0
    return made


@pytest.mark.parametrize("name", ["page add", "user go"])
def test_it_makes_exactly_the_icon_that_was_kept_away(name: str) -> None:
    every = icons()
    rest = {other: image for other, image in every.items() if other != name}
    assert torch.equal(pasted(rest, name), every[name])
    assert not torch.equal(rest[name.split()[0]], every[name])


def test_what_one_icon_has_and_the_others_have_not_is_no_part_of_the_badge() -> None:
    every = icons()
    every["box add"][:, :, 0] = 1.0
    rest = {other: image for other, image in every.items() if other != "page add"}
    assert torch.equal(pasted(rest, "page add"), every["page add"])


def test_a_badge_that_nothing_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no learned icon has the badge 'star'"):
        pasted(icons(), "page star")
    with pytest.raises(KeyError):
        pasted({"cart": torch.zeros(3, 8, 8), "cart add": torch.ones(3, 8, 8)}, "page add")
