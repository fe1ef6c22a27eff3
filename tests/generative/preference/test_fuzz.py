"""Ten thousand damaged files: every row is used or counted with its place, and no error but ours, in one line.

Damage is drawn from a seed: to bytes (bits flipped, cut short, invalid UTF-8), to lines (joined, doubled, emptied), to
values (of another type, nested, half a surrogate pair). The truth is told another way: rows are counted by a regular
expression over the bytes, and every line that the damage left alone must be the pair that it is in a clean file.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import ipc, parquet
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from generative.language.tokenizer import CharacterTokenizer
from generative.preference.pairs import Pair, PairError, rows
from generative.preference.preflight import DOUBTFUL, UNREADABLE, UNTEACHING, Checked, preflight
from generative.preference.tokens import PairTokenizer, Plain, Pretrained
from qx.main import main
from tests.generative.preference.test_pairs import read
from tests.generative.preference.test_tokens import tokenizer as bytes_of

LONG = 600  # characters that a message may have besides the path


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


ROWS: list[dict[str, Any]] = [
    {"prompt": "p", "chosen": "a", "rejected": "b"},
    {"prompt": "Wie heißt du? ", "chosen": "ich \U0001f642", "rejected": "du\u2028\x7f"},
    {"chosen": "Why? Because", "rejected": "Why? No"},
    {"prompt": "S..G\n#.#.\n", "chosen": "RRR", "rejected": "RR", "score": 3, "of": {"x": [1.5, None]}},
    {"prompt": turns("2 + 2?"), "chosen": turns("", "4")[1:], "rejected": turns("", "5")[1:]},
    {"chosen": turns("hi", "yes"), "rejected": turns("hi", "no")},
    {"prompt": None, "chosen": "yes", "rejected": "no"},
]
CHATTED = [row for row in ROWS if isinstance(row["chosen"], list)]
LINES = [json.dumps(row, ensure_ascii=i % 2 == 0).encode() for i, row in enumerate(ROWS)]

ODD = """null true 3 -0.0 1e999 NaN -Infinity "" "\\u0020" "\\t\\n" "3" "a"
    "\\ud800" "\\udc00\\ud800" "\\ud83d\\ude42" "\\u0000"
    "\\u2028" "\\u001b[31m" "\\x" " ' nul [] [[]] {} [1] ["a"] [null] "</s>" "<s></s><user>" "{{x}}{%if%}" "[/dim]" "é"
    {"role":"user","content":"x"} [{"role":"user"}] [{"role":"user","content":null}] [{"role":3,"content":"x"}]
    [{"role":"user","content":[{"type":"text","text":"x"}]}] [{"role":"tool","content":"x"}] [{"role":"","content":""}]
    [{"role":"assistant","content":"y"}] [{"role":"user","content":"\\ud800"}] [{"role":"user","content":"\\u001b"}]
    [{"role":"assistant","content":"y","role":"user"}] [{"role":"system","content":"s"},{"role":"user","content":"x"}]
