"""A remote server behind scripted sockets: what is sent to it, and what becomes of everything it may answer."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import pytest
import trio
from quiver.proxy.registry import Call
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.reply import Reply
from quiver.proxy.testing import RecordingDownstream
from quiver.schemas.config import Limits
from quiver.schemas.config import RemoteBackend as RemoteConfig
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import Usage

BODY = b'{"model": "m",  "messages": [], "unknown": {"kept": 1e3}}'
JSON_REPLY = b'{"id": "x", "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}'
Answer = Callable[[trio.SocketStream], Awaitable[None]]


def response(status: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def events(*data: bytes) -> bytes:
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in data]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(chunks) + b"0\r\n\r\n"


class ScriptedServer:
    """Reads a request, answers the next bytes of its script, and closes after an answer that ends in `None`."""

    def __init__(self, script: Sequence[bytes | None]) -> None:
        self._script = list(script)
        self.requests: list[bytes] = []
        self.connections = 0
        self.departed = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            while await self._read_request(stream):
                answer = self._script.pop(0)
                if answer is None:
                    return
                await stream.send_all(answer)
                if self._script and self._script[0] is None:
                    self._script.pop(0)
                    break
        self.departed.set()

    async def _read_request(self, stream: trio.SocketStream) -> bool:
        received = b""
        while b"\r\n\r\n" not in received or not received.endswith((b"}", b"\r\n\r\n")):
            data = await stream.receive_some()
            if not data:
                self.departed.set()
                return False
            received += data
        self.requests.append(received)
        return True


@asynccontextmanager
async def serving(
    *script: bytes | None, limits: Limits | None = None
) -> AsyncIterator[tuple[ScriptedServer, RemoteServer]]:
    """A scripted server on a free port and the backend that talks to it."""
    server = ScriptedServer(script)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        config = RemoteConfig(url=f"http://127.0.0.1:{port}", name="remote", models=("m",))
        remote = RemoteServer(config, "upstream-key", limits or Limits())
        yield server, remote
        await remote.aclose()
        nursery.cancel_scope.cancel()


def call(*headers: tuple[bytes, bytes], stream: bool = False) -> Call:
    return Call("chat/completions", "m", stream, BODY, headers, "req_1", "")


async def forward(remote: RemoteServer, what: Call | None = None) -> tuple[RecordingDownstream, Usage | None]:
    downstream = RecordingDownstream()
    reply = Reply(downstream, "req_1")
    await remote.forward(what or call(), reply)
    return downstream, reply.usage


async def test_body_travels_untouched() -> None:
    async with serving(response(b"200 OK", JSON_REPLY)) as (server, remote):
        headers = [(b"content-type", b"application/json"), (b"x-custom", b"yes"), (b"traceparent", b"00-ab")]
        private = [(b"authorization", b"Bearer client-key"), (b"cookie", b"c=1"), (b"x-forwarded-for", b"10.0.0.1")]
        downstream, usage = await forward(remote, call(*headers, *private, (b"connection", b"x-hop"), (b"x-hop", b"1")))
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == BODY
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    lowered = head.lower()
    assert b"authorization: bearer upstream-key" in lowered
    assert b"x-custom: yes" in lowered
    assert b"traceparent: 00-ab" in lowered
    assert [word for word in (b"client-key", b"cookie", b"forwarded", b"x-hop") if word in lowered] == []
    assert (downstream.status, downstream.body, usage) == (200, JSON_REPLY, Usage(1, 2, 3))
    assert remote.health == "healthy"


@pytest.mark.parametrize(
    ("request_id", "told"),
    [("6f1c2d3e-0000-4000-8000-0123456789ab", True), ("mine", False), ("req_" + "0" * 32, False)],
)
async def test_only_uuids_are_told(request_id: str, told: bool) -> None:
    """llama-cpp-python's server answers 400 to an `X-Request-ID` that is no UUID."""
    async with serving(response(b"200 OK", JSON_REPLY)) as (server, remote):
        await forward(remote, Call("chat/completions", "m", False, BODY, [], request_id, ""))
    assert (b"x-request-id: " + request_id.encode() in server.requests[0].lower()) == told


async def test_connection_is_reused() -> None:
    reply = response(b"200 OK", JSON_REPLY)
    async with serving(reply, reply, reply) as (server, remote):
        for _ in range(3):
            await forward(remote)
        assert (server.connections, len(server.requests)) == (1, 3)


