"""A picture in text that is drawn again where it was, at a pace that can be followed."""

from __future__ import annotations

import re
import shutil
import sys
import time

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")  # a colour, which takes no room


class Screen:
    """Where frames of text are shown: in place and paced where standard output is a terminal, else one below another.

    Args:
        fps: frames shown in a second, at most.
    """

    def __init__(self, fps: int) -> None:
        self._pause, self._lines, self._due = 1 / fps, 0, 0.0

    @property
    def terminal(self) -> bool:
        """Whether colours and escapes would be understood."""
        return sys.stdout.isatty()

    def show(self, frame: str) -> None:
        """Write a frame, over the last one in a terminal."""
        if not self.terminal:
            sys.stdout.write(frame + "\n")
            return
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = time.monotonic() + self._pause
        back = f"\x1b[{self._lines}F\x1b[J" if self._lines else ""  # up to its first line, and clear from there
        width = shutil.get_terminal_size().columns
        self._lines = sum(max(1, -(-len(ESCAPE.sub("", line)) // width)) for line in frame.split("\n"))
        sys.stdout.write(back + frame + "\n")
        sys.stdout.flush()