"""
VALUES = ODD.split()
NAMES = ["prompt", "chosen", "rejected", "Chosen", "choosen", "reject", "prompts", "completion"]
NAMES += ["", "\\ud800", "\\u0000", "\\n", "n" * 3000]

Draws = random.Random
Row = list[tuple[str, str]]  # names and values as they are written


def of(row: dict[str, Any]) -> Row:
    return [(name, json.dumps(value)) for name, value in row.items()]


def written(row: Row) -> bytes:
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in row) + "}").encode()


def value(draws: Draws) -> str:
    """A value that is seldom right."""
    deep = draws.choice((3, 500, draws.randint(880, 1020), 20_000))
    return draws.choice(
        [
            *(draws.choice(VALUES) for _ in range(8)),
            "9" * draws.choice((20, 4000, 5000)),
            '"' + draws.choice("yé\u2028") * draws.choice((50, 20_000)) + '"',
            "[" * deep + "]" * deep,
            '{"a": ' * deep + "1" + "}" * deep,
            "[" * deep,
        ]
    )


def row_damaged(draws: Draws, row: Row) -> Row:
    """One thing is wrong with its columns."""
    at, other = draws.randrange(len(row)), draws.randrange(len(row))
    (name, told), (_, exchanged) = row[at], row[other]
    kinds = ("void", "name", "gone", "twice", "more", "same", "same", "swapped", "roles", "roles", "roles", "many")
    kind = draws.choice(("value",) * 3 + kinds)
    found = list(row)
    if kind == "value":
        found[at] = (name, value(draws))
    elif kind == "void":
        found[at] = (name, draws.choice(('""', '" \\t"', "[]")))
    elif kind == "name":
        found[at] = (draws.choice(NAMES), told)
    elif kind == "gone":
        del found[at]
    elif kind == "twice":
        found.append((name, value(draws)))
    elif kind == "more":
        found.append((draws.choice(NAMES), value(draws)))
    elif kind == "same":
        found = [(each, told) for each, _ in row]
    elif kind == "swapped":
        found[at], found[other] = (name, exchanged), (row[other][0], told)
    elif kind == "roles":
        role = draws.choice(('"assistant"', '"tool"', '"\\ud800"', '""', "3", "null"))
        chat, wrong = of(draws.choice(CHATTED)), draws.choice(('"user"', '"assistant"'))
        found = [(each, messages.replace(wrong, role)) for each, messages in chat]
    else:
        found = [(f"column {i}", "1") for i in range(draws.choice((20, 3000)))]
    return found


def lines_damaged(draws: Draws, lines: list[bytes]) -> list[bytes]:
    """A line is another, or there are more or fewer of them."""
    at = draws.randrange(len(lines))
    kinds = ("value", "blank", "joined", "twice", "indented", "cut", "mark")
    kind = draws.choice(("row",) * 5 + kinds)
    if kind == "row":
        lines[at] = written(row_damaged(draws, of(draws.choice(ROWS))))
    elif kind == "value":
        lines[at] = value(draws).encode()
    elif kind == "blank":
        lines.insert(at, draws.choice((b"", b" \t", b"\r", b"\x0b\x0c", b"\xc2\xa0", b"\x00", b"\xef\xbb\xbf")))
    elif kind == "joined":
        lines[at : at + 2] = [draws.choice((b"", b",", b"\r")).join(lines[at : at + 2])]
    elif kind == "twice":
        lines.append(lines[at])
    elif kind == "indented":
        lines[at : at + 1] = json.dumps(draws.choice(ROWS), indent=1).encode().split(b"\n")
    elif kind == "cut":
        lines[at] = lines[at][: draws.randint(0, len(lines[at]))]
    else:
        lines[at] = draws.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b",")) + lines[at]
    return lines


def bytes_damaged(draws: Draws, content: bytes) -> bytes:
    """What a disk, an editor or a transfer does."""
    at, length = draws.randint(0, len(content)), draws.choice((1, 1, 2, 20))
    kind = draws.choice(("flip", "flip", "gone", "more", "cut", "return", "wide", "list", "empty", "nul"))
    if kind == "flip" and content:
        changed = bytearray(content)
        for _ in range(length):
            changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
        return bytes(changed)
    if kind == "gone":
        return content[:at] + content[at + length :]
    if kind == "more":
        invalid = draws.choice((b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", draws.randbytes(length)))
        return content[:at] + invalid + content[at:]
    if kind == "cut":
        return content[:at]
    if kind == "return":
        return content.replace(b"\n", draws.choice((b"\r\n", b"\r", b"\n\n", b"\x85")))
    if kind == "wide":
        return content.decode("utf-8", "replace").encode(draws.choice(("utf-16", "utf-16-be", "utf-32")))
    if kind == "list":
        return b"[" + content.replace(b"\n", b",\n") + b"]"
    if kind == "nul":
        return content[:at] + bytes(length) + content[at + length :]
    return draws.choice((b"", b"\n", b"\xef\xbb\xbf", b"\r\n \n"))


def damaged(seed: str) -> bytes:
    """A file of some good lines, of which some are good no more."""
    draws = random.Random(seed)
    lines = draws.choices(LINES, k=draws.randint(1, 6))
    for _ in range(draws.choice((0, 1, 1, 2))):
        lines = lines_damaged(draws, lines)
    content = b"\n".join(lines) + draws.choice((b"\n", b""))
    for _ in range(draws.choice((0, 0, 1, 2))):
        content = bytes_damaged(draws, content)
    return content


STRICT = (
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('not the turn of ' ~ m['role'] ~ ': ' ~ m['content']) }}{% endif %}"
    "{% if m['role'] in ('system', 'user', 'assistant') %}<{{ m['role'] }}>{{ m['content'] | trim }}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""It refuses chats out of turn, writes nothing of a role that it does not know, and nothing of spaces."""


