"""Samples of any model, ours or of diffusers, as the reports draw them; and how many are what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from generative.diffusion.data import Split
from generative.diffusion.engine.request import Request
from generative.diffusion.measures.metrics import Judge
from generative.diffusion.parts import Parts
from generative.diffusion.recipes import Drawing
from lab import console

JUDGED = 500  # samples that a judge sees

Told = Sequence[int | str | None]


def drawn(parts: Parts, wanted: Sequence[Request], label: str = "sampling", rows: int = 64) -> Tensor:
    """The images [N, C, H, W] of these requests, with a progress bar; `rows` of the network at a time."""
    done = 0
    with console.progress(label, len(wanted)) as bar:

        def count(more: int) -> None:
            nonlocal done
            done += more
            bar.update(done)

        return parts.decode(parts.engine(rows).sample(wanted, count))


def judged(models: Sequence[Parts], data: Split, *, seed: int, drawing: Drawing) -> list[dict[str, Any]]:
    """Of each model, how many samples are what they were asked to be, where that can be said.

    Of classes a judge says it, who was trained on real images alone; of captions the data's own check, for those of
    the training and for those held out. Nothing where there is neither.

    Args:
        models: told alike: labels, captions, or nothing.
        data: what their samples should look like.
        seed: of the samples.
        drawing: solver, steps and guidance of the samples.
    """

    def draw(parts: Parts, told: Told) -> Tensor:
        return drawn(parts, parts.requests(told, seed=seed, **drawing._asdict()))

    found: list[dict[str, Any]] = [{} for _ in models]
    if models[0].text is not None:
        found = [_obeyed(data, partial(draw, parts)) for parts in models]
    elif models[0].classes is not None and data.classes and len(data.test):
        judge = Judge(data.train, data.test)
        found = [_recognised(judge, data, partial(draw, parts)) for parts in models]
    return [{**each, "samples": JUDGED, **drawing._asdict()} if each else {} for each in found]


def _recognised(judge: Judge, data: Split, draw: Callable[[Told], Tensor]) -> dict[str, Any]:
    labels = [i % data.classes for i in range(JUDGED)]
    images = draw(labels)
    recognised = judge.recognised(images, torch.tensor(labels)).float().mean().item()
    found = {"recognised": recognised, "judge_accuracy": judge.accuracy}
    among = min(JUDGED, len(data.test))
    if among > 1:
        found["frechet"] = judge.quality(data.test.image[:among], images[:among]).frechet
    return found


def _obeyed(data: Split, draw: Callable[[Told], Tensor]) -> dict[str, Any]:
    check, found = data.check, {}
    if check is None:
        return {}
    for part, captions in (("obeyed", data.train.captions), ("obeyed_unseen", data.test.captions)):
        wanted = list(captions or ())[:JUDGED]
        if wanted:
            found[part] = check(draw(wanted), wanted).float().mean().item()
    return found


def in_words(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What `judged` found, name and value."""
    if not result.get("samples"):
        return []
    how = f"{result['solver']} in {result['steps']} steps, guidance {result['guidance']:g}"
    among = f"{result['samples']} samples ({how})"
    if "recognised" in result:
        judge = f"a judge that is right about {result['judge_accuracy']:.1%} of held-out real images"
        return [("recognised", f"{result['recognised']:.1%} of {among}, by {judge}")]
    if "obeyed" in result:
        unseen = f"{result['obeyed_unseen']:.1%} of captions never trained on; " if "obeyed_unseen" in result else ""
        return [("obeyed", f"{result['obeyed']:.1%} of captions of the training, {unseen}{among}")]
    return []
