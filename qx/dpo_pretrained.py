"""`qx dpo` on a folder of transformers: the policy is judged on pairs held out, and speaks before and after."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from torch import Tensor

from generative.language.adapter import body_layers, save_adapter
from generative.language.causal import Causal, check_on, honoured
from generative.language.pretrained import Pretrained, complete, load
from generative.lora import Lora, adapt, merge
from generative.preference.best import drawn_pretrained
from generative.preference.data import PairData
from generative.preference.dpo import DPO, TIE
from generative.preference.drift import drift
from generative.preference.preflight import Checked, preflight
from generative.preference.tokens import Pretrained as Tokenised
from generative.preference.tokens import Tokens
from generative.shares import cast, effective
from generative.train import Trainer, check_update
from lab import console, streams
from lab.run import Run
from qx import dpo_report
from qx.held_out import different, divided, means
from qx.jobs import device_of
from qx.language import distance
from qx.references import told, without_a_cache
from qx.usable import usable
from qx.usage import UsageError

if TYPE_CHECKING:
    from qx.dpo import Dpo

SPOKEN = 8  # prompts that are continued for the report
LOOKED_AT = 3  # and while it trains
SAID = 256  # tokens, at most, that are said to a prompt
ALPHA = 16.0  # of adapters, by default
DRIFTED, DRAWS = 32, 4  # prompts, and completions of each, by which the distance to the reference is measured


class PretrainedJob:
    """One preference training of a model of transformers, prepared."""

    command = "dpo"
    headline = ("loss", "rewards/accuracies", "rewards/margins")

    def __init__(self, options: Dpo, checked: Checked, pretrained: Pretrained, tokens: Sequence[Tokens]) -> None:
        self.options, self.checked, self.device = options, checked, device_of(options)
        self.inputs: tuple[Path, ...] = (options.pairs, options.model)
        self.name, self.total = options.pairs.stem, options.train.steps
        policy = Causal(pretrained.model, checkpointing=options.checkpointing)
        check_on(policy, [(each.prompt, side) for each in tokens for side in (each.chosen, each.rejected)])
        policy.to(self.device)
        self.pretrained, accelerator = pretrained, Accelerator(cpu=self.device.type == "cpu")
        self.precision = effective(options.train.precision, accelerator)
        learned, self.held = divided(tokens, options.seed, options.held_out)
        objective = DPO(options.preference)
        check_update(objective, options.train, accelerator)
        with without_a_cache():
            self.held_reference = self._asked(policy, self.held, "held out")
            data = PairData(learned, self._asked(policy, learned, "to learn"))
        if options.lora_rank:
            learning = Lora(options.lora_rank, options.lora_alpha, body_layers(pretrained.model))
            adapt(pretrained.model, learning, streams.generator(options.seed, "adapters"))
        self.trainer = Trainer(policy, objective, data, options.train, seed=options.seed, accelerator=accelerator)

    def _asked(self, policy: Causal, pairs: Sequence[Tokens], which: str) -> Tensor | None:
        """What the reference says of pairs; it is the policy, before it learns."""
        if not pairs:
            return None
        about = self.pretrained.model.config.to_dict()
        return told(policy.eval(), PairData(pairs), about, device=self.device, precision=self.precision, of=f" {which}")

    def watch(self) -> Mapping[str, Tensor]:
        """The losses and rewards of the pairs that are held out."""
        return {f"held_out/{name}": value for name, value in self._judged().items()}

    def _judged(self) -> dict[str, Tensor]:
        """Means over the pairs that are held out."""
        if not self.held:
            return {}
        data = PairData(self.held, self.held_reference)
        with cast(self.precision, self.device.type):
            return means(
                self.trainer.objective, self.trainer.result.eval(), data, self.device, self.options.train.batch_size
            )

    def look(self, run: Run, step: int) -> None:
        """`progress/000020.jsonl`: a few prompts as the policy of that update continues them, where it is due."""
        every = max(1, self.total // 5) if self.options.samples_every is None else self.options.samples_every
        if not every or not (step % every == 0 or step == self.total):
            return
        policy = self.trainer.result.eval()
        assert isinstance(policy, Causal)
        path = run.path / "progress" / f"{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        said = Pretrained(policy.model, self.pretrained.tokenizer)
        _write(path, self._spoken([said], ["completion"], LOOKED_AT))

    def evaluate(self) -> dict[str, Any]:
        """What is said of the pairs held out, and what the file held."""
        found: dict[str, Any] = {name: value.item() for name, value in self._judged().items()}
        if self.held_reference is not None:
            found["chosen_moved"] = found["logps/chosen"] - self.held_reference[:, 0].mean().item()  # nats
        found |= self._drifted()
        findings = self.checked.findings
        return {**found, "learned": len(self.trainer.data), "held_out": len(self.held), "data": findings.counts()}

    def _drifted(self) -> dict[str, float]:
        """KL to the reference, in nats, over what the policy says where it is asked what the pairs ask."""
        prompts, limit = self._asking(DRIFTED)
        policy = self.trainer.result.eval()
        assert isinstance(policy, Causal)
        if not prompts:
            return {}
        seed, said = streams.derive(self.options.seed, "drift"), Pretrained(policy.model, self.pretrained.tokenizer)
        with console.progress("drawn, to see how far it went", len(prompts) * DRAWS) as bar:
            drawn = drawn_pretrained(said, prompts, DRAWS, seed=seed, limit=limit, progress=bar.update)
        reference = Causal(self.before.model).to(self.device).eval()
        found = drift(policy, reference, prompts, drawn, device=self.device)
        return {"kl": found.kl, "kl_error": found.error}

    @functools.cached_property
    def before(self) -> Pretrained:
        """The model of the folder, as it is there."""
        found = load(self.options.model)
        found.model.to(self.device)
        return found

    def _asking(self, count: int) -> tuple[list[list[int]], int]:
        """So many different prompts, and the most tokens to say to them: as many as their longest sides have, up to
        `SAID`, and no more than a row can be asked about.
        """
        pairs = different([*self.held, *self.checked.tokens], count)
        longest = max((max(len(pair.chosen), len(pair.rejected)) for pair in pairs), default=1)
        prompts = [list(pair.prompt) for pair in pairs]
        besides = max(map(len, prompts), default=0)
        room = honoured(self.pretrained.model.config.get_text_config())
        longest = min(longest, SAID, SAID if room is None else room - besides)
        return prompts, self.pretrained.within(longest, besides)

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """`model/`, which transformers loads, `report.png`, and `samples.jsonl`: prompts continued before and after.

        Adapters are merged into `model/`, and stand by themselves in `adapter/`, which peft loads.
        """
        policy = self.trainer.result.eval()  # the moving average, where one is kept
        assert isinstance(policy, Causal)
        whole = policy.model
        if self.options.lora_rank:
            save_adapter(whole, run.path / "adapter", self.options.model)
            whole = merge(whole)
        after = Pretrained(whole, self.pretrained.tokenizer)
        said = self._spoken([self.before, after], ["before", "after"], SPOKEN)
        _write(run.path / "samples.jsonl", said)
        after.save(run.path / "model", dpo_report.card(self.options, self.checked.findings, result, said))
        dpo_report.draw(run, self.checked)

    def _spoken(self, models: Sequence[Pretrained], names: Sequence[str], count: int) -> list[dict[str, str]]:
        """Some prompts, the held-out ones first, continued by each of the models."""
        prompts, limit = self._asking(count)
        decode = self.pretrained.tokenizer.decode
        spoken = [complete(each, prompts, limit=limit) for each in models]
        return [
            {"prompt": decode(prompt, skip_special_tokens=True), **dict(zip(names, map(decode, said), strict=True))}
            for prompt, *said in zip(prompts, *spoken, strict=True)
        ]

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        rows = []
        if result["held_out"]:
            words = f"{result['rewards/accuracies']:.1%} of {result['held_out']} pairs held out are ranked right"
            rows.append(("held out", f"{words}, mean margin {result['rewards/margins']:.2f}"))
            if (moved := result["chosen_moved"]) < -TIE:
                rows.append(("chosen", f"{-moved:.2f} nats less likely than before; --anchor keeps them likely"))
        else:
            rows.append(("held out", "none; a larger --held-out would say how well it ranks"))
        if "kl" in result:
            rows.append(("KL", distance(result)))
        home, files = Path(result["run"]), {"pictures": "report.png", "samples": "samples.jsonl", "model": "model"}
        if self.options.lora_rank:
            files["adapter"] = "adapter"
        return [*rows, *((name, str(home / file)) for name, file in files.items())]


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def prepare(options: Dpo) -> PretrainedJob:
    """The job, before anything is written. Raises UsageError for a size of adapters without adapters."""
    if options.lora_alpha != ALPHA and not options.lora_rank:
        raise UsageError(f"--lora-alpha {options.lora_alpha:g}: of adapters; expected --lora-rank beside it")
    pretrained = load(options.model)
    limit = pretrained.within(options.limit)
    checked = preflight(options.pairs, Tokenised(pretrained.tokenizer), limit, strict=options.strict)
    return PretrainedJob(options, checked, pretrained, usable(options.pairs, checked))
