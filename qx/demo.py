"""`qx demo`: the three jobs on embedded data, by the same code as their own commands, then a page of pictures."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import console
from lab.page import Page
from lab.run import next_free, write_json
from qx import agents, diffusion, dpo, pairs, sft
from qx.jobs import Job, device_of, start
from qx.usage import Common, Lasting, UsageError, parse, to_tree
from rl.agents import defaults

AGENTS = (  # agent, world, what it shows
    ("q-learning", "zhao-5x5", "Tabular Q-learning on the 5 x 5 world of Zhao's book, 20 replicas at once"),
    ("dqn", "zhao-5x5", "A deep Q-network learns the same world"),
    ("dqn", "FrozenLake-v1", "A deep Q-network on Gymnasium's FrozenLake, its slippery dynamics lifted into a table"),
    (
        "double-dqn",
        "CartPole-v1",
        "A deep Q-network on Gymnasium's CartPole, which no table describes; 500 is the limit",
    ),
)
MARK = "demo.json"
REPLICAS = {"q-learning": 20, "dqn": 5, "double-dqn": 5}


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """All three jobs on the embedded data, with a page of pictures at the end; some ten minutes on two idle cores."""


def demo(args: Sequence[str]) -> dict[str, Any]:
    """`qx demo`."""
    options = parse(Demo, args, "qx demo")
    device_of(options)
    home = options.out or Path("runs/demo")
    if home.exists():
        if not _is_demo(home):
            raise UsageError(f"{home}: exists and is not an earlier demo; give another --out")
        earlier = next_free(home.parent, f"{home.name}-earlier")
        home.rename(earlier)
        console.err.print(f"[dim]the earlier demo is now in {earlier}")
    home.mkdir(parents=True)
    write_json(home / MARK, {"quincunx": "demo"})
    began = time.monotonic()
    page = Page(
        "Quincunx: first light",
        "Agents on grids, a diffusion model and a language model trained on preferences, on one set of backbones; "
        "every learner beside an exact answer. Made by one command on this machine.",
    )
    rows: list[tuple[str, str, str, str]] = []
    for act in (_agents, _diffusion, _preferences):
        rows += act(home, options, page)
    seconds = time.monotonic() - began
    page.heading("Summary")
    page.table(["job", "measured", "to compare", "seconds"], rows)
    page.text(f"{seconds:.0f} seconds in all, seed {options.seed}. Every run stands beside this page.")
    path = page.write(home / "index.html")
    console.table("demo", ["job", "measured", "to compare", "s"], rows)
    console.out.print("[dim]agents: interquartile mean of the greedy policies' returns and its 95% interval")
    console.out.print(f"\n{seconds:.0f} seconds in all. The pictures: [bold]{path.resolve()}[/]", soft_wrap=True)
    return {"page": str(path), "seconds": round(seconds, 1), "rows": [list(row) for row in rows]}


def _is_demo(home: Path) -> bool:
    """Whether the folder was made by this command, and may be made anew."""
    mark = home / MARK
    return mark.is_file() and json.loads(mark.read_text()) == {"quincunx": "demo"}


def _agents(home: Path, options: Demo, page: Page) -> list[tuple[str, str, str, str]]:
    page.heading("1. Agents on grids")
    page.text(
        "Exact values by dynamic programming stand beside the learned ones. Curves are interquartile means over "
        "replicas with a 95% bootstrap band; the dashed line is the exact optimum. In the maps amber frames are "
        "forbidden cells that may be entered, green is the goal, a ring means to stay, and several arrows in a cell "
        "are equally good."
    )
    rows = []
    for agent, world, words in AGENTS:
        config, length = defaults(agent, world)
        asked = agents.Train(agent=config, train=length, replicas=REPLICAS[agent], **_common(options))
        job = agents.TrainJob(agent, world, asked)
        result = _run(job, job.config(), asked, home / f"{agent}-{world}")
        page.pictures(((home / f"{agent}-{world}" / "report.png").read_bytes(), words))
        low, high = result["ci95"]
        optimum = result["optimal_return"]
        against = f"{optimum:.3f} exact" if optimum is not None else "500 at most"
        form = "{:.3f} [{:.3f}, {:.3f}]" if optimum is not None else "{:.0f} [{:.0f}, {:.0f}]"
        measured = form.format(result["iqm"], low, high)
        rows.append((f"{agent}, {world}", measured, against, _seconds(result)))
    return rows


def _diffusion(home: Path, options: Demo, page: Page) -> list[tuple[str, str, str, str]]:
    page.heading("2. Diffusion")
    page.text(
        "A class-conditional denoiser learns 1,347 real handwritten digits of 8 x 8 pixels, then draws new ones "
        "through the batched loop. A classifier trained on real digits alone reads them back."
    )
    asked = diffusion.Diffuse(data="digits", **_common(options))
    folder = home / "diffusion"
    job = diffusion.DiffuseJob(asked)
    result = _run(job, to_tree(job.options), asked, folder)
    page.pictures(((folder / "report.png").read_bytes(), "Real digits, samples (one class a row), and the loss"))
    film = (folder / "denoising.gif").read_bytes()
    page.pictures((film, "Noise becomes digits: twenty requests in one batch, 50 steps of DDIM"), pixel=True)
    judge = f"{result['judge_accuracy']:.1%} of real digits"
    return [("diffusion, digits", f"{result['recognised']:.1%} recognised", judge, _seconds(result))]


def _preferences(home: Path, options: Demo, page: Page) -> list[tuple[str, str, str, str]]:
    page.heading("3. Preferences")
    page.text(
        "A causal Transformer learns to walk mazes, text to text, from imperfect demonstrations; then direct "
        "preference optimisation (with an SFT term that keeps the chosen likely) on pairs from a JSON Lines file: the "
        "chosen reaches the goal by a shorter or a valid way, the rejected is a mistake of the model's own. Both are "
        "judged by breadth-first search on mazes whose walls were never seen. What the pairs teach here is mostly in "
        "their chosen side: plain SFT on it does as well (docs/notebook.md has the controls)."
    )
    asked = sft.Sft(data="mazes", **_common(options))
    first = _run(sft.prepare(asked), sft.settled(asked), asked, home / "sft")
    file = home / "pairs.jsonl"
    pairs.pairs(["mazes", str(file), "--seed", str(options.seed), "--model", str(home / "sft")])
    tuned = dpo.Dpo(pairs=file, model=home / "sft", **_common(options))
    job = dpo.prepare(tuned)
    second = _run(job, dpo.settled(tuned), tuned, home / "dpo")
    page.pictures(((home / "dpo" / "report.png").read_bytes(), "Implicit rewards, accuracy, and what came of it"))
    page.pictures(
        (
            (home / "dpo" / "walks.png").read_bytes(),
            "Mazes never seen, before and after: four of those that changed for the better",
        )
    )
    before = second["before"]
    return [
        ("SFT, mazes", f"{first['success']:.1%} arrive", "", _seconds(first)),
        ("DPO, mazes", f"{second['success']:.1%} arrive", f"{before['success']:.1%} before", _seconds(second)),
        ("DPO, shortest ways", f"{second['optimal']:.1%} of these", f"{before['optimal']:.1%} before", ""),
    ]


def _run(job: Job, config: dict[str, Any], asked: Lasting, folder: Path) -> Mapping[str, Any]:
    if not console.err.is_terminal:  # where no bar shows that it is at work
        console.err.print(f"{job.command} {job.name} ...", markup=False)
    _, result = start(job, config, dataclasses.replace(asked, out=folder))
    return result


def _common(options: Demo) -> dict[str, Any]:
    return {"seed": options.seed, "device": options.device}


def _seconds(result: Mapping[str, Any]) -> str:
    return f"{result['seconds']:.0f}"