def words() -> Any:
    """A tokenizer without a token for what it does not know."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(("</s>", "p", "a", "b", "yes", "no"))}))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")


ALPHABET = "".join(chr(i) for i in range(32, 127)) + "\n"
TOKENIZERS: dict[str, tuple[Callable[[], PairTokenizer] | None, int, set[str]]] = {
    "none": (None, 0, set()),
    "plain": (lambda: Plain(CharacterTokenizer(ALPHABET)), 3 + len(ALPHABET), {"not_tokenised", "overlong_prompt"}),
    "pretrained": (lambda: Pretrained(bytes_of()), len(bytes_of()), {"overlong_prompt", "overlong_chosen"}),
    "strict template": (lambda: Pretrained(bytes_of(STRICT)), len(bytes_of()), {"not_tokenised", "overlong_prompt"}),
    "words": (lambda: Pretrained(words()), 6, {"not_tokenised"}),
}
"""How each is made, how many tokens it knows, and what its files are to be found to have besides."""


@cache
def tokenizer_of(name: str) -> PairTokenizer | None:
    make = TOKENIZERS[name][0]
    return None if make is None else make()


@cache
def clean(name: str, limit: int | None, folder: Path) -> dict[bytes, Pair]:
    """The good lines that can teach by themselves, and the pairs that they are."""
    found = {}
    for line in LINES:
        path = folder / "clean.jsonl"
        path.write_bytes(line)
        for pair in preflight(path, tokenizer_of(name), limit).pairs:
            found[line] = pair
    return found


def accounted(path: Path, content: bytes, name: str, limit: int | None) -> Checked:
    """Look at the file; every row of it is used, or counted with the place of the first of its kind."""
    path.write_bytes(content)
    checked = preflight(path, tokenizer_of(name), limit)
    found, lines = checked.findings, content.split(b"\n")
    assert found.pairs == len(re.findall(rb"[^\n]*[^\s][^\n]*", content))
    dropped = [kind for kind in UNTEACHING if getattr(found, kind)]
    assert found.usable + sum(getattr(found, kind) for kind in dropped) == found.pairs
    assert len(checked.pairs) == len(checked.lengths) == found.usable
    assert set(found.first) == {*dropped, *(kind for kind in DOUBTFUL if getattr(found, kind))}
    places = {kind: place(path, message) for kind, message in found.first.items()}
    assert all(lines[number - 1].strip() for number in places.values())
    assert all(said_in_a_line(message, path) for message in found.first.values())
    left, good = iter(checked.pairs), clean(name, limit, path.parent)
    assert all(good[line] in left for line in lines if line in good), "a good line was lost, or is another pair"
    if not dropped:
        assert preflight(path, tokenizer_of(name), limit, strict=True) == checked
        return checked
    first = min(dropped, key=lambda kind: places[kind])
    with pytest.raises(PairError) as caught:
        preflight(path, tokenizer_of(name), limit, strict=True)
    assert str(caught.value) == found.first[first]
    return checked


def place(path: Path, message: str) -> int:
    """The line that a message names."""
    found = re.match(re.escape(str(path)) + r":([1-9]\d*): .", message)
    assert found, message
    return int(found[1])


def said_in_a_line(message: str, path: Path) -> bool:
    return message.isprintable() and len(message.replace(str(path), "")) <= LONG


def can_teach(checked: Checked, size: int, limit: int | None) -> None:
    """What is to be trained on has tokens of the vocabulary on both sides, other ones, and no more than fit."""
    found = checked.findings
    assert len(checked.tokens) == found.usable
    assert limit is not None or not found.overlong_prompt + found.overlong_chosen + found.overlong_rejected
    for tokens in checked.tokens:
        assert tokens.chosen
        assert tokens.rejected
        assert tokens.chosen != tokens.rejected
        assert limit is None or len(tokens.prompt) + max(len(tokens.chosen), len(tokens.rejected)) <= limit
        assert all(0 <= number < size for number in (*tokens.prompt, *tokens.chosen, *tokens.rejected))


def fuzz(name: str, seeds: Sequence[int], folder: Path) -> None:
    met, (_, size, more) = set[str](), TOKENIZERS[name]
    for seed in seeds:
        limit = (None, 3, 8, 20)[seed % 4] if size else None
        try:
            checked = accounted(folder / "damaged.jsonl", damaged(f"{name} {seed}"), name, limit)
            if size:
                can_teach(checked, size, limit)
        except BaseException as error:
            error.add_note(f"damaged({f'{name} {seed}'!r})")
            raise
        met |= set(checked.findings.first)
    assert met >= {*UNREADABLE, "duplicated", *more}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_row_of_a_damaged_file_is_used_or_named(name: str, tmp_path: Path) -> None:
    fuzz(name, range(200), tmp_path)


def test_every_depth_of_nesting_is_only_a_row_that_is_no_pair(tmp_path: Path) -> None:
    """Also those that can just be read, but are too deep to be written into a message."""
    depths = (*range(700, 1010), *range(2000, 12_000, 250), 100_000)
    lists = ["[" * depth + "]" * depth for depth in depths]
    lines = [*lists, *(f'{{"prompt": "p", "chosen": {each}, "rejected": "b"}}' for each in lists)]
    checked = accounted(tmp_path / "deep.jsonl", "\n".join(lines).encode(), "none", None)
    found = checked.findings
    assert (found.pairs, found.usable) == (len(lines), 0)
    assert found.not_object
    assert found.not_string
    assert found.not_json


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_row_of_ten_thousand_damaged_files_is_used_or_named(name: str, tmp_path: Path) -> None:
    fuzz(name, range(200, 2200), tmp_path)


def test_the_command_counts_every_row_of_a_damaged_file_or_names_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.jsonl"
    for seed in range(25):
        content = damaged(f"command {seed}")
        path.write_bytes(content)
        assert main(["pairs", "check", str(path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["pairs"] == len(re.findall(rb"[^\n]*[^\s][^\n]*", content))
        whole = found["usable"] == found["pairs"]
        assert main(["pairs", "check", str(path), "--strict"]) == (0 if whole else 2)
        said = capsys.readouterr().err
        assert said.count("\n") == (0 if whole else 1)
        assert whole or re.search(re.escape(str(path)) + r":[1-9]\d*: .", said)


@pytest.mark.parametrize("number", [100, 1234])
def test_a_line_is_named_by_its_number_and_not_by_a_picture(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What prints messages might know :100: as one."""
    path = tmp_path / "damaged.jsonl"
    path.write_bytes((LINES[0] + b"\n") * (number - 1) + b"{\n")
    assert main(["pairs", "check", str(path)]) == 0
    assert f"{path}:{number}: not JSON" in capsys.readouterr().out
    assert main(["pairs", "check", str(path), "--strict"]) == 2
    assert f"{path}:{number}: not JSON" in capsys.readouterr().err


