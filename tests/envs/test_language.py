"""Every complaint is one line with file, line, column, the thing, and what was expected."""

import re
from pathlib import Path

import pytest

import envs
from envs import locate
from envs.document import WorldError
from envs.language import read

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
    "no map": ('source = ""\n', r"1:1: there is no map, expected map = followed by rows of cells in triple quotes"),
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
    "huge fraction": (edited("step = -1", 'step = "1e999"'), r"9:1: reward\.step is '1e999', expected a finite number"),
    "discount above 1": (edited("0.9", "1.5"), r"6:1: discount is 1\.5, expected a number from 0 to 1"),
    "reward is no table": ('map = "S"\nreward = 3', r"2:1: reward is 3, expected a table"),
    "time limit of 0": ('time_limit = 0\nmap = "S"', r'1:1: time_limit is 0, expected a number of steps or "none"'),
    "time limit in words": ('map = "S"\ntime_limit = true', r"2:1: time_limit is True, expected a number of steps .*"),
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
    "terminal in words": (edited("= false", '= "no"'), r"17:1: terminal is 'no', expected true or false"),
    "new kind without a glyph": (
        edited("[cell.goal]", "[cell.gaol]"),
        r"16:2: cell kind 'gaol' is new and has no glyph, expected glyph = \"\?\"; did you mean 'goal'\?",
    ),
    "glyph taken": (
        edited("terminal = false", 'glyph = "#"'),
        r"17:1: glyph is '#', which is already wall, expected one free character",
    ),
    "glyph too long": (edited("terminal = false", 'glyph = "GG"'), r"17:1: glyph is 'GG', expected one free character"),
    "unknown look": (edited("terminal = false", 'like = "gaol"'), r"17:1: cell\.goal\.like is 'gaol', .* 'goal'\?"),
    "cliff without a start": (
        'start = "uniform"\nmap = ".C"',
        r"2:1: cliff sends the agent to the start and the map has 0, expected exactly one",
    ),
    "cliff with two": ('map = "SCS"', r"1:1: cliff sends the agent to the start and the map has 2, expected .*"),
    "optimum without a source": (GOOD + "[optimum]\nvalue = 1\n", r"18:2: optimum has only value, expected .*"),
    "syntax": (edited("[slip]", "[slip"), r"12:6: this is no TOML: Expected ']' at the end of a table declaration"),
    "cut off": ('map = """\nS..', r"2:4: this is no TOML: Unterminated string, at the end of the file"),
    "key twice": (edited("step = -1", "step = 1\nstep = 2"), r"\d+:\d+: this is no TOML: Cannot overwrite a value.*"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_says_where_what_and_what_was_expected(case: str):
    text, message = WRONG[case]
    with pytest.raises(WorldError) as caught:
        read(text, "bad.toml")
    assert re.fullmatch(rf"bad\.toml:{message}", str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("reward.gaol", "-10", r"reward.gaol=-10: key 'gaol' in reward is unknown, .*; did you mean 'goal'\?"),
        ("reward.goal", "a lot", r"reward.goal=a lot: reward.goal is 'a lot', expected a finite number"),
        ("slip.left", "0.5", r"slip.left=0.5: slip sums to 1.3, expected 1"),
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


def test_keys_are_found_where_they_stand():
    text = 'a = 1 # b = 2\nm = """\nc = 3\n"""\n  [ t . u ]\n  d = {e = 1, f.g = 2}\n"h" = \'\'\'x\'\'\'\n[[many]]\n'
    assert locate.keys(text) == {
        ("a",): (1, 1),
        ("m",): (2, 1),
        ("t", "u"): (5, 5),
        ("t", "u", "d"): (6, 3),
        ("t", "u", "d", "e"): (6, 8),
        ("t", "u", "d", "f", "g"): (6, 15),
        ("t", "u", "h"): (7, 1),
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
