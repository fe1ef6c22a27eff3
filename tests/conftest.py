"""Shapes are checked while the tests run: every jaxtyping annotation of our packages, by beartype."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the tests reach no network

from jaxtyping import install_import_hook

install_import_hook(["backbones", "envs", "rl", "generative", "lab"], "beartype.beartype")
