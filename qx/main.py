"""`qx`: nouns a person already has in mind, one verb each.

Exit codes: 0 done, 1 the work failed, 2 the request was wrong (one line says what and where; nothing is written).
"""

from __future__ import annotations

import json
import os
import pkgutil
import sys
from collections.abc import Sequence

from lab import console

USAGE = """qx - agents on grids, diffusion models, learning from preferences; every learner beside an exact answer

  qx demo                     all three jobs on the embedded data, with a page of pictures at the end

  qx worlds                   the worlds there are: size, optimal return, source
  qx agents                   the agents there are, family by family
  qx solve WORLD              exact values, policy and optimal return
  qx play WORLD               walk through it by keyboard; --run RUN --gif FILE: record an agent's episodes
  qx train AGENT WORLD        train an agent: interquartile mean, 95% interval, gap to the exact optimum

  qx diffuse DATA             train a diffusion model; --base RUN_OR_FOLDER: fine-tune one
  qx sample RUN_OR_FOLDER     sample it, or any diffusers folder, through the batched denoising loop

  qx pairs check FILE         what a preference file really holds;  qx pairs mazes: write the embedded one
  qx sft DATA                 train a language model on demonstrations; --model FOLDER: one of transformers
  qx dpo PAIRS --model RUN    train it, or a folder of transformers, further on preference pairs
  qx reward PAIRS --model RUN train a reward model on them

  qx bench worlds|attention|dqn|diffusion|dpo
                              ours beside the peers, in one run: steps a second; tokens a second and memory; learning
  qx reproduce NAME           one published claim: the number stated, the number found, a verdict, a picture

  qx eval RUN                 evaluate what a run trained
  qx resume RUN               go on with a run that was interrupted or killed
  qx export RUN --onnx FILE   the policy of its best replica, for programs that know nothing of Python

Every command takes --seed, --device auto|cpu|cuda, --json and --out DIR; `qx COMMAND --help` says more."""


COMMANDS = {
    "demo": "qx.demo:demo",
    "worlds": "qx.worlds:worlds",
    "agents": "qx.agent_list:agents",
    "solve": "qx.solve:solve",
    "play": "qx.play:play",
    "train": "qx.agents:train",
    "diffuse": "qx.diffusion:diffuse",
    "sample": "qx.sample:sample",
    "pairs": "qx.pairs:pairs",
    "sft": "qx.sft:sft",
    "dpo": "qx.dpo:dpo",
    "reward": "qx.reward:reward",
    "bench": "qx.bench:bench",
    "reproduce": "qx.reproduce:reproduce",
    "eval": "qx.runs:evaluate",
    "resume": "qx.runs:resume",
    "export": "qx.artifacts:export",
}
"""Every verb, and where its function from arguments to the result is: only the one asked for is imported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        console.err.print("[bold red]qx:[/] interrupted")
        return 1
    except BrokenPipeError:  # whoever read the output has seen enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest, which is flushed at the very end
        return 1


def _run(args: Sequence[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if args else 2
    console.quiet()
    from qx import processes
    from qx.jobs import WorkFailedError
    from qx.usage import UsageError, choose

    try:
        function = COMMANDS[choose("command", args[0], COMMANDS)]
        processes.begin(args[0])
        result = pkgutil.resolve_name(function)(args[1:])
    except WorkFailedError as error:
        console.err.print(f"[bold red]qx:[/] {console.escape(str(error))}", soft_wrap=True)
        if error.result is not None and "--json" in args:
            print(json.dumps(error.result))
        return 1
    except Exception as error:
        if not isinstance(error, UsageError):  # by far the most; of every room's only an unknown error asks
            from qx.wrong import WRONG_REQUEST

            if not isinstance(error, WRONG_REQUEST):
                raise
        console.err.print(f"[bold red]qx:[/] {console.escape(str(error))}", soft_wrap=True)
        return 2
    if "--json" in args:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
