"""Diffusion-DPO: its loss beside the formula written out, the optimum that it ends at; and pairs of digits by ink."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from generative.diffusion.data import Images, digits
from generative.diffusion.measures.metrics import Judge
from generative.diffusion.model import DiffusionConfig, Subject
from generative.diffusion.noise.continuous import Flow
from generative.diffusion.noise.denoiser import inverse
from generative.diffusion.noise.schedule import NoiseSchedule, cosine
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.recipes import Drawing
from generative.diffusion.training.objective import DDPM
from generative.preference import denoising, thick
from generative.preference.denoising import DenoisingDPO
from generative.preference.losses import LOSSES, PreferenceConfig
from generative.train import TensorData, TrainConfig, Trainer, TrainError
from lab import streams

BETA, VALUES = 1e-3, 4
POLICY, REFERENCE = (0.4, -0.3, 0.05), (0.5, -0.2, 0.0)
Weights = Tensor | tuple[float, ...]


def said(weights: Weights, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    return weights[0] * x + weights[1] * x * x * t / 1000 + weights[2] * label


class Smooth(nn.Module):
    """Three weights in float64; remembers how many rows it was shown, and whether for a gradient."""

    def __init__(self, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
        self.shown: list[tuple[int, bool]] = []

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.shown.append((len(x), torch.is_grad_enabled()))
        return said(self.weight, x, t[:, None, None, None], label[:, None, None, None])


def pairs(count: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    chosen, rejected = (2 * torch.rand(count, 1, 2, 2, generator=draws, dtype=torch.float64) - 1 for _ in range(2))
    return {"chosen": chosen, "rejected": rejected, "label": torch.arange(count) % 3}


def keys(count: int) -> Tensor:
    return streams.bits(torch.tensor(streams.derive(0, "test")), torch.arange(count))


def by_hand(policy: Weights, batch: dict[str, Tensor], key: Tensor, says: str, weight: str = "uniform") -> list[Tensor]:
    """The four surrogates, pair by pair: cosine noise, or for "flow" straight lines."""
    table, four = cosine(), list[list[Tensor]]()
    for chosen, rejected, label, own in zip(batch["chosen"], batch["rejected"], batch["label"], key, strict=True):
        u = streams.uniform(own, 0).double() + 2.0**-25
        eps = streams.normal(own, torch.arange(2, 2 + VALUES)).double().view(1, 2, 2)
        t = torch.floor(1000 * u)
        alpha, sigma, told = table.alphas[int(t)], table.sigmas[int(t)], t
        if says == "flow":
            alpha, sigma, told = 1 - u, u, 1000 * u
        factor = min((alpha / sigma).item() ** 2, 5.0) * sigma**2 if weight == "min-snr" else 1.0
        found = []
        for weights in (policy, REFERENCE):
            for x0 in (chosen, rejected):
                wanted = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "flow": eps - x0}[says]
                error = said(weights, alpha * x0 + sigma * eps, told, label) - wanted
                found.append(-(1000 / 2) * factor * (error**2).sum())
        four.append(found)
    return [torch.stack(side) for side in zip(*four, strict=True)]


@pytest.mark.parametrize(
    ("says", "weight"), [("eps", "uniform"), ("x0", "uniform"), ("v", "uniform"), ("v", "min-snr"), ("flow", "uniform")]
)
def test_loss_gradient_and_metrics_are_those_of_the_formula_written_out(says: Any, weight: Any) -> None:
    """In float64, one pair at a time. Labels are told to all, whatever share the training left out."""
    batch, key, policy, reference = pairs(8), keys(8), Smooth(POLICY), Smooth(REFERENCE)
    schedule = Flow() if says == "flow" else cosine()
    objective = DenoisingDPO(
        DDPM(schedule, says, null=3, dropout=0.5, weight=weight), reference, PreferenceConfig(beta=BETA)
    )
    with torch.no_grad():
        reference.weight.zero_()  # it is a copy that is kept
    found = objective.loss(policy, batch, key)
    pi_c, pi_r, ref_c, ref_r = by_hand(policy.weight, batch, key, says, weight)
    margin = BETA * ((pi_c - ref_c) - (pi_r - ref_r))
    expected = torch.log1p(torch.exp(-margin))
    torch.testing.assert_close(found.value, expected)
    assert (found.value - math.log(2)).abs().max() > 0.01  # there is something to compare
    for ours, theirs in zip(
        torch.autograd.grad(found.value.mean(), policy.weight),
        torch.autograd.grad(expected.mean(), policy.weight),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    metrics = {
        "rewards/chosen": BETA * (pi_c - ref_c),
        "rewards/rejected": BETA * (pi_r - ref_r),
        "rewards/margins": margin,
        "rewards/accuracies": (margin > 0).float(),
        "logps/chosen": pi_c,
        "logps/rejected": pi_r,
        "loss/preference": expected,
        "zero_gradient": torch.zeros(8),
    }
    assert found.metrics.keys() == metrics.keys()
    for name, value in metrics.items():
        torch.testing.assert_close(found.metrics[name], value)
    kept: Any = objective.reference
    assert (policy.shown, kept.shown) == ([(16, True)], [(16, False)])  # both sides at once
    assert not kept.weight.requires_grad


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_of_the_four_surrogates(name: str) -> None:
    """Those per token take each of the four values of a sample for one."""
    batch, key = pairs(6), keys(6)
    four = by_hand(POLICY, batch, key, "v")
    config = PreferenceConfig((name,), beta=BETA, anchor=0.5)
    objective = DenoisingDPO(DDPM(cosine(), "v", null=3), Smooth(REFERENCE), config)
    found = objective.loss(Smooth(POLICY), batch, key)
    assert objective.whole == objective.dpo.whole
    assert bool(objective.whole) == (name in ("kto", "aot", "aot-unpaired"))
    expected = LOSSES[name](*(each / VALUES if LOSSES[name].per_token else each for each in four), BETA)
    torch.testing.assert_close(found.metrics["loss/preference"].detach(), expected)
    torch.testing.assert_close(found.value.detach(), expected - 0.5 * four[0])


def test_what_a_pair_does_not_differ_in_makes_no_margin() -> None:
    """Exactly 0: one level and one noise for both sides. And so between a policy and a reference that are the same."""
    batch, key = pairs(64), keys(64)
    objective = DenoisingDPO(DDPM(cosine(), "v", null=3), Smooth(REFERENCE))
    alike = objective.loss(Smooth(POLICY), {**batch, "rejected": batch["chosen"]}, key)
    assert (alike.metrics["rewards/margins"] == 0).all()
    assert (alike.metrics["rewards/chosen"] != 0).all()
    first = objective.loss(Smooth(REFERENCE), batch, key)
    assert (first.metrics["rewards/margins"] == 0).all()
    assert (first.metrics["rewards/accuracies"] == 0).all()
    torch.testing.assert_close(first.value.detach(), torch.full((64,), math.log(2), dtype=torch.float64))


class Dropping(Smooth):
    """As it is in training: half of what it says is left out."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        whole = super().forward(x, t, label)
        return torch.where((torch.arange(whole[0].numel()) % 2).bool().view_as(whole[0]) & self.training, 0.0, whole)


