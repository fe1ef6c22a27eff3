"""The resident set of this process, and its peak: what a job takes above what was there before."""

from __future__ import annotations

from pathlib import Path


def began() -> float | None:
    """The resident set now, in bytes, its peak so far forgotten; None where there is no /proc to ask."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def since(started: float | None) -> float | None:
    """The peak since `began`, in bytes above what was resident then."""
    return None if started is None else _status("VmHWM") - started


def _status(name: str) -> float:
    """A size that the system keeps of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
