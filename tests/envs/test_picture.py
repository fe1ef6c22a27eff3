"""Pictures of one moment: what is drawn is what is there, whatever the mode. (How it looks, a person has to judge.)"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import envs
from envs import picture
from envs.layout import LOOKS, Layout
from envs.pixels import mosaic, tiles

ROWS = ("S.r#..b", "..x#.o.", "...R.H.", "##B####", "......G")
GLYPHS = dict(
    zip(
        ".#SGrRbBoxH",
        ("floor", "wall", "start", "goal", "key", "door", "key", "door", "portal", "forbidden", "hole"),
        strict=True,
    )
)
KEYS, DOORS = {"red": (0, 2), "blue": (0, 6)}, {"red": (2, 3), "blue": (3, 2)}


def two_keys() -> envs.World:
    """Two keys and two doors, in each of the nine modes: of each colour untaken, taken, or used."""
    first = torch.tensor([[LOOKS.index(GLYPHS[glyph]) for glyph in row] for row in ROWS])
    looks, held = [], []
    for red in range(3):
        for blue in range(3):
            look = first.clone()
            for colour, stage in (("red", red), ("blue", blue)):
                if stage >= 1:
                    look[KEYS[colour]] = LOOKS.index("floor")
                if stage == 2:
                    look[DOORS[colour]] = LOOKS.index("floor")
            looks.append(look)
            held.append([float(red == 1), float(blue == 1)])
    cell = (first != LOOKS.index("wall")).nonzero()
    layout = Layout(
        glyphs=ROWS,
        look=torch.stack(looks),
        cell=cell.repeat(9, 1),
        mode=torch.arange(9).repeat_interleave(len(cell)),
        modes=tuple(map(str, range(9))),
        badges=torch.tensor(held).repeat_interleave(len(cell), 0),
        badge_names=("red key", "blue key"),
    )
    return replace(envs.load("garden"), layout=layout)


def state_at(layout: Layout, mode: int, row: int, col: int) -> int:
    return int(layout.states[mode, row, col])


def test_a_key_that_is_taken_is_gone_and_shown_as_held():
    world = two_keys()
    before = picture.text(world, state_at(world.layout, 0, 4, 0))
    after = picture.text(world, state_at(world.layout, 3, 4, 0))  # red taken
    used = picture.text(world, state_at(world.layout, 7, 4, 0))  # red used, blue taken
    assert before == "S . r # . . b\n. . x # . o .\n. . . R . H .\n# # B # # # #\n@ . . . . . G"
    assert after == before.replace("r", ".") + "\nred key x1"
    assert used == before.replace("r", ".").replace("b", ".").replace("R", ".") + "\nblue key x1"


def test_keys_in_hand_are_counted():
    world = two_keys()
    many = replace(world.layout, badges=torch.tensor([[0.25, 1.0], [0.75, 0.0], [0, 0]]).repeat(81, 1))
    assert picture.badges(many, 0) == ["red key x1, blue key x1"]
    assert picture.badges(many, 1) == ["red key x3"]
    assert picture.badges(many, None) == []


def test_the_colours_of_keys_and_doors_are_found_from_what_they_change():
    found = {(row, col): colour for row, col, colour in mosaic.inks(two_keys().layout)}
    assert found == {place[c]: tiles.INKS[c] for place in (KEYS, DOORS) for c in ("red", "blue")}
    assert mosaic.inks(envs.load("garden").layout) == ()


@pytest.mark.parametrize("mode", range(9))
def test_the_pixels_are_those_of_the_mode(mode: int):
    world = two_keys()
    layout = world.layout
    seen = picture.rgb_array(world, state_at(layout, mode, 4, 1))
    assert (seen.shape, seen.dtype) == (((5 + 1) * 32, 7 * 32, 3), np.uint8)
    ink = {(row, col): colour for row, col, colour in mosaic.inks(layout)}
    for row in range(5):
        for col in range(7):
            look = LOOKS[layout.look[mode, row, col]]
            colour = ink.get((row, col), picture.COLOURS[look]) if look in ("key", "door") else picture.COLOURS[look]
            cell = seen[row * 32 : row * 32 + 32, col * 32 : col * 32 + 32].reshape(-1, 3)
            assert (cell == np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)).all(1).any()
    assert bytes(seen[4 * 32 + 16, 32 + 16]) == bytes.fromhex(picture.AGENT[1:])


def test_badges_are_patches_in_a_fixed_order_bright_when_held():
    world = two_keys()
    strips = {}
    for mode, held in ((0, ()), (3, (0,)), (1, (1,)), (4, (0, 1))):
        strip = picture.rgb_array(world, state_at(world.layout, mode, 4, 1))[5 * 32 :]
        for place, colour in enumerate(("red", "blue")):
            patch = strip[:, place * 32 : place * 32 + 32].reshape(-1, 3)
            full = np.frombuffer(bytes.fromhex(tiles.INKS[colour][1:]), np.uint8)
            assert (patch == full).all(1).any() == (place in held)
        assert (strip[:, 64:] == 255).all()
        strips[mode] = strip
    assert (strips[0][:, :64] != 255).any()  # a trace, where nothing is held
    assert len({strip.tobytes() for strip in strips.values()}) == 4


def test_cues_point_where_they_say():
    arrows = {word: tiles.badge(f"cue {word}", 0, 1.0, 33).min(2) < 200 for word in tiles.TURNS}
    for word, turns in tiles.TURNS.items():
        np.testing.assert_array_equal(arrows[word], np.rot90(arrows["north"], turns))
    widths = arrows["north"].sum(1)
    assert (np.diff(widths[widths > 0]) >= 0).all()  # wider further down: it points up
    assert arrows["west"].sum(0)[8] < arrows["west"].sum(0)[20]
    assert arrows["east"].sum(0)[8] > arrows["east"].sum(0)[20]
    assert not np.array_equal(tiles.badge("cue A", 0, 1.0, 33), tiles.badge("cue B", 1, 1.0, 33))


def test_a_terminal_shows_the_same_in_colours():
    world = two_keys()
    state = state_at(world.layout, 3, 4, 0)
    shown = picture.terminal(world, state)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    letters = [line[::2] for line in plain[:5]]
    expected = [line[::2].replace(".", " ").replace("#", " ") for line in picture.text(world, state).splitlines()[:5]]
    assert letters == expected
    assert plain[5] == "red key x1"
    red, green, blue = bytes.fromhex(tiles.INKS["red"][1:])
    assert f"\x1b[48;2;{red};{green};{blue}m" in shown.splitlines()[2]  # the red door


@pytest.mark.parametrize("pixels", [1, 2, 5, 6, 8, 32])
def test_a_picture_of_any_size_shows_the_agent(pixels: int):
    world = envs.load("garden")
    alone, there = picture.rgb_array(world, None, pixels), picture.rgb_array(world, 9, pixels)
    assert alone.shape == there.shape == (7 * pixels, 8 * pixels, 3)
    row, col = world.layout.cell[9].tolist()
    changed = (alone != there).any(2)
    assert changed[row * pixels : (row + 1) * pixels, col * pixels : (col + 1) * pixels].any()
    changed[row * pixels : (row + 1) * pixels, col * pixels : (col + 1) * pixels] = False
    assert not changed.any()


def test_a_large_map_is_drawn_small():
    world = envs.load("cliff", {"map": "S" + "." * 300 + "G"})
    assert picture.rgb_array(world).shape == (6, 302 * 6, 3)


def test_the_wind_stands_below_its_columns():
    world = envs.load("cliff", {"map": "S..\n..G", "wind.up": "[0, 2, -1]"})
    assert picture.text(world, 1).splitlines() == ["S @ .", ". . G", "0 2 -1 wind, cells upwards"]
    assert picture.terminal(world, 1).splitlines()[2] == "0 2 -1 wind, cells upwards"
    assert picture.text(envs.load("cliff", {"map": "S..\n..G", "wind.up": "[0, 0, 0]"})) == "S . .\n. . G"
