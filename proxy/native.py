"""The Rust extension, for the rest of the data plane: the only Python file that imports it."""

from quiver._engine import (
    LAST_CHUNK,
    HttpError,
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
    SseScanner,
    encode_chunk,
    encode_request,
    encode_response,
)

__all__ = [
    "LAST_CHUNK",
    "HttpError",
    "RequestHead",
    "RequestParser",
    "ResponseHead",
    "ResponseParser",
    "SseScanner",
    "encode_chunk",
    "encode_request",
    "encode_response",
]
