"""`qx sample --init --mask --dtype`: how pictures are read, what of them is kept, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch.nn import functional

from generative.diffusion.data.report import FINDINGS
from generative.diffusion.model import DiffusionConfig, Subject
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.stock.folder import open_folder
from qx import main
from qx.sample_init import beginning
from tests.oracles import pipelines

SIZE = 8
PAGE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
GREY = PAGE[..., :1].repeat(3, 2)
FEW = ["--n", "3", "--steps", "4", "--device", "cpu", "--json"]


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DDPMPipeline of 3 x 8 x 8 images."""
    path = tmp_path_factory.mktemp("colour")
    scheduler = diffusers.DDPMScheduler(**pipelines.V)
    pipelines.images("DDPMPipeline", scheduler, SIZE, in_channels=3, out_channels=3).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline of 16 x 16 images, its latents 8 x 8."""
    path = tmp_path_factory.mktemp("prompted")
    pipelines.stable_diffusion(
        diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, **pipelines.V)
    ).save_pretrained(path)
    return path


def ours(folder: Path, shape: tuple[int, int, int], **changes: Any) -> Path:
    """A model of ours with three classes, its weights at random."""
    config, subject = DiffusionConfig(width=16, blocks=1, attention=(), **changes), Subject(shape, classes=3)
    pipeline = Pipeline.build(config, subject, torch.Generator().manual_seed(0))
    pipelines.drawn(pipeline.network, std=0.1)
    pipeline.save(folder)
    return folder


def drawn(model: Path, out: Path, *args: object) -> tuple[np.ndarray, dict[str, Any]]:
    """The images [N, C, H, W] as they were saved, and result.json."""
    assert main.main(["sample", str(model), *FEW, "--out", str(out), *map(str, args)]) == 0
    return np.load(out / "samples.npz")["images"], json.loads((out / "result.json").read_text())


def levels(images: np.ndarray) -> np.ndarray:
    """[N, C, H, W] in [-1, 1] as [N, H, W, C] from 0 to 255."""
    found: np.ndarray = ((images + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)
    return found


def save(path: Path, page: np.ndarray, **options: Any) -> Path:
    Image.fromarray(page).save(path, **options)
    return path


def half(path: Path, height: int = SIZE, width: int = SIZE) -> Path:
    """A mask: the left is kept, the right painted."""
    page = np.zeros((height, width), dtype=np.uint8)
    page[:, width // 2 :] = 255
    return save(path, page)


def clear(path: Path) -> np.ndarray:
    page = np.concatenate([PAGE, np.full((SIZE, SIZE, 1), 255, dtype=np.uint8)], axis=2)
    page[:3, :3, 3] = 0
    save(path, page)
    return np.where(page[..., 3:] == 0, np.uint8(255), PAGE)


def turned(path: Path) -> np.ndarray:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it a quarter to the right
    save(path, PAGE, exif=exif)
    return np.rot90(PAGE, -1)


def deep(path: Path) -> np.ndarray:
    save(path, GREY[..., 0].astype(np.uint16) * 257)
    return GREY


def indexed(path: Path) -> np.ndarray:
    picture = Image.fromarray(PAGE).quantize(16)
    picture.save(path)
    return np.asarray(picture.convert("RGB"))


def wide(path: Path) -> np.ndarray:
    save(path, np.concatenate([PAGE[::-1], PAGE, PAGE[::-1]], axis=1))
    return PAGE


def large(path: Path) -> np.ndarray:
    save(path, PAGE.repeat(5, 0).repeat(5, 1))
    return np.asarray(Image.open(path).resize((SIZE, SIZE), Image.Resampling.LANCZOS))


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        (clear, "transparent"),
        (turned, "turned"),
        (deep, "deep"),
        (indexed, "palette"),
        (wide, "cropped"),
        (large, "reduced"),
    ],
)
def test_a_picture_is_read_as_those_of_a_folder(
    make: Callable[[Path], np.ndarray], finding: str, colour: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is kept of it is the picture that one expects, and what was found is said."""
    page = make(tmp_path / "init.png")
    width, height = Image.open(tmp_path / "init.png").size
    mask = half(tmp_path / "mask.png", height, width)
    images, _ = drawn(colour, tmp_path / "out", "--init", tmp_path / "init.png", "--mask", mask)
    for found in levels(images):
        assert np.array_equal(found[:, : SIZE // 2], page[:, : SIZE // 2])
        assert not np.array_equal(found[:, SIZE // 2 :], page[:, SIZE // 2 :])
    assert f"--init {tmp_path / 'init.png'}: {FINDINGS[finding]}\n" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "asked", ["ddim", "ddpm", "dpmpp-2m", "heun", "unipc", "euler-ancestral --strength 0.5", "euler --guidance 1"]
)
def test_what_is_black_in_a_mask_is_kept_exactly(asked: str, dtype: str, tmp_path: Path) -> None:
    model = ours(tmp_path / "model", (1, SIZE, SIZE))
    init, mask = save(tmp_path / "init.png", PAGE[..., 0]), half(tmp_path / "mask.png")
    args = ["--init", init, "--mask", mask, "--solver", *asked.split(), "--dtype", dtype]
    images, result = drawn(model, tmp_path / "out", *args)
    exact = (PAGE[..., 0].astype(np.float32) / 255) * 2 - 1
    left, right = images[..., : SIZE // 2], images[..., SIZE // 2 :]
    assert np.array_equal(left, np.broadcast_to(exact[:, : SIZE // 2], left.shape))
    assert not np.isclose(right, exact[:, SIZE // 2 :]).all((1, 2, 3)).any()
    assert not np.array_equal(right[0], right[1])
    expected = {"init": str(init), "mask": str(mask), "strength": 0.5 if "0.5" in asked else 1.0, "dtype": dtype}
    assert {name: result[name] for name in expected} == expected
    assert not {"prompts", "against"} & set(result)


def test_a_picture_for_latents_is_encoded_and_its_mask_is_theirs(prompted: Path, tmp_path: Path) -> None:
    """The autoencoder's own codes; and the mask as diffusers' inpainting reads it: lanczos, half, nearest."""
    stock = open_folder(prompted)
    assert stock.image == (3, 16, 16)
    page = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    speckled = Image.fromarray(page[..., 0])
    init, mask = save(tmp_path / "init.png", page), tmp_path / "mask.png"
    speckled.save(mask)
    begun = beginning(stock, init, mask, None)
    small = np.asarray(Image.fromarray(page).resize((16, 16), Image.Resampling.LANCZOS))
    image = torch.from_numpy(small.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    assert stock.latents is not None
    with torch.no_grad():
        codes = stock.latents.autoencoder.encode(image).latent_dist.mean * 0.7
    assert begun.init is not None
    assert begun.mask is not None
    torch.testing.assert_close(begun.init, codes[0])
    theirs = VaeImageProcessor(2, do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    white = functional.interpolate(theirs.preprocess(speckled, 16, 16), (8, 8))
    assert torch.equal(begun.mask, white[0])
    assert 0 < begun.mask.mean() < 1
    told = ["--prompt", "red", "--against", "blue", "--guidance", "2", "--init", init, "--mask", mask]
    images, result = drawn(prompted, tmp_path / "out", *told, "--strength", "0.5", "--dtype", "bfloat16")
    assert images.shape == (3, 3, 16, 16)
    expected = {"prompts": ["red"], "against": "blue", "strength": 0.5, "dtype": "bfloat16"}
    assert {name: result[name] for name in expected} == expected


def test_how_much_is_repainted_by_default(colour: Path, tmp_path: Path) -> None:
    init, mask = save(tmp_path / "init.png", PAGE), half(tmp_path / "mask.png")
    assert [drawn(colour, tmp_path / "out", *args)[1].get("strength") for args in ([], ["--init", init])] == [None, 0.6]
    assert drawn(colour, tmp_path / "out", "--init", init, "--mask", mask)[1]["strength"] == 1


def test_strokes_on_nothing_are_a_mask(colour: Path, tmp_path: Path) -> None:
    """White throughout, and transparent where nothing was drawn."""
    strokes = np.full((SIZE, SIZE, 4), 255, dtype=np.uint8)
    strokes[2:, :, 3] = 0
    mask = beginning(open_folder(colour), save(tmp_path / "i.png", PAGE), save(tmp_path / "m.png", strokes), None).mask
    assert mask is not None
    assert torch.equal(mask, (torch.arange(SIZE) < 2).float().view(1, SIZE, 1).expand(1, SIZE, SIZE))


@pytest.mark.parametrize(
    ("height", "width", "fits"), [(12, 16, True), (13, 16, True), (12, 17, True), (11, 16, False), (12, 18, False)]
)
def test_a_mask_may_be_a_smaller_copy_off_by_a_rounding(
    height: int, width: int, fits: bool, colour: Path, tmp_path: Path
) -> None:
    """A picture of 33 x 25 is 16 x 12.1 when it is made smaller."""
    init, mask = save(tmp_path / "init.png", PAGE[0, 0] + np.zeros((25, 33, 1), np.uint8)), tmp_path / "mask.png"
    half(mask, height, width)
    if fits:
        assert beginning(open_folder(colour), init, mask, None).mask is not None
        return
    with pytest.raises(ValueError, match=f"{width} x {height} pixels; expected the proportions of --init, 33 x 25"):
        beginning(open_folder(colour), init, mask, None)


def test_a_model_of_grey_images_reads_colours_as_grey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Pipeline.load(ours(tmp_path / "model", (1, SIZE, SIZE)))
    init = beginning(model, save(tmp_path / "colour.png", PAGE), None, None).init
    assert init is not None
    luma = torch.from_numpy(PAGE.astype(np.float32) / 127.5 - 1) @ torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(init, luma[None])
    assert "colour.png: colours are made grey" in capsys.readouterr().err
    beginning(model, save(tmp_path / "grey.png", GREY[..., 0]), None, None)
    assert capsys.readouterr().err == ""


def test_images_that_are_no_squares_are_taken_as_they_are(tmp_path: Path) -> None:
    model = ours(tmp_path / "model", (1, 4, SIZE), backbone="mlp")
    init, mask = save(tmp_path / "init.png", PAGE[:4, :, 0]), half(tmp_path / "mask.png", 4)
    images, _ = drawn(model, tmp_path / "out", "--init", init, "--mask", mask)
    assert np.array_equal(levels(images)[:, :, :4, 0], PAGE[None, :4, :4, 0].repeat(3, 0))
    with pytest.raises(ValueError, match="8 x 8 pixels; expected 8 x 4"):
        beginning(Pipeline.load(model), save(tmp_path / "init.png", PAGE), None, None)


def test_bfloat16_is_near_the_plain_way_and_not_the_same(tmp_path: Path) -> None:
    """8 bits of each answer, over 4 steps."""
    model = ours(tmp_path / "model", (1, SIZE, SIZE))
    plain, said = drawn(model, tmp_path / "plain", "--ways", "plain")
    short, told = drawn(model, tmp_path / "short", "--dtype", "bfloat16")
    assert (said["dtype"], told["dtype"], short.dtype.name) == ("float32", "bfloat16", "float32")
    assert 0 < np.sqrt(np.square(short - plain).mean()) < 0.02 * plain.std()


def files(folder: Path) -> None:
    """Masks and pictures, good and bad, by the names that are used below."""
    whole = save(folder / "good.png", PAGE).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    save(folder / "tiny.png", PAGE[:1, :1])
    Image.new("1", (8001, 8000)).save(folder / "huge.png")
    Image.fromarray(np.full((SIZE, SIZE), 0.5, dtype=np.float32)).save(folder / "floats.tif")
    save(folder / "black.png", np.full((SIZE, SIZE), 127, dtype=np.uint8))
    half(folder / "mask.png")
    half(folder / "wide.png", SIZE, SIZE + 1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("--init none.png", "--init none.png: no such file"),
        ("--init text.png", "--init text.png: unreadable: no image that can be opened"),
        ("--init cut.png", "--init cut.png: damaged: begins as an image, but its pixels are cut short or corrupt"),
        ("--init huge.png", "--init huge.png: huge: more than 64 million pixels"),
        ("--init tiny.png", "--init tiny.png: tiny: would have to be enlarged more than four times"),
        ("--init floats.tif", "--init floats.tif: unknown range: numbers with no stated range (32 bits, floats)"),
        ("--init good.png --mask cut.png", "--mask cut.png: damaged"),
        ("--init good.png --mask wide.png", "--mask wide.png: 9 x 8 pixels; expected the proportions of --init, 8 x 8"),
        ("--init good.png --mask black.png", "--mask black.png: nothing in it is white"),
        ("--mask mask.png", "--mask mask.png: needs --init"),
        ("--strength 0.5", "--strength 0.5: needs --init"),
        ("--init good.png --strength 0", "strength is 0"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    asked: str,
    words: str,
    colour: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main.main(["sample", str(colour), *FEW, "--out", "out", *asked.split()]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_mask_too_fine_for_latents_is_refused(prompted: Path, tmp_path: Path) -> None:
    """White in one pixel of each four, and never in the first, which is the nearest."""
    page = np.zeros((16, 16), dtype=np.uint8)
    page[1::2, 1::2] = 255
    init, mask = save(tmp_path / "init.png", np.zeros((16, 16), dtype=np.uint8)), save(tmp_path / "mask.png", page)
    with pytest.raises(ValueError, match="too small to be seen among the 8 x 8 of a latent"):
        beginning(open_folder(prompted), init, mask, None)
