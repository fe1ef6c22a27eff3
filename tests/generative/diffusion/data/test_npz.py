"""Archives: what each layout and type means, the real files where they are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from generative.diffusion.data import DataError, Split, load
from generative.diffusion.data.npz import npz

REAL = Path(__file__).parents[5] / "shared" / "data"
DRAWS = np.random.default_rng(0)
BYTES = DRAWS.integers(0, 256, (20, 6, 5), dtype=np.uint8)


def made(tmp_path: Path, **arrays: np.ndarray) -> Path:
    np.savez(tmp_path / "made.npz", **arrays)
    return tmp_path / "made.npz"


def everything(split: Split) -> torch.Tensor:
    return torch.cat([split.train.image, split.test.image])


def test_the_keys_of_mnist(tmp_path: Path):
    labels = np.arange(20, dtype=np.uint8) % 10
    path = made(tmp_path, x_train=BYTES[:15], y_train=labels[:15], x_test=BYTES[15:], y_test=labels[15:])
    split = load(str(path), seed=3)
    assert (split.shape, split.classes, split.names) == ((1, 6, 5), 10, tuple("0123456789"))
    assert np.allclose(everything(split)[:, 0].numpy(), BYTES / 127.5 - 1, atol=1e-6)
    assert split.train.label.tolist() == labels[:15].tolist()
    assert split.test.label.tolist() == labels[15:].tolist()
    assert split.report.lines() == ["20 images kept"]
    assert load(str(made(tmp_path, x_train=BYTES[:15], x_test=BYTES[15:]))).classes == 0


@pytest.mark.parametrize(
    ("array", "truth"),
    [
        (BYTES, BYTES / 127.5 - 1),
        (BYTES.astype(np.int64), BYTES / 127.5 - 1),
        (BYTES.astype(np.uint16) * 257, BYTES / 127.5 - 1),
        (BYTES > 127, np.where(BYTES > 127, 1.0, -1.0)),
        (BYTES / 255, BYTES / 127.5 - 1),
        (BYTES.astype(np.float32) / 127.5 - 1, BYTES / 127.5 - 1),
        (BYTES.astype(np.float16) / 256, BYTES / 128 - 1),
    ],
)
def test_every_kind_of_number_has_its_range(tmp_path: Path, array: np.ndarray, truth: np.ndarray):
    split = npz(made(tmp_path, x=array), test=0.0)
    assert split.train.image.dtype == torch.float32
    assert np.allclose(split.train.image[:, 0].numpy(), truth, atol=1e-6)


def test_layouts_and_colours(tmp_path: Path):
    colour = DRAWS.integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
    last = npz(made(tmp_path, images=colour), test=0.0)
    second = npz(made(tmp_path, images=np.moveaxis(colour, 3, 1)), test=0.0)
    assert last.shape == (3, 6, 5)
    assert torch.equal(last.train.image, second.train.image)
    assert np.allclose(last.train.image[2, 1].numpy(), colour[2, ..., 1] / 127.5 - 1, atol=1e-6)
    grey = npz(made(tmp_path, images=colour), test=0.0, channels=1).train.image
    luma = (colour * np.array([0.299, 0.587, 0.114])).sum(3) / 127.5 - 1
    assert np.allclose(grey[:, 0].numpy(), luma, atol=1e-6)
    triple = np.repeat(BYTES[..., None], 3, axis=3)
    alike = npz(made(tmp_path, images=triple), test=0.0)
    assert np.array_equal(alike.train.image[:, 0].numpy(), npz(made(tmp_path, x=BYTES), test=0.0).train.image[:, 0])
    back = npz(made(tmp_path, images=BYTES), test=0.0, channels=3).train.image
    assert back.shape == (20, 3, 6, 5)
    assert (back == back[:, :1]).all()


@pytest.mark.parametrize(("background", "paper"), [("white", (1.0, 1.0, 1.0)), ("#336699", (0.2, 0.4, 0.6))])
def test_opacity_is_laid_over_the_background(tmp_path: Path, background: str, paper: tuple[float, float, float]):
    rgba = DRAWS.integers(0, 256, (4, 6, 5, 4), dtype=np.uint8)
    split = npz(made(tmp_path, rgba=rgba), test=0.0, background=background)
    cover = rgba[..., 3:] / 255
    truth = cover * rgba[..., :3] / 255 + (1 - cover) * np.array(paper)
    assert np.allclose(split.train.image.permute(0, 2, 3, 1).numpy(), truth * 2 - 1, atol=1e-6)
    shaded = npz(made(tmp_path, x=rgba[..., 2:]), test=0.0)  # grey and opacity, on white
    assert shaded.shape == (1, 6, 5)


def test_captions_and_labels_follow_their_images(tmp_path: Path):
    words = np.array([f"caption {i}" for i in range(20)])
    labels = np.array(["dog", "cat"] * 10)
    split = npz(made(tmp_path, images=BYTES, captions=words, labels=labels), test=0.25)
    assert (len(split.train), len(split.test), split.names) == (15, 5, ("cat", "dog"))
    order = {page.tobytes(): i for i, page in enumerate(BYTES)}
    for part in (split.train, split.test):
        pages = ((part.image[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
        index = [order[page.tobytes()] for page in pages]
        assert index == sorted(index)
        assert part.captions == tuple(words[index].tolist())
        assert [split.names[i] for i in part.label] == labels[index].tolist()
    assert npz(made(tmp_path, x=BYTES, captions=words.astype("S")), test=0.0).train.captions == tuple(words.tolist())


def test_the_files_of_qx_sample(tmp_path: Path):
    images = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1).numpy()
    split = npz(made(tmp_path, images=images, labels=np.full(9, 3)), test=0.0)
    assert np.allclose(split.train.image.numpy(), images, atol=1e-6)
    assert (split.train.label == 3).all()
    assert split.classes == 4
    unlabelled = npz(made(tmp_path, images=images, labels=np.full(9, -1)), test=0.0)
    assert (unlabelled.train.label, unlabelled.classes) == (None, 0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": BYTES}, "it holds pictures; expected x_train"),
        ({"x": BYTES.astype(np.int32) - 300}, "whole numbers from -300 to"),
        ({"x": BYTES.astype(np.float32)}, "floats from 0 to 255"),
        ({"x": np.full((2, 3, 3), np.nan)}, "not finite"),
        ({"x": np.zeros((0, 3, 3))}, r"shape \(0, 3, 3\) holds no pictures"),
        ({"x": np.zeros((2, 9))}, r"shape \(2, 9\); expected \[N, H, W\]"),
        ({"x": np.zeros((2, 9, 9, 9))}, r"shape \(2, 9, 9, 9\)"),
        ({"x": np.array([["a"]])}, "type <U1"),
        ({"x": BYTES, "y": np.zeros(3, dtype=int)}, "3 labels for 20 images"),
        ({"x": BYTES, "y": np.zeros((20, 2), dtype=int)}, r"labels of shape \(20, 2\)"),
        ({"x": BYTES, "y": np.arange(20) - 5}, "labels go from -5 to 14"),
        ({"x": BYTES, "y": np.linspace(0, 1, 20)}, "captions or labels of type float64"),
        ({"x": BYTES, "captions": np.array(["a"])}, "1 captions for 20 images"),
        ({"x_train": BYTES}, "x_train without x_test"),
        ({"x_train": BYTES, "x_test": BYTES[:, :3]}, r"x_train is \(20, 6, 5\) of uint8, x_test \(20, 3, 5\)"),
        ({"x_train": BYTES, "x_test": BYTES, "y_test": np.zeros(20, dtype=int)}, "only one of y_train and y_test"),
        (
            {"x_train": BYTES, "x_test": BYTES, "y_train": np.zeros(19, dtype=int), "y_test": np.zeros(21, dtype=int)},
            r"y_train has shape \(19,\) for 20",
        ),
    ],
)
def test_what_is_no_data_is_named_in_one_line(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    path = made(tmp_path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        npz(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_damaged_archives_and_pickles_are_refused(tmp_path: Path):
    path = made(tmp_path, x=BYTES)
    whole = path.read_bytes()
    for broken in (b"", b"no archive", whole[: len(whole) // 2], whole[:200] + bytes(50) + whole[250:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="not a numpy archive"):
            npz(path)
    with pytest.raises(DataError, match="not a numpy archive"):
        npz(made(tmp_path, x=np.array([{}, None], dtype=object)))  # would have to be unpickled
    np.save(tmp_path / "bare.npy", BYTES)
    with pytest.raises(DataError, match="one bare array"):
        npz(tmp_path / "bare.npy")
    with pytest.raises(DataError, match="no such file"):
        npz(tmp_path / "nowhere.npz")


@pytest.mark.skipif(not (REAL / "silk-icons-16" / "silk.npz").is_file(), reason="the real icons are not here")
def test_the_real_icons():
    split = load(str(REAL / "silk-icons-16" / "silk.npz"))
    assert (split.shape, len(split.train), len(split.test)) == ((3, 16, 16), 900, 100)
    assert {"user add", "page delete"} <= {*split.train.captions, *split.test.captions}
    assert split.train.image.amax() == 1  # white where nothing is
