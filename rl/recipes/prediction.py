"""Learners of the values of a given policy."""

from __future__ import annotations

from typing import Any

from rl.recipe import Recipe

AGENTS: dict[str, Recipe] = {}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}
