"""Two processes a job, in the environment that torchrun gives its own, from one that has loaded everything before.

    python tests/qx/starter.py FOLDER '[["sft", "data.jsonl", "--out", "run"], ...]'

A process takes seconds to load what it needs; forked, it has it. One job runs after another; what process R of job J
says is in FOLDER/J-R.out and FOLDER/J-R.err. The exit code is 0 when all of theirs were.
"""

import json
import os
import pkgutil
import signal
import socket
import sys
from pathlib import Path

import accelerate.utils

from qx.main import COMMANDS, main

LONGEST = 60  # seconds until a process that waits for the other ends


def both(args: list[str], said: Path) -> list[int]:
    """The exit codes of the two."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in (0, 1):
        pid = os.fork()
        if pid == 0:
            signal.alarm(LONGEST)
            names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK")
            os.environ.update(dict.fromkeys(names, str(rank)), GROUP_RANK="0", MASTER_ADDR="127.0.0.1")
            os.environ.update(dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2"), MASTER_PORT=str(port))
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{said}-{rank}.{name}", os.O_CREAT | os.O_WRONLY), stream)
            sys.exit(main(args))
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    folder, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    LOADED = [accelerate.utils, *(pkgutil.resolve_name(COMMANDS[args[0]]) for args in jobs)]
    codes = [both(args, folder / str(i)) for i, args in enumerate(jobs)]
    if codes != [[0, 0]] * len(jobs):
        sys.exit(f"exit codes of the two, job by job: {codes}\n")
