"""Which pages of other origins a browser lets use the API (the Fetch standard, 3.2): what is said of them in every reply,
and the answer to a browser that asks ahead of a request.
"""

import re

from quiver.schemas.config import Cors

from .keys import HeaderLookup
from .limits import Header

# What scripts may read of a reply beside its body and the few fields that are always open to them.
EXPOSED = ", ".join(
    (
        "X-Request-ID",
        "X-Gateway-Server-ID",
        "X-Quiver-Cache",
        "Retry-After",
        "ETag",
        "Location",
        *(
            f"X-RateLimit-{what}-{unit}"
            for unit in ("Requests", "Tokens", "Budget")
            for what in ("Limit", "Remaining", "Reset")
        ),
    )
).encode()

VARY: Header = (b"vary", b"Origin")
ANY = "*"
# A browser that was told nothing of the fields it may send takes what it asked for as the answer.
PREFLIGHT_VARY: Header = (
    b"vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
)
MAX_ASKED = 4096


class CrossOrigin:
    """What `config` allows. Made only where it lists an origin, so that nobody else pays for it."""

    def __init__(self, config: Cors) -> None:
        self._any = ANY in config.origins
        self._origins = frozenset(origin.encode() for origin in config.origins) - {ANY.encode()}
        self._credentials = config.credentials
        self._methods = ", ".join(config.methods).encode()
        self._headers = ", ".join(config.headers).encode() or None
        self._max_age = b"%d" % config.max_age

    def __repr__(self) -> str:
        return f"<CrossOrigin: {'every origin' if self._any else f'{len(self._origins)} origins'}>"

    def headers(self, origin: bytes | None) -> tuple[Header, ...]:
        """What every reply says, errors too, to a request with this `Origin`, or none."""
        allowed = self._allowed(origin)
        if allowed is None:
            return (VARY,)
        said: tuple[Header, ...] = (VARY, (b"access-control-allow-origin", allowed))
        if self._credentials:
            said += ((b"access-control-allow-credentials", b"true"),)
        return (*said, (b"access-control-expose-headers", EXPOSED))

    def preflight(self, header: HeaderLookup) -> list[Header] | None:
        """The answer to an OPTIONS request with which a browser asks whether a page may send another one; None when it is
        something else. Such a question carries no key.
        """
        origin = header(b"origin")
        if origin is None or header(b"access-control-request-method") is None:
            return None
        allowed = self._allowed(origin)
        if allowed is None:
            return [PREFLIGHT_VARY]
        said = [PREFLIGHT_VARY, (b"access-control-allow-origin", allowed)]
        if self._credentials:
            said.append((b"access-control-allow-credentials", b"true"))
        said.append((b"access-control-allow-methods", self._methods))
        fields = self._headers or header(b"access-control-request-headers")
        if fields and len(fields) <= MAX_ASKED:
            said.append((b"access-control-allow-headers", fields))
        # Asked for when the page comes from a more public network than ours: `*` does not mean those.
        if header(b"access-control-request-private-network") == b"true" and origin in self._origins:
            said.append((b"access-control-allow-private-network", b"true"))
        said.append((b"access-control-max-age", self._max_age))
        return said

    def _allowed(self, origin: bytes | None) -> bytes | None:
        if origin is None:
            return None
        if origin in self._origins:
            return origin
        # A page without an origin of its own, such as a local file, is none of the pages that `*` stands for.
        return ANY.encode() if self._any and origin != b"null" else None


def cross_origin(config: Cors) -> CrossOrigin | None:
    """What `config` allows to pages of other origins; None for nothing."""
    return CrossOrigin(config) if config.origins else None


def origin_in(head: bytes) -> bytes | None:
    """The `Origin` in the bytes of a head that was refused, for whoever has to answer it all the same."""
    found = _ORIGIN.search(head.partition(b"\r\n\r\n")[0])
    return None if found is None else found[1]


_ORIGIN = re.compile(rb"(?i)\r\norigin:[ \t]*([!-~]+)[ \t]*(?=\r\n|\Z)")
