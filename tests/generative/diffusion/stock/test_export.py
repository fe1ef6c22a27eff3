"""Folders of ours, opened by diffusers where our packages cannot be found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbones.dit import DiT
from backbones.unet import UNet
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.latents.text import Text
from generative.diffusion.model import DiffusionConfig, Subject
from generative.diffusion.noise.schedule import SCHEDULES
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.solvers.probe import compile_scheduler
from generative.diffusion.solvers.solver import compile_solver
from generative.diffusion.stock.adapters import FirstChannels, Latents
from generative.diffusion.stock.export import save_folder, scheduler_for, stock_of
from generative.diffusion.stock.folder import open_folder
from generative.diffusion.stock.stock import Stock, narrowed, widened
from generative.saved import ModelError
from tests.oracles import pipelines
from tests.oracles.pipelines import drawn, noise

ELSEWHERE = """
import importlib.util, json, sys
from pathlib import Path

sys.path = [path for path in sys.path if "site-packages" in path or "lib/python" in path]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
assert importlib.util.find_spec("backbones") is None and importlib.util.find_spec("generative") is None

import diffusers, numpy, torch

torch.set_num_threads(1)
root, kinds = Path(sys.argv[1]), {}


def seed(n):
    return torch.Generator().manual_seed(n)


def opened(name):
    pipe = diffusers.DiffusionPipeline.from_pretrained(root / name)
    kinds[name] = type(pipe).__name__
    pipe.set_progress_bar_config(disable=True)
    return pipe


def keep(name, images):
    numpy.save(root / f"{name}.npy", images if isinstance(images, numpy.ndarray) else images.numpy())


asked = dict(num_inference_steps=5, output_type="pt")
keep("ddim", opened("ddim")(2, seed(1), **asked).images)
keep("turned", opened("ddim")(2, seed(1), use_clipped_model_output=True, **asked).images)
keep("ddpm", opened("ddpm")(2, seed(1), **asked).images)
keep("latent", opened("latent")(2, seed(1), num_inference_steps=5, output_type="np").images.transpose(0, 3, 1, 2))
keep("dit", opened("dit")([2, 0], 3.0, seed(1), **asked).images)
latents = torch.randn(2, 4, 8, 8, generator=seed(1))
keep("prompted", opened("prompted")(["red cat", "dog"], guidance_scale=3.0, latents=latents, **asked).images)

pipe, x = opened("classes"), torch.randn(2, 1, 8, 8, generator=seed(1))
pipe.scheduler.set_timesteps(5)
with torch.no_grad():
    for t in pipe.scheduler.timesteps:
        told, null = (pipe.unet(x, t, class_labels=torch.full((2,), label)).sample for label in (3, 10))
        x = pipe.scheduler.step(null + 3.0 * (told - null), t, x).prev_sample
