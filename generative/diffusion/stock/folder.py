"""Reading a folder that diffusers wrote: `DDPMPipeline`, `DDIMPipeline`, `LDMPipeline`, `DiTPipeline`,
`StableDiffusionPipeline`.

    stock = open_folder(Path("stable-diffusion"))

The network becomes one of our backbones; autoencoder, text encoder, tokenizer and scheduler stay theirs. Only
safetensors are read: nothing is unpickled, no code of the folder is run, and nothing is fetched. A safety checker is
not loaded.

Where a stock pipeline changes what the folder says, so is it changed here, for the same images: a `DDIMPipeline` turns
its scheduler into DDIM, a `StableDiffusionPipeline` sets `steps_offset` to 1 and `clip_sample` to False, and none of
them reads the autoencoder's `shift_factor`.

Departures from the stock pipelines:
  - A `DDPMPipeline` shows the network an unscaled sample, and it and a `DiTPipeline` begin with noise of standard
    deviation 1, whatever the scheduler asks for. Here the scheduler is obeyed, which differs for those with sigmas as
    large as Euler's.
  - The last class vector of a UNet is its null label (`backbones.convert.unet`). No stock pipeline shows a UNet labels.
  - The published code of DiT guides three of four channels; `DiTPipeline` of diffusers 0.42 guides all, and so do we.
  - They guide where the guidance is above 1; here any but 1 guides.
  - A UNet2DModel with a learned variance is refused: solvers that are tables know no variance of the network's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from backbones.convert import dit, folders, unet, unet_weights
from backbones.convert.peers import fill
from backbones.dit import DiT
from backbones.unet import UNet
from generative.diffusion.latents.text import Text
from generative.diffusion.stock.adapters import FirstChannels, Latents
from generative.diffusion.stock.stock import FORCED, INDEX, KINDS, Stock, narrowed
from generative.saved import ModelError

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
UNPICKLED = "they are never opened: expected safetensors, as `DiffusionPipeline.save_pretrained` writes"
VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
)  # new and old; without one, theirs begins an empty one
LONGEST = 300  # characters of another library's error that are repeated


def open_folder(path: Path) -> Stock:
    """What the folder holds, on the CPU, in float32.

    Raises:
        ModelError: when it is none of these pipelines, a part is missing or damaged, or a setting is not known here; it
            names the file.
    """
    index = _index(path)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(f"{path / INDEX}: the pipeline is {kind!r}; known here: {', '.join(KINDS)}")
    classes = {name: _class(path, index, name, known) for name, known in KINDS[kind].items()}
    with _reading(path / INDEX):
        labels = {
            word.strip(): int(i) for i, words in (index.get("id2label") or {}).items() for word in words.split(",")
        }
    scheduler = _scheduler(path / "scheduler", classes["scheduler"], kind)
    part = "transformer" if "transformer" in classes else "unet"
    network, shape = _network(path / part, classes[part], labels)
    latents = next((_latents(path / name, classes[name], shape) for name in ("vae", "vqvae") if name in classes), None)
    text = _text(path, network) if "tokenizer" in classes else None
    told = FirstChannels(network, shape[0]) if isinstance(network, DiT) else network
    return Stock(told.float().eval(), shape, scheduler, network.classes, labels, latents, text)


def _index(path: Path) -> dict[str, Any]:
    if not (path / INDEX).is_file():
        pickled = _pickled(path)
        if pickled:
            raise ModelError(f"{path}: only pickled weights ({pickled[0]}); {UNPICKLED}")
        raise ModelError(f"{path}: no diffusers pipeline here (it would hold {INDEX})")
    with _reading(path / INDEX):
        return _object(path / INDEX)


def _class(path: Path, index: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
    """The class of the part called `name`, of which the folder holds something."""
    entry = index.get(name)
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], str):
        raise ModelError(f"{path / INDEX}: {name} is {entry!r}; expected [library, class]")
    if known and entry[1] not in known:
        raise ModelError(f"{path / INDEX}: {name} is a {entry[1]}; known here: {', '.join(known)}")
    if not (path / name).is_dir():
        raise ModelError(f"{path / name}: no such folder, but {INDEX} has a {name}")
    if not list((path / name).glob("*.safetensors")) and _pickled(path / name):
        raise ModelError(f"{path / name}: only pickled weights ({_pickled(path / name)[0]}); {UNPICKLED}")
    return entry[1]


def _scheduler(folder: Path, name: str, kind: str) -> Any:
    import diffusers  # seconds to load

    file = folder / "scheduler_config.json"
    made: Any = getattr(diffusers, name, None)
    known = isinstance(made, type) and issubclass(made, diffusers.SchedulerMixin)
    if not known:
        raise ModelError(f"{folder}: diffusers has no scheduler {name!r}")
    with _reading(file):
        scheduler: Any = made.from_config(_object(file))
        if kind == "DDIMPipeline":
            return diffusers.DDIMScheduler.from_config(scheduler.config)
        if kind == "StableDiffusionPipeline":
            return made.from_config(
                scheduler.config, **{key: v for key, v in FORCED.items() if key in scheduler.config}
            )
        return scheduler


def _network(folder: Path, kind: str, labels: Mapping[str, int]) -> tuple[UNet | DiT, tuple[int, int, int]]:
    """Ours, and the shape of a sample."""
    with _reading(folder):
        config, weights = folders.read(folder)
        network: UNet | DiT
        if kind.startswith("UNet"):
            network = unet.load({**config, "_class_name": kind}, weights)
            channels, out = network.in_channels, network.arguments["out_channels"]
            if network.label != "class":
                raise ValueError(f"its labels are a {network.label}; expected classes, or none")
            if out != channels:
                raise ValueError(f"the UNet takes {channels} channels and says {out}; expected as many")
        else:
            network = dit.load(*narrowed(config, weights, max(labels.values(), default=-1) + 1))
            channels, out = network.arguments["channels"], network.arguments["out_channels"]
            if out not in (None, channels, 2 * channels):
                raise ValueError(f"the DiT takes {channels} channels and says {out}; expected as many, or twice")
        for word, label in labels.items():
            if not 0 <= label < (network.classes or 0):
                raise ValueError(f"label {label}, {word!r}, is none of its {network.classes} classes")
        size = config.get("sample_size")
        sides = size if isinstance(size, list) else [size, size]
        if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
            raise ValueError(f"sample_size is {size!r}; expected a number of pixels, or two")
        return network, (channels, *sides)


def _latents(folder: Path, kind: str, shape: tuple[int, int, int]) -> Latents:
    import diffusers

    with _reading(folder):
        config, weights = folders.read(folder)
        named = unet_weights.ours(weights)  # files of 2022 have other names
        autoencoder: Any = fill(lambda: getattr(diffusers, kind).from_config(config), named)
        if autoencoder.config.latent_channels != shape[0]:
            raise ValueError(f"its latents have {autoencoder.config.latent_channels} channels, the network {shape[0]}")
        latents = Latents(autoencoder.float().eval())
        if not 0 < latents.scale < math.inf:
            raise ValueError(f"scaling_factor is {latents.scale}; expected a positive number")
        return latents


def _text(path: Path, network: UNet | DiT) -> Text:
    from transformers import CLIPTextModel, CLIPTokenizer  # seconds to load

    folder = path / "tokenizer"
    with _reading(folder):
        if not any(all((folder / file).is_file() for file in files) for files in VOCABULARIES):
            raise FileNotFoundError("no vocabulary here; expected tokenizer.json, or vocab.json and merges.txt")
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        if not isinstance(tokenizer.model_max_length, int) or tokenizer.model_max_length < 2:
            raise ValueError(
                f"model_max_length is {tokenizer.model_max_length!r}; expected a number of tokens, 2 or more"
            )
    folder = path / "text_encoder"
    with _reading(folder), torch.random.fork_rng(devices=[]):  # it draws what is missing before it says so
        encoder, found = CLIPTextModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # for they are told of
            dtype=torch.float32,
        )
        wrong = sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])])
        if wrong:
            raise ValueError(f"weights {', '.join(wrong[:4])} are missing, or of another shape")
        if encoder.config.hidden_size != network.context:
            raise ValueError(f"its tokens have {encoder.config.hidden_size} features; the UNet reads {network.context}")
        if getattr(encoder.config, "use_attention_mask", False):
            raise ValueError("use_attention_mask is True; known here: False")
        text = Text(tokenizer, encoder.eval())
        text.encode([""])  # once, so that tokens and weights are known to fit
    return text


def _object(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError for other JSON."""
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, found a {type(found).__name__}")
    return found


def _pickled(folder: Path) -> list[str]:
    """The names of pickled weights in a folder."""
    return sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES) if folder.is_dir() else []


@contextmanager
def _reading(what: Path) -> Iterator[None]:
    """Whatever fails while it lasts is a ModelError that names what was read."""
    try:
        yield
    except Exception as error:  # of any kind: a garbled setting may break a constructor of theirs anywhere
        reason = " ".join(f"{error or type(error).__name__}".split())
        raise ModelError(f"{what}: cannot be read ({reason[:LONGEST]})") from None
