"""Direct preference optimisation: learn from pairs, without a reward model and without sampling (Rafailov et al. 2023).

    loss = f(log pi(chosen), log pi(rejected), log ref(chosen), log ref(rejected)),    f from `losses`

With an `anchor` the loss is f - anchor log pi(chosen), the two terms of Pang et al. 2024, "Iterative reasoning
preference optimization", but with the log-probability summed, not divided by the length. Without it most f only ask
that the chosen rise *against* the rejected, and both may fall (Razin et al. 2024, "Unintentional unalignment").

The reference does not change, so what it says of every pair is computed once, before the first update, and stored with
the data. The policy reads the chosen and the rejected in one forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from generative.language.sft import Completions, encode
from generative.language.tokenizer import Tokenizer
from generative.preference.four import Four
from generative.preference.logprob import completion_logprob, over
from generative.preference.losses import Preference, PreferenceConfig
from generative.preference.pairs import Pair
from generative.train import Batch, Losses

PLAIN = PreferenceConfig()
"""DPO with a beta of 0.1."""


class PairData:
    """Tokenised pairs with the reference's log-probabilities.

    Attributes:
        sides: the chosen of all N pairs, then the rejected. 2 N completions.
        reference: log ref of each side, in nats. float32 [2 N].
    """

    def __init__(self, sides: Completions, reference: Float[Tensor, "twoN"]) -> None:
        self.sides, self.reference = sides, reference

    def __len__(self) -> int:
        return len(self.sides) // 2

    def batch(self, index: Int64[Tensor, "B"]) -> Batch:
        """`tokens` and `score` [B, 2, T], `reference` [B, 2]: the chosen first."""
        both = torch.stack([index, index + len(self)], dim=1)  # [B, 2]
        batch = {name: tensor.view(*both.shape, -1) for name, tensor in self.sides.batch(both.flatten()).items()}
        return {**batch, "reference": self.reference[both]}


def prepare(reference: nn.Module, tokenizer: Tokenizer, pairs: Sequence[Pair], batch_size: int = 256) -> PairData:
    """Tokenise the pairs and ask the reference about each side, once. Raises TokenizerError."""
    prompts = [pair.prompt for pair in pairs] * 2
    sides = encode(tokenizer, prompts, [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
    return PairData(sides, over(reference, sides, batch_size))


class DPO:
    """The objective, for a `LanguageModel` and `PairData`.

    Raises ValueError as `losses.Preference` does, for a configuration that asks for what there is not.

    Metrics, one number a pair, named as the field names them: `rewards/chosen` and `rewards/rejected` are the implicit
    rewards beta (log pi - log ref), `rewards/margins` their difference, `rewards/accuracies` 1 where it is positive,
    `logps/chosen` and `logps/rejected` the policy's log-probabilities in nats, and `loss/preference` is f, the loss
    without the anchor.
    """

    def __init__(self, config: PreferenceConfig = PLAIN) -> None:
        self.preference, self.beta, self.anchor = Preference(config), config.beta, config.anchor

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """f - anchor log pi(chosen) [B]; DPO's f is ln 2 while the policy is the reference. `key` is not used."""
        lengths = batch["score"].sum(dim=2).unbind(dim=1)  # [B] each
        tokens, score = batch["tokens"].flatten(0, 1), batch["score"].flatten(0, 1)  # [2B, T]
        chosen, rejected = completion_logprob(model, tokens, score).view(-1, 2).unbind(dim=1)  # [B]
        reference_chosen, reference_rejected = batch["reference"].unbind(dim=1)
        four = Four(chosen, rejected, reference_chosen, reference_rejected)
        value = self.preference(four, *lengths)
        good, bad = (self.beta * ratio for ratio in four.ratios)
        metrics = {
            "rewards/chosen": good,
            "rewards/rejected": bad,
            "rewards/margins": good - bad,
            "rewards/accuracies": (good > bad).float(),
            "logps/chosen": chosen,
            "logps/rejected": rejected,
            "loss/preference": value + self.anchor * chosen,
        }
        return Losses(value, metrics)
