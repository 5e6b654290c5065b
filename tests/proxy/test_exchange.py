"""One request through the handler, for every way it can end: exactly one reply, exactly one record."""

from typing import Any

import msgspec
import pytest
import trio
from quiver.proxy.exchange import ExchangeHandler
from quiver.proxy.registry import Call
from quiver.proxy.reply import DownstreamGone, Headers, Reply
from quiver.proxy.testing import RecordingDownstream, ScriptedBackend, request
from quiver.schemas import errors
from quiver.schemas.config import Config, Key, Rate
from quiver.schemas.errors import ApiError, ErrorKind
from quiver.schemas.openai import Usage

from .conftest import Build, records

CHAT = "/v1/chat/completions"
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
STREAM = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'


async def whole(call: Call, reply: Reply) -> None:
    await reply.complete(200, b'{"ok": true}')
    reply.usage = Usage(3, 4, 7)


async def streamed(call: Call, reply: Reply) -> None:
    for word in (b"data: one\n\n", b"data: two\n\n", b"data: [DONE]\n\n"):
        await reply.send_events(word)
    await reply.end_stream()


def failing(kind: ErrorKind, events: bytes = b"") -> Any:
    async def script(call: Call, reply: Reply) -> None:
        if events:
            await reply.send_events(events)
        raise ApiError(kind, "scripted failure")

    return script


def error_of(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(body)["error"]
    return found


async def post(handler: ExchangeHandler, body: bytes, *headers: tuple[bytes, bytes]) -> RecordingDownstream:
    downstream = RecordingDownstream()
    await handler.handle(request("POST", CHAT, body, headers), downstream)
    return downstream


async def test_reply_passes_through(build: Build) -> None:
    backend = ScriptedBackend("b1", ["m"], whole)
    handler = build([backend])
    downstream = await post(handler, BODY, (b"x-request-id", b"mine"))
    assert (downstream.status, downstream.body) == (200, b'{"ok": true}')
    assert downstream.headers[b"x-gateway-server-id"] == b"b1"
    assert downstream.headers[b"x-request-id"] == b"mine"
    assert backend.calls[0].body == BODY
    (record,) = records(handler)
    assert (record.outcome, record.usage, record.request_id) == ("completed", Usage(3, 4, 7), "mine")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "param"),
    [
        ("POST", CHAT, b"{", 400, "invalid_json", None),
        ("POST", CHAT, b"", 400, "invalid_json", None),
        ("POST", CHAT, b"\xff\xfe", 400, "invalid_json", None),
        ("POST", CHAT, b"[]", 400, "invalid_request", None),
        ("POST", CHAT, b'{"messages": []}', 400, "invalid_request", "model"),
        ("POST", CHAT, b'{"model": 7, "messages": []}', 400, "invalid_request", "model"),
        ("POST", CHAT, b'{"model": "a b", "messages": []}', 400, "invalid_request", "model"),
        ("POST", CHAT, b'{"model": "m"}', 400, "invalid_request", "messages"),
        ("POST", "/v1/completions", b'{"model": "m"}', 400, "invalid_request", "prompt"),
        ("POST", CHAT, b'{"model": "mm", "messages": []}', 404, "model_not_found", "model"),
        ("GET", CHAT, b"", 405, "method_not_allowed", None),
        ("GET", "/v1/nothing", b"", 404, "not_found", None),
        ("GET", "/v1/models/other", b"", 404, "model_not_found", "model"),
    ],
)
async def test_bad_requests_say_what(
    build: Build, method: str, path: str, body: bytes, status: int, code: str, param: str | None
) -> None:
    handler, downstream = build([ScriptedBackend("b1", ["m"], whole)]), RecordingDownstream()
    await handler.handle(request(method, path, body), downstream)
    error = error_of(downstream.body)
    assert (downstream.status, error["code"], error["param"]) == (status, code, param)
    assert [record.outcome for record in records(handler)] == ["failed"]


