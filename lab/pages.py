"""Keep freed memory: a page that the system has to hand out anew costs more than what is written on it.

glibc gives large blocks back to the system as soon as they are freed, so a training step that frees and takes the same
few megabytes thousands of times a second spends most of its time in page faults. One call tells it to keep them. Other
allocators are left as they are. The numbers of docs/notebook.md say what it brings.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)
LARGEST = 32 * 2**20  # bytes: the largest threshold that glibc takes for blocks of their own
KEPT = 2**31 - 1  # bytes at the top of the heap that stay


def keep() -> bool:
    """Ask glibc to keep what is freed. Returns whether there was a glibc that did."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # no glibc
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST)) and bool(mallopt(TRIM_THRESHOLD, KEPT))
