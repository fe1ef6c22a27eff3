"""One epoch of trl's `DPOTrainer`: its default settings, others of its own, or one that it has on CUDA alone."""

from __future__ import annotations

import copy
import importlib
import os
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast
from unittest import mock

from benchmarks.dpo_load import ALPHA, END, Size, draw_adapters, model, pairs
from benchmarks.dpo_ours import Epoch


@dataclass(frozen=True)
class Theirs:
    """Settings of trl. By default those it has by default."""

    bf16: bool = True
    """Compute in bf16."""
    checkpointing: bool = True
    """Forget activations and compute them again for the gradient."""
    precomputed: bool = False
    """Ask the reference once, before the first update; else in every update."""
    grouped: bool = False
    """Draw batches of alike lengths, which need less filling; else the pairs in their order."""
    compact: bool = False
    """Multiply the head only where a completion is scored. On CUDA trl does so by itself; elsewhere it has no switch
    for it, and one name of it is replaced while it trains."""


def epoch(size: Size, how: Theirs, device: str) -> Epoch:
    """Train a new model on all pairs once.

    Raises:
        ImportError: where trl is missing.
        AttributeError: where `compact` is asked of a trl that does not have the name to replace.
    """
    os.environ["TQDM_DISABLE"] = "1"
    from transformers import PrinterCallback

    datasets, trl = (cast(Any, importlib.import_module(name)) for name in ("datasets", "trl"))
    datasets.disable_progress_bars()
    took = [0.0]

    class Tokenised(trl.DPOTrainer):  # type: ignore[misc, name-defined]  # untyped
        """The data is in tokens already; and how long the reference took is kept."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *asked: Any) -> Any:
            began = time.perf_counter()
            found = super()._precompute_ref_logps(*asked)
            took[0] += time.perf_counter() - began
            return found

    made = model(size)
    rows: list[dict[str, Any]] = [
        {
            "prompt_ids": list(p.prompt),
            "chosen_ids": list(p.chosen),
            "rejected_ids": list(p.rejected),
            "length": len(p.prompt) + max(len(p.chosen), len(p.rejected)),
        }
        for p in pairs(size)
    ]
    head = mock.patch("trl.trainer.utils._use_triton", return_value=True) if how.compact else nullcontext()
    with tempfile.TemporaryDirectory() as folder, head:
        trainer = Tokenised(
            made,
            ref_model=None if how.precomputed or size.lora_rank else copy.deepcopy(made),
            peft_config=_adapters(size.lora_rank) if size.lora_rank else None,
            args=trl.DPOConfig(
                output_dir=folder,
                per_device_train_batch_size=size.batch,
                num_train_epochs=1,
                learning_rate=size.learning_rate,
                lr_scheduler_type="constant",
                logging_steps=1,
                bf16=how.bf16,
                gradient_checkpointing=how.checkpointing,
                precompute_ref_log_probs=how.precomputed,
                train_sampling_strategy="group_by_length" if how.grouped else "sequential",
                remove_unused_columns=False,  # the lengths, which grouping goes by
                use_cpu=device == "cpu",
                report_to=[],
                disable_tqdm=True,
                save_strategy="no",
            ),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=_tokenizer(),
        )
        trainer.remove_callback(PrinterCallback)  # nobody reads its lines here
        if size.lora_rank:
            draw_adapters(trainer.model)
        began = time.perf_counter()
        trainer.train()
        ended = time.perf_counter()
        lines = [line for line in trainer.state.log_history if "loss" in line]
    return Epoch(took[0], ended - began, [float(line["loss"]) for line in lines], float(lines[0]["logps/chosen"]))


def _adapters(rank: int) -> Any:
    """In every linear layer but the head's. The reference is the model with them switched off."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def _tokenizer() -> Any:
    """It is asked for its end and its filling alone."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": END}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")