async def test_unknown_model_suggests_nearest(build: Build) -> None:
    handler = build([ScriptedBackend("b1", ["llama3.2"], whole)])
    downstream = await post(handler, BODY.replace(b'"m"', b'"lama3.2"'))
    assert "`llama3.2`" in error_of(downstream.body)["message"]


async def test_models_are_listed(build: Build) -> None:
    handler = build([ScriptedBackend("b1", ["m", "n"], whole), ScriptedBackend("b2", ["n", "o"], whole)])
    downstream = RecordingDownstream()
    await handler.handle(request("GET", "/v1/models"), downstream)
    assert [card["id"] for card in msgspec.json.decode(downstream.body)["data"]] == ["m", "n", "o"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"authorization", b"Bearer sk-right-key")], 200),
        ([(b"authorization", b"bearer   sk-right-key")], 200),
        ([(b"x-api-key", b"sk-right-key")], 200),
        ([(b"authorization", b"Bearer sk-wrong-key")], 401),
        ([(b"authorization", b"Basic sk-right-key")], 401),
        ([], 401),
    ],
)
async def test_keys_are_checked(build: Build, headers: list[tuple[bytes, bytes]], status: int) -> None:
    handler = build([ScriptedBackend("b1", ["m"], whole)], keys=["sk-right-key"])
    downstream = await post(handler, BODY, *headers)
    assert downstream.status == status
    assert (downstream.headers.get(b"www-authenticate") == b"Bearer") == (status == 401)


async def test_anonymous_addresses_are_limited(build: Build, autojump_clock: trio.abc.Clock) -> None:
    handler = build([ScriptedBackend("b1", ["m"], whole)], config=Config(rate=Rate(anonymous_requests_per_minute=3)))

    async def ask(peer: str) -> RecordingDownstream:
        downstream = RecordingDownstream()
        await handler.handle(msgspec.structs.replace(request("POST", CHAT, BODY), peer=peer), downstream)
        return downstream

    told = [await ask("203.0.113.1") for _ in range(4)]
    assert [downstream.status for downstream in told] == [200, 200, 200, 429]
    remaining = [downstream.headers[b"x-ratelimit-remaining-requests"] for downstream in told]
    assert remaining == [b"2", b"1", b"0", b"0"]
    assert error_of(told[-1].body)["code"] == "rate_limit_exceeded"
    assert (await ask("203.0.113.2")).status == 200, "another address has its own limit"
    assert [(await ask("127.0.0.1")).status for _ in range(5)] == [200] * 5, "this machine has none"
    await trio.sleep(int(told[-1].headers[b"retry-after"]))
    assert (await ask("203.0.113.1")).status == 200
    assert records(handler)[3].client == "anonymous"


async def test_key_has_its_own_limit(build: Build) -> None:
    keys = (
        Key(name="alice", key="sk-alice-key", requests_per_minute=2),
        Key(name="bob", key="sk-bob-key"),
    )
    handler = build([ScriptedBackend("b1", ["m"], whole)], config=Config(keys=keys))
    alice = [await post(handler, BODY, (b"x-api-key", b"sk-alice-key")) for _ in range(3)]
    assert [downstream.status for downstream in alice] == [200, 200, 429]
    bob = await post(handler, BODY, (b"x-api-key", b"sk-bob-key"))
    assert (bob.status, [name for name in bob.headers if name.startswith(b"x-ratelimit")]) == (200, [])
    assert [record.client for record in records(handler)] == ["alice", "alice", "alice", "bob"]


async def test_limits_are_told_once(build: Build) -> None:
    class Strict(RecordingDownstream):
        async def send_response(self, status: int, headers: Headers, body: bytes | None) -> None:
            names = [name for name, _ in headers]
            assert len(set(names)) == len(names), names
            await super().send_response(status, headers, body)

    key = Key(name="alice", key="sk-alice-key", requests_per_minute=3, tokens_per_minute=600)
    handler = build([ScriptedBackend("b1", ["m"], whole)], config=Config(keys=(key,)))
    statuses = []
    for _ in range(4):
        downstream = Strict()
        long = BODY.replace(b'"m"', b'"m", "max_tokens": 300')
        await handler.handle(request("POST", CHAT, long, [(b"x-api-key", b"sk-alice-key")]), downstream)
        statuses.append(downstream.status)
        assert b"x-ratelimit-remaining-requests" in downstream.headers
    assert statuses == [200, 200, 200, 429]


