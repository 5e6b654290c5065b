"""Which requests may be given the same answer, and what their clients said about it.

Pure functions over a request's fields. Two requests have one identity only if every parameter agrees and both come from the
same scope: nobody is ever given an answer that was made for somebody else.
"""

from hashlib import blake2b

import msgspec

IDENTITY_BYTES = 32


class Directives(msgspec.Struct, frozen=True):
    """What one request allows: `share` an answer that is in flight, `read` a kept one, `store` its own for others.
    `max_age`: the oldest kept answer it takes, in seconds.
    """

    share: bool = True
    read: bool = True
    store: bool = True
    max_age: float | None = None


ALLOW_ALL = Directives()
ALLOW_NOTHING = Directives(share=False, read=False, store=False)


def repeatable(temperature: float | None, seed: int | None, n: int | None) -> bool:
    """Whether the same request asks for the same answer: temperature 0, or a seed.

    A seed alone does not fix several choices: how each one's randomness derives from it is the server's own affair.
    """
    return temperature == 0 or (seed is not None and n in (None, 1))


def identity(scope: str, endpoint: str, body: bytes) -> bytes:
    """The same 32 bytes for requests of one `scope` to one `endpoint` whose bodies are the same JSON value, whatever the
    order of keys and the white space between them. Of a key that comes twice in an object the last counts, as for most
    servers. A body that cannot be decoded is like nothing but itself.
    """
    digest = blake2b(msgspec.json.encode([scope, endpoint]), digest_size=IDENTITY_BYTES)
    digest.update(_canonical(body))
    return digest.digest()


def directives(cache_control: bytes | None, opt_out: bytes | None) -> Directives:
    """What a request's `Cache-Control` (RFC 9111, 5.2.1) and `X-Quiver-Share` headers ask for.

    `no-store` also keeps the request from sharing: the answer would be kept for whom it is shared with. `only-if-cached` and
    what is not known are ignored.
    """
    if opt_out is not None and opt_out.strip().lower() == b"off":
        return ALLOW_NOTHING
    if cache_control is None:
        return ALLOW_ALL
    asked = [directive.strip() for directive in cache_control.lower().split(b",")]
    ages = [_seconds(directive[8:]) for directive in asked if directive.startswith(b"max-age=")]
    may_store = b"no-store" not in asked
    return Directives(may_store, b"no-cache" not in asked, may_store, min(ages, default=None))


def _canonical(body: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body


def _seconds(value: bytes) -> float:
    """Whole seconds. What is not a number of them counts as 0: RFC 9111, 4.2.1 takes invalid freshness for stale."""
    digits = value.strip(b'"')
    return float(digits) if digits.isdigit() else 0.0
