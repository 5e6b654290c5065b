"""A parsed request, as the session and the ASGI adapter hand it to the exchange handler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed request. `headers` names are lower-case; `path` is without the query."""

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    header: Callable[[bytes], bytes | None]
