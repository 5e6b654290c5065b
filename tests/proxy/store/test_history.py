"""What was written is found again, a page at a time, and adds up."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from quiver.proxy.store.store import Store
from quiver.proxy.telemetry.record import EngineTimings, FailedAttempt, Record
from quiver.schemas import config
from quiver.schemas.errors import ApiError
from quiver.schemas.events import Event
from quiver.schemas.history import (
    AggregateQuery,
    ErrorQuery,
    EventQuery,
    RequestQuery,
    SeriesQuery,
)
from quiver.schemas.openai import Usage

from ..samples import record

DAY = 86_400.0
NOON = 1_700_000_000.0 // DAY * DAY + DAY / 2


@asynccontextmanager
async def written(folder: Path | None, records: Sequence[Record] = ()) -> AsyncIterator[Store]:
    """A store that has written `records`."""
    store = Store.open(folder, config.Store(flush_pause=0.001), lambda: NOON)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write)
        store.keep_records(records)
        await store.wait_written()
        yield store
        store.close()


def some(count: int) -> list[Record]:
    """A request a second, of three models, two clients and two servers; every fifth fails."""
    return [
        record(
            request_id=f"r{number:03}",
            at=NOON + number + 0.1234567,
            model=f"m{number % 3}",
            client=("alice", "bob")[number % 2],
            server_id=f"s{number % 2}",
            status=502 if number % 5 == 0 else 200,
            outcome="failed" if number % 5 == 0 else "completed",
            error="upstream_unreachable" if number % 5 == 0 else None,
            duration=float(number + 1),
            stream=True,
            usage=Usage(10, number, 10 + number),
            charged=10 + number,
        )
        for number in range(count)
    ]


@pytest.fixture(params=["file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "file" else None


async def test_request_comes_back_whole(folder: Path | None) -> None:
    timings = EngineTimings(0.1, 0.2, 0.3, 0.4, 5, 6, 7)
    failed = FailedAttempt("s9", "upstream_timeout", "too slow")
    one = record(engine=timings, stream=True, queued=0.25, attempts=2, failures=(failed,), trace_id="t1", charged=5)
    async with written(folder, [one]) as store:
        store.keep_event(Event(NOON, "server.changed", "s", "me", one.request_id, {"a": [1]}))
        store.keep_sample({"x": 1.0})
        await store.wait_written()
        found = await store.history.request(one.request_id)
        assert found is not None
        for name in ("request_id", "at", "client", "endpoint", "model", "stream", "status", "outcome", "error"):
            assert getattr(found, name) == getattr(one, name)
        for name in ("source", "attempts", "queued", "duration", "first_byte", "estimated"):
            assert getattr(found, name) == getattr(one, name)
        assert found.server == one.server_id
        assert [(each.server_id, each.code, each.message) for each in found.failures] == [
            ("s9", "upstream_timeout", "too slow")
        ]
        assert (found.trace_id, found.charged) == ("t1", 5)
        assert found.engine is not None
        assert found.engine.cached_tokens == 7
        assert (found.prompt_tokens, found.completion_tokens, found.prompt) == (3, 4, None)
        assert [event.details for event in found.events] == [{"a": [1]}]
        assert await store.history.request("nobody") is None


@pytest.mark.parametrize(
    ("everybody", "asked", "kept"),
    [(False, False, False), (False, True, True), (True, False, True), (True, True, True)],
)
async def test_content_is_kept_for_who_asked(everybody: bool, asked: bool, kept: bool) -> None:
    store = Store.open(None, config.Store(flush_pause=0.001, content=everybody), lambda: NOON)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write)
        store.keep_records([record(prompt="secret?", answer="secret!", keep_content=asked)])
        await store.wait_written()
        found = await store.history.request("req_1")
        assert found is not None
        assert (found.prompt, found.answer) == (("secret?", "secret!") if kept else (None, None))
        store.close()


PAGES = [
    (RequestQuery(), 30, "r029"),
    (RequestQuery(order="asc"), 30, "r000"),
    (RequestQuery(model="m1"), 10, "r028"),
    (RequestQuery(client="alice", model="m0"), 5, "r024"),
    (RequestQuery(server="s1"), 15, "r029"),
    (RequestQuery(outcome="failed"), 6, "r025"),
    (RequestQuery(troubled=True), 6, "r025"),
    (RequestQuery(troubled=False), 24, "r029"),
    (RequestQuery(status=502), 6, "r025"),
    (RequestQuery(status=200), 24, "r029"),
    (RequestQuery(error="upstream_unreachable"), 6, "r025"),
    (RequestQuery(error="queue_full"), 0, None),
    (RequestQuery(request_id="r007"), 1, "r007"),
    (RequestQuery(source="cache"), 0, None),
    (RequestQuery(endpoint="chat/completions"), 30, "r029"),
    (RequestQuery(min_duration=29), 2, "r029"),
    (RequestQuery(since=NOON + 10, until=NOON + 20), 10, "r019"),
    (RequestQuery(sort="duration"), 30, "r029"),
    (RequestQuery(sort="duration", order="asc"), 30, "r000"),
    (RequestQuery(sort="tokens"), 30, "r029"),
]


@pytest.mark.parametrize(("asked", "count", "first"), PAGES)
async def test_pages_hold_what_was_asked(asked: RequestQuery, count: int, first: str | None) -> None:
    async with written(None, some(30)) as store:
        found, cursor = [], None
        while True:
            page = await store.history.requests(msgspec.structs.replace(asked, limit=7, cursor=cursor))
            assert len(page.requests) <= 7
            found += [entry.request_id for entry in page.requests]
            if (cursor := page.next) is None:
                break
        assert len(found) == len(set(found)) == count
        assert (found[0] if found else None) == first


@pytest.mark.parametrize("cursor", ["x", "W10", "####", "WyJkdXJhdGlvbiIsImRlc2MiLDEsMl0"])
async def test_strange_cursor_is_refused(cursor: str) -> None:
    async with written(None, some(1)) as store:
        with pytest.raises(ApiError) as caught:
            await store.history.requests(RequestQuery(cursor=cursor))
        assert (caught.value.kind.status, caught.value.param) == (400, "cursor")


BY = [
    (("model",), {("m0",): 10, ("m1",): 10, ("m2",): 10}),
    (("client",), {("alice",): 15, ("bob",): 15}),
    (("server",), {("s0",): 15, ("s1",): 15}),
    (("outcome",), {("completed",): 24, ("failed",): 6}),
    (("client", "server"), {("alice", "s0"): 15, ("bob", "s1"): 15}),
    (("client", "hour"), {("alice", NOON): 15, ("bob", NOON): 15}),
    (("day",), {(NOON - DAY / 2,): 30}),
]


@pytest.mark.parametrize(("by", "counts"), BY)
async def test_requests_add_up(by: tuple[str, ...], counts: dict[tuple[object, ...], int]) -> None:
    async with written(None, some(30)) as store:
        report = await store.history.aggregate(AggregateQuery(by=by))  # type: ignore[arg-type]
        assert {tuple(each.group.values()): each.requests for each in report.groups} == counts
        assert sum(each.failed for each in report.groups) == 6
        assert sum(each.completion_tokens for each in report.groups) == sum(range(30))


async def test_errors_are_counted(folder: Path | None) -> None:
    async with written(folder, some(30)) as store:
        report = await store.history.errors(ErrorQuery())
        [error] = report.errors
        assert (error.code, error.count, error.category) == ("upstream_unreachable", 6, "transient")
        assert (error.first_at, error.last_at) == pytest.approx((NOON, NOON + 25), abs=1)
        assert error.last_request_id == "r025"
        assert [(each.at, each.count) for each in error.over_time] == [(NOON, 6)]
        assert (await store.history.errors(ErrorQuery(server="s7"))).errors == []


async def test_refusals_are_counted(folder: Path | None) -> None:
    async with written(folder, some(30)) as store:
        for id in ("q1", "q2"):
            store.keep_refusal("check_failed", id)
        await store.wait_written()
        store.keep_refusal("check_failed", "q3")
        await store.wait_written()
        found = {error.code: error for error in (await store.history.errors(ErrorQuery())).errors}
        assert (found["check_failed"].count, found["check_failed"].last_request_id) == (3, "q3")
        assert found["upstream_unreachable"].count == 6
        assert (await store.history.errors(ErrorQuery(code="check_failed", server="s0"))).errors == []


async def test_tokens_spent_are_known(folder: Path | None) -> None:
    async with written(folder, some(30)) as store:
        used = sum(10 + number for number in range(0, 30, 2))
        assert await store.history.spent("alice", NOON) == used
        assert await store.history.spent("alice", 0) == used
        assert await store.history.spent("alice", NOON + DAY) == 0
        assert await store.history.spent("nobody", 0) == 0


async def test_events_come_in_pages() -> None:
    async with written(None, some(1)) as store:
        for number in range(5):
            store.keep_event(Event(NOON + number, "server.paused", f"s{number}", "me"))
        store.keep_event(Event(NOON + 9, "key.created", "k"))
        await store.wait_written()
        first = await store.history.events(EventQuery(limit=3))
        assert [event.subject for event in first.events] == ["k", "s4", "s3"]
        rest = await store.history.events(EventQuery(limit=3, cursor=first.next))
        assert ([event.subject for event in rest.events], rest.next) == (["s2", "s1", "s0"], None)
        for kind in ("server.", "server"):
            assert len((await store.history.events(EventQuery(kind=(kind,)))).events) == 5
        assert len((await store.history.events(EventQuery(kind=("key.created", "server.")))).events) == 6


async def test_figures_make_series() -> None:
    async with written(None, some(1)) as store:
        for value in (1.0, 3.0):
            store.keep_sample({"rss": value, "open": 2.0})
            await store.wait_written()
        report = await store.history.series(SeriesQuery(step=3600))
        assert {series.name: len(series.points) for series in report.series} == {"open": 1, "rss": 1}


async def test_rollups_agree_with_requests() -> None:
    async with written(None, some(90)) as store:
        for name in ("client", "model"):
            # With both client and server there is no roll-up.
            counted = await store.history.aggregate(AggregateQuery(by=(name, "server"), client="alice"))
            rolled = await store.history.aggregate(AggregateQuery(by=(name,), client="alice"))
            by_server = {each.group[name]: each for each in counted.groups}
            assert len(by_server) == len(counted.groups) == len(rolled.groups)
            for each in rolled.groups:
                other = by_server[each.group[name]]
                assert msgspec.structs.replace(each, group={}) == msgspec.structs.replace(other, group={})


async def test_part_of_the_time_is_added_up() -> None:
    records = [record(at=NOON - hours * 3600.0) for hours in range(24 * 6)]
    async with written(None, records) as store:
        history = store.history
        for since, until in [
            (NOON - 3.2 * DAY, NOON - 0.3 * DAY),
            (NOON - 7200, NOON),
            (NOON - 1.2 * DAY, None),
            (None, NOON),
        ]:
            report = await history.aggregate(AggregateQuery(by=("model",), since=since, until=until))
            expected = sum(
                (report.since is None or each.at >= report.since) and (report.until is None or each.at < report.until)
                for each in records
            )
            assert sum(each.requests for each in report.groups) == expected
            hours = await history.aggregate(AggregateQuery(by=("hour",), since=since, until=until))
            assert sum(each.requests for each in hours.groups) == expected
