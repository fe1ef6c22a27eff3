"""Every complaint is one line with file, line, column, the thing, and what was expected."""

import re
from pathlib import Path

import pytest

import envs
from envs.language import locate, read, world
from envs.language.document import WorldError

GOOD = '''source = "a test"
map = """
S.x
.#G
"""
discount = 0.9

[reward]
step = -1
goal = 1

[slip]
forward = 0.8
left = 0.2

[cell.goal]
terminal = false
'''

KEYS = """
[cell.fetch]
glyph = "k"
key = "red"
[cell.gate]
glyph = "D"
door = "red"
"""


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


WRONG = {
    "ragged map": (edited(".#G", ".#"), r"4:3: the map is ragged: row 2 has 2 cells, expected 3 as in row 1"),
    "ragged, too long": (edited(".#G", ".#G."), r"4:4: the map is ragged: row 2 has 4 cells, expected 3 as in row 1"),
    "no start": (edited("S.x", "..x"), r'2:1: the map has no start, expected at least one S or start = "uniform"'),
    "no place to begin": (
        'start = "uniform"\nmap = "#H"\n',
        r"2:1: the map has no cell where an episode could begin, expected one that is no end",
    ),
    "unknown glyph": (
        edited(".#G", ".qG"),
        r"4:2: glyph 'q' in row 2 is unknown, expected one of \. floor, # wall, .*",
    ),
    "space in the map": (edited("S.x", "S.x "), r"3:4: glyph ' ' in row 1 is unknown, expected one of .*"),
    "glyph in a one-line map": ('map = "S?"', r"1:9: glyph '\?' in row 1 is unknown, expected one of .*"),
    "no map": ('source = ""\n', r"1:1: there is no map, expected map = followed by rows .*, or make = \"a maker\""),
    "empty map": ('map = """\n"""', r"1:1: the map is empty, expected at least one cell"),
    "map is no string": ("map = 3", r"1:1: map is 3, expected a string"),
    "unknown key": (
        edited("discount", "discont"),
        r"6:1: key 'discont' is unknown, expected one of source, map, .*; did you mean 'discount'\?",
    ),
    "unknown reward": (
        edited("goal = 1", "gaol = 1"),
        r"10:1: key 'gaol' in reward is unknown, expected one of step, bump, .*; did you mean 'goal'\?",
    ),
    "reward of walls": (edited("goal = 1", "wall = 1"), r"10:1: key 'wall' in reward is unknown, expected .*"),
    "unknown slip": (
        edited("left = 0.2", "lift = 0.2"),
        r"14:1: key 'lift' in slip is unknown, expected one of forward, left, right, back; did you mean 'left'\?",
    ),
    "slip sums to less": (edited("left = 0.2", "left = 0.1"), r"12:2: slip sums to 0\.9, expected 1"),
    "negative slip": (edited("left = 0.2", "left = -0.2"), r"14:1: slip\.left is -0\.2, expected a number from 0 to 1"),
    "inline slip": (
        'map = "S"\nslip = { forward = 0.5, backward = 0.5 }',
        r"2:25: key 'backward' in slip is unknown, expected one of .*; did you mean 'back'\?",
    ),
    "wrong type": (edited("step = -1", 'step = "high"'), r"9:1: reward\.step is 'high', expected a finite number"),
    "boolean reward": (edited("step = -1", "step = true"), r"9:1: reward\.step is True, expected a finite number"),
    "infinite reward": (edited("step = -1", "step = -inf"), r"9:1: reward\.step is -inf, expected a finite number"),
    "reward beyond float32": (
        edited("step = -1", "step = -4e38"),
        r"9:1: reward\.step is -4e\+38, expected a number from -3e\+38 to 3e\+38",
    ),
    "nested without end": ("map = " + "[" * 5000, r"1:1: this is nested too deeply, expected a world in TOML"),
    "huge fraction": (edited("step = -1", 'step = "1e999"'), r"9:1: reward\.step is '1e999', expected a finite number"),
    "discount above 1": (edited("0.9", "1.5"), r"6:1: discount is 1\.5, expected a number from 0 to 1"),
    "reward is no table": ('map = "S"\nreward = 3', r"2:1: reward is 3, expected a table"),
    "time limit of 0": (
        'time_limit = 0\nmap = "S"',
        r'1:1: time_limit is 0, expected a number of steps, 1 to \d+, or "none"',
    ),
    "time limit beyond int32": (
        f'map = "S"\ntime_limit = {2**31}',
        r'2:1: time_limit is 2147483648, expected a number of steps, 1 to 2147483647, or "none"',
    ),
    "time limit in words": ('map = "S"\ntime_limit = true', r"2:1: time_limit is True, expected a number of steps, .*"),
    "unknown start": (
        'map = "S"\nstart = "uniforn"',
        r"2:1: start is 'uniforn', expected one of 'map', 'uniform'; did you mean 'uniform'\?",
    ),
    "unknown action": (
        'map = "S"\nactions = ["up", "dwon"]',
        r"2:1: actions is 'dwon', expected one of 'up', .*; did you mean 'down'\?",
    ),
    "no action": ('map = "S"\nactions = []', r"2:1: actions is \[\], expected a list of moves: up, right, .*"),
    "action twice": ('map = "S"\nactions = ["up", "up"]', r"2:1: actions is .*, expected each move once"),
    "terminal in words": (edited("= false", '= "no"'), r"17:1: cell\.goal\.terminal is 'no', expected true or false"),
    "new kind without a glyph": (
        edited("[cell.goal]", "[cell.gaol]"),
        r"16:2: cell kind 'gaol' is new and has no glyph, expected glyph = \"\?\"; did you mean 'goal'\?",
    ),
    "kind called as a key of [reward]": (
        'map = "S"\n[cell.bump]\nglyph = "b"',
        r"2:2: cell kind 'bump' has a name that means something else in \[reward\], expected another",
    ),
    "glyph taken": (
        edited("terminal = false", 'glyph = "#"'),
        r"17:1: cell\.goal\.glyph is '#', which is already wall, expected one free character",
    ),
    "glyph too long": (
        edited("terminal = false", 'glyph = "GG"'),
        r"17:1: cell\.goal\.glyph is 'GG', expected one free character",
    ),
    "unknown look": (edited("terminal = false", 'like = "gaol"'), r"17:1: cell\.goal\.like is 'gaol', .* 'goal'\?"),
    "cliff without a start": (
        'start = "uniform"\nmap = ".C"',
        r"2:1: cliff sends the agent to the start and the map has 0, expected exactly one",
    ),
    "cliff with two": ('map = "SCS"', r"1:1: cliff sends the agent to the start and the map has 2, expected .*"),
    "optimum without a source": (GOOD + "[optimum]\nvalue = 1\n", r"18:2: optimum has only value, expected .*"),
    "optimum of another height": (
        'map = "SG"\n[optimum]\nvalue = 1\nsource = "a test"\nvalues = [[1, 2], [3, 4]]',
        r"5:1: optimum\.values has rows of 2, 2, expected 1 x 2, one for each cell",
    ),
    "optimum of another width": (
        'map = "SG"\noptimum = { value = 1, source = "a test", values = [[1, 2, 3]] }',
        r"2:43: optimum\.values has rows of 3, expected 1 x 2, one for each cell",
    ),
    "optimum of another table": (
        'make = "gambler"\n[optimum]\nvalue = 1\nsource = "a test"\nvalues = [[1, 2, 3]]',
        r"5:1: optimum\.values has rows of 3, expected 1 x 101, one for each cell",
    ),
    "more than fits": (
        f'map = """\n{("S" + "." * 199 + chr(10)) * 188}{"kD" * 6}{"." * 188}\n"""' + KEYS,
        r"1:1: the world has [\d,]+ states x actions x outcomes, expected at most 268,435,456",
    ),
    "door of another colour": (
        'map = "S"' + KEYS.replace('door = "red"', 'door = "rde"'),
        r"7:1: cell\.gate\.door is 'rde' and no kind is a key of that colour, expected one of .*'red'\?",
    ),
    "door without any key": (
        'map = "S"\n[cell.gate]\nglyph = "D"\ndoor = "red"',
        r"4:1: cell\.gate\.door is 'red' and no kind is a key of that colour, expected a kind with one",
    ),
    "colour in two words": (
        'map = "S"\ncell.gate = { glyph = "D", door = "dark red" }',
        r"2:28: cell\.gate\.door is 'dark red', expected a colour in one word",
    ),
    "thirteen keys": (
        f'map = "S{"k" * 13}"' + KEYS,
        r"1:1: the map has 13 keys and doors, expected at most 12",
    ),
    "to an unknown kind": (
        'map = "S"\n[cell.cliff]\nto = "strat"',
        r"3:1: cell\.cliff\.to is 'strat', expected one of '', 'floor', .*; did you mean 'start'\?",
    ),
    "exit to a wall": (
        'map = "S"\n[cell.cliff]\nexit = "wall"',
        r"3:1: cell\.cliff\.exit is 'wall', expected one of .*",
    ),
    "exit to two cells": (
        'map = "SAaa"\n[cell.spring]\nglyph = "A"\nexit = "far"\n[cell.far]\nglyph = "a"',
        r"4:1: spring sends the agent to the far and the map has 2, expected exactly one",
    ),
    "exit to a solid cell": (
        'map = "SAa"\n[cell.spring]\nglyph = "A"\nexit = "far"\n[cell.far]\nglyph = "a"\nsolid = true',
        r"4:1: spring sends the agent to the far, which is solid, expected a kind of cell where one can stay",
    ),
    "exit to a door": (
        'map = "SAD"\n[cell.spring]\nglyph = "A"\nexit = "gate"' + KEYS,
        r"4:1: spring sends the agent to the gate, which is a door, expected a kind of cell where one can stay",
    ),
    "carried twice": (
        'map = "SCP"\n[cell.portal]\nglyph = "P"\nto = "cliff"',
        r"4:1: portal sends the agent to the cliff, which itself sends on to the start, expected a kind of .*",
    ),
    "carried to itself": (
        'map = "SP"\n[cell.portal]\nglyph = "P"\nto = "portal"',
        r"4:1: portal sends the agent to the portal, which itself sends on to the portal, expected a kind of .*",
    ),
    "two deeds": (
        'map = "S"\n[cell.x]\nglyph = "X"\nterminal = true\nkey = "red"',
        r"5:1: cell\.x has terminal and key, expected at most one of terminal, to, exit, turn, key, door",
    ),
    "unknown turn": ('map = "S"\n[cell.floor]\nturn = "bakc"', r"3:1: cell\.floor\.turn is 'bakc', .* 'back'\?"),
    "a wall that is none": ('map = "S"\n[cell.wall]\nsolid = false', r"3:1: key 'solid' in cell\.wall is unknown, .*"),
    "solid in words": (
        'map = "S"\n[cell.floor]\nsolid = "no"',
        r"3:1: cell\.floor\.solid is 'no', expected true or false",
    ),
    "wind of another width": (
        'map = "S.."\n[wind]\nup = [0, 1]',
        r"3:1: wind\.up has 2 numbers, expected 3, one for each column of the map",
    ),
    "half a wind": ('map = "S."\nwind = { up = [0, 0.5] }', r"2:10: wind\.up is 0\.5, expected a whole number from .*"),
    "no wind": ('map = "S."\n[wind]\nvaries = { "0" = 1 }', r"2:2: wind has no up, expected a list of whole .*"),
    "wind in words": ('map = "S."\n[wind]\nup = "1"', r"3:1: wind\.up is '1', expected a list of whole numbers, .*"),
    "gusts sum to less": (
        'map = "S"\n[wind]\nup = [1]\nvaries = { "0" = "1/2", "1" = "1/3" }',
        r"4:1: wind\.varies sums to 0\.833333333, expected 1",
    ),
    "half a gust": (
        'map = "S"\n[wind]\nup = [1]\nvaries = { "0" = "1/2", "0.5" = "1/2" }',
        r"4:25: wind\.varies has '0\.5', expected whole numbers of cells",
    ),
    "cues sum to less": (
        'map = "S"\n[cue.a]\nchance = 0.5\n[cue.b]\nchance = 0.4',
        r"2:2: the chances of the cues sum to 0\.9, expected 1",
    ),
    "cue without a chance": ('map = "S"\n[cue.a]\n', r"2:2: cue 'a' has no chance, expected chance = a probability"),
    "cue rewards an unknown kind": (
        'map = "S"\n[cue.a]\nchance = 1\nreward = { floor = 1, gaol = 2 }',
        r"4:23: key 'gaol' in cue\.a\.reward is unknown, expected one of .*; did you mean 'goal'\?",
    ),
    "cue rewards with words": (
        'map = "S"\n[cue.a.reward]\ngoal = "a lot"\n[cue.a]\nchance = 1',
        r"3:1: cue\.a\.reward\.goal is 'a lot', expected a finite number",
    ),
    "leaving an unknown kind": ('map = "S"\n[leave]\nflor = 1', r"3:1: key 'flor' in leave is unknown, .* 'floor'\?"),
    "alike and unknown": ('map = "S"\nalike = ["flor"]', r"2:1: alike is 'flor', expected one of .*'floor'\?"),
    "alike in a word": ('map = "S"\nalike = "floor"', r"2:1: alike is 'floor', expected a list of kinds of cells"),
    "weight of an unknown kind": ('map = "S"\n[start]\nflor = 1', r"3:1: key 'flor' in start is unknown, .* 'floor'\?"),
    "weight below 0": (
        'map = "S"\n[start]\nstart = -1',
        r"3:1: start\.start is -1, expected a number from 0 to 1e\+09",
    ),
    "weight too heavy": (
        'map = "S"\n[start]\nstart = 1e308',
        r"3:1: start\.start is 1e\+308, expected a number from 0 to 1e\+09",
    ),
    "weights of 0": ('map = "S"\n[start]\nstart = 0', r"2:2: start sums to 0, expected at least one weight above 0"),
    "weight of what is not there": (
        'map = "S"\n[start]\nfloor = 1',
        r"3:1: start\.floor is 1 and the map has no floor, expected a kind that is on the map",
    ),
    "weight of an end": (
        'map = "SG"\n[start]\ngoal = 1',
        r"3:1: an episode cannot begin in goal \(terminal\), expected one of floor, start, forbidden",
    ),
    "solid start": (
        'map = "S"\n[cell.start]\nsolid = true',
        r"3:1: an episode cannot begin in start \(solid\), expected one of floor, forbidden",
    ),
    "map and make": ('map = "S"\nmake = "maze"', r"2:1: the world has both a map and make, expected one of them"),
    "unknown maker": ('make = "moze"', r"1:1: make is 'moze', expected one of 'maze', .*; did you mean 'maze'\?"),
    "unknown parameter": (
        'make = "maze"\n[maze]\nsiz = 3',
        r"3:1: key 'siz' in maze is unknown, expected one of size, seed, count; did you mean 'size'\?",
    ),
    "parameter out of range": (
        'make = "maze"\nmaze.size = 1',
        r"2:1: maze\.size is 1, expected a whole number from 2 to .*",
    ),
    "half a parameter": (
        'make = "maze"\n[maze]\nsize = 2.5',
        r"3:1: maze\.size is 2\.5, expected a whole number from .*",
    ),
    "too many worlds": (
        'make = "maze"\n[maze]\ncount = 10001',
        r"3:1: maze\.count is 10001, expected a whole number from 1 to 10000",
    ),
    "no world": ('make = "maze"\n[maze]\ncount = 0', r"3:1: maze\.count is 0, expected a whole number from 1 to .*"),
    "table of another maker": (
        'make = "maze"\n[t-maze]\nlength = 2',
        r"2:2: key 't-maze' is unknown, expected one of .*",
    ),
    "rules for a table": (
        'make = "gambler"\n[reward]\nstep = 1',
        r"2:2: key 'reward' is unknown, expected one of source, make, discount, time_limit, optimum, gambler",
    ),
    "improbable": ('make = "gambler"\n[gambler]\np = 1.5', r"3:1: gambler\.p is 1\.5, expected a number from 0 to 1"),
    "glyph that the maker draws": (
        'make = "t-maze"',
        r"1:1: glyph 'n' in row 2 is unknown, expected one of \. floor, .*",
    ),
    "syntax": (edited("[slip]", "[slip"), r"12:6: this is no TOML: Expected ']' at the end of a table declaration"),
    "cut off": ('map = """\nS..', r"2:4: this is no TOML: Unterminated string, at the end of the file"),
    "key twice": (edited("step = -1", "step = 1\nstep = 2"), r"\d+:\d+: this is no TOML: Cannot overwrite a value.*"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_says_where_what_and_what_was_expected(case: str):
    text, message = WRONG[case]
    with pytest.raises(WorldError) as caught:
        world(text, "bad.toml", "bad")
    assert re.fullmatch(rf"bad\.toml:{message}", str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("reward.gaol", "-10", r"reward.gaol=-10: key 'gaol' in reward is unknown, .*; did you mean 'goal'\?"),
        ("reward.goal", "a lot", r"reward.goal=a lot: reward.goal is 'a lot', expected a finite number"),
        ("slip.left", "0.5", r"slip.left=0.5: slip sums to 1.3, expected 1"),
        ("cell.start.terminal", "true", r"cell.start.terminal=true: an episode cannot begin in start \(terminal\), .*"),
        ("cell.x.to", "wall", r"cell.x.to=wall: cell kind 'x' is new and has no glyph, .*"),
        ("wind.up", "[1, 2]", r"wind.up=\[1, 2\]: wind.up has 2 numbers, expected 3, one for each column of the map"),
        ("start", "{goal = 1, wall = 1}", r"start=\{goal = 1, wall = 1\}: key 'wall' in start is unknown, .*"),
        ("discount.of", "1", r"discount.of=1: discount is 0.9, which has no key 'of'"),
        ("map", "...\n...", r"map=...\\n...: the map has no start, expected at least one S or start = \"uniform\""),
    ],
)
def test_an_error_in_an_override_names_the_override(key: str, value: str, message: str):
    with pytest.raises(WorldError) as caught:
        read(GOOD, "good.toml", {key: value})
    assert re.fullmatch(rf"good\.toml: override {message}", str(caught.value)), str(caught.value)


def test_overrides_are_read_as_toml_or_as_words():
    grid = read(GOOD, "good.toml", {"reward.step": "-1/2", "start": "uniform", "time_limit": "7", "discount": 1})
    assert (grid.reward["step"], grid.start, grid.time_limit, grid.discount) == (-0.5, "uniform", 7, 1.0)
    assert read(GOOD, "good.toml", {"time_limit": "none", "map": "SG"}).map == ("SG",)


def test_an_override_nested_without_end_is_one_line():
    with pytest.raises(WorldError, match=r"^override \[{20}\.\.\. is nested too deeply, expected a value of TOML$"):
        read(GOOD, "good.toml", {"reward.step": "[" * 5000})


def test_chances_are_exact_however_they_are_rounded():
    """0.8000000006 + 0.2 sums to 1 within 1e-9, but its product with another such table does not."""
    text = edited("0.8", "0.8000000006") + '[wind]\nup = [1, 1, 1]\nvaries = { "0" = 0.5000000006, "1" = 0.5 }\n'
    total = world(text, "rounded.toml", "rounded").mdp.prob.sum(-1)
    assert (total - 1).abs().max() < 1e-14


def test_weights_too_small_to_be_shared_are_shared():
    begin = world('map = "S.."\n[start]\nfloor = 5e-324', "small.toml", "small").mdp.start
    assert begin.tolist() == [0, 0.5, 0.5]


def test_known_values_are_of_the_map_of_the_file():
    """An override of the map is no error of the values."""
    assert envs.load("zhao-5x5", {"map": "SG"}).optimum is None


def test_keys_are_found_where_they_stand():
    text = 'a = 1 # b = 2\nm = """\nc = 3\n"""\n  [ t . u ]\n  d = {e = 1, f.g = 2}\n"h" = \'\'\'x\'\'\'\n[[many]]\n'
    assert locate.keys(text) == {
        ("a",): (1, 1),
        ("m",): (2, 1),
        ("t",): (5, 5),
        ("t", "u"): (5, 5),
        ("t", "u", "d"): (6, 3),
        ("t", "u", "d", "e"): (6, 8),
        ("t", "u", "d", "f"): (6, 15),
        ("t", "u", "d", "f", "g"): (6, 15),
        ("t", "u", "h"): (7, 1),
        ("many",): (8, 3),
    }


def test_nothing_in_a_value_is_taken_for_a_key():
    text = (
        'a = [ # [no]\n  1, {b = 2, c = [{d = 3}]}, # e = 4\n]\nf = \'g = {h = 5\'\ni = "j = \\" k = 6"\n'
        'l = """m = \\""" n = 7\n[o]\n""""\n["p.q".\'r\']\n"0.5" = 1979-05-27 07:32:00 # s = 8\nt.u = {}\n'
    )
    assert locate.keys(text) == {
        ("a",): (1, 1),
        ("a", "b"): (2, 7),
        ("a", "c"): (2, 14),
        ("a", "c", "d"): (2, 20),
        ("f",): (4, 1),
        ("i",): (5, 1),
        ("l",): (6, 1),
        ("p.q",): (9, 2),
        ("p.q", "r"): (9, 2),
        ("p.q", "r", "0.5"): (10, 1),
        ("p.q", "r", "t"): (11, 1),
        ("p.q", "r", "t", "u"): (11, 1),
    }


def test_a_file_is_loaded_under_its_own_name(tmp_path: Path):
    path = tmp_path / "small.toml"
    path.write_text(GOOD)
    world = envs.load(path)
    assert (world.name, world.source, world.discount, world.mdp.states) == ("small", "a test", 0.9, 5)
    path.write_text(GOOD.replace("S.x", "?.x"))
    with pytest.raises(WorldError, match=rf"^{re.escape(str(path))}:3:1: glyph '\?' in row 1 is unknown"):
        envs.load(str(path))


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path):
    missing, binary = tmp_path / "missing.toml", tmp_path / "binary.toml"
    binary.write_bytes(b"map = 1\n\xff")
    with pytest.raises(WorldError, match=r"missing\.toml: cannot be read: No such file or directory"):
        envs.load(missing)
    with pytest.raises(WorldError, match=r"binary\.toml:2:1: byte 8 is no UTF-8, expected text"):
        envs.load(binary)
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(WorldError, match=r"cannot be read: Is a directory"):
        envs.load(tmp_path / "folder.toml")
