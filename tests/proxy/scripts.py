"""What requests are made of, what scripted backends do with them, and asking a handler."""

from typing import Any

import msgspec
import pytest
import trio
from quiver.proxy.registry import Call
from quiver.proxy.reply import DownstreamGone, Reply
from quiver.proxy.testing import RecordingDownstream, ScriptedBackend, request
from quiver.schemas.config import Key
from quiver.schemas.errors import ApiError, ErrorKind
from quiver.schemas.openai import Usage

from .conftest import Exchanges
from .servers import Said, response

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
STREAM = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
SHARED = b'{"model": "m", "stream": true, "temperature": 0, "messages": [{"role": "user", "content": "hi"}]}'
SHARED_JSON = SHARED.replace(b'"stream": true, ', b"")
WORDS = [b'data: {"n": %d}\n\n' % number for number in range(5)]
LAST = b"data: [DONE]\n\n"
ANSWER = b"".join(WORDS) + LAST
WHOLE = response(b"200 OK", b'{"ok": true}')
OK = Said(WHOLE)
ALICE, BOB = (b"authorization", b"Bearer sk-alice-key"), (b"authorization", b"Bearer sk-bob-key")
KEYS = (
    Key(name="alice", key="sk-alice-key", models=("m", "gpt")),
    Key(name="bob", key="sk-bob-key"),
)


async def whole(call: Call, reply: Reply) -> None:
    await reply.complete(200, b'{"ok": true}')
    reply.usage = Usage(3, 4, 7)


async def streamed(call: Call, reply: Reply) -> None:
    """Five words, one a second, and the end."""
    for word in WORDS:
        await trio.sleep(1)
        await reply.send_events(word)
    reply.usage = Usage(3, 5, 8)
    await reply.end_stream(LAST)


async def forever(call: Call, reply: Reply) -> None:
    await trio.sleep_forever()


def failing(kind: ErrorKind, after: float = 0.0) -> Any:
    async def script(call: Call, reply: Reply) -> None:
        await trio.sleep(after)
        raise ApiError(kind, "scripted failure")

    return script


def lasting(seconds: float) -> Any:
    async def script(call: Call, reply: Reply) -> None:
        await trio.sleep(seconds)
        await whole(call, reply)

    return script


def saying(said: Said) -> Any:
    return lambda asked: said


def code_of(downstream: RecordingDownstream) -> str:
    found: str = msgspec.json.decode(downstream.body)["error"]["code"]
    return found


async def ask(
    handler: Exchanges,
    body: bytes = BODY,
    *headers: tuple[bytes, bytes],
    downstream: RecordingDownstream | None = None,
    path: str = "/v1/chat/completions",
) -> RecordingDownstream:
    downstream = downstream or RecordingDownstream()
    await handler.handle(request("POST", path, body, headers), downstream)
    return downstream


async def ask_and_leave(handler: Exchanges, body: bytes, after: float, *headers: tuple[bytes, bytes]) -> None:
    """A client that leaves while it waits."""
    downstream = RecordingDownstream()

    async def leave() -> None:
        await trio.sleep(after)
        downstream.left.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        with pytest.raises(DownstreamGone):
            await ask(handler, body, *headers, downstream=downstream)


async def uncounted(call: Call, reply: Reply) -> None:
    await reply.send_events(WORDS[0])
    await reply.end_stream(LAST)


async def counted(call: Call, reply: Reply) -> None:
    reply.usage = Usage(100, 900, 1000)
    await uncounted(call, reply)


def one_at_a_time(script: Any) -> ScriptedBackend:
    backend = ScriptedBackend("b", ["m"], script)
    backend.load.limit = 1
    return backend
