"""Keys as they are pressed, from a terminal without waiting for Enter, or from a pipe, character by character."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ARROW_KEYS = {"A": "up", "B": "down", "C": "right", "D": "left"}
END = {"\x03", "\x04"}
KEY = re.compile(r"\x1b[\[O][0-9;]*([A-Za-z~]?)|.", re.DOTALL)


@contextmanager
def keyboard() -> Iterator[Iterator[str]]:
    """The keys of standard input: a character each, and "up", "down", "left", "right" for the arrows.

    A terminal is put back as it was, whatever happens. The keys end with the input, or at Ctrl-D or Ctrl-C. The latter
    comes as a key, too: as a signal it would wait for the next one where it arrives just before a read.
    """
    if not sys.stdin.isatty():
        yield split(sys.stdin.read())
        return
    import termios  # only where there is a terminal; Windows has none of these
    import tty

    here = sys.stdin.fileno()
    before = termios.tcgetattr(here)
    try:
        tty.setcbreak(here)
        raw = termios.tcgetattr(here)
        raw[6][termios.VINTR] = bytes([os.fpathconf(here, "PC_VDISABLE")])
        termios.tcsetattr(here, termios.TCSADRAIN, raw)
        yield _pressed(here)
    finally:
        termios.tcsetattr(here, termios.TCSADRAIN, before)


def split(text: str) -> Iterator[str]:
    """The keys in a piece of input."""
    for found in KEY.finditer(text):
        if found.group(1) in ARROW_KEYS:
            yield ARROW_KEYS[found.group(1)]
        elif not found.group().startswith("\x1b"):
            yield found.group()


def _pressed(here: int) -> Iterator[str]:
    while (read := os.read(here, 64).decode(errors="ignore")) and not END.intersection(read):
        yield from split(read)
