"""Choosing a server for a call: who could answer it, who of those is free, and which one the policy picks."""

from collections.abc import Sequence
from random import Random

from quiver.schemas.config import Policy

from .registry import OUT_OF_SERVICE, Backend, Call
from .routing.policies import POLICIES, Draw


class Chooser:
    """Takes places on servers. `turns` are counted for each model, as policies ask."""

    def __init__(self, policy: Policy, random: Random) -> None:
        self._policy, self._random = POLICIES[policy], random
        self._turns: dict[str, int] = {}

    def choose(self, candidates: Sequence[Backend], model: str, affinity: int, now: float) -> Backend | None:
        """One of the most trusted that have a free place, which is then taken."""
        free: list[Backend] = []
        best = OUT_OF_SERVICE + 1
        for backend in candidates:
            if backend.load.full or backend.paused_until(model) > now:
                continue
            tier = backend.tier(now)
            if tier < best:
                best, free = tier, [backend]
            elif tier == best:
                free.append(backend)
        return self.take(free, model, affinity, now) if free else None

    def take(self, free: Sequence[Backend], model: str, affinity: int, now: float) -> Backend:
        """A place on the one that the policy chooses."""
        chosen = free[0]
        if len(free) > 1:
            turn = self._turns.get(model, 0)
            self._turns[model] = turn + 1
            chosen = free[self._policy(free, Draw(turn, now, self._random, affinity))]
        chosen.load.taken()
        return chosen


def worth_trying(backends: Sequence[Backend], call: Call, tried: Sequence[Backend], now: float) -> Sequence[Backend]:
    """Servers that could answer: those in service, or when there is none all of them, as the last is never given up; but
    none that is paused. The length of a call is only guessed, so one that seems to fit nowhere may be tried anywhere.
    """
    able = [backend for backend in backends if backend.serving and backend.takes(call) and backend not in tried]
    best = [backend for backend in able if backend.tier(now) < OUT_OF_SERVICE and backend.fits(call)]
    if not best:
        able = [backend for backend in able if backend.fits(call)] or able
        best = [backend for backend in able if backend.tier(now) < OUT_OF_SERVICE] or able
    return best
