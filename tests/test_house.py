"""What holds everywhere: nothing is unpickled, nothing seeds or draws from a global generator, no machine's paths."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from envs.catalog import load
from rl.agents import FAMILIES, trainer
from rl.train import TrainConfig
from tests.rl.test_resume import SMALL, WORLD

ROOT = Path(__file__).parent.parent
PACKAGES = ("backbones", "envs", "rl", "generative", "lab", "qx", "experiments")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

UNPICKLE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SEEDING = {"manual_seed", "manual_seed_all", "seed_all", "set_seed", "seed_everything", "set_rng_state"}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like"}
INPLACE_DRAWS = {"uniform_", "normal_", "bernoulli_", "exponential_", "random_", "cauchy_", "geometric_"}


def calls(path: Path) -> Iterator[tuple[ast.Call, str, str]]:
    """Every call as (node, what it is called on, name)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node, ast.unparse(node.func.value), node.func.attr


def keywords(node: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not UNPICKLE & {name.split(".")[0] for name in names}, f"{path}:{node.lineno}"
    for node, owner, name in calls(path):
        if owner == "torch" and name == "load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path
        if owner in ("np", "numpy") and name == "load":
            assert not any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords), path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_global_generator_is_seeded_or_drawn_from(path: Path) -> None:
    for node, owner, name in calls(path):
        where = f"{path}:{node.lineno}: {ast.unparse(node)}"
        if name in SEEDING:
            assert owner.startswith("torch.Generator("), where
        assert not (name == "seed" and owner in ("random", "np.random", "numpy.random", "torch", "torch.random")), where
        if (owner == "torch" and name in TORCH_DRAWS) or name in INPLACE_DRAWS:
            assert "generator" in keywords(node), where
        if owner in ("np.random", "numpy.random"):
            assert name in ("Generator", "Philox", "SeedSequence", "PCG64", "get_state", "set_state"), where  # put back
        if owner == "random":
            assert name in ("Random", "getstate", "setstate"), where


def test_the_check_itself_sees_what_it_should(tmp_path: Path) -> None:
    for text in ("import torch\ntorch.manual_seed(0)", "import numpy as np\nnp.random.rand(3)", "w.normal_()"):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(AssertionError):
            test_no_global_generator_is_seeded_or_drawn_from(tmp_path / "bad.py")
    for text in ("import pickle", "import torch\ntorch.load('x')"):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(AssertionError):
            test_nothing_is_unpickled(tmp_path / "bad.py")


@pytest.fixture
def untouched() -> Iterator[None]:
    """What the test does changes no global state of a generator."""

    def state() -> tuple[bytes, str]:  # not Python's own: beartype draws from it to pick the items it checks
        torch_state = torch.random.get_rng_state().numpy().tobytes()
        return torch_state, repr(np.random.get_state())  # noqa: NPY002 (looked at, not drawn from)

    before = state()
    yield
    assert state() == before


FEW = ["--steps", "3", "--batch-size", "4"]


@pytest.mark.usefixtures("untouched")
def test_a_run_of_agents_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    """Nor does anything that the packages call: the same holds of all runs below."""
    from qx.main import main

    assert main(["train", "q-learning", "zhao-5x5", "--steps", "200", "--out", str(tmp_path / "q")]) == 0
    more = ["--learning-starts", "100", "--steps", "400", "--out", str(tmp_path / "d")]
    assert main(["train", "dqn", "zhao-5x5", *more]) == 0


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.__name__)
def test_a_learner_of_each_family_leaves_the_global_generators_alone(family: ModuleType) -> None:
    name = list(family.AGENTS)[-1]
    config = family.AGENTS[name].config(**SMALL.get(name, {}))
    list(trainer(name, load(WORLD), config, TrainConfig(steps=120, worlds=2), replicas=2).run())


@pytest.mark.usefixtures("untouched")
def test_a_run_of_a_diffusion_model_leaves_the_global_generators_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qx import diffusion_drawn
    from qx.main import main

    monkeypatch.setattr(diffusion_drawn, "JUDGED", 20)
    assert main(["diffuse", "digits", "--width", "16", *FEW, "--out", str(tmp_path / "i")]) == 0
    assert main(["sample", str(tmp_path / "i"), "--n", "4", "--solver", "ddpm", "--steps", "3"]) == 0


@pytest.mark.usefixtures("untouched")
def test_a_run_on_preferences_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    from qx.main import main

    assert main(["sft", "mazes", "--examples", "50", "--depth", "1", *FEW, "--out", str(tmp_path / "s")]) == 0
    assert main(["pairs", "mazes", str(tmp_path / "p.jsonl"), "--count", "20"]) == 0
    pairs, model = str(tmp_path / "p.jsonl"), str(tmp_path / "s")
    assert main(["dpo", pairs, "--model", model, *FEW, "--out", str(tmp_path / "o")]) == 0


def test_every_repository_file_speaks_of_the_project_alone() -> None:
    """No absolute paths of a machine in what is committed."""
    for path in [*SOURCES, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]:
        text = path.read_text()
        assert not re.search(r"(?<!\w)/(root|home|Users)/", text), path
