"""Servers that dial in."""

from .operation import ADMIN_FAILURES, Operation

JOIN = (
    Operation(
        "joinServer",
        "get",
        "/admin/join",
        "Offer a server through a WebSocket, as `quiver join` does; takes `join.key` too",
        "administration",
        "application/octet-stream",
        failures=(*ADMIN_FAILURES, 426, 429, 503),
        lock="operator",
        successes={101: "The WebSocket is open"},
    ),
)