keep("classes", (x / 2 + 0.5).clamp(0, 1))
print(json.dumps(kinds))
"""


def pipeline(classes: int | None, schedule: Any = "cosine") -> Pipeline:
    config = DiffusionConfig(width=8, blocks=1, schedule=schedule)
    made = Pipeline.build(config, Subject((1, 8, 8), classes), torch.Generator().manual_seed(0))
    drawn(made.network)
    return made


def unet(**changes: Any) -> UNet:
    return drawn(UNet(4, 4, 8, (1, 2), blocks=1, groups=4, head_width=8, **changes))


def transformer(**changes: Any) -> DiT:
    return drawn(DiT(8, 4, 2, 16, 2, 2, 3, **changes))


SCHEDULER = scheduler_for(SCHEDULES["scaled-linear"](1000), "v")
MADE: dict[str, Callable[[], Stock]] = {
    "ddim": lambda: stock_of(pipeline(None)),
    "ddpm": lambda: stock_of(pipeline(None, "linear"), "ddpm"),
    "classes": lambda: stock_of(pipeline(10), clip=None),
    "latent": lambda: Stock(unet(), (4, 8, 8), SCHEDULER, latents=Latents(pipelines.autoencoder())),
    "dit": lambda: Stock(
        FirstChannels(transformer(out_channels=8), 4),
        (4, 8, 8),
        SCHEDULER,
        3,
        {"red": 0, "scarlet": 0, "green": 1, "blue": 2},
        Latents(pipelines.autoencoder()),
    ),
    "prompted": lambda: Stock(
        unet(context=12),
        (4, 8, 8),
        SCHEDULER,
        latents=Latents(pipelines.autoencoder()),
        text=Text(*pipelines.words()),
    ),
}
KIND = {
    "ddim": "DDIMPipeline",
    "ddpm": "DDPMPipeline",
    "classes": "DDIMPipeline",
    "latent": "LDMPipeline",
    "dit": "DiTPipeline",
    "prompted": "StableDiffusionPipeline",
}


def images(name: str, stock: Stock, engine: Engine | None = None, **more: Any) -> Tensor:
    """What we draw from it, in [0, 1]: 5 steps of what the script above asks for."""
    told: list[dict[str, Any]] = [{}, {}]
    if name == "prompted":
        told = [{"condition": each, "guidance": 3.0} for each in stock.conditions(["red cat", "dog"])]
    if name in ("dit", "classes"):
        told = [{"label": label, "guidance": 3.0} for label in ((2, 0) if name == "dit" else (3, 3))]
    draws = noise(1, 1, (2, *stock.shape))
    if name == "ddpm":  # the last step draws none
        draws = torch.cat([noise(1, 5, (2, *stock.shape)), torch.zeros(1, 2, *stock.shape)])
    asked = {"solver": "default", "steps": 5, **more}
    requests = [Request(0, noise=draws[:, i].contiguous(), **asked, **each) for i, each in enumerate(told)]
    return stock.decode((engine or stock.engine(rows=4)).sample(requests)) / 2 + 0.5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our folders, and beside them what diffusers alone drew from them."""
    root = tmp_path_factory.mktemp("written")
    assert {name: save_folder(root / name, make()) for name, make in MADE.items()} == KIND
    command = [sys.executable, "-c", ELSEWHERE, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == KIND
    return root


@pytest.mark.parametrize("name", MADE)
def test_diffusers_alone_draws_the_same_images(name: str, written: Path) -> None:
    expected = torch.from_numpy(np.load(written / f"{name}.npy"))
    assert ((expected > 0) & (expected < 1)).float().mean() > 0.3
    torch.testing.assert_close(images(name, MADE[name]()), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "solver"), [("turned", "ddim"), ("ddpm", "ddpm")])
def test_and_they_are_those_of_our_own_pipeline(name: str, solver: str, written: Path) -> None:
    """By our closed forms; of diffusers' DDIM with a clip, that which is told to turn the direction too."""
    ours = pipeline(None) if solver == "ddim" else pipeline(None, "linear")
    expected = torch.from_numpy(np.load(written / f"{name}.npy"))
    found = images(solver, MADE[solver](), ours.engine(rows=4), solver=solver, clip=1.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MADE)
