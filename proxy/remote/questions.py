"""Asking a server what it is: a handful of cheap questions, all at the same time. `detection` makes sense of the answers.

No question loads a model. Requests that name no model are refused by every server before it does anything, and how they are
refused says whether a path is served and whether it takes a key.
"""

from math import inf

import trio
from quiver.schemas.config import Limits
from quiver.schemas.errors import ApiError
from quiver.schemas.servers import Detection

from ..native import encode_request
from ..watch import Watch
from .connections import OpenWire, Origin, Upstream
from .detection import Answer, detection

# An answer is read no further. The longest are descriptions of a server's own API.
MAX_ANSWER = 2 * 1024 * 1024
# Paths below the server's root, and whether the gateway's key goes with them.
QUESTIONS: dict[str, tuple[str, bool]] = {
    "models": ("/v1/models", True),
    "models without key": ("/v1/models", False),
    "version": ("/version", True),
    "health": ("/health", True),
    "metrics": ("/metrics", True),
    "description": ("/openapi.json", True),
    "llama.cpp": ("/props", True),
    "lm-studio": ("/api/v0/models", True),
    "ollama": ("/api/version", True),
    "ollama loaded": ("/api/ps", True),
}
# Requests without a model, nor a key: see above.
EMPTY = ("chat/completions", "completions", "embeddings")


async def ask(origin: Origin, api_key: str | None, limits: Limits, open_wire: OpenWire, seconds: float) -> Detection:
    """What listens at `origin`. Takes `seconds` at most; who has not answered by then is as if it had nothing to say."""
    upstream, answers = Upstream(origin, limits, open_wire), dict[str, Answer]()
    root = origin.base.removesuffix("/v1")

    async def put(name: str, method: str, path: str, with_key: bool, body: bytes | None) -> None:
        answer = await _answer(upstream, method, root + path, api_key if with_key else None, body)
        if answer is not None:
            answers[name] = answer

    try:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for name, (path, with_key) in QUESTIONS.items():
                    nursery.start_soon(put, name, "GET", path, with_key, None)
                for endpoint in EMPTY:
                    nursery.start_soon(put, endpoint, "POST", f"/v1/{endpoint}", False, b"{}")
                    if api_key is not None:
                        nursery.start_soon(put, f"{endpoint} with key", "POST", f"/v1/{endpoint}", True, b"{}")
    finally:
        upstream.close()
    return detection(answers)


async def _answer(
    upstream: Upstream, method: str, target: str, api_key: str | None, body: bytes | None
) -> Answer | None:
    """What the server says; None when it says nothing, or too much."""
    headers = [(b"host", upstream.origin.authority.encode()), (b"accept", b"*/*")]
    if api_key is not None:
        headers.append((b"authorization", b"Bearer " + api_key.encode()))
    if body is not None:
        headers.append((b"content-type", b"application/json"))
    try:
        watch = Watch(trio.current_time(), inf)  # `ask` has a time limit around it
        response = await upstream.request(encode_request(method, target, headers, body), method, watch)
        try:
            head = response.head
            return Answer(head.status, head.header(b"server") or b"", await response.read(MAX_ANSWER))
        finally:
            response.finish()
    except ApiError:
        return None
