"""Distortions against scipy's own interpolation, the loss against its equation, and the experiments at small sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from backbones.initialise import build
from experiments import handwriting, mnist
from experiments.claim import DataError, Setting
from experiments.classify import Classify, Distortion, read
from generative.train import TensorData, TrainConfig
from lab import streams

CPU = torch.device("cpu")
MNIST = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mnist"


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sides", [(12, 12), (10, 14)])
def test_distortion_equals_scipys_affine_transform(sides: tuple[int, int]) -> None:
    image = functional.pad(torch.rand(3, 1, *sides, generator=generator(0)), (4, 4, 4, 4))
    distortion, key = Distortion(shift=2.0, angle=20.0, stretch=0.2), torch.tensor([5, 6, 7])
    ours = distortion(image, key)
    for i in range(3):
        right, down, turn, size = (2 * streams.uniform(key, j)[i].item() - 1 for j in range(4))
        angle, zoom = np.deg2rad(20.0 * turn), 1 + 0.2 * size
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom  # row, column
        centre = (np.array(image.shape[2:]) - 1) / 2
        offset = centre - rotation @ centre + 2.0 * np.array([down, right])
        theirs = ndimage.affine_transform(image[i, 0].numpy(), rotation, offset, order=1)
        np.testing.assert_allclose(ours[i, 0].numpy(), theirs, atol=2e-5)


def test_a_picture_is_distorted_by_its_own_key_alone() -> None:
    image = torch.rand(4, 1, 8, 8, generator=generator(0))
    key = torch.tensor([1, 2, 3, 4])
    distortion = Distortion(shift=1.0, angle=10.0)
    torch.testing.assert_close(distortion(image, key)[2:], distortion(image[2:], key[2:]))
    assert distortion(image, key).ne(image).flatten(1).any(1).all()
    assert Distortion()(image, key) is image


def test_the_loss_is_the_smoothed_cross_entropy() -> None:
    """Label smoothing is a divergence from a target of which a share is spread evenly."""
    logits = torch.randn(5, 3, generator=generator(0))
    label = torch.tensor([0, 2, 1, 1, 0])
    batch = {"image": logits.view(5, 3, 1, 1), "label": label}
    losses = Classify(smoothing=0.3).loss(nn.Flatten(), batch, torch.arange(5))
    probability = np.exp(logits.double().numpy())
    probability /= probability.sum(1, keepdims=True)
    target = np.full((5, 3), 0.1)
    target[np.arange(5), label.numpy()] += 0.7
    np.testing.assert_allclose(losses.value.numpy(), -(target * np.log(probability)).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(losses.metrics["accuracy"].numpy(), (probability.argmax(1) == label.numpy()))


def test_reading_leaves_the_network_as_it_was() -> None:
    network = build(lambda: handwriting.NETWORKS["ResNet-8"](), generator(0))
    image = torch.rand(7, 1, 8, 8, generator=generator(1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    said = read(network, image, batch=3)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    torch.testing.assert_close(said, network.eval()(image).argmax(1))


def test_splits_share_no_digit() -> None:
    learned, judged = handwriting.parts(seed=3)
    assert (len(learned), len(judged)) == (1297, 500)
    seen = {tuple(image.flatten().tolist()) for image in learned.tensors["image"]}
    assert not any(tuple(image.flatten().tolist()) in seen for image in judged.tensors["image"])
    assert learned.tensors["image"].min() == 0
    assert learned.tensors["image"].max() == 1


def test_every_network_learns_what_stands_before_it() -> None:
    """Sixty digits in sixty updates: at least half of them by heart, where chance is one of ten."""
    learned, _ = handwriting.parts(seed=0)
    few = TensorData(learned.batch(torch.arange(60)))
    config = TrainConfig(steps=60, batch_size=60, learning_rate=1e-2, warmup=10)
    for name, make in handwriting.NETWORKS.items():
        if name != "MLP, 512 wide":
            reading = handwriting.learn(make, [(few, few)], config, 0, CPU)
            assert reading.errors.item() < 0.5, name


def test_the_error_over_splits_that_overlap_is_nadeau_and_bengios() -> None:
    """Of 1, 2, 3: s = 1; with a test of half the size of the training, sqrt(1/3 + 1/2)."""
    values = torch.tensor([1.0, 2.0, 3.0])
    assert handwriting.spread(values, 0.5) == pytest.approx(0.9128709)
    assert handwriting.distance(values, 0.5) == pytest.approx(2 / 0.9128709)
    assert handwriting.quantile(5) == pytest.approx(2.776, abs=1e-3)  # of any table of t


@pytest.mark.parametrize(
    ("rivals", "holds"),
    [
        ([[0.20, 0.21, 0.20, 0.20, 0.21]], True),
        ([[0.20, 0.21, 0.20, 0.20, 0.21], [0.10, 0.11, 0.10, 0.10, 0.11]], False),  # one of them is as good
        ([[0.05, 0.06, 0.05, 0.05, 0.06]], False),  # clear, and the wrong way round
        ([[0.13, 0.11, 0.12, 0.14, 0.10]], False),  # 2.83 errors were the splits independent, 1.65 as they overlap
    ],
)
def test_the_rule_asks_for_more_than_chance(rivals: list[list[float]], holds: bool) -> None:
    assert handwriting.fewer(torch.full((5,), 0.1), [torch.tensor(rival) for rival in rivals], 500 / 1297) == holds


def test_the_verdict_says_who_errs_less() -> None:
    learned, judged = handwriting.parts(seed=0)
    split = (learned, TensorData(judged.batch(torch.arange(20))))

    def reading(errors: list[float], weights: int) -> handwriting.Reading:
        return handwriting.Reading(torch.zeros(2, 20, dtype=torch.int64), torch.tensor(errors), weights, 1_000, 1.0)

    for rival, holds, words in (
        ([0.20, 0.21], True, "LeNet-5 errs less, by 20."),
        ([0.20, 0.11], False, "LeNet-5 errs less, by 1.2"),
        ([0.05, 0.06], False, "the MLP errs less, by 8."),
    ):
        readings = {
            "MLP, small": reading([0.0, 0.0], 5),
            "MLP, large": reading(rival, 30),
            "LeNet-5": reading([0.1, 0.1], 10),
        }
        finding = handwriting.judge(readings, [split, split])
        assert finding.holds == holds
        assert words in finding.verdict
        assert finding.found.keys() == handwriting.CLAIM.stated.keys()
        assert finding.found["weights of the MLP over LeNet-5's"] == 3


def write(folder: Path, count: int) -> Path:
    """A file like MNIST's of scikit-learn's digits, threefold; the test digits are those to learn from."""
    digits, _ = handwriting.parts(seed=0)
    image = functional.pad(functional.interpolate(digits.tensors["image"][:count], scale_factor=3), (2, 2, 2, 2))
    pixels, label = (image * 255).byte()[:, 0].numpy(), digits.tensors["label"][:count].byte().numpy()
    held = {"x_train": pixels, "y_train": label, "x_test": pixels, "y_test": label}
    np.savez(folder / mnist.FILE, **held)
    return folder


def test_mnist_from_file_to_finding(tmp_path: Path) -> None:
    digits = mnist.load(write(tmp_path, 32))
    assert digits.train.tensors["image"].shape == (32, 1, 28, 28)
    assert digits.train.tensors["image"].max() == 1
    reports: list[float] = []
    setting = Setting(0, CPU, report=lambda share, note: reports.append(share))
    finding = mnist.reproduce(digits, setting, epochs=80)
    assert finding.found.keys() == mnist.CLAIM.stated.keys()
    assert float(finding.found["test accuracy"]) > 0.5  # chance is 0.1
    misread = int(finding.rows[0][finding.header.index("misread")])
    assert finding.found["test accuracy"] == round(1 - misread / 32, 4)
    assert finding.holds == (misread == 0)


def test_mnist_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"name mnist\.npz \(or its folder\) with --data"):
        mnist.load(None)
    with pytest.raises(DataError, match=r"mnist\.npz: no such file"):
        mnist.load(tmp_path)
    (tmp_path / mnist.FILE).write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"mnist\.npz: not the digits"):
        mnist.load(tmp_path)
    np.savez(tmp_path / mnist.FILE, x_train=np.zeros((1, 28, 28), np.uint8))
    with pytest.raises(DataError, match="y_train"):
        mnist.load(tmp_path / mnist.FILE)


@pytest.mark.skipif(not MNIST.is_dir(), reason="the digits are not here")
def test_the_real_digits_are_all_there() -> None:
    digits = mnist.load(MNIST)
    assert (len(digits.train), len(digits.test)) == (60_000, 10_000)
    assert digits.test.tensors["label"].bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
