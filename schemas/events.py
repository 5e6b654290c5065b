"""What an operator may want to know later: every change of the gateway, who made it, and every turn its servers took."""

from typing import Any, Literal

import msgspec

EventKind = Literal[
    "gateway.started",
    "gateway.stopped",
    "server.registered",
    "server.changed",
    "server.deregistered",
    "server.paused",
    "server.resumed",
    "server.draining",
    "server.drained",
    "server.state",
    "server.joined",
    "server.left",
    "server.link_lost",
    "server.link_back",
    "key.created",
    "key.changed",
    "key.rotated",
    "key.revoked",
    "model.loaded",
    "model.failed",
    "model.unloaded",
    "model.removed",
    "config.changed",
    "config.refused",
    "log.level",
    "auth.refused",
    "store.degraded",
    "store.recovered",
    "history.deleted",
]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change. `at`: Unix time. `subject`: what was changed, by its id; `actor`: who did it, a name or an address, null
    when the gateway did it by itself. `details` never hold a secret.
    """

    at: float
    kind: EventKind
    subject: str
    actor: str | None = None
    request_id: str | None = None
    details: dict[str, Any] = {}
