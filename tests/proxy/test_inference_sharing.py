"""One answer for identical requests: who shares, who leaves, and who has to ask for himself."""

from collections.abc import Sequence
from functools import partial

import pytest
import trio
from quiver.proxy.registry import Call
from quiver.proxy.reply import Reply
from quiver.proxy.testing import RecordingDownstream, ScriptedBackend
from quiver.schemas import errors
from quiver.schemas.config import Config, Reuse
from quiver.schemas.openai import Usage
from trio.testing import MockClock, wait_all_tasks_blocked

from .conftest import Start, records
from .scripts import (
    ALICE,
    ANSWER,
    BOB,
    BODY,
    KEYS,
    LAST,
    SHARED,
    SHARED_JSON,
    WORDS,
    ask,
    ask_and_leave,
    code_of,
    failing,
    lasting,
    one_at_a_time,
    streamed,
    uncounted,
    whole,
)


async def test_twenty_share_one_call(start: Start, autojump_clock: MockClock) -> None:
    backend = ScriptedBackend("b", ["m"], streamed)
    handler = await start([backend])
    clients = [RecordingDownstream() for _ in range(20)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=client))
            await trio.sleep(0.2)
    assert len(backend.calls) == 1
    assert {client.body for client in clients} == {ANSWER}
    assert {client.headers[b"x-gateway-server-id"] for client in clients} == {b"b"}
    assert len({client.headers[b"x-request-id"] for client in clients}) == 20
    assert [client.headers[b"x-quiver-cache"] for client in clients] == [b"miss"] + [b"shared"] * 19
    assert [(record.usage, record.outcome) for record in records(handler)] == [(Usage(3, 5, 8), "completed")] * 20
    kept = await ask(handler, SHARED)
    assert (kept.body, kept.headers[b"x-quiver-cache"], len(backend.calls)) == (ANSWER, b"hit", 1)
    assert sum(record.attempts for record in records(handler)) == 1


async def test_leader_may_leave(start: Start, autojump_clock: MockClock) -> None:
    backend = ScriptedBackend("b", ["m"], streamed)
    handler = await start([backend])
    followers = [RecordingDownstream() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_leave, handler, SHARED, 2.5)
        await trio.sleep(1.5)
        for follower in followers:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=follower))
    assert [follower.body for follower in followers] == [ANSWER] * 3
    assert len(backend.calls) == 1
    assert [record.outcome for record in records(handler)] == ["client_gone"] + ["completed"] * 3


async def test_last_leaver_ends_the_call(start: Start, autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def watched(call: Call, reply: Reply) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    backend = ScriptedBackend("b", ["m"], watched)
    handler = await start([backend])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_leave, handler, SHARED, 2)
        nursery.start_soon(ask_and_leave, handler, SHARED, 5)
    await wait_all_tasks_blocked()
    assert ended == pytest.approx([5], abs=0.1)
    assert (handler.reuse.statistics().in_flight, backend.load.in_flight) == (0, 0)


async def test_shared_failure_is_everyones(start: Start, autojump_clock: MockClock) -> None:
    backend = ScriptedBackend("b", ["m"], failing(errors.UPSTREAM_TRUNCATED, after=2))
    handler = await start([backend])
    clients = [RecordingDownstream() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=client))
    assert [(client.status, code_of(client)) for client in clients] == [(502, "upstream_truncated")] * 3
    backend_calls = len(backend.calls)
    await ask(handler, SHARED)
    assert len(backend.calls) == backend_calls + 1, "a failure is not kept"


async def test_shared_failure_is_retried_first(start: Start, autojump_clock: MockClock) -> None:
    broken, other = (
        ScriptedBackend("b1", ["m"], failing(errors.UPSTREAM_TRUNCATED, 1)),
        ScriptedBackend("b2", ["m"], streamed),
    )
    handler = await start([broken, other])
    clients = [RecordingDownstream() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=client))
    assert [client.body for client in clients] == [ANSWER] * 3
    assert {client.headers[b"x-gateway-server-id"] for client in clients} == {b"b2"}


