"""A small training, for tests: in this process, or in as many as a launcher starts.

    accelerate launch --multi_gpu --num_processes 2 ... tests/generative/shared_training.py FOLDER

Each process writes what it saw of every case to FOLDER/RANK.json and FOLDER/RANK.safetensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator
from jaxtyping import Int64
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from generative.train import Batch, Losses, TensorData, TrainConfig, Trainer, TrainError
from lab import streams

UPDATES, CUT = 12, 5
CASES = {"even": (8, 1), "uneven": (9, 1), "in parts": (8, 2)}
"""The global batch, and the parts in which each process computes its share."""


class Denoise:
    """Tell samples from the noise on them: its draws come from the keys, and its second metric is not the loss."""

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        x = batch["x"]
        noise = streams.normal(key[:, None], torch.arange(x.shape[1]))  # [B, D]
        error = (model(x + noise) - x).square().mean(1)
        return Losses(error, {"noise": noise.square().mean(1)})


def trainer(size: int, parts: int, **options: Any) -> Trainer:
    """Every process makes the same."""
    draws = torch.Generator().manual_seed(0)
    data = TensorData({"x": torch.randn(50, 6, generator=draws)})
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=draws))
    config = TrainConfig(
        **{"steps": UPDATES, "batch_size": size, "accumulate": parts, "learning_rate": 0.02, "ema": 0.1} | options
    )
    return Trainer(model, Denoise(), data, config, seed=3, accelerator=Accelerator(cpu=True))


def logged(loop: Trainer, until: int = UPDATES) -> list[dict[str, float]]:
    """Every metric of every update."""
    return [{name: float(value) for name, value in metrics.items()} for _, metrics in loop.run(until)]


def weights(loop: Trainer) -> Batch:
    """Of the model and of its average."""
    state = loop.state_dict()
    return {f"{part}.{name}": value for part in ("model", "average") for name, value in state[part].items()}


def resumed() -> tuple[list[dict[str, float]], Batch]:
    """The first case, given up after some updates and taken up by another trainer."""
    first, second = trainer(*CASES["even"]), trainer(*CASES["even"])
    seen = logged(first, CUT)
    second.load_state_dict(first.state_dict())
    return seen + logged(second), weights(second)


def counted(loop: Trainer) -> list[int]:
    """A list that grows by one with every exchange of gradients."""
    seen: list[int] = []

    def hook(_: Any, bucket: Any) -> Any:
        seen.append(1)
        return allreduce_hook(None, bucket)

    hook.__annotations__.clear()  # DDP compares them with its own types, and here they are words
    loop._loss.register_comm_hook(None, hook)
    return seen


def refused() -> str:
    """A batch that leaves a process without samples."""
    try:
        trainer(1, 1)
    except TrainError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    found: dict[str, Any] = {}
    tensors: Batch = {}
    for name, case in CASES.items():
        loop = trainer(*case)
        exchanges = counted(loop) if name == "in parts" and loop.accelerator.num_processes > 1 else []
        found[name] = logged(loop)
        tensors |= {f"{name}/{key}": value for key, value in weights(loop).items()}
        found["exchanges"] = len(exchanges)  # of the last case
        rank, size = loop.accelerator.process_index, loop.accelerator.num_processes
    found["resumed"], after = resumed()
    tensors |= {f"resumed/{key}": value for key, value in after.items()}
    found |= {"refused": refused(), "size": size}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    safetensors.torch.save_file(tensors, folder / f"{rank}.safetensors")
    loop.accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
