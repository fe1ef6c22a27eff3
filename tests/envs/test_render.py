"""Pictures: what is drawn is what is there. (How it looks, a person has to judge.)"""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

import envs
from envs import picture, render


def words(ax) -> list[str]:
    return [t.get_text() for t in ax.texts if isinstance(t, Text) and t.get_text()]


def arrows(ax) -> list[tuple[float, float]]:
    """The direction of each arrow: columns right, rows down."""
    found = [t for t in ax.texts if isinstance(t, Annotation)]
    return [tuple(np.sign(np.round(np.subtract(t.xy, t.xyann), 6))) for t in found]


def test_the_text_map_shows_the_agent():
    world = envs.load("cliff", {"map": "S.\n#G"})
    assert picture.text(world) == "S .\n# G"
    assert picture.text(world, 1) == "S @\n# G"


def test_the_pixels_of_a_cell_have_its_colour_and_the_agent_stands_in_the_middle():
    world = envs.load("garden")
    empty, there = picture.rgb_array(world), picture.rgb_array(world, 5)
    assert (empty.shape, empty.dtype) == ((7 * 32, 8 * 32, 3), np.uint8)
    for (row, col), glyph in np.ndenumerate(np.array([list(r) for r in world.layout.glyphs])):
        name = {"#": "wall", ".": "floor", "S": "start", "G": "goal", "x": "forbidden", "H": "hole"}[glyph]
        colour = bytes.fromhex(picture.COLOURS[name][1:])
        assert bytes(empty[row * 32 + 16, col * 32 + 16]) == colour
    changed = np.argwhere((empty != there).any(-1))
    np.testing.assert_allclose(changed.mean(0), (world.layout.cell[5].numpy() + 0.5) * 32 - 0.5)
    assert bytes(there[16, 5 * 32 + 16]) == bytes.fromhex(picture.AGENT[1:])


def test_a_figure_holds_every_value_and_every_arrow():
    world = envs.load("frozenlake-4x4")
    values = torch.arange(16) / 100
    policy = torch.zeros(16, dtype=torch.int64)
    policy[6] = 3
    ax = render.draw(world, values, policy, title="lake")
    alive = [s for s in range(16) if s not in (5, 7, 11, 12, 15)]  # four holes and the goal
    assert sorted(words(ax)) == sorted([f"{s / 100:.2f}" for s in alive] + ["S", "G"])
    assert arrows(ax) == [(-1, 0)] * 5 + [(0, -1)] + [(-1, 0)] * 5
    assert ax.get_title() == "lake"


def test_ties_are_several_arrows_and_staying_is_a_ring():
    world = envs.load("zhao-5x5")
    probs = torch.zeros(25, 5)
    probs[:, 4] = 1
    probs[0] = torch.tensor([0, 0.5, 0.5, 0, 0])
    ax = render.draw(world, policy=probs)
    assert arrows(ax) == [(1, 0), (0, 1)]
    assert len(ax.lines) == 24


def test_cells_that_no_agent_stands_on_have_no_value():
    ax = render.draw(envs.load("cliff"), torch.full((48,), -1.0))
    assert words(ax).count("-1.00") == 37


def test_it_draws_into_given_axes_and_saves(tmp_path):
    figure = Figure(figsize=(3, 3))
    ax = figure.add_subplot()
    assert render.draw(envs.load("FrozenLake-v1"), torch.rand(16, generator=torch.Generator()), ax=ax) is ax
    figure.savefig(tmp_path / "lake.png")
    assert (tmp_path / "lake.png").stat().st_size > 1000


def test_a_world_without_a_map_cannot_be_drawn():
    taxi = envs.load("Taxi-v4")
    for drawn in (picture.text, picture.rgb_array, render.draw):
        with pytest.raises(ValueError, match=r"^Taxi-v4 has no map to draw, expected a grid world$"):
            drawn(taxi)


def test_each_mode_is_drawn_with_its_own_states():
    world = envs.load("key-door")
    values = torch.arange(world.mdp.states, dtype=torch.float64)
    lived = world.mdp.lived()
    for mode in range(len(world.layout.modes)):
        drawn = {int(word) for word in words(render.draw(world, values, mode=mode)) if word.isdigit()}
        assert drawn == {s for s in range(world.mdp.states) if lived[s] and world.layout.mode[s] == mode}


