"""`qx sample`: runs of ours and folders of diffusers by the same words, and what it cannot draw."""

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from qx import main

FEW = ["--steps", "4", "--device", "cpu", "--json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DDPMPipeline of random weights, as diffusers writes it."""
    path = tmp_path_factory.mktemp("stock")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(
            sample_size=8,
            in_channels=3,
            out_channels=3,
            layers_per_block=1,
            block_out_channels=(32, 32),
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(path)
    return path


def test_a_folder_of_diffusers_is_drawn_from(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A longer list begins with the same images; and the faster convolutions change them by little."""

    def drawn(n: int, *more: str) -> np.ndarray:
        out = tmp_path / "-".join([str(n), *more])
        assert main.main(["sample", str(folder), "--n", str(n), *FEW, "--out", str(out), *more]) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (result["samples"], Path(result["picture"]).is_file()) == (n, True)
        found: np.ndarray = np.load(result["images"])["images"]
        return found

    three, five, plain = drawn(3), drawn(5), drawn(3, "--ways", "plain")
    assert three.shape == (3, 3, 8, 8)
    assert np.array_equal(three, five[:3])
    assert not np.array_equal(three, plain)
    np.testing.assert_allclose(three, plain, atol=1e-3)


def test_a_picture_to_begin_from_stays_the_more_the_less_is_repainted(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    apart = []
    for strength in ("0.25", "1"):
        out = tmp_path / strength
        asked = ["--init", str(tmp_path / "red.png"), "--strength", strength, "--solver", "ddim", "--out", str(out)]
        assert main.main(["sample", str(folder), "--n", "2", *FEW, *asked]) == 0
        images = np.load(out / "samples.npz")["images"]
        apart.append(np.abs(images - np.array([1, -1, -1]).reshape(1, 3, 1, 1)).mean())
    assert apart[0] < apart[1]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--label", "3"], "--label 3: this model knows no labels"),
        (["--prompt", "a cat"], "--prompt 'a cat': this model reads no prompts"),
        (["--solver", "uni"], "solver 'uni' is unknown; did you mean 'unipc'"),
        (["--solver", "flow-euler"], "for flow matching"),
        (["--eta", "0.5", "--solver", "heun"], "takes no eta"),
        (["--steps", "0"], "--steps 0"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    args: list[str], words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["sample", str(folder), *FEW, "--out", str(tmp_path / "out"), *args]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_finished_is_named_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"command": "diffuse"}')
    assert main.main(["sample", str(tmp_path), *FEW]) == 2
    assert f"not finished; `qx resume {tmp_path}` goes on with it" in " ".join(capsys.readouterr().err.split())


def test_images_of_a_folder_are_learned_and_what_was_wrong_with_them_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two classes by folders; one file is no image."""
    for name, colour in (("bright", 250), ("dark", 5)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("L", (8, 8), abs(colour - i)).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "data" / "dark" / "broken.png").write_bytes(b"nothing")
    short = ["--steps", "2", "--batch-size", "4", "--width", "16", "--size", "8", "--device", "cpu", "--json"]
    assert main.main(["diffuse", str(tmp_path / "data"), *short, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "12 images kept" in said.err
    assert "broken.png" in said.err
    assert json.loads((tmp_path / "run" / "model" / "model.json").read_text())["description"]["classes"] == 2
    assert (tmp_path / "run" / "report.png").is_file()
    assert main.main(["sample", str(tmp_path / "run"), "--n", "2", *FEW]) == 0
    assert main.main(["resume", str(tmp_path / "run")]) == 0  # a finished one is told of again, over its own pictures


def test_a_data_set_without_images_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main.main(["diffuse", str(tmp_path / "empty"), "--out", str(tmp_path / "run")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
