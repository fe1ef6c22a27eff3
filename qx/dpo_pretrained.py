"""`qx dpo` on a folder of transformers: the policy is judged on pairs held out, and speaks before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor

from generative.language.causal import Causal, check
from generative.language.pretrained import Pretrained, complete, load
from generative.preference.data import PairData
from generative.preference.dpo import DPO
from generative.preference.preflight import Checked, preflight
from generative.preference.reference import reference, usual_folder
from generative.preference.tokens import Pretrained as Tokenised
from generative.preference.tokens import Tokens
from generative.train import Trainer
from lab import console, streams
from lab.run import Run
from qx import dpo_report
from qx.jobs import device_of
from qx.usable import usable

if TYPE_CHECKING:
    from qx.preferences import Dpo

SPOKEN = 8  # prompts that are continued for the report


class PretrainedJob:
    """One preference training of a model of transformers, prepared."""

    command = "dpo"
    headline = ("loss", "rewards/accuracies", "rewards/margins")

    def __init__(self, options: Dpo, checked: Checked, pretrained: Pretrained, tokens: Sequence[Tokens]) -> None:
        self.options, self.checked, self.device = options, checked, device_of(options)
        self.inputs: tuple[Path, ...] = (options.pairs, options.model)
        self.name, self.total = options.pairs.stem, options.train.steps
        policy = Causal(pretrained.model)
        check(policy, list(tokens[0].prompt), list(tokens[0].chosen))
        policy.to(self.device)
        self.pretrained = pretrained
        learned, held = divided(tokens, options.seed, options.held_out)
        self.held, self.held_reference = held, self._asked(policy, held, "held out")
        data = PairData(learned, self._asked(policy, learned, "to learn"))
        self.trainer = Trainer(
            policy,
            DPO(options.preference),
            data,
            options.train,
            seed=options.seed,
            accelerator=Accelerator(cpu=self.device.type == "cpu"),
        )

    def _asked(self, policy: Causal, pairs: Sequence[Tokens], which: str) -> Tensor | None:
        """What the reference says of pairs; it is the policy, before it learns."""
        if not pairs:
            return None
        with console.progress(f"the reference reads pairs {which}", len(pairs)) as bar:
            about = self.pretrained.model.config.to_dict()
            return reference(
                policy.eval(), PairData(pairs), about, device=self.device, folder=usual_folder(), progress=bar.update
            )

    def watch(self) -> Mapping[str, Tensor]:
        """The losses and rewards of the pairs that are held out."""
        return {f"held_out/{name}": value for name, value in self._judged().items()}

    def _judged(self) -> dict[str, Tensor]:
        """Means over the pairs that are held out."""
        if not self.held:
            return {}
        policy, sums = self.trainer.result.eval(), dict[str, Tensor]()
        data, objective = PairData(self.held, self.held_reference), self.trainer.objective
        with torch.no_grad():
            for index in torch.split(torch.arange(len(data)), 16):
                batch = {name: tensor.to(self.device) for name, tensor in data.batch(index).items()}
                told = objective.loss(policy, batch, index)
                for name, value in {"loss": told.value, **told.metrics}.items():
                    sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.double().sum().cpu()
        return {name: total / len(data) for name, total in sums.items()}

    def evaluate(self) -> dict[str, Any]:
        """What is said of the pairs held out, and what the file held."""
        found: dict[str, Any] = {name: value.item() for name, value in self._judged().items()}
        findings = self.checked.findings
        return {**found, "learned": len(self.trainer.data), "held_out": len(self.held), "data": findings.counts()}

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """`model/`, which transformers loads, `report.png`, and `samples.jsonl`: prompts continued before and after."""
        before = load(self.options.model)
        before.model.to(self.device)
        policy = self.trainer.result.eval()  # the moving average, where one is kept
        assert isinstance(policy, Causal)
        after = Pretrained(policy.model, self.pretrained.tokenizer)
        said = self._spoken(before, after)
        (run.path / "samples.jsonl").write_text(
            "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in said), encoding="utf-8"
        )
        after.save(run.path / "model", dpo_report.card(self.options, self.checked.findings, result, said))
        dpo_report.draw(run, self.checked)

    def _spoken(self, before: Pretrained, after: Pretrained) -> list[dict[str, str]]:
        """Some prompts, the held-out ones first, continued by the reference and by the policy."""
        pairs = [*self.held, *self.checked.tokens][:SPOKEN]
        prompts = [list(pair.prompt) for pair in pairs if pair.prompt]
        limit = max((max(len(pair.chosen), len(pair.rejected)) for pair in pairs), default=1)
        decode = self.pretrained.tokenizer.decode
        told = [complete(each, prompts, limit=limit) for each in (before, after)]
        return [
            {"prompt": decode(prompt, skip_special_tokens=True), "before": decode(old), "after": decode(new)}
            for prompt, old, new in zip(prompts, *told, strict=True)
        ]

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        rows = []
        if result["held_out"]:
            words = f"{result['rewards/accuracies']:.1%} of {result['held_out']} pairs held out are ranked right"
            rows.append(("held out", f"{words}, by {result['rewards/margins']:.2f} beta x nats"))
        pictures = str(Path(result["run"]) / "report.png")
        return [*rows, ("pictures", pictures), ("samples", str(Path(result["run"]) / "samples.jsonl")),
                ("model", str(Path(result["run"]) / "model"))]  # fmt: skip


def divided(tokens: Sequence[Tokens], seed: int, share: float) -> tuple[list[Tokens], list[Tokens]]:
    """(to learn from, held out), by seed: of two pairs or more at least one is learned from."""
    order = torch.randperm(len(tokens), generator=streams.generator(seed, "held out")).tolist()
    count = min(int(share * len(tokens)), len(tokens) - 1)
    held = set(order[:count])
    return [t for i, t in enumerate(tokens) if i not in held], [t for i, t in enumerate(tokens) if i in held]


def prepare(options: Dpo) -> PretrainedJob:
    """The job, before anything is written."""
    pretrained = load(options.model)
    reach = getattr(pretrained.model.config.get_text_config(), "max_position_embeddings", None)
    limit = options.limit if reach is None else min(options.limit, reach)
    checked = preflight(options.pairs, Tokenised(pretrained.tokenizer), limit, strict=options.strict)
    return PretrainedJob(options, checked, pretrained, usable(options.pairs, checked))
