"""The folder of a peer: `config.json` and its weights, as `save_pretrained` writes it and `from_pretrained` reads it.

    model = llama.load(*folders.read(Path("somewhere")))
    folders.write(Path("elsewhere"), *llama.save(model))

transformers calls the weights `model.safetensors`, diffusers `diffusion_pytorch_model.safetensors`; large ones come in
shards that an index names. Other formats (`.bin`) are pickles, and are not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import Tensor

Stem = Literal["model", "diffusion_pytorch_model"]
STEMS: tuple[Stem, ...] = ("model", "diffusion_pytorch_model")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of a folder, on the CPU. Raises OSError where a file is missing."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for stem in STEMS:
        index, whole = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            return config, {
                name: t for shard in shards for name, t in safetensors.torch.load_file(folder / shard).items()
            }
        if whole.is_file():
            return config, safetensors.torch.load_file(whole)
    raise FileNotFoundError(f"{folder}: no weights here; expected {' or '.join(f'{s}.safetensors' for s in STEMS)}")


def write(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write what `save` of a conversion gave, for the peer's `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    stem: Stem = "diffusion_pytorch_model" if "_class_name" in config else "model"  # diffusers names its class
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    safetensors.torch.save_file(plain, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
