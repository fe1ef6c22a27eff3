"""What diffusers wrote, drawn by our engine, beside the pipeline's own call."""

from __future__ import annotations

import copy
import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import safetensors.torch
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.solvers.schedulers import Schedulers
from generative.diffusion.stock import adapters
from generative.diffusion.stock.adapters import Latents
from generative.diffusion.stock.folder import open_folder
from generative.diffusion.stock.stock import Stock
from tests.oracles import pipelines
from tests.oracles.pipelines import V, noise

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")  # see FORCED


def saved(pipeline: Any, folder: Path) -> Stock:
    pipeline.save_pretrained(folder)
    return open_folder(folder)


def drawn(stock: Stock, draws: Tensor, steps: int, told: list[dict[str, Any]], **more: Any) -> Tensor:
    """Our images in [0, 1], each with its own noise: draws [1 + steps, N, *shape]."""
    requests = [
        Request(0, **{"solver": "default", "steps": steps, "noise": draws[:, i].contiguous(), **more, **each})
        for i, each in enumerate(told)
    ]
    return stock.decode(stock.engine(rows=5).sample(requests)) / 2 + 0.5


def same(found: Tensor, expected: Tensor) -> None:
    inside = ((expected > 0) & (expected < 1)).float().mean()
    assert inside > 0.3, "most of the pixels are cut off: nothing is compared"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [8, (8, 4)])
def test_ddpm(size: Any, tmp_path: Path) -> None:
    pipeline = pipelines.images("DDPMPipeline", diffusers.DDPMScheduler(), size)
    stock = saved(pipeline, tmp_path)
    draws = torch.cat([noise(3, 20, (2, *stock.shape)), torch.zeros(1, 2, *stock.shape)])  # the last step draws none
    expected = pipeline(2, torch.Generator().manual_seed(3), num_inference_steps=20, output_type="pt").images
    same(drawn(stock, draws, 20, [{}, {}]), expected)
    assert stock.classes is None


@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim(eta: float, tmp_path: Path) -> None:
    """The folder's scheduler is DDPM; the stock pipeline makes DDIM of it."""
    pipeline = pipelines.images("DDIMPipeline", diffusers.DDPMScheduler(**V))
    pipeline.register_modules(scheduler=diffusers.DDPMScheduler(**V))
    stock = saved(pipeline, tmp_path)
    draws = noise(3, 11, (2, *stock.shape))
    pipeline = pipelines.quiet(diffusers.DiffusionPipeline.from_pretrained(tmp_path))
    expected = pipeline(2, torch.Generator().manual_seed(3), eta, num_inference_steps=10, output_type="pt").images
    same(drawn(stock, draws, 10, [{}, {}], eta=eta), expected)


def test_ldm(tmp_path: Path) -> None:
    pipeline = pipelines.latent(diffusers.DDIMScheduler(clip_sample=False, **V))
    stock = saved(pipeline, tmp_path)
    expected = pipeline(3, torch.Generator().manual_seed(4), num_inference_steps=6, output_type="np").images
    found = drawn(stock, noise(4, 1, (3, *stock.shape)), 6, [{}, {}, {}])
    same(found, torch.from_numpy(expected).movedim(-1, 1))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_dit(name: str, guidance: float, tmp_path: Path) -> None:
    pipeline = pipelines.dit(getattr(diffusers, name)(**V))
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    names = {"0": "tench, Tinca tinca", "1": "goldfish", "7": "cock"}  # which `save_pretrained` forgets
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"id2label": names}))
    stock, pipeline = open_folder(tmp_path), pipelines.quiet(diffusers.DiffusionPipeline.from_pretrained(tmp_path))
    assert stock.labels == pipeline.labels == {"Tinca tinca": 0, "cock": 7, "goldfish": 1, "tench": 0}
    labels = [7, 1, 999]
    told = [{"label": label, "guidance": guidance} for label in labels]
    generator = torch.Generator().manual_seed(5)
    expected = pipeline(labels, guidance, generator, num_inference_steps=7, output_type="pt").images
    found = drawn(stock, noise(5, 1, (3, *stock.shape)), 7, told)
    same(found, expected)
    assert (found[0] - found[2]).abs().max() > 0.05


