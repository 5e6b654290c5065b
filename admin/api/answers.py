"""The control plane's replies."""

import msgspec
from quart import Response


def json_reply(value: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as JSON."""
    return Response(msgspec.json.encode(value), status, headers, content_type="application/json")
