"""Replies that follow something, as server-sent events: each a value as JSON, the last one `DONE`."""

from collections.abc import AsyncIterator

import msgspec
from quart import Request, Response
from quiver.proxy.reply import DONE as DONE

EVENTS = "text/event-stream"
_encode = msgspec.json.Encoder().encode


def wants_events(request: Request) -> bool:
    """Whether `request` asks to follow."""
    return EVENTS in request.headers.get("Accept", "")


def event(value: msgspec.Struct) -> bytes:
    """`value` as one event."""
    return b"data: " + _encode(value) + b"\n\n"


def event_stream(events: AsyncIterator[bytes]) -> Response:
    """A reply that takes as long as `events` come, and that proxies on the way are asked not to hold back."""
    response = Response(events, content_type=f"{EVENTS}; charset=utf-8", headers={"X-Accel-Buffering": "no"})
    response.timeout = None
    return response
