"""A parsed request, as the session and the ASGI adapter hand it to the exchange handler."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar

import msgspec

# The request that a task works on, for what it logs.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


class Request(msgspec.Struct, frozen=True):
    """One parsed request. `header` looks a field up by its lower-case name; names in `headers` are in
    lower case; `path` is without the query; `peer` is the client's IP address.
    """

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    header: Callable[[bytes], bytes | None]
    peer: str = ""
