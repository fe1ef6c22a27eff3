"""An update in parts, and in bf16: beside plain loops over whole batches in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from accelerate import Accelerator, DistributedType
from jaxtyping import Int64
from torch import Tensor, nn

from generative.train import Batch, Losses, TensorData, TrainConfig, Trainer, TrainError
from lab import streams
from tests.generative.shared_training import Denoise, logged, trainer, weights


@dataclass
class Noting:
    """Another objective, and all keys that it was given."""

    objective: Any
    keys: list[Tensor] = field(default_factory=list)

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        self.keys.append(key)
        return self.objective.loss(model, batch, key)


def plainly(size: int, updates: int) -> tuple[list[tuple[float, float]], nn.Module]:
    """Loss and norm of the gradient of each update, and the model, of a loop that knows nothing of `Trainer`."""
    of = trainer(size, 1, ema=0.0, clip=math.inf)
    model, x = of.bare, of.data.batch(torch.arange(50))["x"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=0.0)
    orders = [torch.randperm(50, generator=streams.generator(3, "epoch", e)) for e in range(3)]
    index, seen = torch.cat(orders), []
    for step in range(updates):
        batch = x[index[step * size : (step + 1) * size]]
        root = torch.tensor(streams.derive(3, "sample", step))
        noise = streams.normal(streams.bits(root, torch.arange(size))[:, None], torch.arange(6))
        loss = torch.nn.functional.mse_loss(model(batch + noise), batch)
        optimizer.param_groups[0]["lr"] = of.rate(step)
        optimizer.zero_grad()
        loss.backward()
        norm = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5
        optimizer.step()
        seen.append((loss.item(), norm))
    return seen, model


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_an_update_in_parts_is_that_of_the_whole_batch(parts: int) -> None:
    expected, model = plainly(8, 12)
    loop = trainer(8, parts, clip=math.inf)
    found = logged(loop)
    for line, (loss, norm) in zip(found, expected, strict=True):
        assert line["loss"] == pytest.approx(loss, rel=1e-6)
        assert line["gradient_norm"] == pytest.approx(norm, rel=1e-5)  # the weights do not say: Adam ignores its scale
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weights(loop)[f"model.{name}"], weight, rtol=0, atol=1e-6)


def test_parts_draw_what_the_whole_batch_draws() -> None:
    drawn = []
    for parts in (1, 2, 4):
        loop, noting = trainer(8, parts), Noting(Denoise())
        loop = Trainer(loop.bare, noting, loop.data, loop.config, seed=3)
        metrics = logged(loop)
        assert len(noting.keys) == parts * loop.config.steps
        drawn.append((torch.cat(noting.keys), [line["noise"] for line in metrics]))
    for keys, noise in drawn[1:]:
        assert torch.equal(keys, drawn[0][0])
        assert noise == pytest.approx(drawn[0][1], rel=1e-6)


@pytest.mark.parametrize(
    ("size", "parts", "words"),
    [
        (8, 3, "a batch of 8 does not fall into 3 equal parts; expected a multiple of 3"),
        (8, 16, "a batch of 8 does not fall into 16 equal parts; expected a multiple of 16"),
        (8, 0, "accumulate is 0; expected at least 1"),
        (8, -2, "accumulate is -2; expected at least 1"),
        (0, 1, "a batch of 0 is too small; expected at least 1"),
    ],
)
def test_a_batch_that_cannot_be_shared(size: int, parts: int, words: str) -> None:
    with pytest.raises(TrainError, match=f"^{words}$"):
        trainer(size, parts)


@pytest.mark.parametrize("parts", [1, 2])
def test_shares_of_processes_add_up(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes, one by one: the mean of their gradients, as DDP has it, and the sum of their metrics."""
    size = 12 if parts > 1 else 8  # of which two processes have three samples, and one two
    whole = trainer(size, 1, clip=math.inf)
    expected = logged(whole, 1)[0]
    found: list[dict[str, float]] = []
    gradients: list[list[Tensor]] = []
    for rank in range(3):
        loop = trainer(size, 1, clip=math.inf)
        monkeypatch.setattr(Accelerator, "num_processes", 3)
        monkeypatch.setattr(Accelerator, "process_index", rank)
        loop = Trainer(loop.bare, Denoise(), loop.data, trainer(size, parts, clip=math.inf).config, seed=3)
        found.append(logged(loop, 1)[0])
        gradients.append([p.grad for p in loop.bare.parameters() if p.grad is not None])
        monkeypatch.undo()
    for name in ("loss", "noise"):
        assert sum(line[name] for line in found) == pytest.approx(expected[name], rel=1e-6)
    for p, *shares in zip(whole.bare.parameters(), *gradients, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(torch.stack(shares).mean(0), p.grad, rtol=1e-5, atol=1e-7)


class Centred(Denoise):
    """The loss of a sample is its distance from the mean of all."""

    whole = "the distance looks at the mean of all samples"


def test_what_looks_at_the_whole_batch_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor by processes; an objective that says nothing of the kind, or that nothing does, is."""
    loops = trainer(8, 1), trainer(8, 2)
    words = (
        "^the distance looks at the mean of all samples of a batch, .*: accumulate is {}, processes are {}; expected 1"
    )

    def made(parts: int, objective: Denoise) -> Trainer:
        loop = loops[parts - 1]
        return Trainer(loop.bare, objective, loop.data, loop.config, seed=3)

    plain = Centred()
    plain.whole = ""
    made(1, Centred())
    made(2, plain)
    with pytest.raises(TrainError, match=words.format(2, 1)):
        made(2, Centred())
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    made(1, plain)
    with pytest.raises(TrainError, match=words.format(1, 2)):
        made(1, Centred())


@pytest.mark.parametrize("way", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_what_shards_the_model_is_refused(way: DistributedType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", way)
    with pytest.raises(TrainError, match=f"^{way.value} shards"):
        trainer(8, 1)


def test_an_accelerator_that_would_divide_the_gradients_is_refused() -> None:
    data, accelerator = TensorData({"x": torch.zeros(1, 1)}), Accelerator(cpu=True, gradient_accumulation_steps=4)
    try:
        with pytest.raises(TrainError, match="accumulate=4"):
            Trainer(nn.Linear(1, 1), Denoise(), data, TrainConfig(), seed=0, accelerator=accelerator)
    finally:
        accelerator.gradient_accumulation_steps = 1  # of all accelerators of this process


def test_bf16_is_near_float32_and_keeps_weights_in_float32() -> None:
    """Inputs of a layer are rounded to 8 bits of precision, by at most 2^-9 of each; the losses differ by under 2%."""
    exact, rough = trainer(8, 1), trainer(8, 1, precision="bf16")
    seen: list[torch.dtype] = []
    rough.bare[0].register_forward_hook(lambda layer, given, out: seen.append(out.dtype))
    ours, theirs = logged(rough), logged(exact)
    assert set(seen) == {torch.bfloat16}
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] != b["loss"]
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02)
        assert a["noise"] == b["noise"]
    assert all(value.dtype == torch.float32 for value in weights(rough).values())
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in rough.bare.parameters())
    assert rough.result(torch.zeros(1, 6)).dtype == torch.float32


def test_an_objective_may_ask_without_gradient_first() -> None:
    """A weight that was cast without gradient is not used again with it."""

    class Twice(Denoise):
        def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
            with torch.no_grad():
                super().loss(model, batch, key)
            return super().loss(model, batch, key)

    once = trainer(8, 1, precision="bf16")
    twice = trainer(8, 1, precision="bf16")
    twice = Trainer(twice.bare, Twice(), twice.data, twice.config, seed=3)
    assert logged(once) == logged(twice)


def test_an_objective_that_is_a_module_is_not_trained() -> None:
    class Teacher(nn.Linear):
        def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
            return Losses((model(batch["x"]) - self(batch["x"])).square().mean(1))

    with torch.no_grad():
        teacher, model = Teacher(3, 3), nn.Linear(3, 3)
        for i, p in enumerate([*teacher.parameters(), *model.parameters()]):
            p.fill_(0.1 * (i + 1))
    before = teacher.weight.clone()
    data = TensorData({"x": torch.eye(3)})
    loop = Trainer(model, teacher, data, TrainConfig(steps=3, batch_size=3), seed=0)
    list(loop.run())
    assert torch.equal(teacher.weight, before)
    assert loop.state_dict()["model"].keys() == model.state_dict().keys() == {"weight", "bias"}
    assert not torch.equal(model.weight, torch.full((3, 3), 0.3))


class Normed(nn.Module):
    """A frozen layer, statistics that are no weights, and a layer that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.norm, self.learns = nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Linear(3, 6)
        for number, weight in enumerate(self.parameters()):
            nn.init.normal_(weight, std=0.3, generator=streams.generator(0, "weight", number))
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.learns(self.norm(self.frozen(x)))


def test_frozen_weights_are_the_given_models_and_not_the_checkpoints() -> None:
    def loop() -> Trainer:
        data = TensorData({"x": torch.randn(20, 6, generator=streams.generator(1, "data"))})
        return Trainer(Normed(), Denoise(), data, TrainConfig(steps=4, batch_size=4, ema=0.1), seed=0)

    once, twice, again = loop(), loop(), loop()
    list(once.run())
    list(twice.run(2))
    state = twice.state_dict()
    for part in ("model", "average"):
        assert {name.partition(".")[0] for name in state[part]} == {"norm", "learns"}
    again.load_state_dict(state)
    list(again.run())
    for ours, theirs in ((once.bare, again.bare), (once.result, again.result)):
        for name, weight in ours.state_dict().items():
            assert torch.equal(weight, theirs.state_dict()[name]), name
    assert not torch.equal(once.bare.learns.weight, Normed().learns.weight)
    for part in ("model", "average"):
        for wrong in ({"learns.weight": None}, {"another.weight": torch.zeros(1)}):
            broken = {name: value for name, value in (state[part] | wrong).items() if value is not None}
            with pytest.raises(RuntimeError, match="weights that are"):
                loop().load_state_dict(state | {part: broken})
