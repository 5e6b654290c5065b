"""Choosing backends: pure functions over a snapshot, no clock and no socket.

Round robin over the healthy ones; those known to be ill come last, since the last server of a model is never given up.
"""

import difflib
from collections.abc import Sequence
from typing import TypeVar

from .registry import Backend

B = TypeVar("B", bound=Backend)


def round_robin(candidates: Sequence[B], turn: int) -> list[B]:
    """`candidates` in the order to try them: healthy first, rotated by `turn`, then unknown, then unhealthy."""
    by_health: dict[str, list[B]] = {"healthy": [], "unknown": [], "unhealthy": []}
    for backend in candidates:
        by_health[backend.health].append(backend)
    return [backend for group in by_health.values() for backend in _rotated(group, turn)]


def _rotated(group: list[B], turn: int) -> list[B]:
    if not group:
        return group
    start = turn % len(group)
    return group[start:] + group[:start]


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name a person most likely meant."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
