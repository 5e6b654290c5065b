"""The ticket: what admission knows of one request. It says who asks for what, and how urgently; it holds no place itself."""

from typing import get_args

import msgspec

from ...schemas.config import Priority

PRIORITIES: tuple[Priority, ...] = get_args(Priority)
LEVELS: dict[Priority, int] = {priority: level for level, priority in enumerate(PRIORITIES)}


class Ticket(msgspec.Struct, eq=False, gc=False):
    """One request. Two tickets are never equal; one may be used again after it has left.

    `model` is what it waits for: where the first in turn finds a model busy, the others of that model are not asked.
    `cost` is the estimate of the tokens of prompt and reply, at least 0. `deadline` is on Trio's clock: the ticket does not
    wait beyond it.
    """

    client: str
    model: str
    priority: Priority = "normal"
    cost: float = 0.0
    deadline: float = float("inf")
    # Written by the queue: its number since it was put there, 0 for a request that never waited.
    arrival: int = 0
