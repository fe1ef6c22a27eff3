"""A real pretrained language model in our Transformer: it goes on with a story as its maker's program does.

The model is Karpathy's stories260K: a Llama of 260,032 parameters (5 layers of width 64, 8 heads that share 4 key-value
heads), trained on TinyStories (Eldan & Li 2023). One wrong pairing of rotary features, one norm in the wrong place or
one token cut otherwise, and the text is another one.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from backbones.convert import llama2c
from experiments.claim import Claim, DataError, Finding, Number, Setting
from generative.language.generate import complete, generate
from generative.language.model import LanguageModel
from generative.language.pieces import PieceTokenizer
from generative.language.tokenizer import TokenizerError
from lab import plots

PROMPT = "Once upon a time"
STATED = ", there was a little girl named Lily. She loved to play outside in the park."
MODEL, VOCABULARY = "stories260K.bin", "tok512.bin"
NEEDS = f"it needs a pretrained model: name the folder of {MODEL} and {VOCABULARY} with --data"

CLAIM = Claim(
    claim="A Llama trained and published elsewhere goes on with a story, token for token, as in its maker's program.",
    source="Karpathy, llama2.c (2023): doc/stories260K.md, and run.c at temperature 0",
    stated={"continuation": STATED, "parameters": 260_032},
)


def run(setting: Setting) -> Finding:
    """Greedy continuation of "Once upon a time". The claim holds where every character and the size are as stated."""
    model, tokenizer = load(setting.data)
    model.to(setting.device)
    setting.report(0.3, "writing")
    (text,) = complete(model, tokenizer, [PROMPT], limit=60)
    size = sum(weight.numel() for weight in model.parameters())
    found: dict[str, Number] = {"continuation": text[: len(STATED)], "parameters": size}
    setting.report(0.8, "drawing")
    pieces, probability = certainty(model, tokenizer, len(STATED))
    same = next((i for i, character in enumerate(STATED) if text[i : i + 1] != character), len(STATED))
    verdict = f"{same} of {len(STATED)} characters are as published; a token that was written had a probability of "
    verdict += f"{probability[0].mean():.0%} on average, and of {probability[0].min():.0%} at least."
    holds = found == CLAIM.stated
    return Finding(found=found, holds=holds, verdict=verdict, figure=draw(pieces, probability, same == len(STATED)))


def load(folder: Path | None) -> tuple[LanguageModel, PieceTokenizer]:
    """The model and its vocabulary. Raises DataError where the folder does not hold them."""
    if folder is None:
        raise DataError(NEEDS)
    folder = folder.parent if folder.is_file() else folder
    try:
        return LanguageModel(llama2c.load(folder / MODEL)), PieceTokenizer.read(folder / VOCABULARY)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file; {NEEDS}") from None
    except (OSError, ValueError, TokenizerError) as error:
        raise DataError(f"{error}; {NEEDS}") from None


@torch.no_grad()
def certainty(model: LanguageModel, tokenizer: PieceTokenizer, length: int) -> tuple[list[str], Float[Tensor, "2 T"]]:
    """The pieces of the first `length` characters, and the probability of each and of the likeliest other one."""
    begun = [tokenizer.bos, *tokenizer.encode(PROMPT)]
    (tokens,) = generate(model, [begun], limit=60, end=tokenizer.eos)
    while len(tokenizer.decode(tokens[:-1])) >= length:
        tokens.pop()
    row = torch.tensor([[*begun, *tokens]], device=next(model.parameters()).device)
    logits = model.transformer.logits(model.transformer(row)[0, len(begun) - 1 : -1])  # [T, V]: all at once, no cache
    probability = logits.softmax(-1)
    chosen = probability.gather(1, row[0, len(begun) :, None])
    other = probability.scatter(1, row[0, len(begun) :, None], 0).amax(1, keepdim=True)
    return [tokenizer.decode([token]) for token in tokens], torch.cat([chosen, other], dim=1).T.cpu()


def draw(pieces: list[str], probability: Float[Tensor, "2 T"], same: bool) -> Figure:
    """A bar for each token that was written, and a dot for the one that came nearest to being written instead."""
    figure, (ax,) = plots.figure(width=10.5, height=3.4)
    chosen, other = probability.numpy()
    place = range(len(pieces))
    ax.bar(place, chosen, width=0.82, color=plots.COLOURS[0], label="token that was written: the likeliest")
    ax.plot(place, other, "o", color=plots.COLOURS[1], markersize=5, label="the likeliest of all others")
    ax.set_xticks(place, [piece.replace(" ", "\N{OPEN BOX}").replace("\n", "\\n") for piece in pieces])
    ax.tick_params(axis="x", labelsize=8, length=0)
    ax.grid(axis="x", visible=False)
    ax.set_ylim(0, 1)
    ax.margins(x=0.01)
    begun = f"\N{LEFT DOUBLE QUOTATION MARK}{PROMPT}\N{RIGHT DOUBLE QUOTATION MARK}"
    title = f"After {begun}, a pretrained Llama writes {'what' if same else 'other than'} its maker's program writes"
    plots.label(ax, title, "tokens in order (\N{OPEN BOX}: a space)", "probability")
    ax.set_title(ax.get_title(loc="left"), loc="left", fontsize=10, fontweight="bold", color=plots.INK, pad=24)
    ax.legend(
        *(entries[::-1] for entries in ax.get_legend_handles_labels()),
        **{"loc": "lower left", "bbox_to_anchor": (-0.01, 1), "ncols": 2},
        **{"frameon": False, "fontsize": 8, "labelcolor": plots.INK},
    )
    return figure
