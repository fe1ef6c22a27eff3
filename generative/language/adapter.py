"""Adapters of a model of transformers: in every linear layer of its body, and saved in peft's form.

`PeftModel.from_pretrained(model, folder)` puts saved adapters in. The head stays as it is: its gradient is the dearest,
and with the embeddings it often is one tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from generative.lora import ONLY, linear

PREFIX = "base_model.model."  # of names in such a file
CACHED = "models--"  # a folder of the hub's cache is models--OWNER--NAME/snapshots/COMMIT


def body_layers(model: Any) -> tuple[str, ...]:
    """The names of all linear layers but the head's, as `targets` of `generative.lora.Lora`."""
    return tuple(f"{model.base_model_prefix}.{name}" for name in linear(model.base_model))


def base_name(folder: Path) -> str:
    """What others may call a model on this disk: by the hub's name where the folder is of its cache, by the run's where
    it is the `model/` of one, else by its own.

    The `_name_or_path` in a model's config is not asked: it names what that model was made from.
    """
    whole = folder.resolve()
    if whole.parent.name == "snapshots" and whole.parent.parent.name.startswith(CACHED):
        return whole.parent.parent.name.removeprefix(CACHED).replace("--", "/")
    return whole.parent.name if whole.name == "model" and whole.parent.name else whole.name


def save_adapter(model: Any, folder: Path, base: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        model: with adapters of one rank, by `generative.lora.adapt`.
        folder: is made.
        base: the folder of the model that they are for, whose `base_name` the file holds.
    """
    from peft import LoraConfig  # seconds to load

    made = model.peft_config[ONLY]
    ranks = set(made.rank_pattern.values())
    assert len(ranks) == 1
    weights = {
        f"{PREFIX}{name.replace(f'.{ONLY}.', '.')}": tensor.detach().contiguous().cpu()
        for name, tensor in model.state_dict().items()
        if ".lora_A." in name or ".lora_B." in name
    }
    layers = sorted({name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in weights})
    folder.mkdir(parents=True, exist_ok=True)
    LoraConfig(
        r=ranks.pop(),
        lora_alpha=made.lora_alpha,
        target_modules=layers,
        fan_in_fan_out=made.fan_in_fan_out,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name(base),
        inference_mode=True,
    ).save_pretrained(folder)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
