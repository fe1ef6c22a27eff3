"""Folders that are no pipeline, or no whole one: one clear line each."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generative.diffusion.stock.folder import open_folder
from generative.saved import ModelError
from tests.oracles import pipelines

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of each kind."""
    root = tmp_path_factory.mktemp("whole")
    scheduler = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1)
    pipelines.images("DDPMPipeline", diffusers.DDPMScheduler()).save_pretrained(root / "ddpm")
    pipelines.dit(scheduler).save_pretrained(root / "dit")
    pipelines.stable_diffusion(scheduler).save_pretrained(root / "sd")
    return root


def edited(file: str, **changes: Any) -> Callable[[Path], Any]:
    """Change keys of a JSON file; those set to ... are left out."""

    def damage(folder: Path) -> None:
        found = json.loads((folder / file).read_text()) | changes
        (folder / file).write_text(json.dumps({key: value for key, value in found.items() if value is not ...}))

    return damage


def pickled(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def all_pickled(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    (folder / "v1-5-pruned.ckpt").write_bytes(b"")


def without_a_weight(file: str) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        weights = safetensors.torch.load_file(folder / file)
        weights.pop(sorted(weights)[0])
        safetensors.torch.save_file(weights, folder / file, metadata={"format": "pt"})

    return damage


DAMAGE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("ddpm", shutil.rmtree, "no diffusers pipeline here (it would hold model_index.json)"),
    ("ddpm", all_pickled, "only pickled weights (v1-5-pruned.ckpt); they are never opened"),
    ("ddpm", pickled, "unet: only pickled weights (diffusion_pytorch_model.bin); they are never opened"),
    ("ddpm", lambda f: (f / "model_index.json").write_text("[1]"), "expected a JSON object, found a list"),
    ("ddpm", lambda f: (f / "model_index.json").write_text("{"), "model_index.json: cannot be read"),
    ("ddpm", edited("model_index.json", _class_name="FluxPipeline"), "'FluxPipeline'; known here: DDPMPipeline, DDIM"),
    ("ddpm", edited("model_index.json", unet=...), "unet is None; expected [library, class]"),
    ("ddpm", edited("model_index.json", unet=["diffusers", "VQModel"]), "unet is a VQModel; known here: UNet2DModel"),
    ("ddpm", edited("model_index.json", scheduler=["diffusers", "UNet2DModel"]), "has no scheduler 'UNet2DModel'"),
    ("ddpm", lambda f: shutil.rmtree(f / "unet"), "unet: no such folder, but model_index.json has a unet"),
    ("ddpm", lambda f: (f / "unet" / WEIGHTS).unlink(), "no weights here; expected model.safetensors or"),
    ("ddpm", lambda f: (f / "unet" / WEIGHTS).write_bytes(b"12345678" * 9), "unet: cannot be read"),
    ("ddpm", without_a_weight(f"unet/{WEIGHTS}"), "weights conv_in.bias are missing"),
    ("ddpm", edited("unet/config.json", sample_size=None), "sample_size is None; expected a number of pixels"),
    ("ddpm", edited("unet/config.json", act_fn="relu"), "act_fn is 'relu'; known here: 'silu'"),
    ("ddpm", edited("unet/config.json", class_embed_type="timestep"), "weights class_embedding"),
    ("ddpm", edited("scheduler/scheduler_config.json", beta_schedule="x"), "scheduler_config.json: cannot be read"),
    ("dit", edited("transformer/config.json", in_channels=3, out_channels=9), "weight patches.conv.weight has shape"),
    ("dit", edited("vae/config.json", latent_channels=3), "weight decoder.conv_in.weight has shape"),
    ("dit", edited("vae/config.json", scaling_factor=0), "scaling_factor is 0.0; expected a positive number"),
    ("dit", edited("model_index.json", id2label={"one": "cat"}), "invalid literal for int() with base 10: 'one'"),
    ("dit", edited("model_index.json", id2label={"1000": "cat"}), "label 1000, 'cat', is none of its 1000 classes"),
    (
        "sd",
        edited("text_encoder/config.json", use_attention_mask=True),
        "use_attention_mask is True; known here: False",
    ),
    ("sd", edited("unet/config.json", in_channels=9), "weight conv_in.weight has shape [8, 4, 3, 3], expected [8, 9"),
    (
        "sd",
        without_a_weight("text_encoder/model.safetensors"),
        "weights embeddings.position_embedding.weight are missing",
    ),
    ("sd", without_a_weight(f"vae/{WEIGHTS}"), "vae: cannot be read (AutoencoderKL: weights decoder."),
    (
        "sd",
        edited("text_encoder/config.json", vocab_size=3),
        "embeddings.token_embedding.weight are missing, or of another shape",
    ),
    ("sd", lambda f: (f / "tokenizer" / "tokenizer.json").unlink(), "no vocabulary here; expected tokenizer.json"),
    (
        "sd",
        edited("tokenizer/tokenizer_config.json", model_max_length="x"),
        "model_max_length is 'x'; expected a number",
    ),
]


@pytest.mark.parametrize(("kind", "damage", "words"), DAMAGE)
def test_what_is_wrong_is_said(
    kind: str, damage: Callable[[Path], Any], words: str, whole: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole / kind, tmp_path / kind))
    damage(folder)
    before = torch.get_rng_state()
    with pytest.raises(ModelError) as caught:
        open_folder(folder)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert torch.equal(torch.get_rng_state(), before)  # a missing weight is drawn by nobody


def other_parts(text: str, data: st.DataObject) -> str:
    """The JSON with one value, somewhere, of another kind or gone."""
    found = json.loads(text)
    place = found
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    value = data.draw(st.sampled_from([..., None, "x", -1, 0, 3, 0.5, True, [], {}, [1, 2], {"a": 1}]))
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return json.dumps(found)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_damage_is_a_model_error_or_none(whole: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["ddpm", "dit", "sd"]))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(whole / kind, Path(place) / kind))
        file = data.draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
        how = data.draw(st.sampled_from(["delete", "cut", "noise", "edit"]))
        content = file.read_bytes()
        if how == "delete":
            file.unlink()
        elif how == "cut":
            file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        elif how == "noise" or file.suffix != ".json":
            at = data.draw(st.integers(0, min(len(content), 2000) - 1))
            noise = data.draw(st.binary(min_size=1, max_size=40))
            file.write_bytes(content[:at] + noise + content[at + len(noise) :])
        else:
            file.write_text(other_parts(content.decode(), data))
        before = torch.get_rng_state()
        try:
            open_folder(folder)
        except ModelError as error:
            message = str(error)
            assert str(folder) in message
            assert len(message) < 700
        assert torch.equal(torch.get_rng_state(), before)