async def test_requests_rotate(build: Build) -> None:
    backends = [ScriptedBackend(f"b{number}", ["m"], whole) for number in range(3)]
    handler = build(backends)
    for _ in range(9):
        await post(handler, BODY)
    assert [len(backend.calls) for backend in backends] == [3, 3, 3]


async def test_failure_moves_to_next(build: Build) -> None:
    broken = ScriptedBackend("b1", ["m"], failing(errors.UPSTREAM_TRUNCATED))
    handler = build([broken, ScriptedBackend("b2", ["m"], whole)])
    downstream = await post(handler, BODY)
    assert (downstream.status, downstream.headers[b"x-gateway-server-id"]) == (200, b"b2")
    assert records(handler)[0].attempts == 2


async def test_nothing_is_retried_after_content(build: Build) -> None:
    cut = ScriptedBackend("b1", ["m"], failing(errors.UPSTREAM_TRUNCATED, b"data: one\n\n"))
    other = ScriptedBackend("b2", ["m"], streamed)
    handler = build([cut, other])
    downstream = await post(handler, STREAM)
    first, last = downstream.body.split(b"\n\n")[:2]
    assert first == b"data: one"
    assert error_of(last.removeprefix(b"data: "))["code"] == "upstream_truncated"
    assert (other.calls, downstream.ended) == ([], True)
    (record,) = records(handler)
    assert (record.outcome, record.error, record.status) == ("failed", "upstream_truncated", 200)


async def test_client_faults_are_not_retried(build: Build) -> None:
    refusing = ScriptedBackend("b1", ["m"], failing(errors.CONTEXT_LENGTH_EXCEEDED))
    other = ScriptedBackend("b2", ["m"], whole)
    downstream = await post(build([refusing, other]), BODY)
    assert (downstream.status, other.calls) == (400, [])


async def test_attempts_are_bounded(build: Build) -> None:
    backends = [ScriptedBackend(f"b{number}", ["m"], failing(errors.UPSTREAM_UNREACHABLE)) for number in range(5)]
    downstream = await post(build(backends), BODY)
    assert sum(len(backend.calls) for backend in backends) == 3
    assert (downstream.status, error_of(downstream.body)["code"]) == (503, "no_healthy_backend")
    assert downstream.headers[b"retry-after"] == b"5"


async def test_deadline_ends_request(build: Build, autojump_clock: trio.abc.Clock) -> None:
    async def forever(call: Call, reply: Reply) -> None:
        await trio.sleep_forever()

    downstream = await post(build([ScriptedBackend("b1", ["m"], forever)]), BODY)
    assert (downstream.status, error_of(downstream.body)["code"]) == (504, "deadline_exceeded")


async def test_silence_is_broken_by_heartbeats(build: Build, autojump_clock: trio.abc.Clock) -> None:
    async def slow(call: Call, reply: Reply) -> None:
        await trio.sleep(40)
        await streamed(call, reply)

    downstream = await post(build([ScriptedBackend("b1", ["m"], slow)]), STREAM)
    assert downstream.body.startswith(b": heartbeat\n\n: heartbeat\n\ndata: one\n\n")


