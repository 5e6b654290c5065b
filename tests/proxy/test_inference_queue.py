"""Requests that wait: capacity, servers that come and go meanwhile, and priorities."""

from functools import partial

import pytest
import trio
from quiver.proxy.registry import Call
from quiver.proxy.reply import Reply
from quiver.proxy.testing import ScriptedBackend
from quiver.schemas import errors
from quiver.schemas.config import Admission, Config, Key
from trio.testing import MockClock, wait_all_tasks_blocked

from .conftest import Start, records
from .scripts import (
    ALICE,
    BOB,
    BODY,
    ask,
    code_of,
    failing,
    lasting,
    one_at_a_time,
    whole,
)


async def test_capacity_queues_and_grants(start: Start, autojump_clock: MockClock) -> None:
    backend = one_at_a_time(lasting(10))
    handler = await start([backend])
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, handler)
            await trio.sleep(1)
        assert (backend.load.in_flight, len(backend.calls)) == (1, 1)
    assert trio.current_time() == 30
    assert [record.queued for record in records(handler)] == [0, 9, 18]
    assert [record.duration for record in records(handler)] == [10, 19, 28]
    assert (backend.load.in_flight, handler.admission.statistics().in_flight) == (0, 0)


async def test_full_queue_is_told(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(10))], config=Config(admission=Admission(queue=1)))
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask, handler)
            await trio.sleep(1)
        downstream = await ask(handler)
    assert (downstream.status, code_of(downstream)) == (429, "queue_full")
    assert int(downstream.headers[b"retry-after"]) >= 1
    assert downstream.headers[b"x-queue-length"] == b"1"


async def test_long_wait_ends(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(100))], config=Config(admission=Admission(max_wait=20)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        downstream = await ask(handler)
        assert trio.current_time() == 21
    assert (downstream.status, code_of(downstream)) == (503, "queue_timeout")
    assert records(handler)[0].queued == 20


async def test_new_server_serves_the_queue(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(100))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        handler.registry.add(ScriptedBackend("b2", ["m"], whole))
        await wait_all_tasks_blocked()
        assert [record.server_id for record in records(handler)] == ["b2"]


async def test_removed_server_gets_nothing_from_the_queue(start: Start, autojump_clock: MockClock) -> None:
    removed, other = one_at_a_time(lasting(10)), ScriptedBackend("b2", ["m"], lasting(30))
    other.load.limit = 1
    handler = await start([removed, other])
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, handler)
            await trio.sleep(1)
        handler.registry.remove("b")
    assert [len(removed.calls), len(other.calls)] == [1, 2]
    assert [record.status for record in records(handler)] == [200] * 3


async def test_retry_waits_for_its_server_only(start: Start, autojump_clock: MockClock) -> None:
    """A request that failed on one server waits for the other, and keeps nobody from the first."""
    failures = iter([failing(errors.UPSTREAM_TRUNCATED)])

    async def once_failing(call: Call, reply: Reply) -> None:
        await next(failures, whole)(call, reply)

    first, second = ScriptedBackend("b1", ["m"], once_failing), ScriptedBackend("b2", ["m"], lasting(50))
    second.load.limit = 1
    handler = await start([second, first])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        assert [len(first.calls), len(second.calls)] == [1, 1]
        assert (await ask(handler)).headers[b"x-gateway-server-id"] == b"b1"
        assert trio.current_time() == 2
    assert [record.attempts for record in records(handler)] == [1, 1, 2]


async def test_wait_ends_with_its_last_server(start: Start, autojump_clock: MockClock) -> None:
    """A request that failed on one server waits for the other; when that one goes there is nothing left to wait for."""
    first, second = ScriptedBackend("b1", ["m"], failing(errors.UPSTREAM_TRUNCATED)), one_at_a_time(lasting(100))
    handler = await start([second, first])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        handler.registry.remove("b")
        await trio.sleep(1)
        assert [record.status for record in records(handler)] == [502]


async def test_queued_model_may_vanish(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([one_at_a_time(lasting(100))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        handler.registry.remove("b")
        await wait_all_tasks_blocked()
        assert [(record.status, record.error) for record in records(handler)] == [(503, "no_healthy_backend")]


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ((BOB, b"critical"), (ALICE, b""), ["alice", "bob"]),
        ((BOB, b""), (ALICE, b""), ["alice", "bob"]),
        ((ALICE, b"low"), (BOB, b""), ["bob", "alice"]),
    ],
    ids=["asking for more than the key has", "the key's own", "asking for less"],
)
async def test_priority_is_capped_by_key(
    start: Start,
    autojump_clock: MockClock,
    first: tuple[tuple[bytes, bytes], bytes],
    second: tuple[tuple[bytes, bytes], bytes],
    order: list[str],
) -> None:
    keys = (Key(name="alice", key="sk-alice-key", priority="high"), Key(name="bob", key="sk-bob-key"))
    handler = await start([one_at_a_time(lasting(5))], config=Config(keys=keys))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler, BODY, BOB)
        await trio.sleep(1)
        for key, priority in (first, second):
            headers = [key, (b"x-quiver-priority", priority)] if priority else [key]
            nursery.start_soon(partial(ask, handler, BODY, *headers))
            await trio.sleep(0.1)
    assert [record.client for record in records(handler)] == ["bob", *order]


async def test_unknown_priority_is_refused(start: Start) -> None:
    downstream = await ask(await start([ScriptedBackend("b", ["m"], whole)]), BODY, (b"x-quiver-priority", b"urgent"))
    assert (downstream.status, code_of(downstream)) == (400, "invalid_request")
