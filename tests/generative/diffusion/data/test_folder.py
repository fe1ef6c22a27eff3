"""A folder with every kind of image that goes wrong: each is found, its rule is kept, and nothing raises."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generative.diffusion.data import DataError, load
from generative.diffusion.data.folder import folder
from generative.diffusion.data.report import FINDINGS, Report

SIZE = 8
ORANGE = (230, 120, 20)


def checker(size: int = SIZE, colour: tuple[int, int, int] = ORANGE, shift: int = 0) -> np.ndarray:
    """A checkerboard of a colour and black, uint8 [size, size, 3]; `shift` makes it another picture."""
    page = np.zeros((size, size, 3), dtype=np.uint8)
    page[shift % 2 :: 2, ::2] = colour
    page[0, 0] = (shift, 255, 0)
    return page


def save(path: Path, page: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(page).save(path, **options)
    return path


def bomb(path: Path, side: int) -> None:
    """A PNG of some bytes that says it has side * side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def pixels(image: torch.Tensor) -> np.ndarray:
    """[3, H, W] in [-1, 1] -> uint8 [H, W, 3]."""
    return ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()


def only(path: Path, **options: object) -> tuple[np.ndarray, Report]:
    """The one image of a folder, and what was found."""
    split = folder(path, size=SIZE, test=0.0, channels=3, **options)
    assert len(split.train) == 1
    return pixels(split.train.image[0]), split.report


def test_a_plain_image_of_the_size_is_untouched(tmp_path: Path):
    save(tmp_path / "a.png", checker())
    found, report = only(tmp_path)
    assert np.array_equal(found, checker())
    assert report.lines() == ["1 image kept"]


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_images_get_three_equal_channels(tmp_path: Path, mode: str):
    page = np.where(checker()[..., :1] > 100, np.uint8(255), np.uint8(0)).repeat(3, 2)
    Image.fromarray(page).convert(mode).save(tmp_path / "a.png")
    found, report = only(tmp_path)
    assert np.array_equal(found, page)
    assert report.counts == {"grey": 1}
    assert folder(tmp_path, size=SIZE, test=0.0).shape == (1, SIZE, SIZE)  # "auto"


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_become_eight(tmp_path: Path, suffix: str):
    deep = np.linspace(0, 65535, SIZE * SIZE).round().astype(np.uint16).reshape(SIZE, SIZE)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    found, report = only(tmp_path)
    assert np.abs(found[..., 0] - deep / 257).max() <= 0.5
    assert report.counts == {"grey": 1, "deep": 1}


@pytest.mark.parametrize("background", ["white", "#204060"])
def test_transparency_shows_the_background(tmp_path: Path, background: str):
    clear = np.concatenate([checker(), np.full((SIZE, SIZE, 1), 255, dtype=np.uint8)], axis=2)
    clear[4:, :, 3] = 0
    clear[3, :, 3] = 51  # a fifth
    save(tmp_path / "a.png", clear)
    found, report = only(tmp_path, background=background)
    paper = np.array([255] * 3 if background == "white" else [0x20, 0x40, 0x60])
    assert np.array_equal(found[:3], checker()[:3])
    assert (found[4:] == paper).all()
    assert np.abs(found[3] - (0.2 * checker()[3] + 0.8 * paper)).max() <= 1
    assert report.counts == {"transparent": 1}


def test_palettes_are_looked_up_and_their_transparency_counts(tmp_path: Path):
    indexed = Image.fromarray(checker()).quantize(4)
    indexed.save(tmp_path / "a.png")
    found, report = only(tmp_path)
    assert np.array_equal(found, np.asarray(indexed.convert("RGB")))
    assert report.counts == {"palette": 1}
    indexed.save(tmp_path / "a.png", transparency=indexed.getpixel((1, 1)))
    found, report = only(tmp_path)
    assert (found[1, 1] == 255).all()
    assert report.counts == {"palette": 1, "transparent": 1}


def test_cmyk_becomes_rgb(tmp_path: Path):
    Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)).save(tmp_path / "a.tif")  # no cyan: red
    found, report = only(tmp_path)
    assert (found == (255, 0, 0)).all()
    assert report.counts == {"colour space": 1}


def test_exif_orientation_is_obeyed(tmp_path: Path):
    page, exif = checker(), Image.Exif()
    page[:, :2] = (0, 0, 255)
    exif[0x0112] = 6  # turn it a quarter to the right
    save(tmp_path / "a.png", page, exif=exif)
    found, report = only(tmp_path)
    assert np.array_equal(found, np.rot90(page, -1))
    assert report.counts == {"turned": 1}


