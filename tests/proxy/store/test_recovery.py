"""Damage of every kind to the database's files: registrations survive it, and what was found is kept and told."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
import trio
from quiver.proxy.store import recovery as recovering
from quiver.proxy.store.folder import Folder
from quiver.proxy.store.opening import copy_beside
from quiver.proxy.store.recovery import recover
from quiver.proxy.telemetry.record import Record
from quiver.schemas.history import RequestQuery

from ..samples import record
from .stores import NOW, fill, leave, look, open_store, registered, running, server

Damage = Callable[[bytearray, Random], None]


def flip_a_bit(content: bytearray, random: Random) -> None:
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def garble_a_page(content: bytearray, random: Random) -> None:
    at = random.randrange(len(content)) // 4096 * 4096
    content[at : at + 4096] = random.randbytes(len(content[at : at + 4096]))


def zero_a_sector(content: bytearray, random: Random) -> None:
    at = random.randrange(len(content)) // 512 * 512
    content[at : at + 512] = bytes(len(content[at : at + 512]))


def cut_short(content: bytearray, random: Random) -> None:
    del content[random.randrange(len(content)) :]


def empty(content: bytearray, random: Random) -> None:
    content.clear()


def garble_the_header(content: bytearray, random: Random) -> None:
    content[:100] = random.randbytes(100)


def replace_by_noise(content: bytearray, random: Random) -> None:
    content[:] = random.randbytes(5000)


DAMAGES = (flip_a_bit, garble_a_page, zero_a_sector, cut_short, empty, garble_the_header, replace_by_noise)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was closed cleanly, and one that was copied while in use, as a crash leaves it."""
    folder = tmp_path_factory.mktemp("sound")
    trio.run(_prepare, folder)
    return folder