async def test_shared_fault_tells_no_detail(start: Start) -> None:
    async def fault(call: Call, reply: Reply) -> None:
        raise ZeroDivisionError("the secret detail")

    downstream = await ask(await start([ScriptedBackend("b", ["m"], fault)]), SHARED_JSON)
    assert (downstream.status, code_of(downstream)) == (500, "internal_error")
    assert b"secret detail" not in downstream.body


async def test_shared_wait_has_heartbeats(start: Start, autojump_clock: MockClock) -> None:
    async def slow(call: Call, reply: Reply) -> None:
        await trio.sleep(40)
        await uncounted(call, reply)

    handler, clients = await start([ScriptedBackend("b", ["m"], slow)]), [RecordingDownstream() for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(partial(ask, handler, SHARED, downstream=client))
    for client in clients:
        assert client.body == b": heartbeat\n\n" * 2 + WORDS[0] + LAST


@pytest.mark.parametrize(
    ("first", "second", "calls", "told"),
    [
        ([], [], 1, b"hit"),
        ([], [(b"cache-control", b"no-cache")], 2, b"miss"),
        ([], [(b"cache-control", b"max-age=5")], 2, b"miss"),
        ([], [(b"cache-control", b"max-age=50")], 1, b"hit"),
        ([], [(b"x-quiver-share", b"off")], 2, None),
        ([(b"cache-control", b"no-store")], [], 2, b"miss"),
        ([(b"x-quiver-share", b"off")], [], 2, b"miss"),
    ],
)
async def test_headers_rule_reuse(
    start: Start,
    autojump_clock: MockClock,
    first: Sequence[tuple[bytes, bytes]],
    second: Sequence[tuple[bytes, bytes]],
    calls: int,
    told: bytes | None,
) -> None:
    backend = ScriptedBackend("b", ["m"], whole)
    handler = await start([backend])
    await ask(handler, SHARED_JSON, *first)
    await trio.sleep(10)
    downstream = await ask(handler, SHARED_JSON, *second)
    assert (downstream.body, len(backend.calls)) == (b'{"ok": true}', calls)
    assert downstream.headers.get(b"x-quiver-cache") == told


@pytest.mark.parametrize(
    ("body", "other"),
    [
        (BODY, BODY),
        (SHARED_JSON, SHARED_JSON.replace(b"hi", b"ho")),
        (SHARED_JSON, SHARED),
        (SHARED_JSON, SHARED_JSON.replace(b'"temperature"', b'"top_p": 1, "temperature"')),
    ],
    ids=["not repeatable", "other words", "streamed or not", "other parameters"],
)
async def test_different_requests_share_nothing(start: Start, body: bytes, other: bytes) -> None:
    backend = ScriptedBackend("b", ["m"], whole)
    handler = await start([backend])
    for asked in (body, other):
        await ask(handler, asked)
    assert len(backend.calls) == 2


async def test_keys_share_nothing(start: Start, autojump_clock: MockClock) -> None:
    async def named(call: Call, reply: Reply) -> None:
        await trio.sleep(1)
        await reply.complete(200, b'{"n": %d}' % len(backend.calls))

    backend = ScriptedBackend("b", ["m"], named)
    handler = await start([backend], config=Config(keys=KEYS))
    async with trio.open_nursery() as nursery:
        for key in (ALICE, BOB):
            nursery.start_soon(ask, handler, SHARED_JSON, key)
    assert len(backend.calls) == 2, "nothing in flight is shared"
    scopes = {call.scope for call in backend.calls}
    assert len(scopes) == 2
    assert not any(b"key" in scope.encode() for scope in scopes)
    await ask(handler, SHARED_JSON, ALICE)
    assert len(backend.calls) == 2, "each has what was made for it"


async def test_sharing_may_be_off(start: Start, autojump_clock: MockClock) -> None:
    backend = ScriptedBackend("b", ["m"], lasting(1))
    handler = await start([backend], config=Config(reuse=Reuse(share=False, cache=False)))
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask, handler, SHARED_JSON)
    assert len(backend.calls) == 2


async def test_shared_request_may_queue(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(10))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        for _ in range(3):
            nursery.start_soon(ask, handler, SHARED_JSON)
    assert trio.current_time() == 20
    assert [record.status for record in records(handler)] == [200] * 4