async def test_stale_connection_is_replaced() -> None:
    reply = response(b"200 OK", JSON_REPLY)
    async with serving(reply, None, reply) as (server, remote):
        await forward(remote)
        await server.departed.wait()
        downstream, _ = await forward(remote)
        assert (downstream.status, server.connections) == (200, 2)


async def test_stream_is_relayed_with_usage() -> None:
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}\n\n'
    pieces = (b"data: on", b"e\n\n", usage, b"data: [DONE]\n\n")
    async with serving(events(*pieces)) as (_, remote):
        downstream, found = await forward(remote, call(stream=True))
    assert downstream.body == b"".join(pieces)
    assert found == Usage(1, 2, 3)
    assert downstream.ended


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (b"400 Bad Request", b'{"error": {"message": "too long", "type": "t", "code": "c"}}', "too long"),
        (b"404 Not Found", b"<html>nope</html>", "answered 404: <html>nope</html>"),
        (b"429 Too Many Requests", b"", "answered 429: Too Many Requests"),
    ],
)
async def test_refusals_are_passed_on(status: bytes, body: bytes, message: str) -> None:
    async with serving(response(status, body)) as (_, remote):
        downstream, _usage = await forward(remote)
    assert downstream.status == int(status[:3])
    assert message in msgspec.json.decode(downstream.body)["error"]["message"]
    assert remote.health == "unknown", "a client's mistake says nothing about the server"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([response(b"500 Oops", b"boom")], "upstream_error"),
        ([None], "upstream_truncated"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", None], "upstream_truncated"),
        ([b"garbage\r\n\r\n"], "upstream_malformed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"], "upstream_malformed"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], "upstream_malformed"),
    ],
)
async def test_faults_are_the_servers(script: list[bytes | None], code: str) -> None:
    async with serving(*script) as (_, remote):
        with pytest.raises(ApiError) as caught:
            await forward(remote)
    assert (caught.value.kind.code, caught.value.kind.fault) == (code, "upstream")
    assert remote.health == "unhealthy"


async def test_cut_stream_is_an_error_after_whole_events() -> None:
    script = events(b"data: one\n\n", b"data: tw").removesuffix(b"0\r\n\r\n")
    async with serving(script, None) as (_, remote):
        downstream = RecordingDownstream()
        with pytest.raises(ApiError) as caught:
            await remote.forward(call(stream=True), Reply(downstream, "req_1"))
    assert downstream.body == b"data: one\n\n"
    assert caught.value.kind.code == "upstream_truncated"


async def test_refused_connection_is_unreachable() -> None:
    async with serving() as (_, remote):
        pass
    with pytest.raises(ApiError) as caught:
        await forward(remote)
    assert caught.value.kind.code == "upstream_unreachable"
    assert caught.value.message.endswith("connection refused")


@pytest.mark.parametrize("limits", [Limits(first_byte=0.05), Limits(idle=0.05)])
async def test_silence_times_out(limits: Limits) -> None:
    answer = b"" if limits.first_byte < 1 else b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
    async with serving(answer or b"HT", limits=limits) as (_, remote):
        with pytest.raises(ApiError) as caught:
            await forward(remote)
    assert caught.value.kind.code == "upstream_timeout"


async def test_cancellation_closes_upstream() -> None:
    async with serving(events(b"data: one\n\n").removesuffix(b"0\r\n\r\n")) as (server, remote):
        with trio.move_on_after(0.1):
            await forward(remote, call(stream=True))
        with trio.fail_after(5):
            await server.departed.wait()


@pytest.mark.parametrize(
    ("reply", "health", "models"),
    [
        (
            response(b"200 OK", b'{"object": "list", "data": [{"id": "a"}, {"id": "bad name"}, {"id": "a"}]}'),
            "healthy",
            ("a",),
        ),
        (response(b"200 OK", b'{"data": "no"}'), "unhealthy", ()),
        (response(b"200 OK", b"not json"), "unhealthy", ()),
        (response(b"401 Unauthorized", b""), "unhealthy", ()),
    ],
)
async def test_probe_finds_models(reply: bytes, health: str, models: tuple[str, ...]) -> None:
    async with serving(reply) as (server, remote):
        remote._fixed_models = ()
        await remote.probe()
    assert (remote.health, remote.models) == (health, models)
    assert server.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
