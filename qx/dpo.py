"""`qx dpo`: a language model from preferences; the models of `dpo_pretrained` and `prefer_images` go on from here."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from accelerate import Accelerator

from generative.language.model import LanguageModel
from generative.language.tokenizer import CharacterTokenizer
from generative.preference.data import PairData
from generative.preference.dpo import DPO
from generative.preference.losses import LOSSES, PreferenceConfig
from generative.preference.preflight import Checked, preflight
from generative.preference.tokens import Plain
from generative.saved import of_transformers
from generative.shares import effective
from generative.train import TrainConfig, check_update
from lab.run import Run
from qx.jobs import Job, device_of, show, start, vacant
from qx.language import LanguageJob, begun, folder_of, load, trainer_of
from qx.references import told, without_a_cache
from qx.usable import usable
from qx.usage import Common, Lasting, UsageError, asked, choose, from_tree, glanced, parse, to_tree

PREFERENCE = PreferenceConfig(beta=1.0, anchor=1.0)
DPO_DEFAULTS = TrainConfig(steps=700, batch_size=32, learning_rate=2e-3, warmup=20)


@dataclass(frozen=True, kw_only=True)
class Dpo(Lasting):
    """Train a language model further on preference pairs, held to what it was (direct preference optimisation)."""

    pairs: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PAIRS")]
    """A .jsonl or .parquet file, or the folder of a data set, with `prompt`, `chosen` and `rejected`; or
    `thick-digits`: drawings of digits of which the thicker is chosen, for a run of `qx diffuse digits`."""
    model: Path
    """The run of `qx sft` or `qx dpo` to start from, or a folder of a causal language model of transformers; it is also
    the reference."""
    limit: int = 1024
    """Of a model of transformers: the longest sequence in tokens, prompt and completion; what is longer is cut."""
    held_out: float = 0.05
    """Of a model of transformers: the share of the pairs that it is judged by, and does not learn from."""
    samples_every: int | None = None
    """Of a model of transformers: updates between looks at what it says, in RUN/progress; 0 for none. By default five
    looks."""
    strict: bool = False
    """Stop at the first row that cannot teach, where by default it is dropped and counted."""
    lora_rank: int = 0
    """Of a model of transformers: the rank of adapters that learn in the place of its weights, in every linear layer of
    its body (Hu et al. 2022), not in experts that are kept as one tensor; 0 has none, and all weights learn. Larger can
    express more of a change."""
    lora_alpha: float = 16.0
    """The adapters' answer is multiplied by alpha / rank. Larger learns faster at the same learning rate."""
    checkpointing: bool = False
    """Of a model of transformers: compute activations again for the gradient rather than keep them. Less memory, and a
    third more work."""
    preference: PreferenceConfig = PREFERENCE
    """For the lab's own small models by default DPO with a beta of 1 and an anchor of 1, which they need, or a beta of
    5 and a learning rate of 1e-3; for a model of transformers DPO with a beta of 0.1, and a learning rate of 5e-5, or
    of 5e-4 for adapters."""
    train: TrainConfig = DPO_DEFAULTS


TRANSFORMERS = Dpo(
    pairs=tyro.MISSING,
    model=tyro.MISSING,
    preference=PreferenceConfig(),
    train=TrainConfig(steps=200, batch_size=16, learning_rate=5e-5, warmup=10),
)
"""What suits a model that was trained before, by others, on much."""
ADAPTED = dataclasses.replace(TRANSFORMERS, train=dataclasses.replace(TRANSFORMERS.train, learning_rate=5e-4))
"""And where adapters learn: ten times the rate (Schulman et al. 2025, "LoRA without regret")."""


OF_TRANSFORMERS = ("limit", "held_out", "samples_every", "lora_rank", "lora_alpha", "checkpointing")
"""Options that do nothing to the lab's own language models."""
THICK, MAZES = Path("thick-digits"), Path("mazes")
"""The embedded pairs of drawings; and what has no pairs without a model."""