def test_the_first_frame_of_a_film_is_taken(tmp_path: Path):
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    found, report = only(tmp_path)
    assert (found == (255, 0, 0)).all()
    assert report.counts["animated"] == 1


def test_other_sizes_are_cropped_to_the_middle_and_resized(tmp_path: Path):
    wide = np.zeros((SIZE, 3 * SIZE, 3), dtype=np.uint8)
    wide[:, SIZE : 2 * SIZE] = checker()
    save(tmp_path / "a.png", wide)
    found, report = only(tmp_path)
    assert np.array_equal(found, checker())  # cropped only, so untouched
    assert report.counts == {"cropped": 1}
    save(tmp_path / "a.png", checker(16))
    found, report = only(tmp_path)
    assert np.array_equal(found, np.asarray(Image.fromarray(checker(16)).resize((8, 8), Image.Resampling.LANCZOS)))
    assert report.counts == {"reduced": 1}
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    save(tmp_path / "a.png", stripes)
    assert np.abs(only(tmp_path)[0].astype(int) - 127).max() <= 8  # antialiased: not one of each eight columns
    save(tmp_path / "a.png", checker(2))
    assert only(tmp_path)[1].counts == {"enlarged": 1}


def test_what_cannot_be_used_is_left_out_and_said(tmp_path: Path):
    whole = save(tmp_path / "good.png", checker(64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.gif").write_bytes(b"")
    (tmp_path / "notes.md").write_text("notes")
    (tmp_path / ".hidden.png").write_bytes(b"")
    bomb(tmp_path / "huge.png", 9_000)
    bomb(tmp_path / "monster.png", 60_000)  # that Pillow itself refuses to open
    save(tmp_path / "tiny.png", checker(1))
    Image.fromarray(np.full((SIZE, SIZE), 0.5, dtype=np.float32)).save(tmp_path / "floats.tif")
    split = folder(tmp_path, size=SIZE, test=0.0)
    counts = {"damaged": 1, "unreadable": 2, "other": 1, "huge": 2, "tiny": 1, "unknown range": 1, "reduced": 1}
    assert split.report.counts == counts
    assert (len(split.train), split.report.kept) == (1, 1)
    assert split.report.lines()[1] == f"2 unreadable: {FINDINGS['unreadable']} (empty.gif, text.jpg)"
    assert len(split.report.lines()) == 1 + len(counts)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp", "tif"])
def test_no_damage_to_a_file_raises(tmp_path: Path, suffix: str):
    """Every file is cut or has a run of bytes overwritten, at 40 places: it is read or left out."""
    whole = save(tmp_path / "whole" / f"a.{suffix}", checker(24)).read_bytes()
    draws = np.random.default_rng(0)
    ruined = tmp_path / "ruined"
    ruined.mkdir()
    for i in range(40):
        place = int(draws.integers(len(whole)))
        broken = whole[:place] if i % 2 else whole[:place] + draws.bytes(9) + whole[place + 9 :]
        (ruined / f"{i:02}.{suffix}").write_bytes(broken)
    save(ruined / "good.png", checker())
    split = folder(ruined, size=SIZE, channels=3)
    left_out = sum(split.report.counts[finding] for finding in ("unreadable", "damaged", "huge", "tiny"))
    assert split.report.kept + left_out == 41
    assert len(split.train) + len(split.test) == split.report.kept
    assert left_out > 0


def lines(path: Path, *rows: object) -> None:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")


def test_captions_from_metadata(tmp_path: Path):
    for i in range(3):
        save(tmp_path / "images" / f"{i}.png", checker(shift=i))
    rows = [{"file_name": f"images/{i}.png", "text": f"caption {i}"} for i in (2, 0, 1)]
    lines(tmp_path / "metadata.jsonl", *rows)
    split = load(str(tmp_path), size=SIZE, test=0.0)
    assert split.train.captions == ("caption 2", "caption 0", "caption 1")
    assert [pixels(image)[0, 0, 0] for image in split.train.image] == [2, 0, 1]
    assert (split.classes, split.train.label) == (0, None)


def test_every_wrong_line_of_metadata_is_counted(tmp_path: Path):
    outside = save(tmp_path / "outside.png", checker())
    root = tmp_path / "data"
    for name in ("a", "b", "c", "d"):
        save(root / f"{name}.png", checker(shift=ord(name)))
    lines(
        root / "metadata.jsonl",
        {"file_name": "a.png", "text": "first"},
        {"file_name": "up/../a.png", "text": "again"},
        "",
        "{no json",
        '"a.png"',
        {"text": "no file"},
        {"file_name": 3, "text": "number"},
        {"file_name": "b.png", "text": 7},
        {"file_name": "gone.png", "text": "gone"},
        {"file_name": "x" * 5000 + ".png", "text": "long"},
        {"file_name": "zero\0.png", "text": "zero"},
        '{"file_name": "\\ud800.png", "text": "half"}',
        {"file_name": "../outside.png", "text": "up"},
        {"file_name": str(outside), "text": "absolute"},
        {"file_name": "c.png"},
        {"file_name": "d.png", "text": " \n"},
        "[" * 100_000,
    )
    split = folder(root, size=SIZE, test=0.0)
    counts = {"repeated": 1, "bad line": 7, "missing": 3, "outside": 2, "no caption": 2, "unlisted": 1}
    assert split.report.counts == counts
    assert split.train.captions == ("first",)
    assert all("\0" not in line and "\n" not in line for line in split.report.lines())


@pytest.mark.parametrize(("labels", "names"), [((2, 0, 2), ("0", "1", "2")), (("dog", "cat", "dog"), ("cat", "dog"))])
def test_labels_from_metadata(tmp_path: Path, labels: tuple[object, ...], names: tuple[str, ...]):
    for i in range(3):
        save(tmp_path / f"{i}.png", checker(shift=i))
    lines(tmp_path / "metadata.jsonl", *({"file_name": f"{i}.png", "label": labels[i]} for i in range(3)))
    split = folder(tmp_path, size=SIZE, test=0.0)
    assert (split.names, split.classes) == (names, len(names))
    assert [names[label] for label in split.train.label] == [str(label) for label in labels]


def test_labels_that_are_none_are_named(tmp_path: Path):
    save(tmp_path / "a.png", checker())
    lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "label": -3})
    with pytest.raises(DataError, match="labels go from -3 to -3"):
        folder(tmp_path, size=SIZE)