def test_the_reference_answers_as_it_does_after_training() -> None:
    """And the network that it was copied from stays in the mode it is in."""
    batch, key, training = pairs(8), keys(8), Dropping(REFERENCE).train()
    found, expected = (
        DenoisingDPO(DDPM(cosine(), "v", null=3), reference).loss(Smooth(POLICY), batch, key).value.detach()
        for reference in (training, Smooth(REFERENCE))
    )
    torch.testing.assert_close(found, expected)
    assert training.training


def test_a_loss_of_the_whole_batch_is_not_learned_in_parts() -> None:
    objective = DenoisingDPO(DDPM(cosine(), "v", null=3), Smooth(REFERENCE), PreferenceConfig(("aot",), beta=BETA))
    config = TrainConfig(steps=2, batch_size=4, accumulate=2)
    with pytest.raises(TrainError, match="aot looks at the ranks of all margins of a batch"):
        Trainer(Smooth(POLICY), objective, TensorData(pairs(6)), config, seed=0, accelerator=Accelerator(cpu=True))


def test_a_pairs_loss_depends_on_itself_and_its_key_alone() -> None:
    objective = DenoisingDPO(DDPM(cosine(), "v", null=3), Smooth(REFERENCE))
    batch, key, some = pairs(8), keys(8), torch.tensor([5, 0, 6])
    whole = objective.loss(Smooth(POLICY), batch, key).value
    part = objective.loss(Smooth(POLICY), {name: each[some] for name, each in batch.items()}, key[some]).value
    torch.testing.assert_close(part, whole[some], rtol=1e-12, atol=0)
    other = objective.loss(Smooth(POLICY), batch, key + 1).value
    assert (other != whole).all()


