"""The requests, replies and events that every case of the gateway benchmark sends: one generator, so that cases compare."""

import json
import re

KEY = "sk-bench-0123456789abcdef"
ECHO_MODEL, STREAM_MODEL = "echo", "stream"

MODELS = json.dumps(
    {"object": "list", "data": [{"id": model, "object": "model"} for model in (ECHO_MODEL, STREAM_MODEL)]}
)
COMPLETION = json.dumps(
    {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion",
        "created": 1700000000,
        "model": ECHO_MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14},
    }
)

# An event tells when it was sent: nanoseconds of the monotonic clock, which all processes share, in 19 digits.
STAMP = re.compile(rb"@(\d{19})@")
STAMP_LENGTH = 21
_DIGITS = "0" * 19


def body(content: str, *, model: str, stream: bool = False) -> bytes:
    """A chat request. The echo request is 83 bytes."""
    document: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": content}]}
    if stream:
        document["stream"] = True
    return json.dumps(document, separators=(",", ":")).encode()


ECHO_BODY = body("Say hello in a few words.", model=ECHO_MODEL)


def request(content: bytes) -> bytes:
    """`content` as the body of a complete HTTP request, with the benchmark's key."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def response(content: str) -> bytes:
    """`content` as the body of a complete HTTP response."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return (head + content).encode()


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: str) -> bytes:
    return f"{len(data):x}\r\n{data}\r\n".encode()


def _event(**fields: object) -> str:
    document = {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": STREAM_MODEL,
        **fields,
    }
    return f"data: {json.dumps(document)}\n\n"


def _choice(delta: dict[str, str], finish_reason: str | None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": delta, "finish_reason": finish_reason}]


# A stamped event of 217 bytes as one HTTP chunk, cut where the 19 digits belong.
EVENT_BEFORE, EVENT_AFTER = _chunk(_event(choices=_choice({"content": f" word @{_DIGITS}@"}, None))).split(
    _DIGITS.encode()
)
STREAM_TAIL = (
    _chunk(_event(choices=_choice({}, "stop")))
    + _chunk(_event(choices=[], usage={"prompt_tokens": 12, "completion_tokens": 500, "total_tokens": 512}))
    + _chunk("data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
