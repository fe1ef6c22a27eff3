"""`qx pairs`: what a preference file really holds, or the embedded one, written to a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from generative.preference import mazes as maze_pairs
from generative.preference import pairs as pair_files
from generative.preference.preflight import Checked, preflight
from generative.preference.tokens import Pretrained as Tokenised
from generative.saved import of_transformers
from lab import console
from qx import pairs_report
from qx.dpo import looked_at
from qx.jobs import device_of, write_result
from qx.language import begun, load
from qx.usage import Answering, UsageError, parse


@dataclass(frozen=True, kw_only=True)
class Pairs(Answering):
    """What a preference file really holds (check), or the embedded one, written to a file (mazes)."""

    action: Annotated[tyro.conf.Positional[Literal["check", "mazes"]], tyro.conf.arg(metavar="check|mazes")]
    """check: count the findings in FILE. mazes: write maze pairs, judged by breadth-first search, to FILE."""
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """check: a .jsonl or .parquet file, or the folder of a data set. mazes: the JSON Lines file to write."""
    strict: bool = False
    """check: stop at the first row that would be dropped from training."""
    limit: int = 1024
    """check, with a --model of transformers: the longest sequence in tokens, prompt and completion; what is longer
    would be cut."""
    count: int = 8000
    """mazes: pairs to write. More teach more mazes."""
    model: Path | None = None
    """check: the run or folder of a model, with whose tokenizer the pairs are looked at, as `qx dpo` would. mazes: the
    run of a model that walks mazes, whose own mistakes are rejected and a shortest way is chosen; without one, two
    imperfect demonstrations of a maze are compared."""


def pairs(args: Sequence[str]) -> dict[str, Any]:
    """`qx pairs check FILE`, `qx pairs mazes FILE`."""
    options = parse(Pairs, args, "qx pairs")
    if options.action == "mazes":
        if options.file.exists():
            raise UsageError(f"{options.file}: exists already; name a file to make")
        if options.model is None:
            made = maze_pairs.demonstrated(options.seed, options.count)
        else:
            model, tokenizer = load(options.model)
            made = maze_pairs.corrected(model.to(device_of(options)).eval(), tokenizer, options.seed, options.count)
        options.file.parent.mkdir(parents=True, exist_ok=True)
        pair_files.write(options.file, made)
        console.out.print(f"{len(made)} pairs written to {options.file}", soft_wrap=True)
        if len(made) < options.count:
            console.err.print(f"[dim]fewer than the {options.count} asked for: the model makes too few mistakes")
        return {"pairs": len(made), "file": str(options.file)}
    checked, beyond = _checked(options)
    result = {**checked.findings.counts(), **({"refused": beyond} if beyond else {})}
    write_result(options, result)
    pairs_report.say(options.file, checked)
    if beyond:
        console.out.print(console.escape(f"`qx dpo` refuses {beyond}"), soft_wrap=True)
    pairs_report.show(checked)
    if options.out is not None:
        pairs_report.draw(checked, options.out / "report.png")
        lines = [json.dumps({"finding": kind, "row": said}) + "\n" for kind, said in checked.findings.noted]
        (options.out / "findings.jsonl").write_text("".join(lines), encoding="utf-8")
    return result


def _checked(options: Pairs) -> tuple[Checked, str]:
    """What is found, with a model as `qx dpo` would find it; and why that would refuse, or ""."""
    if options.model is None:
        return preflight(options.file, strict=options.strict), ""
    folder = begun(options.model)
    if of_transformers(folder):
        from generative.language import pretrained  # transformers takes seconds to load

        whole = pretrained.load(folder)
        limit = whole.within(options.limit)
        return preflight(options.file, Tokenised(whole.tokenizer), limit, strict=options.strict), ""
    if options.limit != Pairs.limit:
        raise UsageError(f"--limit: for models of transformers; {options.model} is one of the lab's own")
    return looked_at(options.file, *load(options.model), strict=options.strict)
