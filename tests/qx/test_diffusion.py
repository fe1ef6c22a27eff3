"""What `qx diffuse` makes of its words: the recipe of the data wherever it is named.

And which options it refuses: those beyond their limits, and those that would do nothing.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from generative.diffusion.model import DiffusionConfig
from generative.diffusion.recipes import DIGITS, RECIPES, SCENES
from generative.diffusion.training.course import PartsConfig
from generative.train import TrainConfig
from qx.diffusion import Diffuse, heard, usual
from qx.limits import LIMITS, UsageError
from qx.main import main
from qx.usage import parse


def asked(*words: str) -> Diffuse:
    found: Diffuse = parse(Diffuse, words, "qx diffuse", default=usual(words))
    return found


def flags(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def test_a_size_is_for_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--size 16: of a folder's images; digits has a size of its own"):
        heard(asked("digits", "--size", "16"), {"--size"})
    heard(asked(str(tmp_path), "--size", "16"), {"--size"})
    heard(asked("digits", "--size", "16", "--base", "run"), {"--size"})


@pytest.mark.parametrize(
    "words",
    [
        ["scenes"],
        ["--out", "runs/s", "scenes"],
        ["--json", "--steps", "7", "scenes", "--width", "32"],
        ["--no-latent", "scenes"],
        ["scenes", "--no-latent"],
        ["--out", "digits", "scenes"],
        ["--out=digits", "--no-latent", "scenes"],
    ],
    ids=" ".join,
)
def test_the_recipe_is_that_of_the_data_wherever_it_is_named(words: list[str]) -> None:
    found = asked(*words)
    assert found.data == "scenes"
    assert dataclasses.replace(found.model, width=SCENES.model.width) == SCENES.model
    assert found.parts == dataclasses.replace(SCENES.parts, latent="--no-latent" not in words)
    assert found.train == dataclasses.replace(SCENES.train, steps=7 if "7" in words else SCENES.train.steps)
    assert found.model.width == (32 if "32" in words else SCENES.model.width)


@pytest.mark.parametrize(
    "words",
    [
        ["--out", "runs/d", "digits"],
        ["digits", "--out", "scenes"],
        ["--out", "scenes", "pictures"],
        ["--out", "scenes", "pictures", "--latent"],
        ["scenes", "--base", "run"],
        ["--base=run", "scenes"],
    ],
    ids=" ".join,
)
def test_other_data_and_a_base_have_the_digits_defaults(words: list[str]) -> None:
    found = asked(*words)
    assert (found.model, found.train) == (DIGITS.model, DIGITS.train)
    assert found.parts == dataclasses.replace(DIGITS.parts, latent="--latent" in words)


@pytest.mark.parametrize("words", [["scenes", "--help"], ["--help", "scenes"], ["--out", "x", "-h", "scenes"]])
def test_help_says_the_defaults_of_the_data_wherever_it_is_named(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        asked(*words)
    assert "--no-latent" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["scenes", "--no-latent", "--steps", "0"], ["--no-latent", "--steps", "0", "scenes"]]
)
def test_what_is_wrong_is_said_of_the_datas_own_options(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--steps 0: expected at least 1$"):
        asked(*words)


def test_every_number_has_limits_which_the_recipes_keep() -> None:
    refused_elsewhere = {"patch"}  # a divisor of the sides, which the network knows
    for kind in (PartsConfig, DiffusionConfig, TrainConfig):
        fields = dataclasses.fields(kind)
        numbers = {field.name for field in fields if re.search(r"\b(int|float)\b", str(field.type))}
        assert numbers - refused_elsewhere - set(LIMITS) == set()
    for name in RECIPES:
        assert asked(name).data == name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--text-width", "0"], "--text-width 0: expected at least 1"),
        (["--text-layers", "0"], "--text-layers 0: expected at least 1"),
        (["--latent-channels", "0"], "--latent-channels 0: expected at least 1"),
        (["--autoencoder-width", "0"], "--autoencoder-width 0: expected at least 1"),
        (["--autoencoder-steps", "-5"], "--autoencoder-steps -5: expected at least 1"),
        (["--adversary", "-1"], "--adversary -1: expected at least 0"),
    ],
)
def test_what_is_beyond_a_limit_is_refused_by_name(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked("scenes", *words)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("words", "flag", "missing"),
    [
        (["digits", "--kl", "1e-3"], "--kl", "--latent"),
        (["digits", "--halvings", "2"], "--halvings", "--latent"),
        (["digits", "--latent-channels", "8"], "--latent-channels", "--latent"),
        (["digits", "--adversary", "0.1"], "--adversary", "--latent"),
        (["digits", "--autoencoder-width", "8"], "--autoencoder-width", "--latent"),
        (["pictures", "--autoencoder-steps", "9"], "--autoencoder-steps", "--latent"),
        (["scenes", "--no-latent", "--kl", "1e-6"], "--kl", "--latent"),
        (["digits", "--text-width", "8"], "--text-width", "--prompts"),
        (["pictures", "--latent", "--kl", "1", "--text-layers", "1"], "--text-layers", "--prompts"),
        (["digits", "--kl", "1e-6"], "--kl", "--latent"),  # as it is by default
        (["digits", "--rank", "8"], "--rank", "a --base"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(words: list[str], flag: str, missing: str) -> None:
    with pytest.raises(UsageError, match=f"^{flag}: .* expected {missing} beside it$"):
        heard(asked(*words), flags(words))


@pytest.mark.parametrize(
    "words",
    [
        ["scenes"],
        ["scenes", "--no-latent"],
        ["scenes", "--kl", "1e-6", "--text-width", "32"],
        ["digits", "--latent", "--kl", "1", "--adversary", "0.1"],
        ["pictures", "--prompts", "--text-width", "32"],
        ["scenes", "--base", "run"],
    ],
    ids=" ".join,
)
def test_a_recipes_own_options_and_those_that_are_heard_are_taken(words: list[str]) -> None:
    heard(asked(*words), flags(words))


def test_captions_alone_are_prompts_whose_options_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether there are any is known when the data is read, and what is refused then leaves no trace."""
    monkeypatch.chdir(tmp_path)
    pixels = np.arange(6, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2) * 40
    np.savez("told.npz", images=pixels, captions=np.array(["dark", "bright"] * 3))
    np.savez("silent.npz", images=pixels)
    seen: list[Diffuse] = []

    def started(job: object, config: object, options: Diffuse) -> tuple[None, dict[str, object]]:
        seen.append(options)
        return None, {}

    monkeypatch.setattr("qx.diffusion.start", started)
    monkeypatch.setattr("qx.diffusion.show", lambda *_: None)
    words = ["--text-width", "8", "--width", "16", "--device", "cpu"]
    assert main(["diffuse", "told.npz", *words]) == 0
    assert len(seen) == 1
    assert main(["diffuse", "silent.npz", *words]) == 2
    assert "--text-width: of the text encoder, and there is none; expected --prompts" in capsys.readouterr().err
    assert main(["diffuse", "told.npz", "--text-width", "6"]) == 2
    assert "text_width is 6; expected a multiple of 4" in capsys.readouterr().err
    assert len(seen) == 1
