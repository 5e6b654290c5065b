"""Policies: pure functions that choose one of several backends, without a clock, a socket or a memory of their own.

Candidates are those that may take the request now: of the best health there is, not full, not tried before. A policy never
sees the others and never refuses. Each costs a few microseconds, since it runs for every request.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec

from ...schemas import config
from .load import Load

# How far above the mean a backend may be loaded before requests that belong to it go elsewhere: the factor of "Consistent
# Hashing with Bounded Loads" (Mirrokni, Thorup, Zadimoghaddam 2017) as HAProxy and Vimeo run it.
BOUND = 1.25
# Faster first tokens than this all count the same, lest an idle backend, whose estimate fades to nothing, gets a whole burst.
LEAST_SECONDS = 0.05


class Candidate(Protocol):
    """What a policy may know of a backend."""

    @property
    def id(self) -> str: ...

    @property
    def load(self) -> Load: ...


class Randomness(Protocol):
    """Where chance comes from: `random.Random` does."""

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""
        ...


class Draw(msgspec.Struct, frozen=True, gc=False):
    """What one choice depends on, apart from the candidates.

    `turn` counts the choices made for one model: counted over several, two models asked for in turn would each always get the
    same backend. `now` is Trio's clock in seconds. `affinity` is a 64-bit hash that requests have in common which should meet
    the same backend; 0 for none.
    """

    turn: int
    now: float
    random: Randomness
    affinity: int = 0


# The index of the chosen one among candidates, of which there is at least one.
Policy = Callable[[Sequence[Candidate], Draw], int]


def round_robin(candidates: Sequence[Candidate], draw: Draw) -> int:
    """Each in turn."""
    return draw.turn % len(candidates)


def weighted(candidates: Sequence[Candidate], draw: Draw) -> int:
    """Each by its weight, evenly spread: with whole weights, any `sum(weights)` turns in a row hold each one's exact share.

    A backend of weight w is due at the moments (k + 1/2) / w for k = 0, 1, ... Turn t goes to the t-th moment of all of them.
    Sainte-Laguë's rule for seats in a parliament, computed around turn t instead of from the beginning.
    """
    count = len(candidates)
    total = 0.0
    for candidate in candidates:
        total += candidate.load.weight
    # By the moment t / total about t turns have passed: each backend is off by half a turn at most, rounding by less than one.
    slack = count / 2 + 1
    begin, end = (draw.turn - slack) / total, (draw.turn + slack) / total
    passed = 0
    moments: list[tuple[float, int]] = []
    for index, candidate in enumerate(candidates):
        weight = candidate.load.weight
        turns = max(0, int(weight * begin + 0.5))
        passed += turns
        while (moment := (turns + 0.5) / weight) <= end:
            moments.append((moment, index))
            turns += 1
    moments.sort()
    return moments[draw.turn - passed][1]


def least_in_flight(candidates: Sequence[Candidate], draw: Draw) -> int:
    """The one with the least pressure; among equals the next by turn."""
    count = len(candidates)
    chosen = draw.turn % count
    least = candidates[chosen].load.pressure()
    for step in range(draw.turn + 1, draw.turn + count):
        index = step % count
        pressure = candidates[index].load.pressure()
        if pressure < least:
            chosen, least = index, pressure
    return chosen


def peak_ewma(candidates: Sequence[Candidate], draw: Draw) -> int:
    """Of two drawn at random, the one that should give a first token sooner: its usual time for each request in line.

    Two choices and no more (Mitzenmacher): choosing the best of all sends everybody to the same one.
    """
    count = len(candidates)
    if count == 1:
        return 0
    one = int(draw.random.random() * count)
    other = int(draw.random.random() * (count - 1))
    other += other >= one
    return other if _wait(candidates[other].load, draw.now) < _wait(candidates[one].load, draw.now) else one


def _wait(load: Load, now: float) -> float:
    return max(load.first_token.value(now), LEAST_SECONDS) * (load.pressure() + 1)


def rendezvous(candidates: Sequence[Candidate], draw: Draw) -> int:
    """The backend that `draw.affinity` belongs to, unless it is too busy; then the next that it belongs to.

    Rendezvous hashing: a backend that leaves gives away only what belonged to it. None gets a request while it has `BOUND`
    times the mean load, so that what many share spreads over as many backends as it needs. Without an affinity: each in turn.
    """
    count = len(candidates)
    if not draw.affinity:
        return draw.turn % count
    pressures = [candidate.load.pressure() for candidate in candidates]
    # With the request that is coming. The least loaded one is below the mean, so that one is always found.
    most = BOUND * (sum(pressures) + 1) / count
    key = draw.affinity.to_bytes(8, "big")
    chosen, highest = 0, b""
    for index, candidate in enumerate(candidates):
        if pressures[index] < most:
            score = blake2b(candidate.id.encode(), digest_size=8, key=key).digest()
            if score > highest:
                chosen, highest = index, score
    return chosen


# The two affinities differ in what is hashed, not in what is done with it.
POLICIES: dict[config.Policy, Policy] = {
    "round_robin": round_robin,
    "weighted": weighted,
    "least_in_flight": least_in_flight,
    "peak_ewma": peak_ewma,
    "prefix_affinity": rendezvous,
    "session_affinity": rendezvous,
}
