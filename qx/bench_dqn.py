"""`qx bench dqn`: ten seeds of our deep Q-network beside one of stable-baselines3's, in one run on one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import dqn, tabular
from benchmarks.dqn import OURS, PEER, SOLVED
from lab import console, plots
from lab.run import next_free, write_json
from qx.usage import Answering, parse


@dataclass(frozen=True, kw_only=True)
class Deep(Answering):
    """Seconds of ten of our seeds on CartPole-v1 over one of stable-baselines3's DQN, how many are solved, gradient
    steps a second at equal network and batch, and tabular Q-learning beside a plain loop. On the CPU."""

    out: Path | None = None
    """Directory to write to. By default a new one under runs/."""
    replicas: int = 10
    """Seeds of ours, trained side by side. More take longer, and less than in proportion."""
    peer_seeds: int = 3
    """Seeds of the peer, one after another. More take longer, a minute each."""
    peer_steps: int = dqn.STEPS
    """Steps of the peer. Fewer than rl-zoo's 50,000 only try whether it runs."""
    steps: int | None = None
    """Steps of each of ours; by default those of `qx train double-dqn CartPole-v1`. Fewer only try whether it runs."""
    episodes: int = 20
    """Greedy episodes that judge a seed. More say more."""
    seconds: float = 10.0
    """How long to measure gradient steps. Longer is steadier."""
    tabular_steps: int = 20_000
    """Steps of tabular Q-learning. Longer is steadier."""
    tabular_replicas: int = 1_000
    """Replicas of tabular Q-learning. More say more of batching."""


def bench(args: Sequence[str]) -> dict[str, Any]:
    """`qx bench dqn`."""
    o = parse(Deep, args, "qx bench dqn")
    with console.progress("bench dqn", 3 + o.peer_seeds) as bar:
        bar.update(0, f"{o.replicas} seeds of ours")
        mine = dqn.ours(o.replicas, o.seed, o.steps, o.episodes)
        theirs = []
        for k in range(o.peer_seeds):
            bar.update(1 + k, f"seed {k + 1} of {PEER}")
            theirs.append(dqn.peer(o.seed + k, o.peer_steps, o.episodes))
        bar.update(1 + o.peer_seeds, "gradient steps")
        rates = dqn.gradient_steps(o.replicas, o.seconds, o.seed)
        bar.update(2 + o.peer_seeds, "tabular")
        table = tabular.measure(o.tabular_steps, o.tabular_replicas)
        bar.update(3 + o.peer_seeds)
    out = o.out or next_free(Path("runs"), "bench-dqn")
    result = {**dqn.found(mine, theirs, rates), "tabular": table, "replicas": o.replicas, "run": str(out)}
    _say(result)
    out.mkdir(parents=True, exist_ok=True)
    _picture(result, out / "report.png")
    write_json(out / "result.json", result)
    console.out.print(f"[dim]picture[/]  {out / 'report.png'}", soft_wrap=True)
    return result


def _say(result: Mapping[str, Any]) -> None:
    """A row for each side, and the ratios."""
    rates, seconds = result["gradient_steps"], result["peer_seconds"]
    rows = [
        [
            f"{OURS}, {result['replicas']} seeds",
            f"{result['seconds']:.1f}",
            f"{result['solved']} of {result['replicas']}",
            f"{rates[OURS]:,.0f}",
        ],
        [
            f"{PEER}, one",
            ", ".join(f"{x:.1f}" for x in seconds),
            f"{result['peer_solved']} of {result['peer_seeds']}",
            f"{rates[PEER]:,.0f}",
        ],
    ]
    title = f"DQN on CartPole-v1 (cpu, {result['threads']} threads)"
    console.table(title, ["", "seconds", f"at {SOLVED:.0f}", "updates/s"], rows)
    console.out.print(
        f"[dim]seconds, ours over a seed of theirs[/]  {result['ratio']:.2f}   "
        f"[dim]updates at 256 x 256[/]  {result['gradient_steps_ratio']:.2f}x",
        soft_wrap=True,
    )
    table = result["tabular"]
    console.out.print(
        f"[dim]{table['replicas']:,} replicas of tabular Q-learning, over one textbook loop[/]  {table['ratio']:.2f}",
        soft_wrap=True,
    )


def _picture(result: Mapping[str, Any], path: Path) -> None:
    """Seconds, returns seed by seed, gradient steps a second; the titles say what was found."""
    made, (time, score, rate) = plots.figure(1, 3, width=3.3, height=3.2)
    R, N = result["replicas"], result["peer_seeds"]
    names = [f"ours,\n{R} seeds", *(f"theirs,\nseed {k + 1}" for k in range(N))]
    colours = [0] + [1] * N
    plots.bars(time, names, [result["seconds"], *result["peer_seconds"]], colours, "{:.0f}")
    plots.label(time, f"{R} seeds in {result['ratio']:.2f} of the time of one", "", "seconds")
    for k, returns in enumerate((result["returns"], result["peer_returns"])):
        at = [k + (i - (len(returns) - 1) / 2) * 0.06 for i in range(len(returns))]
        score.scatter(at, sorted(returns), color=plots.COLOURS[k], s=26, zorder=3)
    plots.level(score, SOLVED, "solved")
    solved = [f"ours\n{result['solved']} of {R} solved", f"theirs\n{result['peer_solved']} of {N} solved"]
    score.set_xticks([0, 1], solved)
    score.set_xlim(-0.5, 1.5)
    score.set_ylim(0, 520)
    score.grid(axis="x", visible=False)
    plots.label(score, "CartPole-v1, seed by seed", "", "mean greedy return")
    rates = result["gradient_steps"]
    plots.bars(rate, ["ours", "theirs"], [rates[OURS], rates[PEER]], [0, 1], "{:,.0f}")
    title = f"gradient steps: {result['gradient_steps_ratio']:.1f}x"
    plots.label(rate, title, "256 x 256 network, batch 64", "a second, all seeds counted")
    for ax in (time, rate):
        ax.margins(y=0.12)
    plots.save(made, path)
