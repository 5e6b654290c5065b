"""What was acknowledged is there after a restart; what was refused is not."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
import structlog.testing
import trio
from quiver.proxy.store import export
from quiver.proxy.store.failure import StoreError
from quiver.proxy.store.folder import Folder, data_folder
from quiver.proxy.store.migrations import MIGRATIONS
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.saved import SavedState
from sqlite_utils import Database
from trio.testing import MockClock

from .stores import fill, key, leave, look, open_store, registered, running, server


async def test_everything_comes_back(tmp_path: Path) -> None:
    await fill(tmp_path / "data")
    saved, secret, reason = await look(tmp_path / "data")
    assert [row.id for row in saved.servers] == [f"s{number}" for number in range(40) if number != 3]
    assert saved.servers[0] == server("s0")
    assert [row.id for row in saved.keys] == ["k0", "k1", "k2", "k3", "k4"]
    assert saved.settings == {"colours": {"page": "dark"}}
    assert (saved.states["s1"].mode, saved.states["s1"].models) == ("paused", ("a",))
    assert (len(secret), reason) == (32, None)
    assert (await look(tmp_path / "data"))[1] == secret


async def test_nobody_else_may_read(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await fill(folder)
    async with running(folder):
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes == dict.fromkeys(modes, 0o600)
    assert {"quiver.db", "quiver.db-wal", "registrations.json"} <= modes.keys()


async def test_last_word_on_a_mode_is_the_operators(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        store.keep_state(SavedState(id="s", mode="serving", state="healthy"))
        await store.save_state(SavedState(id="s", mode="paused"))
        store.keep_state(SavedState(id="s", mode="serving", state="suspect"))
        await store.wait_written()
    saved, _, _ = await look(tmp_path)
    assert (saved.states["s"].mode, saved.states["s"].state) == ("paused", "suspect")


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(StoreError, match=rf"another process \({os.getpid()}\) uses"):
            open_store(tmp_path)
    await leave(open_store(tmp_path))


async def test_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    await fill(tmp_path)
    database = sqlite3.connect(tmp_path / "quiver.db")
    with database:
        database.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('quiver', 'warp', '')"
        )
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    before = (tmp_path / "quiver.db").read_bytes()
    with pytest.raises(StoreError, match="newer version of Quiver: this one does not know `warp`") as refused:
        open_store(tmp_path)
    assert "install that version" in (refused.value.hint or "")
    assert (tmp_path / "quiver.db").read_bytes() == before
    assert not any("damaged" in name for name in os.listdir(tmp_path))


async def test_failed_migration_halts_and_is_undone(tmp_path: Path) -> None:
    await fill(tmp_path)
    steps = list(MIGRATIONS._migrations)

    def half_done(db: Database) -> None:
        db.execute("CREATE TABLE halves (id)")
        db.execute("INSERT INTO nowhere VALUES (1)")

    MIGRATIONS(name="half_done")(half_done)
    try:
        with pytest.raises(StoreError, match=r"step `half_done` failed and was undone: .*nowhere"):
            open_store(tmp_path)
    finally:
        MIGRATIONS._migrations[:] = steps
    saved, _, reason = await look(tmp_path)
    assert (len(saved.servers), reason) == (39, None)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made") as refused:
        open_store(tmp_path / "file" / "data")
    assert "QUIVER_DATA_DIR" in (refused.value.hint or "")


def test_folder_is_chosen() -> None:
    assert data_folder("/b", {"QUIVER_DATA_DIR": "/a"}) == Path("/a")
    assert data_folder("/b", {"QUIVER_DATA_DIR": ""}) == Path("/b")
    assert data_folder(None, {}).name == "quiver"


async def test_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.save_server(server("before"))
        database = store.opened.database
        [pages] = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        kept = 0
        refused: ApiError | None = None
        while refused is None:
            try:
                await store.save_server(server(f"s{kept}"))
                kept += 1
            except ApiError as error:
                refused = error
        assert (refused.kind, refused.retry_after) == (errors.STORE_UNAVAILABLE, 5)
        assert "the disk is full" in refused.message
        database.execute("PRAGMA max_page_count = 1000000")
        await store.save_server(server("after"))
    saved, _, reason = await look(tmp_path)
    assert [row.id for row in saved.servers] == ["before", *(f"s{number}" for number in range(kept)), "after"]
    assert reason is None


async def test_locked_database_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as store:
        store.opened.database.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(tmp_path / "quiver.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ApiError, match="another process keeps the database locked"):
            await store.save_server(server("refused"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.save_server, server("late"))
            await trio.sleep(0.05)
            other.execute("COMMIT")
        other.close()
    saved, _, _ = await look(tmp_path)
    assert [row.id for row in saved.servers] == ["late"]


async def test_unwritten_export_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database has the row, so it was acknowledged; the copy follows with the next change."""

    def fail(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with running(tmp_path) as store:
        await store.save_key(key("a"))
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as log:
            patch.setattr(export, "replace", fail)
            await store.save_key(key("b"))
        assert [(line["log_level"], line["reason"]) for line in log] == [("error", "the disk is full")]
        assert b'"b"' not in (tmp_path / "registrations.json").read_bytes()
    saved, _, reason = await look(tmp_path)
    assert ([row.id for row in saved.keys], reason) == (["a", "b"], None)
    assert b'"b"' in (tmp_path / "registrations.json").read_bytes()


async def test_in_memory_it_is_the_same() -> None:
    async with running(None) as store:
        await store.save_server(server("s"))
        await store.remove_server("s")
        await store.save_setting("a", 1)
        assert repr(store) == "<Store in memory>"


def test_lock_of_the_dead_is_free(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert not folder.in_use()
    folder.lock()
    assert folder.in_use()
    folder.release()
    assert not folder.in_use()


async def test_what_registered_says_is_all(tmp_path: Path) -> None:
    await fill(tmp_path)
    saved, _, _ = await look(tmp_path)
    assert registered(saved)[4] == {"s1": "paused"}