PAIRS = pyarrow.Table.from_pylist([{"prompt": f"p{i}", "chosen": "a" * i, "rejected": "b"} for i in range(1, 12)])
CHATS = pyarrow.Table.from_pylist(
    [{key: turns("hi", f"{key} {i}") for key in ("chosen", "rejected")} | {"at": i} for i in range(11)]
)


def stored(path: Path, table: pyarrow.Table) -> bytes:
    """The table as a file of several parts."""
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=4)
    else:
        with ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table, max_chunksize=4)
    return path.read_bytes()


def table_damaged(draws: Draws, content: bytes) -> bytes:
    at, length = draws.randrange(len(content)), draws.choice((1, 4, 100))
    return {
        "cut": content[:at],
        "gone": content[:at] + content[at + length :],
        "more": content[:at] + draws.randbytes(length) + content[at:],
        "flip": content[:at] + bytes([content[at] ^ 1 << draws.randrange(8)]) + content[at + 1 :],
        "other": content[:at] + draws.randbytes(length) + content[at + length :],
        "zero": content[:at] + bytes(length) + content[at + length :],
        "random": draws.randbytes(length),
        "empty": b"",
    }[draws.choice(("cut", "cut", "gone", "more", "flip", "flip", "other", "zero", "random", "empty"))]


