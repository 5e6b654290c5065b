"""The writer takes what it is given, waits for a locked database, says when it cannot write, and loses no more than it must."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from quiver.proxy.seams import offload_runner
from quiver.proxy.store import writer
from quiver.proxy.store.store import Store
from quiver.schemas import config
from trio.testing import MockClock

from ..conftest import at_once
from ..samples import record

PAUSE = config.Store().flush_pause


@asynccontextmanager
async def running(folder: Path | None = None) -> AsyncIterator[Store]:
    """A store that writes, in virtual time and on this thread."""
    offload_runner.set(at_once)
    store = Store.open(folder, config.Store(), lambda: 1_700_000_000.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write)
        await trio.lowlevel.checkpoint()
        yield store
        store.close()


def count(store: Store) -> int:
    return int(store._connection.at_once(("SELECT count(*) FROM requests", [])))


def hinder(store: Store, name: str) -> None:
    """Let no request be written, by an error that SQLite calls `name`."""
    database = store._connection._database
    if name == "full":
        [pages] = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
    else:
        database.execute("PRAGMA query_only = 1")


def release(store: Store) -> None:
    store._connection._database.execute("PRAGMA max_page_count = 1073741823")
    store._connection._database.execute("PRAGMA query_only = 0")


async def test_records_are_written_in_batches(autojump_clock: MockClock) -> None:
    async with running() as store:
        for _ in range(3):
            store.keep_records([record()])
        assert count(store) == 0
        await trio.sleep(PAUSE * 1.5)
        assert count(store) == 3
        assert store.statistics().written == 3


async def test_closing_writes_the_rest(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as store:
        store.keep_records([record()] * (writer.MOST + 5))
    assert trio.current_time() < PAUSE
    with closing(sqlite3.connect(tmp_path / "quiver.db")) as database:
        assert database.execute("SELECT count(*) FROM requests").fetchone() == (writer.MOST + 5,)


async def test_entries_may_come_from_a_thread() -> None:
    store = Store.open(None, config.Store(flush_pause=0.001), lambda: 1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write)
        await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(store.keep_records, [record()])
        await store.wait_written()
        assert store.statistics().written == 1
        store.close()


async def test_locked_database_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as store:
        with closing(sqlite3.connect(tmp_path / "quiver.db", isolation_level=None)) as other:
            store._connection._database.execute("PRAGMA busy_timeout = 0")
            other.execute("BEGIN IMMEDIATE")
            store.keep_records([record()])
            await trio.sleep(30)
            assert store.statistics().written == 0
            other.execute("ROLLBACK")
        await store.wait_written()
        assert (store.statistics().written, store.statistics().dropped, store.statistics().degraded) == (1, 0, None)


@pytest.mark.parametrize(("name", "reason"), [("full", "the disk is full"), ("readonly", "may not be written")])
async def test_store_that_cannot_write_says_so(name: str, reason: str, autojump_clock: MockClock) -> None:
    told: list[str | None] = []
    async with running() as store:
        store.told = told.append
        hinder(store, name)
        store.keep_records([record(client="x" * 5000)])
        await trio.sleep(60)
        assert reason in str(store.statistics().degraded)
        store.keep_records([record(client="x" * 5000)] * (writer.DEGRADED_BACKLOG + 7))
        assert store.statistics().dropped == 7
        release(store)
        await store.wait_written()
        assert store.statistics().degraded is None
        assert count(store) == writer.DEGRADED_BACKLOG + 1
    [first, last] = told
    assert reason in str(first)
    assert last is None


async def test_closing_gives_up_on_a_dead_disk(autojump_clock: MockClock) -> None:
    async with running() as store:
        hinder(store, "readonly")
        store.keep_records([record()] * 3)
        await trio.sleep(10)
        closing_at = trio.current_time()
    assert trio.current_time() - closing_at <= writer.PATIENCE + 1
    assert store.statistics().dropped == 3


async def test_full_backlog_drops_and_counts(autojump_clock: MockClock) -> None:
    store = Store.open(None, config.Store(), lambda: 1.0)
    store.keep_records([record()] * (writer.BACKLOG + 9))
    assert (store.statistics().waiting, store.statistics().dropped) == (writer.BACKLOG, 9)


async def test_bad_entry_is_lost_alone(autojump_clock: MockClock) -> None:
    async with running() as store:
        store.keep_records([record(), record(client=None), record(model="\ud800"), record()])
        store.keep_sample({"x": 1.0})
        await store.wait_written()
        assert count(store) == 2
        assert (store.statistics().written, store.statistics().dropped) == (3, 2)
