"""`qx reproduce NAME`: one published claim, with the number that is stated beside the number that is found here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.catalog import EXPERIMENTS, GROUPS, NEEDS, NOT_HELD, NOT_RUN
from experiments.claim import LONG, Claim, DataError, Finding, Setting
from lab import console, plots
from lab.run import RunError, next_free, plain, write_json
from qx.jobs import WorkFailedError, device_of
from qx.usage import Common, UsageError, choose, parse

ALL = "all"
PARTS = 1000  # of the progress bar


@dataclass(frozen=True, kw_only=True)
class Reproduce(Common):
    """Run one published claim again: what is stated, what is found, whether it holds here, and a picture."""

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="NAME")] = None
    """The claim, as `qx reproduce --list` names it; or all: every one that needs no data and not too long."""
    long: bool = False
    """With all: those too that take longer than four minutes each."""
    list: bool = False
    """Only say which claims there are."""
    data: Path | None = None
    """A file or folder, for the claims that need one."""


def reproduce(args: Sequence[str]) -> Any:
    """`qx reproduce NAME`, `qx reproduce all` and `qx reproduce --list`."""
    options = parse(Reproduce, args, "qx reproduce")
    if options.list:
        return _listed()
    if options.name is None:
        raise UsageError("qx reproduce: expected a claim next, or all (see `qx reproduce --list`)")
    name = choose("claim", options.name, [*EXPERIMENTS, ALL])
    if options.data is not None and not options.data.exists():
        raise UsageError(f"--data {options.data}: no such file or folder")
    return _each(options) if name == ALL else _one(name, options, options.out)


def _listed() -> list[dict[str, Any]]:
    """Every claim there is, group by group."""
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    found: list[dict[str, Any]] = [
        {
            **{"name": name, "claim": claim.claim, "source": claim.source, "minutes": claim.minutes},
            **{
                "needs": NEEDS.get(name),
                "holds": None if name in NOT_RUN else name not in NOT_HELD,
                "group": group_of.get(name, "others"),
            },
        }
        for name, (claim, _) in sorted(EXPERIMENTS.items())
    ]
    for group in dict.fromkeys([*GROUPS, "others"]):
        rows = [
            [entry["name"], f"{entry['minutes']:g}", _held(entry["holds"]), entry["needs"] or ""]
            for entry in found
            if entry["group"] == group
        ]
        if rows:
            console.table(group, ["claim", "minutes", "when last run", "needs"], rows)
            console.out.print()
    console.out.print(
        "[dim]Minutes at most, or about, on two idle cores. `qx reproduce NAME` says what is claimed and by whom, and "
        "runs it; `--list --json` says it of all."
    )
    return found


def _each(options: Reproduce) -> list[dict[str, Any]]:
    """All of them, one after another; one whose data is not there is left out, and said to be.

    Raises:
        WorkFailedError: at the end, where some failed; its result holds {"name", "failed"} for each of these.
    """
    found: list[dict[str, Any]] = []
    rows, failed = [], []
    for name, (claim, _) in sorted(EXPERIMENTS.items()):
        if claim.minutes > LONG and not options.long:
            rows.append([name, "not run", "-"])
            console.out.print(f"[dim]{name}: not run ({_minutes(claim.minutes)}: ask by name, or for all --long)[/]\n")
            continue
        try:
            result = _one(name, options, options.out and options.out / name)
        except DataError as error:
            rows.append([name, "not run", "-"])
            console.out.print(f"[dim]{name}: not run ({console.escape(str(error))})[/]\n", soft_wrap=True)
            continue
        except Exception as error:  # whatever it is, the others are still to be run, and this one to be named
            why = str(error) if isinstance(error, WorkFailedError) else f"{type(error).__name__}: {error}"
            found.append({"name": name, "failed": why})
            failed.append(name)
            rows.append([name, "failed", "-"])
            console.out.print(f"[bold red]{name}: failed[/] ({console.escape(why)})\n", soft_wrap=True)
            continue
        found.append(result)
        rows.append([name, _held(result["holds"]), f"{result['seconds']:.1f}"])
    console.table("published claims, as they were found here", ["claim", "verdict", "seconds"], rows)
    if failed:
        raise WorkFailedError(f"{len(failed)} of {len(EXPERIMENTS)} claims failed: {', '.join(failed)}", found)
    return found


def _one(name: str, options: Reproduce, out: Path | None) -> dict[str, Any]:
    """Run one claim, show what was found and write it down."""
    claim, run = EXPERIMENTS[name]
    if out is not None and (out / "result.json").exists():
        raise RunError(f"{out}: a result stands here already; give another --out")
    device, began = device_of(options), time.monotonic()
    with console.progress(f"reproduce {name}", PARTS, counts=False) as bar:
        setting = Setting(
            seed=options.seed,
            device=device,
            data=options.data,
            report=lambda share, note: bar.update(round(PARTS * share), note),
        )
        try:
            finding = run(setting)
        except ModuleNotFoundError as error:
            raise WorkFailedError(f"{name} needs {error.name}: pip install -e '.[reproduce]'") from None
        bar.update(PARTS)
    seconds = round(time.monotonic() - began, 2)
    folder = out or next_free(Path("runs"), f"reproduce-{name}")
    folder.mkdir(parents=True, exist_ok=True)
    plots.save(finding.figure, folder / "report.png")
    result: dict[str, Any] = plain(
        {
            "name": name,
            **{"claim": claim.claim, "source": claim.source, "stated": claim.stated, "found": finding.found},
            **{"holds": finding.holds, "verdict": finding.verdict},
            **{"header": finding.header, "rows": finding.rows},
            **{"seed": options.seed, "device": device.type, "seconds": seconds, "run": str(folder)},
        }
    )
    write_json(folder / "result.json", result)
    _show(claim, finding, folder)
    return result


def _show(claim: Claim, finding: Finding, folder: Path) -> None:
    """Claim, source, numbers, verdict and where the picture is."""
    console.out.print(f"[bold]{console.escape(claim.claim)}[/]")
    console.out.print(f"[dim]{console.escape(claim.source)}[/]\n")
    rows = [[name, _words(claim.stated.get(name, "-")), _words(number)] for name, number in finding.found.items()]
    console.table("", ["", "stated", "found"], rows, wrap=True)
    if finding.rows:
        console.out.print()
        console.table("", finding.header, finding.rows, wrap=True)
    colour = "green" if finding.holds else "yellow"
    console.out.print(f"\n[bold {colour}]{_held(finding.holds)}[/]  {console.escape(finding.verdict)}")
    console.out.print(f"[dim]picture[/]  {folder / 'report.png'}\n", soft_wrap=True)


def _minutes(minutes: float) -> str:
    """About how long it takes."""
    return "a minute or less" if minutes <= 1 else f"about {minutes:g} minutes"


def _held(holds: bool | None) -> str:
    return "not yet run" if holds is None else "holds" if holds else "does not hold"


def _words(number: float | str) -> str:
    """A whole number whole, a large one to its units, a small one in two digits, any other in four."""
    if isinstance(number, str):
        return number
    if abs(number) >= 1000 or number == round(number, 0):
        return f"{number:,.0f}"
    return f"{number:.4g}" if abs(number) >= 0.001 else f"{number:.1e}"