SCHEDULERS = [
    ("DDIMScheduler", "v_prediction", {"clip_sample": True, "steps_offset": 0}),  # which the stock pipeline changes
    ("PNDMScheduler", "epsilon", {"skip_prk_steps": True, "steps_offset": 1}),
    ("EulerDiscreteScheduler", "epsilon", {}),
    ("DPMSolverMultistepScheduler", "epsilon", {"use_karras_sigmas": True}),
    ("UniPCMultistepScheduler", "v_prediction", {}),
]


@pytest.mark.parametrize(("name", "prediction", "settings"), SCHEDULERS)
def test_stable_diffusion(name: str, prediction: str, settings: dict[str, Any], tmp_path: Path) -> None:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = getattr(diffusers, name)(prediction_type=prediction, **betas, **settings)
    untouched = copy.deepcopy(scheduler)
    pipelines.stable_diffusion(scheduler).save_pretrained(tmp_path)
    untouched.save_pretrained(tmp_path / "scheduler")
    stock = open_folder(tmp_path)
    pipeline = pipelines.quiet(diffusers.DiffusionPipeline.from_pretrained(tmp_path))
    prompts, starts = ["a red cat", "dog"], noise(6, 1, (2, *stock.shape))
    asked = {"num_inference_steps": 8, "latents": starts[0], "output_type": "latent"}
    for guidance in (1.0, 7.5):
        expected = pipeline(prompts, guidance_scale=guidance, **asked).images
        told = [{"condition": each, "guidance": guidance} for each in stock.conditions(prompts)]
        requests = [Request(0, "default", 8, noise=starts[:, i].contiguous(), **each) for i, each in enumerate(told)]
        found = stock.engine(rows=5).sample(requests)
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-4)
    assert (found[0] - found[1]).abs().max() > 0.05 * scale
    with torch.no_grad():
        images = (pipeline.vae.decode(found / pipeline.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    same(stock.decode(found) / 2 + 0.5, images)


def test_a_negative_prompt_is_another_null_condition(tmp_path: Path) -> None:
    """All requests of an engine share one: the engine is made with it."""
    pipeline = pipelines.stable_diffusion(diffusers.DDIMScheduler(clip_sample=False, **V))
    stock = saved(pipeline, tmp_path)
    start = noise(6, 1, (1, *stock.shape))
    asked = {"num_inference_steps": 4, "latents": start[0], "output_type": "latent", "guidance_scale": 3.0}
    expected = pipeline("a red cat", negative_prompt="dog", **asked).images
    condition, null = stock.conditions(["a red cat", "dog"])
    engine = Engine(stock.network, stock.shape, Schedulers(stock.scheduler), rows=2, null=null)
    found = engine.sample([Request(0, "default", 4, 3.0, condition=condition, noise=start[:, 0])])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_image_is_begun_from_as_stock_img2img_does(tmp_path: Path) -> None:
    pipeline = pipelines.stable_diffusion(diffusers.UniPCMultistepScheduler(**V))
    stock = saved(pipeline, tmp_path)
    image = 2 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 1
    theirs = pipelines.quiet(
        diffusers.StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    )
    expected = theirs(
        ["red", "cat"],
        image / 2 + 0.5,
        0.6,
        10,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).images
    code, start = noise(7, 2, (2, *stock.shape))
    init = stock.encode(image, code)
    told = stock.conditions(["red", "cat"])
    requests = [
        Request(0, "default", 10, 2.0, condition=told[i], init=init[i], strength=0.6, noise=start[i : i + 1])
        for i in range(2)
    ]
    same(stock.decode(stock.engine(rows=4).sample(requests)) / 2 + 0.5, expected)


def test_prompts_are_told_as_stock_tells_them_and_what_is_cut_is_reported(tmp_path: Path) -> None:
    pipeline = pipelines.stable_diffusion(diffusers.DDIMScheduler())
    stock = saved(pipeline, tmp_path)
    prompts = ["red cat", "", "a red cat and a dog"]
    assert stock.text is not None
    assert (stock.text.length, list(stock.text.tokens(prompts).cut)) == (8, ["", "", "nd a dog"])
    with pytest.warns(UserWarning, match="'a red cat and a dog': 6 pieces fit; left out: 'nd a dog'"):
        found = stock.text.encode(prompts)["context"]
    expected, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="reads no prompts"):
        replace(stock, text=None).conditions(["red"])


def test_many_images_go_through_the_autoencoder_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pipelines.autoencoder()
    latents, shown = Latents(theirs), []
    monkeypatch.setattr(adapters, "PIXELS", 2 * 16 * 16 + 1)
    monkeypatch.setattr(theirs.decoder, "forward", counting(theirs.decoder.forward, shown))
    monkeypatch.setattr(theirs.encoder, "forward", counting(theirs.encoder.forward, shown))
    draws = torch.Generator().manual_seed(0)
    images, code = torch.rand(5, 3, 16, 16, generator=draws), torch.randn(5, 4, 8, 8, generator=draws)
    decoded, encoded = latents.decode(code), latents.encode(images)
    assert shown == [2, 2, 1, 2, 2, 1]
    with pytest.raises(ValueError, match="no distribution of codes"):
        Latents(pipelines.latent(diffusers.DDIMScheduler()).vqvae).encode(images, code)
    with torch.no_grad():
        torch.testing.assert_close(decoded, theirs.decode(code / 0.7).sample.clamp(-1, 1))
        torch.testing.assert_close(encoded, 0.7 * theirs.encode(images).latent_dist.mean)


def counting(call: Any, shown: list[int]) -> Any:
    """The same call, which notes the size of every batch."""

    def noted(x: Tensor, *rest: Any, **more: Any) -> Tensor:
        shown.append(len(x))
        return call(x, *rest, **more)

    return noted


def test_reading_draws_nothing_and_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipelines.stable_diffusion(diffusers.DDIMScheduler()).save_pretrained(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it asked the network"))
    before = torch.get_rng_state()
    open_folder(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_shards_in_half_precision_become_one_in_float32(tmp_path: Path) -> None:
    pipeline = pipelines.stable_diffusion(diffusers.DDIMScheduler())
    pipeline.to(torch.float16).save_pretrained(tmp_path, max_shard_size="8KB")
    assert all(len(list((tmp_path / part).glob("*-of-*"))) > 1 for part in ("unet", "vae"))
    stock = open_folder(tmp_path)
    assert stock.latents is not None
    assert stock.text is not None
    for module in (stock.network, stock.latents.autoencoder, stock.text.encoder):
        assert {weight.dtype for weight in module.parameters()} == {torch.float32}


def test_files_of_2022_are_read_too(tmp_path: Path) -> None:
    """Other names of the weights of text encoder and autoencoder, and the vocabulary in two files."""
    pipeline = pipelines.stable_diffusion(diffusers.DDIMScheduler(clip_sample=False))
    stock = saved(pipeline, tmp_path)
    file = tmp_path / "text_encoder" / "model.safetensors"
    weights = {f"text_model.{name}": weight for name, weight in safetensors.torch.load_file(file).items()}
    weights["text_model.embeddings.position_ids"] = torch.arange(8)[None]
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = safetensors.torch.load_file(file)
    for new, name in old.items():
        weights = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): w for key, w in weights.items()}
    assert any(".query." in key for key in weights)
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    file = tmp_path / "tokenizer" / "tokenizer.json"
    words = json.loads(file.read_text())["model"]
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(words["vocab"]))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, words["merges"])))
    file.unlink()
    again = open_folder(tmp_path)
    code = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.decode(code), stock.decode(code))
    told, expected = again.conditions(["a red cat"])[0], stock.conditions(["a red cat"])[0]
    assert torch.equal(told["context"], expected["context"])