def test_visits_are_written_where_there_are_any():
    world = envs.load("cliff")
    visits = torch.zeros(48)
    visits[36], visits[24] = 1, 2
    assert sorted(words(render.draw_visits(world, visits))) == ["1", "2", "G", "S"]
    assert sorted(words(render.draw_visits(world, visits / 3))) == ["0.33", "0.67", "G", "S"]
    for state, often in ((36, 12.34), (24, 1.234), (25, 0.1234), (26, 0.01234), (27, 0.001234)):
        visits[state] = often
    assert sorted(words(render.draw_visits(world, visits))) == ["0.012", "0.12", "1.2", "12", "G", "S"]


def test_values_without_end_are_written_so():
    world = envs.load("frozenlake-4x4")
    values = torch.ones(16, dtype=torch.float64)
    values[:3] = torch.tensor([float("inf"), -float("inf"), float("nan")])
    written = [word for word in words(render.draw(world, values)) if word not in "SG"]
    assert written[:3] == ["\u221e", "-\u221e", "?"]


def test_pictures_on_one_scale_shade_equal_values_alike():
    world = envs.load("cliff")
    values = -torch.arange(48, dtype=torch.float64)
    scale = render.span(world, values)
    assert scale == (-36.0, 0.0)  # the start; cells of the cliff and the goal have none

    def shade(values, **scale):
        return render.draw(world, values, **scale).patches[24].get_facecolor()

    other = values.clone()
    other[0] = -1000  # would darken all the others
    assert shade(other, scale=scale) == shade(values) != shade(other)


def test_the_colours_of_a_map_are_named():
    assert render.key(envs.load("cliff")) == "green: goal   amber: forbidden, or a cliff"
    assert render.key(envs.load("frozenlake-4x4")) == "green: goal   blue: hole"


def test_copies_of_a_move_are_one_arrow_and_numbers_are_written():
    bias = envs.load("maximization-bias")
    assert arrows(render.draw(bias, policy=torch.full((4, 10), 0.1))) == [(-1, 0), (1, 0)] * 2
    cars = envs.load("car-rental")
    ax = render.draw(cars, policy=torch.full((441,), 7))
    assert set(words(ax)) == {"+2"}


def test_a_map_of_very_many_cells_is_one_image():
    rows = "\n".join(["." * 400] * 399 + ["S" + "." * 398 + "G"])
    world = envs.load("cliff", {"map": rows})
    ax = render.draw(world, torch.rand(160_000, generator=torch.Generator()), torch.zeros(160_000, dtype=torch.int64))
    assert (len(ax.images), len(ax.patches), len(words(ax))) == (1, 0, 0)
    visits = torch.zeros(160_000)
    visits[:7] = 1
    (dots,) = render.draw_visits(world, visits).collections
    np.testing.assert_allclose(dots.get_offsets(), [[c + 0.5, 0.5] for c in range(7)])


def test_cells_of_a_kind_of_their_own_are_named():
    assert sorted(words(render.draw(envs.load("sutton-3.5")))) == ["A", "B", "a", "b"]
    assert sorted(words(render.draw(envs.load("t-maze")))) == ["+", "S", "n", "s"]
    assert sorted(words(render.draw(envs.load("short-corridor")))) == ["G", "S", "~"]
    assert sorted(words(render.draw(envs.load("FrozenLake-v1")))) == ["G", "S"]
    for mode in range(3):  # the cell of a key that is taken is a floor like any other
        assert sorted(words(render.draw(envs.load("key-door"), mode=mode))) == ["G", "S"]


def test_the_wind_is_written_below_its_columns():
    world = envs.load("cliff", {"map": "S..\n..G", "wind.up": "[0, 2, -1]"})
    ax = render.draw(world)
    below = [t for t in ax.texts if t.get_position()[1] > 2]
    assert [(t.get_text(), t.get_position()[0]) for t in below] == [("\u21912", 1.5), ("\u21931", 2.5)]
    assert ax.get_ylim()[0] > below[0].get_position()[1]