def test_subfolders_name_classes_unless_images_stand_beside_them(tmp_path: Path):
    save(tmp_path / "dog" / "deep" / "a.png", checker(shift=1))
    save(tmp_path / "cat" / "a.png", checker(shift=2))
    split = folder(tmp_path, size=SIZE, test=0.0)
    assert (split.names, split.train.label.tolist()) == (("cat", "dog"), [0, 1])
    save(tmp_path / "a.png", checker(shift=3))
    split = folder(tmp_path, size=SIZE, test=0.0)
    assert (split.names, split.train.label, len(split.train)) == ((), None, 3)


@pytest.mark.parametrize("held", ["test", "validation", "val"])
def test_a_folder_in_two_parts(tmp_path: Path, held: str):
    for i in range(3):
        save(tmp_path / "train" / "cat" / f"{i}.png", checker(shift=i))
    save(tmp_path / held / "dog" / "a.png", checker(shift=9))
    split = folder(tmp_path, size=SIZE)
    assert (len(split.train), len(split.test), split.names) == (3, 1, ("cat", "dog"))
    assert split.test.label.tolist() == [1]
    assert pixels(split.test.image[0])[0, 0, 0] == 9


def test_copies_are_reported_and_held_out_together(tmp_path: Path):
    for i in range(10):
        for copy in range(3):
            save(tmp_path / f"{i}-{copy}.png", checker(shift=i))
    split = folder(tmp_path, size=SIZE, test=0.2)
    assert split.report.counts["identical"] == 20
    sides = [{pixels(image)[0, 0, 0] for image in part.image} for part in (split.train, split.test)]
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [8, 2]


def test_a_folder_without_images_says_what_was_found(tmp_path: Path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match=r"no image to learn from: 0 images kept; 1 unreadable: .* \(a\.png\)"):
        folder(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no such data; expected digits, scenes, an \.npz file or a folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="size is 0"):
        folder(tmp_path, size=0)
    with pytest.raises(ValueError, match="color"):
        folder(tmp_path, background="no colour")


def test_progress_hears_of_every_file(tmp_path: Path):
    for i in range(3):
        save(tmp_path / f"{i}.png", checker(shift=i))
    heard: list[int] = []
    folder(tmp_path, size=SIZE, progress=heard.append)
    assert heard == [1, 2, 3]


def test_a_finding_without_a_rule_is_refused():
    with pytest.raises(KeyError):
        Report().add("odd", "a.png")
    report = Report()
    for name in ("a", "b\n", "c" * 100, "d"):
        report.add("other", name)
    assert report.lines()[1].endswith("(a, b\\n, " + "c" * 57 + "..., ...)")
