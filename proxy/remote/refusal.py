"""A server's refusal: its words in OpenAI's envelope, its own when it sent one, ours around its text otherwise."""

from math import ceil

import msgspec
from quiver.schemas import errors
from quiver.schemas.errors import ApiError, ErrorEnvelope, ErrorKind

from .connections import Response

MAX_ERROR = 64 * 1024

KINDS_BY_STATUS: dict[int, ErrorKind] = {
    401: errors.UPSTREAM_UNAUTHORIZED,
    403: errors.UPSTREAM_UNAUTHORIZED,
    429: errors.UPSTREAM_BUSY,
}

_decode_envelope = msgspec.json.Decoder(ErrorEnvelope).decode


class UpstreamRefusal(ApiError):
    """The server answered with an error status. `body` is what the client gets to see of its own mistakes. What the server
    says of its own is for the operator only: it may tell of paths, addresses and stack traces.
    """

    def __init__(self, kind: ErrorKind, status: int, body: bytes, words: str, retry_after: int | None = None) -> None:
        message = words if kind.fault == "client" else f"The model's server answered {status}"
        super().__init__(kind, message, retry_after=retry_after)
        self.status, self.body, self.words = status, body, words


async def read_refusal(response: Response, key: str | None = None) -> UpstreamRefusal:
    """The server's error, in OpenAI's envelope. A 5xx, a 429 and a refused key of ours are not the client's fault. `key` is
    ours: some servers repeat it in their errors, and no client may see it.
    """
    head = response.head
    body = await response.read(MAX_ERROR)
    if key is not None:
        for spelling in (key.encode(), msgspec.json.encode(key)[1:-1]):
            body = body.replace(spelling, b"[redacted]")
    kind = KINDS_BY_STATUS.get(head.status, errors.UPSTREAM_ERROR if head.status >= 500 else errors.UPSTREAM_REFUSED)
    try:
        message = _decode_envelope(body).error.message
    except msgspec.DecodeError:
        text = body[:500].decode("utf-8", "replace").strip() or head.reason.decode("latin-1")
        message = f"The model's server answered {head.status}: {text}"
        body = msgspec.json.encode(ApiError(kind, message).envelope())
    if kind is errors.UPSTREAM_UNAUTHORIZED:
        message = f"The model's server refused the gateway's key ({head.status})"
    return UpstreamRefusal(kind, head.status, body, message, _retry_after(head.header(b"retry-after")))


def _retry_after(value: bytes | None) -> int | None:
    """Whole seconds. A date is not read: the server's clock is not ours."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return ceil(seconds) if 0 <= seconds < 86_400 else None
