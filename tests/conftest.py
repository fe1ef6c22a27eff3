"""Shapes are checked while the tests run: every jaxtyping annotation of our packages, by beartype.

One thread a process: the tests run in as many processes as there are cores, and threads that wait for each other on a
busy machine turn seconds into minutes.
"""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the tests reach no network
os.environ["QUINCUNX_CACHE"] = tempfile.mkdtemp(prefix="quincunx-tests-")  # nor leave anything at home

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

install_import_hook(["backbones", "envs", "rl", "generative", "lab", "experiments"], "beartype.beartype")
