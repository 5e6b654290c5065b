"""A parsed request, as the session and the ASGI adapter hand it to the exchange handler."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar

import msgspec

# A client may name its request; anything longer or unprintable is replaced.
MAX_REQUEST_ID = 128
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


def usable_id(given: bytes | None) -> str | None:
    """The name that a client gave its request, if it can be used."""
    if given is not None and 0 < len(given) <= MAX_REQUEST_ID and all(0x21 <= byte <= 0x7E for byte in given):
        return given.decode("ascii")
    return None
