"""Beside trl: the same model, pairs and settings give the same losses, margins and accuracies, update after update."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import SequentialSampler
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

from generative.language.causal import Causal
from generative.preference.data import PairData
from generative.preference.dpo import DPO
from generative.preference.losses import PreferenceConfig
from generative.preference.pairs import Pair
from generative.preference.reference import reference
from generative.preference.tokens import Pretrained
from generative.train import TrainConfig, Trainer

pytestmark = pytest.mark.slow
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

STEPS, BATCH, RATE = 20, 4, 1e-2
WORDS = ["<s>", "</s>", "<pad>", *(f"w{i}" for i in range(60))]
ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
MODELS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            **{"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"num_key_value_heads": 2, "intermediate_size": 64, **ENDS},
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=4, **ENDS)),
}
ASKED = {
    "sigmoid": ({"loss_type": ["sigmoid"]}, PreferenceConfig()),
    "robust and ipo": (
        {"loss_type": ["robust", "ipo"], "loss_weights": [0.7, 0.3], "label_smoothing": 0.1},
        PreferenceConfig(("robust", "ipo-per-token"), (0.7, 0.3), smoothing=0.1),
    ),
    "sigmoid, js": ({"f_divergence_type": "js_divergence"}, PreferenceConfig(divergence="js")),
}


def tokenizer() -> Any:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Fast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def pairs() -> list[Pair]:
    """Prompts of 1 to 12 words, completions of 2 to 10; by the last of them they are preferred. 80: one epoch."""
    draws = random.Random(0)

    def words(least: int, most: int) -> str:
        return " ".join(draws.choices(WORDS[3:], k=draws.randint(least, most)))

    return [Pair(f"{words(1, 12)} ", f"{words(1, 9)} w1 </s>", f"{words(1, 9)} w2 </s>") for _ in range(STEPS * BATCH)]


def theirs(model: Any, given: list[Pair], settings: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    class InOrder(trl.DPOTrainer):  # type: ignore[name-defined, misc]  # untyped
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    config = trl.DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        beta=0.1,
        logging_steps=1,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        **settings,
    )
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in given]
    trainer = InOrder(
        model,
        ref_model=copy.deepcopy(model),
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line]


def ours(model: Any, given: list[Pair], config: PreferenceConfig) -> list[dict[str, float]]:
    policy, cpu = Causal(model), torch.device("cpu")
    tokens = [Pretrained(tokenizer())(pair) for pair in given]
    told = reference(policy.eval(), PairData(tokens), {}, device=cpu)
    train = TrainConfig(steps=STEPS, batch_size=BATCH, learning_rate=RATE, warmup=0, final_rate=1.0, beta2=0.999)
    trainer = Trainer(policy, DPO(config), PairData(tokens, told), train, seed=0, accelerator=Accelerator(cpu=True))
    trainer._order = lambda epoch: torch.arange(len(tokens))  # type: ignore[method-assign]  # as theirs
    return [{name: value.item() for name, value in metrics.items()} for _, metrics in trainer.run()]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kind", MODELS)
def test_every_update_has_their_numbers(kind: str, asked: str, tmp_path: Path) -> None:
    draws, model = torch.Generator().manual_seed(0), MODELS[kind]()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=draws)
    settings, config = ASKED[asked]
    given = pairs()
    peer, mine = theirs(copy.deepcopy(model), given, settings, tmp_path), ours(model, given, config)
    assert len(peer) == len(mine) == STEPS
    for number, (one, other) in enumerate(zip(mine, peer, strict=True)):
        for name in ("loss", "rewards/margins", "rewards/accuracies", "rewards/chosen", "logps/rejected"):
            assert one[name] == pytest.approx(float(other[name]), rel=1e-4, abs=5e-6), (number, name)
    assert max(abs(each["rewards/margins"]) for each in mine) > 0.05  # something was learned