async def _prepare(folder: Path) -> None:
    await fill(folder / "closed")
    async with running(folder / "closed") as store:
        await store.save_server(server("last"))
        shutil.copytree(folder / "closed", folder / "crashed")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("state", "file"), [("closed", "quiver.db"), ("crashed", "quiver.db"), ("crashed", "quiver.db-wal")]
)
async def test_damage_loses_no_registration(sound: Path, tmp_path: Path, damage: Damage, state: str, file: str) -> None:
    wanted, secret, _ = await look(_copy(sound / state, tmp_path / "wanted"))
    for seed in range(3):
        folder = _copy(sound / state, tmp_path / str(seed))
        content = bytearray((folder / file).read_bytes())
        damage(content, Random(seed))
        (folder / file).write_bytes(content)
        found, found_secret, _ = await look(folder)
        assert (registered(found), found_secret) == (registered(wanted), secret), seed
        with closing(sqlite3.connect(folder / "quiver.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)], seed
        assert (await look(folder))[2] is None, "the second start finds nothing to do"


def _copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


async def test_file_that_is_gone_is_made_anew(sound: Path, tmp_path: Path) -> None:
    wanted, secret, _ = await look(sound / "closed")
    folder = _copy(sound / "closed", tmp_path / "data")
    (folder / "quiver.db").unlink()
    found, found_secret, reason = await look(folder)
    assert (registered(found), found_secret, reason) == (registered(wanted), secret, "the file is gone")


async def test_damaged_files_are_set_aside(sound: Path, tmp_path: Path) -> None:
    folder = _copy(sound / "crashed", tmp_path / "data")
    content = bytearray((folder / "quiver.db").read_bytes())
    garble_the_header(content, Random(1))
    (folder / "quiver.db").write_bytes(content)
    store = open_store(folder)
    await leave(store)
    assert store.recovery is not None
    assert store.recovery.exported
    assert store.recovery.rows["servers"] == 40
    aside = store.recovery.aside
    assert aside == "quiver.db.damaged-20231114-221320"
    assert (folder / aside).read_bytes() == content
    assert (folder / f"{aside}-wal").read_bytes() == (sound / "crashed" / "quiver.db-wal").read_bytes()


async def test_history_is_brought_over_row_by_row(tmp_path: Path) -> None:
    """A page of requests is lost; the others are still there."""
    async with running(tmp_path) as store:
        await store.save_server(server("s"))
        for first in range(0, 2000, 500):
            store.keep_records([_numbered(number) for number in range(first, first + 500)])
            await store.wait_written()
    with closing(sqlite3.connect(tmp_path / "quiver.db")) as database:
        root = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'requests'").fetchone()[0]
    content = bytearray((tmp_path / "quiver.db").read_bytes())
    pages = [
        at for at in range(0, len(content), 4096) if content[at] == 13 and b"request-1200" in content[at : at + 4096]
    ]
    assert pages
    assert root * 4096 - 4096 not in pages
    content[pages[0] : pages[0] + 200] = b"\xff" * 200
    (tmp_path / "quiver.db").write_bytes(content)
    async with running(tmp_path) as store:
        assert store.recovery is not None
        assert "requests" in store.recovery.incomplete
        assert 1900 < store.recovery.rows["requests"] < 2000
        page = await store.history.requests(RequestQuery(limit=1000))
        assert len(page.requests) == 1000
        # Tables that are sorted by their keys are brought over as well.
        assert store.recovery.rows["rollups"] > 0
    assert (await look(tmp_path))[2] is None


def _numbered(number: int) -> Record:
    return record(request_id=f"request-{number:04}", at=NOW + number)


async def test_without_an_export_what_can_be_read_is_taken(sound: Path, tmp_path: Path) -> None:
    """Nothing is made up, the rest is saved, and the start goes on."""
    wanted, secret, _ = await look(sound / "closed")
    saved = 0
    for seed in range(12):
        folder = _copy(sound / "closed", tmp_path / str(seed))
        content = bytearray((folder / "quiver.db").read_bytes())
        garble_a_page(content, Random(seed))
        (folder / "quiver.db").write_bytes(content)
        (folder / "registrations.json").unlink()
        found, found_secret, _ = await look(folder)
        assert set(found.servers) <= set(wanted.servers), seed
        saved += len(found.servers) > 0 and found_secret == secret
    assert saved >= 8, "most pages hold something else"


async def test_damaged_export_is_written_anew(sound: Path, tmp_path: Path) -> None:
    wanted, _, _ = await look(sound / "closed")
    for damage in (flip_a_bit, cut_short, empty, replace_by_noise):
        folder = _copy(sound / "closed", tmp_path / damage.__name__)
        content = bytearray((folder / "registrations.json").read_bytes())
        damage(content, Random(5))
        (folder / "registrations.json").write_bytes(content)
        found, _, reason = await look(folder)
        assert (registered(found), reason) == (registered(wanted), None)
        assert copy_beside(Folder(folder)) is not None


@pytest.mark.parametrize("step", ["migrate", "_fill", "set_aside", "finish"])
async def test_recovery_that_is_cut_short_begins_anew(
    sound: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power fails once more, before the step or after it."""
    wanted, secret, _ = await look(sound / "closed")
    original = getattr(recovering, step)
    for after in (False, True):
        folder = _copy(sound / "closed", tmp_path / str(after))
        content = bytearray((folder / "quiver.db").read_bytes())
        garble_the_header(content, Random(2))
        (folder / "quiver.db").write_bytes(content)

        def fail(*args: object, after: bool = after) -> object:
            if after:
                original(*args)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(recovering, step, fail)
            with pytest.raises(KeyboardInterrupt):
                recover(Folder(folder), copy_beside(Folder(folder)), "the test says so", NOW)
        found, found_secret, _ = await look(folder)
        assert (registered(found), found_secret) == (registered(wanted), secret)
        assert list(folder.glob("*damaged*"))


async def test_damage_found_while_running_is_looked_for_at_the_next_start(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await store.save_server(server("s"))

        def hurt(database: sqlite3.Connection) -> None:
            raise _damage()

        with pytest.raises(sqlite3.DatabaseError):
            await store._connection.use(hurt)
        assert (tmp_path / "quiver.db.suspect").exists()
    assert (await look(tmp_path))[2] is None
    assert not (tmp_path / "quiver.db.suspect").exists()


def _damage() -> sqlite3.DatabaseError:
    """What SQLite raises, from SQLite itself."""
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.deserialize(b"SQLite format 3\0" + b"\xff" * 4080)
            database.execute("SELECT * FROM sqlite_master")
        except sqlite3.DatabaseError as error:
            return error
    raise AssertionError