def all_rows_or_an_error(path: Path, expected: int) -> Checked | None:
    """Every row of a table is used or counted; or one line says which file cannot be read."""
    refused = ""
    try:
        checked = preflight(path)
    except PairError as error:
        refused = str(error)
    if refused:
        assert refused.startswith(str(path))
        assert said_in_a_line(refused, path)
        return None
    found = checked.findings
    assert found.pairs == expected
    assert found.usable + sum(getattr(found, kind) for kind in UNTEACHING) == found.pairs
    assert all(re.match(re.escape(str(path)) + r".*, row [1-9]\d*: ", message) for message in found.first.values())
    assert all(said_in_a_line(message, path) for message in found.first.values())
    return checked


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("table", [PAIRS, CHATS], ids=["strings", "chats"])
def test_a_damaged_table_is_whole_or_refused(suffix: str, table: pyarrow.Table, tmp_path: Path) -> None:
    path = tmp_path / f"pairs{suffix}"
    content = stored(path, table)
    whole = all_rows_or_an_error(path, 11)
    assert whole is not None
    assert whole.findings.usable == 11
    refused = 0
    for seed in range(300):
        path.write_bytes(table_damaged(random.Random(f"{suffix} {seed}"), content))
        refused += all_rows_or_an_error(path, 11) is None
    assert refused > 150


def test_an_arrow_file_that_was_cut_between_two_parts_is_refused(tmp_path: Path) -> None:
    """Nothing in it is damaged, but that its end is missing."""
    path = tmp_path / "pairs.arrow"
    with path.open("wb") as file, ipc.new_stream(file, PAIRS.schema) as stream:
        stream.write_table(PAIRS.slice(0, 8))
        file.flush()
        length = path.stat().st_size
        stream.write_table(PAIRS.slice(8))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PairError, match=r"pairs\.arrow: damaged after row 0 \(it ends without the mark of its end\)"):
        read(path)