def test_what_is_read_again_is_what_was_written(name: str, written: Path) -> None:
    stock, again = MADE[name](), open_folder(written / name)
    assert (again.shape, again.classes, again.labels) == (stock.shape, stock.classes, stock.labels)
    assert type(again.scheduler) is type(stock.scheduler)
    pairs = [(stock.network, again.network)]
    if stock.latents is not None and again.latents is not None:
        pairs.append((stock.latents.autoencoder, again.latents.autoencoder))
        assert stock.latents.scale == again.latents.scale
    if stock.text is not None and again.text is not None:
        pairs.append((stock.text.encoder, again.text.encoder))
    assert (stock.latents is None, stock.text is None) == (again.latents is None, again.text is None)
    for ours, theirs in pairs:
        weights = theirs.state_dict()
        assert weights.keys() == ours.state_dict().keys()
        assert all(torch.equal(weight, weights[key]) for key, weight in ours.state_dict().items())
    assert torch.equal(images(name, again), images(name, stock))


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_scheduler_steps_as_our_solver_does(name: str, solver: Any, prediction: Any) -> None:
    schedule = SCHEDULES[name](1000)
    if prediction == "eps" and "zero-snr" in name:
        pytest.skip("noise alone determines no data")
    ours = compile_solver(solver, schedule, prediction, 10)
    theirs = compile_scheduler(scheduler_for(schedule, prediction, solver), 10)
    draws = torch.Generator().manual_seed(0)
    x, o = torch.randn(2, 10, generator=draws, dtype=torch.float64)
    after = [
        table.A[:, 0, 0] * x + table.B[:, 0] * (table.x0_from_x * x + table.x0_from_output * o)
        for table in (ours, theirs)
    ]
    assert torch.equal(ours.timesteps, theirs.timesteps)
    torch.testing.assert_close(after[1], after[0], rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(theirs.C[:, 0], ours.C[:, 0], rtol=2e-3, atol=1e-5)
    assert compile_scheduler(scheduler_for(schedule, prediction, solver, clip=0.7), 10).clip == 0.7


def test_schedules_have_their_names_there() -> None:
    named = {"linear": "linear", "scaled-linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
    for name, make in SCHEDULES.items():
        config = scheduler_for(make(1000), "v").config
        assert (config.trained_betas is None) == (name in named)
        if name in named:
            assert config.beta_schedule == named[name]


def test_the_null_label_of_a_dit_moves_to_1000_and_back() -> None:
    table = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    name = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"
    config, weights = widened({"num_embeds_ada_norm": 3}, {name: table, "other": table})
    assert config["num_embeds_ada_norm"] == 1000
    assert torch.equal(weights[name][:3], table[:3])
    assert torch.equal(weights[name][3:], table[3:].expand(998, 5))
    back, few = narrowed(config, weights, 0)
    assert (back["num_embeds_ada_norm"], few.keys()) == (3, weights.keys())
    assert torch.equal(few[name], table)
    assert torch.equal(few["other"], table)
    assert len(narrowed(config, weights, 7)[1][name]) == 8  # labels with names stay
    full = {name: torch.randn(1001, 5, generator=torch.Generator().manual_seed(1))}
    assert torch.equal(narrowed({}, full, 0)[1][name], full[name])  # ImageNet's own 1000
    assert len(narrowed({}, {name: torch.zeros(1001, 5)}, 0)[1][name]) == 1001  # untrained


REFUSED: list[tuple[Callable[[], Stock], str]] = [
    (lambda: replace(MADE["dit"](), latents=None), "a DiTPipeline holds an autoencoder; given none"),
    (lambda: replace(MADE["prompted"](), text=None), "a StableDiffusionPipeline holds a text encoder; given none"),
    (
        lambda: replace(MADE["ddim"](), text=MADE["prompted"]().text),
        "a DDIMPipeline does not hold a text encoder; given one",
    ),
    (lambda: replace(MADE["dit"](), shape=(4, 8, 4)), r"samples are \[4, 8, 4\]; the DiT is made for \[4, 8, 8\]"),
    (lambda: replace(MADE["ddim"](), network=nn.Identity()), "the network is a Identity; expected a UNet or a DiT"),
    (lambda: replace(MADE["latent"](), shape=(4, 8, 4)), "an LDMPipeline has square latents"),
    (lambda: replace(MADE["ddim"](), scheduler=diffusers.HeunDiscreteScheduler()), "is a HeunDiscreteScheduler"),
    (
        lambda: replace(MADE["latent"](), latents=Latents(pipelines.autoencoder(shift_factor=0.5))),
        "the autoencoder has a shift_factor",
    ),
    (lambda: replace(MADE["dit"](), network=drawn(DiT(8, 4, 2, 16, 1, 2, 1001))), "at most 1000 classes"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_what_no_stock_pipeline_holds_is_refused_and_nothing_is_written(
    make: Callable[[], Stock], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        save_folder(tmp_path / "new", make())
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(FileExistsError, match="not empty"):
        save_folder(tmp_path, MADE["ddim"]())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_cut_short_is_not_taken_for_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    stock = MADE["latent"]()
    assert stock.latents is not None
    monkeypatch.setattr(type(stock.latents.autoencoder), "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        save_folder(tmp_path / "new", stock)
    with pytest.raises(ModelError, match="no diffusers pipeline here"):
        open_folder(tmp_path / "new")