def dpo(args: Sequence[str]) -> dict[str, Any]:
    """`qx dpo PAIRS --model RUN_OR_FOLDER`."""
    options = parse(Dpo, args, "qx dpo", default=_usual(args))
    if options.pairs != THICK:
        options = dataclasses.replace(options, model=begun(options.model))
    vacant(options)
    job = prepare(options)
    _, result = start(job, settled(options), options)
    show(job, result)
    return result


def settled(options: Dpo) -> dict[str, Any]:
    """The configuration as it is kept: paths absolute, so that a run goes on from any directory."""
    pairs = options.pairs if options.pairs == THICK else options.pairs.resolve()
    return to_tree(dataclasses.replace(options, pairs=pairs, model=options.model.resolve()))


def _usual(args: Sequence[str]) -> Dpo | None:
    """What suits a model that is none of the lab's own language models."""
    said = glanced(Dpo, args, Dpo(pairs=Path(), model=Path()))
    if said.pairs == THICK:
        from generative.preference import thick  # diffusion takes seconds to load

        return dataclasses.replace(TRANSFORMERS, preference=thick.PREFERENCE, train=thick.TRAIN)
    if of_transformers(folder_of(said.model)):
        return ADAPTED if said.lora_rank else TRANSFORMERS
    return None


def prepare(options: Dpo) -> Job:
    """The job of `qx dpo`, before anything is written."""
    if options.pairs == MAZES:
        raise UsageError(
            f"{MAZES}: expected a file; `qx pairs mazes FILE --model RUN` writes one of the run's mistakes"
        )
    for name in options.preference.loss:
        if name == "dpo":
            raise UsageError("--loss dpo: the loss of DPO's paper is named sigmoid, and is the default")
        choose("loss", name, LOSSES)
    with asked("the loss"):
        objective = DPO(options.preference)
    if options.pairs == THICK:
        from qx import prefer_images  # as diffusion does

        return prefer_images.prepare(options)
    if of_transformers(options.model):
        from qx import dpo_pretrained  # transformers takes seconds to load

        return dpo_pretrained.prepare(options)
    usual = {field.name: field.default for field in dataclasses.fields(options)}
    for name in OF_TRANSFORMERS:
        if getattr(options, name) != usual[name]:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag}: for models of transformers; {options.model} is one of the lab's own")
    model, tokenizer = load(options.model)
    checked, beyond = looked_at(options.pairs, model, tokenizer, strict=options.strict)
    tokens = usable(options.pairs, checked)
    if beyond:
        raise UsageError(beyond)
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    device = device_of(options)
    accelerator = Accelerator(cpu=device.type == "cpu")
    precision = effective(options.train.precision, accelerator)
    check_update(objective, options.train, accelerator)
    about = reference.transformer.arguments
    with without_a_cache():
        answers = told(reference.to(device), PairData(tokens), about, device=device, precision=precision)
    data = PairData(tokens, answers)
    longest = int((data.lengths[:, 0] + data.lengths[:, 1:].amax(1)).max())
    trainer = trainer_of(model, objective, data, longest, options.train, options)
    job = LanguageJob("dpo", (options.pairs, folder_of(options.model)), options.pairs.stem, trainer, tokenizer)
    job.headline, job.before = ("loss", "rewards/accuracies", "rewards/margins"), reference
    return job


def looked_at(file: Path, model: LanguageModel, tokenizer: CharacterTokenizer, *, strict: bool) -> tuple[Checked, str]:
    """A file as one of the lab's own models reads it, nothing cut; and why it cannot, where pairs are too long for it,
    or "". Raises PairError.
    """
    checked = preflight(file, Plain(tokenizer), strict=strict)
    reach = model.transformer.arguments["length"]
    sizes = [len(each.prompt) + max(len(each.chosen), len(each.rejected)) for each in checked.tokens]
    beyond = [size for size in sizes if isinstance(reach, int) and size > reach]
    if not beyond:
        return checked, ""
    words = f"{len(beyond):,} of {len(sizes):,} pairs are longer than the model reads, up to {max(beyond):,} tokens"
    return checked, f"{file}: {words}; expected {reach:,} at most, the --length of its `qx sft`"


def reopen(run: Run, common: Common) -> Job:
    """The job of a run of `qx dpo`."""
    return prepare(dataclasses.replace(from_tree(Dpo, run.config), device=common.device))
