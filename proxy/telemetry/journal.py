"""The journal: every change of the gateway is noted here once, which logs it and hands it to whoever keeps it."""

import logging
from collections.abc import Callable
from typing import Any

import structlog
from quiver.schemas.events import Event, EventKind

from ..request import REQUEST_ID
from ..seams import World

Keep = Callable[[Event], None]


class Journal:
    """Takes notes of changes. `keep` gets every event at once, on the event loop, and must not wait."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._log = structlog.get_logger(component="audit")
        self.keep: Keep = lambda event: None

    def __repr__(self) -> str:
        return "<Journal>"

    def note(
        self,
        kind: EventKind,
        subject: str,
        *,
        actor: str | None = None,
        request_id: str | None = None,
        level: int = logging.INFO,
        **details: Any,
    ) -> None:
        """Note one change, which is logged at `level`. `details` must not hold a secret; `request_id` is that of the request
        being answered, if any.
        """
        request_id = request_id or REQUEST_ID.get()
        event = Event(self._world.wall_clock(), kind, subject, actor, request_id, details)
        self._log.log(level, kind, subject=subject, actor=actor, request_id=request_id, **details)
        self.keep(event)