class Offset(nn.Module):
    """a x + b, of which b learns."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = a, nn.Parameter(torch.tensor(b))

    def forward(self, x: Tensor, t: Tensor, label: None) -> Tensor:
        return self.a * x + self.b


@pytest.mark.parametrize(
    ("loss", "says"), [("sigmoid", "eps"), ("sigmoid", "x0"), ("sigmoid", "v"), ("sigmoid", "flow"), ("ipo", "v")]
)
def test_training_ends_where_the_preferences_have_their_optimum(loss: str, says: Any) -> None:
    """At one level, grey pictures of .25 win against those of -.25 in three of four pairs.

    What is to be said is f x_0 + g eps. With one noise of both sides their errors differ by (f - a alpha)(c - r), so

        h = T D (f - a alpha)(c - r)(b - b_0)

    whatever the noise; and the optimum is at beta h = ln 3, or with IPO at (2 3/4 - 1) / 2. The estimate of x_0 rises.
    """
    a, before, alpha, sigma = 0.5, 0.1, 0.8, 0.6
    f = {"eps": 0.0, "x0": 1.0, "v": -sigma, "flow": -1.0}[says]
    aim = {"sigmoid": math.log(3), "ipo": 0.25}[loss]
    wins = torch.tensor([1.0, 1.0, 1.0, -1.0])[:, None, None, None].expand(4, 1, 2, 2) * 0.25
    level = [torch.tensor([share], dtype=torch.float64) for share in (alpha, sigma)]
    objective = DenoisingDPO(DDPM(NoiseSchedule(*level), says), Offset(a, before), PreferenceConfig((loss,), beta=BETA))
    policy, data = Offset(a, before), TensorData({"chosen": wins, "rejected": -wins})
    config = TrainConfig(steps=150, batch_size=4, learning_rate=0.2, warmup=5, final_rate=0.0)
    for _ in Trainer(policy, objective, data, config, seed=0, accelerator=Accelerator(cpu=True)).run():
        pass
    moved = policy.b.item() - before
    assert moved == pytest.approx(aim / (BETA * 1000 * VALUES * (f - a * alpha) * 0.5), abs=5e-3)
    _, q = inverse(says, *level)
    assert q.item() * moved > 0.05


def taught(seed: int, steps: int, state: Any = None) -> tuple[dict[str, Any], list[float]]:
    policy, config = Smooth(POLICY), TrainConfig(steps=6, batch_size=4, learning_rate=0.05, warmup=1)
    objective = DenoisingDPO(DDPM(cosine(), "v", null=3), Smooth(REFERENCE), PreferenceConfig(beta=BETA))
    trainer = Trainer(policy, objective, TensorData(pairs(6)), config, seed=seed, accelerator=Accelerator(cpu=True))
    if state is not None:
        trainer.load_state_dict(state)
    losses = [metrics["loss"].item() for _, metrics in trainer.run(steps)]
    return trainer.state_dict(), losses


def test_a_training_is_a_function_of_its_seed_and_goes_on_bit_for_bit() -> None:
    whole, losses = taught(3, 6)
    half, first = taught(3, 3)
    rest, second = taught(3, 6, half)
    assert first + second == losses
    assert torch.equal(rest["model"]["weight"], whole["model"]["weight"])
    assert taught(4, 6)[1] != losses


def drawing_pipeline(seed: int = 0, **config: Any) -> Pipeline:
    """Of digits, untrained, with weights everywhere."""
    config = {"backbone": "mlp", "width": 16, "blocks": 1, **config}
    made = Pipeline.build(DiffusionConfig(**config), Subject((1, 8, 8), 10), streams.generator(seed))
    draws = streams.generator(seed, "weights")
    for weight in made.network.parameters():
        nn.init.normal_(weight, std=0.1, generator=draws)
    return made


def test_a_pipelines_network_is_copied_and_learns(tmp_path: Any) -> None:
    base, data = drawing_pipeline(), thick.from_data(0, 40)
    base.network.requires_grad_(False)  # as an average is
    before = {name: weight.clone() for name, weight in base.network.state_dict().items()}
    config = TrainConfig(steps=2, batch_size=8, warmup=1)
    trainer = denoising.trainer(
        base, data, PreferenceConfig(beta=BETA), config, seed=0, accelerator=Accelerator(cpu=True)
    )
    for _ in trainer.run():
        pass
    assert all(torch.equal(weight, before[name]) for name, weight in base.network.state_dict().items())
    after = base.using(trainer.result.eval())
    after.save(tmp_path)
    told: dict[str, Any] = {"seed": 0, "steps": 3}
    assert torch.equal(Pipeline.load(tmp_path).sample([1, 2], **told), after.sample([1, 2], **told))
    assert not torch.equal(base.sample([1, 2], **told), after.sample([1, 2], **told))


@pytest.mark.parametrize("flag", ["self_conditioning", "learned_variance"])
def test_a_network_that_is_asked_otherwise_is_refused(flag: str) -> None:
    with pytest.raises(ValueError, match="self_conditioning or learned_variance; expected one without"):
        denoising.denoising_of(drawing_pipeline(backbone="unet", **{flag: True}))


def test_ink_is_the_share_of_black() -> None:
    image = torch.full((3, 1, 2, 2), -1.0)
    image[1, 0, 0] = 1.0  # half of it
    image[2] = 7.0  # beyond black
    assert thick.ink(image).tolist() == [0.0, 0.5, 1.0]


def test_a_pair_is_two_digits_of_one_class_the_thicker_chosen() -> None:
    """Each is found again among the images, and its ink counted from their 17 greys."""
    real = digits(0).train
    assert real.label is not None
    found = thick.from_data(0, 60).tensors
    assert found["label"].tolist() == [i % 10 for i in range(60)]
    for i in range(60):
        sides = []
        for side in ("chosen", "rejected"):
            place = (real.image == found[side][i]).flatten(1).all(1).nonzero().flatten()
            assert set(real.label[place].tolist()) == {i % 10}
            sides.append(((real.image[place[0]] + 1) * 8).sum().item() / (16 * 64))
        assert sides[0] - sides[1] > 0.02 - 1e-6
    for name, each in thick.from_data(0, 25).tensors.items():
        assert torch.equal(each, found[name][:25])
    assert not torch.equal(thick.from_data(1, 60).tensors["chosen"], found["chosen"])
    with pytest.raises(ValueError, match="60 images without labels"):
        thick.paired(Images(found["chosen"]), 0, 3)


def test_near_ties_are_not_compared() -> None:
    """Classes of which all drawings, or all but one, have the same ink."""
    image = torch.zeros(40, 1, 2, 2)
    image[39] = 0.1  # an ink of .55 among those of .5
    found = thick.paired(Images(image, torch.arange(40) % 2), 0, 200).tensors
    assert 0 < len(found["label"]) <= 100
    assert (found["label"] == 1).all()
    assert (found["chosen"] > found["rejected"]).all()


def test_a_model_is_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thick, "POOL", 40)
    base = drawing_pipeline()
    drawn, found = thick.pool(base, 0), thick.from_model(base, 0, 30).tensors
    assert len(found["label"]) > 10
    for i, label in enumerate(found["label"].tolist()):
        for side in ("chosen", "rejected"):
            place = (drawn.image == found[side][i]).flatten(1).all(1).nonzero().flatten()
            assert label in place.remainder(10).tolist()
    assert (thick.ink(found["chosen"]) > thick.ink(found["rejected"])).all()
    with pytest.raises(ValueError, match="draws by no class"):
        thick.pool(Pipeline.build(DiffusionConfig("mlp", 16), Subject((1, 8, 8)), streams.generator(0)), 0)


class Reads(Judge):
    """Takes everything for a three."""

    def __init__(self) -> None:
        pass

    def recognised(self, image: Tensor, label: Tensor) -> Tensor:
        return label == 3


def test_what_is_measured_is_the_ink_of_the_same_drawings_before_and_after() -> None:
    told: dict[str, Any] = {"seed": 5, "drawing": Drawing("ddim", 2, 1.5), "count": 30}
    before, after = (thick.draw(drawing_pipeline(seed), Reads(), **told) for seed in (0, 1))
    assert thick.gain(before, before) == (0.0, 0.0)
    ink = [[(picture.double().mean().item() + 1) / 2 for picture in each.image] for each in (before, after)]
    more = [new - old for old, new in zip(*ink, strict=True)]
    mean = sum(more) / 30
    error = (sum((each - mean) ** 2 for each in more) / 29 / 30) ** 0.5
    assert thick.gain(before, after) == pytest.approx((mean, error), abs=1e-6)
    numbers = after.numbers()
    assert numbers["ink_by_class"] == pytest.approx([sum(ink[1][c::10]) / 3 for c in range(10)], abs=1e-6)
    assert numbers["ink"] == pytest.approx(sum(ink[1]) / 30, abs=1e-6)
    assert numbers["recognised"] == pytest.approx(0.1)
    black = sum(value > 0 for picture in after.image for value in picture.flatten().tolist())
    assert numbers["stroke"] == pytest.approx(black / (30 * 64))
    again = thick.draw(drawing_pipeline(0), Reads(), **told)
    assert torch.equal(again.image, before.image)