async def test_retry_after_heartbeat_is_allowed(build: Build, autojump_clock: trio.abc.Clock) -> None:
    async def slow_failure(call: Call, reply: Reply) -> None:
        await trio.sleep(20)
        raise ApiError(errors.UPSTREAM_TIMEOUT, "too slow")

    handler = build([ScriptedBackend("b1", ["m"], slow_failure), ScriptedBackend("b2", ["m"], streamed)])
    downstream = await post(handler, STREAM)
    assert downstream.body == b": heartbeat\n\ndata: one\n\ndata: two\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize(
    ("status", "end"), [(200, b'data: {"a": [1,2]}\n\ndata: [DONE]\n\n'), (400, b'data: {"a": [1,2]}\n\n')]
)
async def test_whole_reply_after_heartbeat_is_an_event(
    build: Build, autojump_clock: trio.abc.Clock, status: int, end: bytes
) -> None:
    async def late(call: Call, reply: Reply) -> None:
        await trio.sleep(20)
        await reply.complete(status, b'{"a": [1,\n2]}')

    downstream = await post(build([ScriptedBackend("b1", ["m"], late)]), STREAM)
    assert (downstream.status, downstream.body) == (200, b": heartbeat\n\n" + end)


@pytest.mark.parametrize("writes", range(5))
@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_departed_client_is_recorded(build: Build, writes: int, body: bytes) -> None:
    backend = ScriptedBackend("b1", ["m"], streamed if b"stream" in body else whole)
    handler, downstream = build([backend]), RecordingDownstream(leaves_after=writes)
    needed = 5 if b"stream" in body else 1
    if writes < needed:
        with pytest.raises(DownstreamGone):
            await handler.handle(request("POST", CHAT, body), downstream)
    else:
        await handler.handle(request("POST", CHAT, body), downstream)
    (record,) = records(handler)
    assert record.outcome == ("client_gone" if writes < needed else "completed")
    assert handler.in_flight == 0


async def test_departure_is_noticed_by_heartbeat(build: Build, autojump_clock: trio.abc.Clock) -> None:
    ended = trio.Event()

    async def silent(call: Call, reply: Reply) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    handler = build([ScriptedBackend("b1", ["m"], silent)])
    with pytest.raises(DownstreamGone):
        await handler.handle(request("POST", CHAT, STREAM), RecordingDownstream(leaves_after=3))
    assert ended.is_set()
    assert [record.outcome for record in records(handler)] == ["client_gone"]


async def test_internal_fault_tells_no_detail(build: Build) -> None:
    async def fault(call: Call, reply: Reply) -> None:
        raise ZeroDivisionError("the secret detail")

    downstream = await post(build([ScriptedBackend("b1", ["m"], fault)]), BODY)
    assert downstream.status == 500
    assert b"secret detail" not in downstream.body


async def test_cancelled_request_is_recorded(build: Build, autojump_clock: trio.abc.Clock) -> None:
    async def forever(call: Call, reply: Reply) -> None:
        await trio.sleep_forever()

    handler = build([ScriptedBackend("b1", ["m"], forever)])
    with trio.move_on_after(1):
        await post(handler, BODY)
    assert [record.outcome for record in records(handler)] == ["cancelled"]
    assert handler.in_flight == 0


@pytest.mark.parametrize(("body", "expected"), [(BODY, 503), (STREAM, 503)])
async def test_draining_refuses_new_work(build: Build, body: bytes, expected: int) -> None:
    handler = build([ScriptedBackend("b1", ["m"], whole)])
    handler.draining = True
    downstream = await post(handler, body)
    assert (downstream.status, downstream.headers[b"retry-after"]) == (expected, b"5")


async def test_stopped_stream_ends_well(build: Build, autojump_clock: trio.abc.Clock) -> None:
    async def endless(call: Call, reply: Reply) -> None:
        while True:
            await reply.send_events(b"data: more\n\n")
            await trio.sleep(1)

    handler, downstream = build([ScriptedBackend("b1", ["m"], endless)]), RecordingDownstream()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handler.handle, request("POST", CHAT, STREAM), downstream)
        await trio.sleep(3.5)
        handler.stop_all()
        await handler.wait_idle()
    last = downstream.body.split(b"\n\n")[-2]
    assert error_of(last.removeprefix(b"data: "))["code"] == "shutting_down"
    assert downstream.ended
