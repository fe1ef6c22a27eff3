"""Deep Q-networks that remember: recurrent networks, and a Transformer over a window of history."""

from __future__ import annotations

from typing import Any

from rl.recipe import Recipe

AGENTS: dict[str, Recipe] = {}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}