TYPES: dict[str, pyarrow.Array] = {
    "int": pyarrow.array([1, None]),
    "float": pyarrow.array([1.5, float("nan")]),
    "bool": pyarrow.array([True, None]),
    "null": pyarrow.nulls(2),
    "bytes": pyarrow.array([b"a", b"\xff"]),
    "decimal": pyarrow.array([1, 2]).cast(pyarrow.decimal128(30, 2)),
    "date": pyarrow.array([1, 2**31 - 1], pyarrow.int32()).cast(pyarrow.date32()),
    "time": pyarrow.array([1, 2**62], pyarrow.timestamp("s")),
    "nanoseconds": pyarrow.array([1, 2], pyarrow.timestamp("ns")),
    "time of nowhere": pyarrow.array([1, 2], pyarrow.timestamp("us", tz="Mars/Phobos")),
    "duration": pyarrow.array([1, 2**62], pyarrow.duration("s")),
    "list": pyarrow.array([["a"], []]),
    "object": pyarrow.array([{"role": "user", "content": "x"}, None]),
    "map": pyarrow.array([[("role", "user")], []], pyarrow.map_(pyarrow.string(), pyarrow.string())),
    "chat of numbers": pyarrow.array([[{"role": "user", "content": 1}], [None]]),
    "role twice": pyarrow.ListArray.from_arrays(
        pyarrow.array([0, 1, 2], pyarrow.int32()),
        pyarrow.StructArray.from_arrays([pyarrow.array(["a", "b"])] * 2, names=["role", "role"]),
    ),
}


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("kind", TYPES)
def test_a_column_of_another_type_is_refused_and_one_that_is_not_ours_is_not_read(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    path, good = tmp_path / f"pairs{suffix}", pyarrow.array(["a", "b"])
    try:
        stored(path, pyarrow.table({"prompt": good, "chosen": TYPES[kind], "rejected": good}))
    except pyarrow.ArrowException:
        pytest.skip(f"{suffix} has no such type")
    checked = all_rows_or_an_error(path, 2)
    assert checked is None or checked.findings.usable == 0
    stored(path, pyarrow.table({"when": TYPES[kind], "chosen": good, "rejected": pyarrow.array(["c", "d"])}))
    assert read(path) == [Pair("", "a", "c"), Pair("", "b", "d")]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_strings_of_every_width_are_strings(suffix: str, tmp_path: Path) -> None:
    path, good = tmp_path / f"pairs{suffix}", pyarrow.array(["a", "b"])
    prompt, rejected = pyarrow.array(["p", "q"]).dictionary_encode(), pyarrow.array(["c", "d"])
    wide = good.cast(pyarrow.large_string())
    stored(path, pyarrow.table({"prompt": prompt, "chosen": wide, "rejected": rejected}))
    assert read(path) == [Pair("p", "a", "c"), Pair("q", "b", "d")]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_names_of_columns_are_told_or_refused(suffix: str, tmp_path: Path) -> None:
    path, good = tmp_path / f"pairs{suffix}", pyarrow.array(["a", "b"])
    stored(path, pyarrow.table([good, good], names=["prompt", "chosn"]))
    [*_, (place_of, found)] = rows(path)
    assert place_of == f"{path}, row 2"
    assert "the column 'chosen' is missing; did 'chosn' mean it?" in str(found)
    stored(path, pyarrow.table([good], names=["of nothing"]))
    assert preflight(path).findings.missing_column == 2
    stored(path, pyarrow.table([good, good, good, good], names=["prompt", "chosen", "rejected", "chosen"]))
    with pytest.raises(PairError, match=r"pairs.*: 2 columns are named 'chosen'; expected one"):
        read(path)


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"_data_files": 3, "splits": {}}'),
        *(b'{"_data_files": [], "splits": []}', b'{"_data_files": ["a"], "splits": [3]}'),
        *(b'{"_data_files": [{"filename": 3}], "splits": [null]}', b'{"_data_files": [{}], "splits": [""]}'),
        b'{"_data_files": [{"filename": "gone.arrow"}], "splits": ["gone"]}',
        b'{"_data_files": [{"filename": "data.arrow"}, 3], "splits": ["train", 3]}',
        b'{"_data_files": [{"filename": "a\\u0000b"}], "splits": ["a\\u0000b"]}',
        b'{"_data_files": [{"filename": "\\ud800"}], "splits": ["\\ud800"]}',
        b'{"_data_files": [{"filename": "a\\nb"}], "splits": ["a\\nb"]}',
        b'{"_data_files": [{"filename": "../data.arrow"}], "splits": ["../train"]}',
    ],
    ids=lambda value: value[:60].decode("ascii", "replace") if isinstance(value, bytes) else value,
)
def test_a_folder_whose_description_is_damaged_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    stored(tmp_path / "data.arrow", PAIRS)
    (tmp_path / name).write_bytes(content)
    assert all_rows_or_an_error(tmp_path, 0) is None


def test_a_folder_with_a_damaged_part_names_the_part(tmp_path: Path) -> None:
    for part in range(3):
        content = stored(tmp_path / f"train-{part}.parquet", PAIRS)
    (tmp_path / "train-1.parquet").write_bytes(content[:-20])
    with pytest.raises(PairError) as caught:
        preflight(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'train-1.parquet'}: damaged after row 0 (")
