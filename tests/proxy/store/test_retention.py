"""What is old goes, a step at a time; what is not stays."""

from pathlib import Path

import msgspec
import pytest
import trio
from quiver.proxy.store.history import retention
from quiver.proxy.store.store import Store
from quiver.schemas import config
from quiver.schemas.events import Event
from quiver.schemas.history import AggregateQuery, EventQuery, RequestQuery, SeriesQuery
from quiver.schemas.saved import CheckResult
from trio.testing import MockClock

from ..samples import record
from .test_writer import count, running

DAY = 86_400.0
NOW = 1_700_000_000.0


async def test_old_rows_go(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_ROWS", 4)
    async with running() as store:
        store.keep_records([record(request_id=f"r{age}", at=NOW - age * DAY, charged=7) for age in range(60)])
        for age in (1, 89, 91):
            store.keep_event(Event(NOW - age * DAY, "server.paused", str(age)))
        for number in range(150):
            store.keep_check("s", CheckResult(NOW + number, ok=True, seconds=0.1, reason=None, source="check"))
        store.keep_check("t", CheckResult(NOW, ok=True, seconds=0.1, reason=None, source="check"))
        await store.wait_written()
        assert await store.tidy() > 0
        history = store.history
        left = [entry.request_id for entry in (await history.requests(RequestQuery())).requests]
        assert left == [f"r{age}" for age in range(31)]
        assert [each.subject for each in (await history.events(EventQuery())).events] == ["1", "89"]
        [total] = (await history.aggregate(AggregateQuery())).groups
        assert 31 <= total.requests <= 32
        checks = store._connection.at_once(
            ("SELECT json_group_array(n) FROM (SELECT count(*) n FROM checks GROUP BY server)", [])
        )
        assert msgspec.json.decode(checks) == [100, 1]
        assert await history.spent("alice", 0) == 60 * 7, "what was spent is known for longer"
        assert await store.tidy() == 0


async def test_figures_are_kept_for_a_week(autojump_clock: MockClock) -> None:
    now = NOW - 8 * DAY
    store = Store.open(None, config.Store(), lambda: now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write)
        store.keep_sample({"x": 1.0})
        await store.wait_written()
        now = NOW
        store.keep_sample({"x": 2.0})
        await store.wait_written()
        assert await store.tidy() == 1
        [series] = (await store.history.series(SeriesQuery(since=0))).series
        assert [point.mean for point in series.points] == [2.0]
        store.close()


async def test_operator_deletes_requests(autojump_clock: MockClock) -> None:
    async with running() as store:
        store.keep_records([record(at=NOW - age) for age in range(10)])
        assert await store.forget_requests(NOW - 4.5) == 5
        assert count(store) == 5
        [total] = (await store.history.aggregate(AggregateQuery())).groups
        assert total.requests == 10, "what requests add up to stays"


async def test_room_is_given_back(tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SPARE_PAGES", 10)
    async with running(tmp_path) as store:
        store.keep_records([record(at=NOW - 40 * DAY, client="x" * 3000) for _ in range(500)])
        await store.wait_written()
        pages = store._connection.at_once(("PRAGMA page_count", []))
        await store.tidy()
        assert store._connection.at_once(("PRAGMA page_count", [])) < pages / 2


async def test_large_database_is_warned_of(autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(None, config.Store(size_warning="1KB"), lambda: NOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write)
        await store.weigh()
        await store.weigh()
        assert store.statistics().size > 1000
        store.close()
    assert capsys.readouterr().out.count("the database is large") == 1
