"""How well a language model walks mazes it has never seen, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from generative.language import mazes
from generative.language.generate import complete
from generative.language.model import LanguageModel
from generative.language.tokenizer import CharacterTokenizer
from lab import plots
from lab.run import Run
from qx.curves import Curves

HELD_OUT = 1000  # mazes; the same for every model, whatever the seed of its run
LONGEST = 40  # moves a model may make
LABEL = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "none"}
SHOWN = 4  # mazes in the picture


def held_out(count: int = HELD_OUT) -> list[str]:
    """The mazes that every model is judged on: none shares its walls with a maze that is trained on."""
    return [mazes.draw(0, index, test=True) for index in range(count)]


def score(model: LanguageModel, tokenizer: CharacterTokenizer) -> dict[str, Any]:
    """Greedy walks through the held-out mazes, judged by breadth-first search.

    Returns `success` (share that reach the goal), `optimal` (share of those that are shortest), `excess` (mean moves
    beyond the shortest, of those), `mazes` (how many were walked).
    """
    texts = held_out()
    walks = [mazes.judge(text, moves) for text, moves in zip(texts, walk(model, tokenizer, texts), strict=True)]
    reached = [w for w in walks if w.valid]
    return {
        "success": len(reached) / len(walks),
        "optimal": sum(w.optimal for w in reached) / max(len(reached), 1),
        "excess": sum(w.length - w.shortest for w in reached) / max(len(reached), 1),
        "mazes": len(walks),
    }


def walk(model: LanguageModel, tokenizer: CharacterTokenizer, texts: Sequence[str]) -> list[str]:
    """The model's greedy moves for each maze."""
    return complete(model, tokenizer, texts, limit=LONGEST)


def draw(
    run: Run,
    result: Mapping[str, Any],
    after: LanguageModel,
    before: LanguageModel | None,
    tokenizer: CharacterTokenizer | None,
) -> None:
    """`report.png`: what was logged, success before and after, and some walks. Without mazes, what was logged alone."""
    curves = Curves(run)
    made, axes = plots.figure(1, 3 if tokenizer is not None else 2, width=4.2, height=3.1)
    if before is not None:
        curves.sides(axes[0], "rewards", "implicit reward, beta x nats", margin=True)
        curves.ranked(axes[1])
    else:
        curves.learned(axes[0], "loss", "loss, nats a completion")
        curves.learned(axes[1], "nll_per_token", "loss, nats a token")
    if tokenizer is not None:
        _bars(axes[2], result)
    plots.save(made, run.path / "report.png")
    if tokenizer is not None:
        _walks(run, after, before, tokenizer)


def _bars(ax: Axes, result: Mapping[str, Any]) -> None:
    stages = [("before", result["before"]), ("after", result)] if "before" in result else [("", result)]
    names = [f"{when}:\n{what}" if when else what for what in ("arrive", "of these\nshortest") for when, _ in stages]
    values = [found[key] for key in ("success", "optimal") for _, found in stages]
    plots.bars(ax, names, values, colours=[5, 0] * 2 if len(stages) == 2 else [0, 0])
    plots.label(ax, f"{result['mazes']} mazes never seen")
    ax.set_ylim(0, 1.15)


def _walks(run: Run, after: LanguageModel, before: LanguageModel | None, tokenizer: CharacterTokenizer) -> None:
    """`walks.png`: held-out mazes, the walk before above the walk after; those first where they differ in worth."""
    models = [("before", before), ("after", after)] if before is not None else [("", after)]
    texts = held_out(200)
    moves = {when: walk(model, tokenizer, texts) for when, model in models if model is not None}
    ranked = sorted(range(len(texts)), key=lambda i: _interest(texts[i], [moves[when][i] for when in moves]))[:SHOWN]
    made, axes = plots.figure(len(moves), SHOWN, width=1.9, height=2.1)
    for row, (when, found) in enumerate(moves.items()):
        for column, i in enumerate(ranked):
            ax = axes[row * SHOWN + column]
            verdict = mazes.judge(texts[i], found[i])
            _maze(ax, texts[i], found[i])
            words = f"{verdict.length} moves (shortest {verdict.shortest})"
            if not verdict.valid:
                cells, hit = _path(texts[i], found[i])
                passed = mazes.Maze(texts[i]).goal in cells
                words = "into a wall" if hit else "past the goal" if passed else "stops before the goal"
            ax.set_title(
                f"{when}: {words}" if when else words, fontsize=7.5, color="#3a8f5c" if verdict.optimal else "#b83a4b"
            )
    plots.save(made, run.path / "walks.png")


def _interest(text: str, walks: list[str]) -> tuple[bool, int]:
    """Sorts first: the last walk is best, the first was not, the way is long."""
    first, last = mazes.judge(text, walks[0]), mazes.judge(text, walks[-1])
    return (not (last.optimal and not first.optimal), -last.shortest)


def _maze(ax: Axes, text: str, moves: str) -> None:
    rows = text.splitlines()
    walls = np.array([[mark == "#" for mark in row] for row in rows])
    ax.imshow(np.where(walls[..., None], (0.20, 0.26, 0.33), (0.95, 0.96, 0.97)))
    ax.set(xticks=np.arange(-0.5, len(rows[0])), yticks=np.arange(-0.5, len(rows)), xticklabels=[], yticklabels=[])
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set(visible=True, color=plots.GRID)
    cells, hit = _path(text, moves)
    y, x = np.array(cells, dtype=float).T
    ax.plot(x, y, color=plots.COLOURS[1], linewidth=2.4, solid_capstyle="round", solid_joinstyle="round")
    if hit is not None:
        ax.plot(hit[1], hit[0], "x", color=plots.COLOURS[4], markersize=9, markeredgewidth=2.4, clip_on=False)
    for (row, column), mark, colour in (
        (mazes.Maze(text).start, "S", plots.COLOURS[0]),
        (mazes.Maze(text).goal, "G", "#3a8f5c"),
    ):
        ax.text(column, row, mark, ha="center", va="center", weight="bold", color=colour, bbox=LABEL)
    ax.set(xlim=(-0.6, len(rows[0]) - 0.4), ylim=(len(rows) - 0.4, -0.6))


def _path(text: str, moves: str) -> tuple[list[tuple[float, float]], tuple[float, float] | None]:
    """Where a walk leads, until it is no move, or runs against a wall or the edge of the map; and where that is."""
    maze = mazes.Maze(text)
    floor, cell = maze.floor(), maze.start
    points: list[tuple[float, float]] = [cell]
    for move in moves:
        if move not in mazes.MOVES:
            break
        ahead = mazes.step(cell, move)
        if ahead not in floor:
            hit = (cell[0] + ahead[0]) / 2, (cell[1] + ahead[1]) / 2
            return [*points, hit], hit
        cell = ahead
        points.append(cell)
    return points, None
