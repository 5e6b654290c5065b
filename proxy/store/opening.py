"""Opening the database: take the folder, look whether the file is sound, rebuild it if not, bring it up to date, and read
what it holds.
"""

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import structlog
from quiver.schemas.saved import CheckResult, Saved

from . import export, registry
from .connection import connect, connect_to_read, transaction
from .export import Picture
from .failure import Damaged, StoreError, is_damage, reason_of
from .folder import Folder
from .migrations import migrate, refuse_newer
from .recovery import REGISTRY_TABLES, Recovery, finish, put_back, recover

# Larger files are not read as a whole at every start; what must never be lost is, and so is a file that has shown damage.
CHECKED_WHOLE = 256 * 1024 * 1024
# Results of each server that are brought back: as many as a server remembers.
CHECKS = 100
# Pages that are given back to the disk at a start.
VACUUMED = 25_000


class Opened:
    """A database that is ready to be used, and what was in it. `folder` None: it is in memory. `recovery`: what had to be
    done about damage.
    """

    def __init__(self, folder: Folder | None, database: sqlite3.Connection, recovery: Recovery | None = None) -> None:
        self.folder, self.database, self.recovery = folder, database, recovery
        self.secret: bytes = registry.meta(database, "secret")
        self.saved: Saved = msgspec.structs.replace(registry.saved(database), checks=_last_checks(database))

    def __repr__(self) -> str:
        return f"<Opened {self.folder or 'in memory'}>"

    def close(self) -> None:
        """Close the database, and let others use the folder. Nobody may be using it."""
        self.database.close()
        if self.folder is not None:
            self.folder.release()

    def suspect(self) -> None:
        """The database turns out to be damaged: the next start looks through all of it."""
        log = structlog.get_logger(component="store")
        log.critical("the database is damaged; restart the gateway to have it rebuilt", folder=str(self.folder))
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self.folder.suspect.touch()


def open_in_memory() -> Opened:
    """A new database that ends with its connection."""
    database = connect(None)
    migrate(database, "memory")
    registry.make_identity(database)
    return Opened(None, database)


def open_folder(path: Path, now: float) -> Opened:
    """The database in the folder `path`, which is made if there is none. Raises `StoreError`."""
    folder = Folder(path)
    folder.prepare()
    folder.lock()
    try:
        return open_locked(folder, now)
    except BaseException:
        folder.release()
        raise


def open_locked(folder: Folder, now: float) -> Opened:
    """The database in a folder that this process has. Raises `StoreError`."""
    try:
        return _opened(folder, now)
    except (sqlite3.Error, OSError) as error:
        hint = "free some space on its disk" if "full" in reason_of(error) else None
        raise StoreError(f"`{folder.database}` cannot be used: {reason_of(error)}", hint) from error


def examine(database: sqlite3.Connection, *, whole: bool, thorough: bool = False) -> None:
    """Look through the whole file, or the registry's part of it; `thorough`: whether indexes fit their tables, too. Raises
    `Damaged` with the first fault, `sqlite3.Error`.
    """
    if whole:
        check = "integrity_check" if thorough else "quick_check"
        _require_ok(database.execute(f"PRAGMA {check}(1)").fetchone()[0])
    present = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table in sorted(REGISTRY_TABLES & present):
        _require_ok(database.execute(f"PRAGMA integrity_check({table})").fetchone()[0])


def _require_ok(found: str) -> None:
    if found != "ok":
        raise Damaged(found.rpartition("***\n")[2].partition("\n")[0])


def copy_beside(folder: Folder) -> Picture | None:
    """The export beside the database. One that cannot be read is as good as none, with a word in the log."""
    try:
        return export.read(folder.export.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, Damaged, msgspec.DecodeError) as error:
        log = structlog.get_logger(component="store")
        log.error("the export of the registrations cannot be read", file=str(folder.export), reason=reason_of(error))
        return None


def renew_copy(folder: Folder, database: sqlite3.Connection) -> None:
    """Write the export beside the database anew. What hinders that is logged: the database has the rows."""
    try:
        export.replace(folder.export, export.written(export.picture_of(database), sealed=True))
    except (sqlite3.Error, OSError, Damaged, msgspec.DecodeError) as error:
        log = structlog.get_logger(component="store")
        log.error("the export of the registrations is not renewed", file=str(folder.export), reason=reason_of(error))


def _last_checks(database: sqlite3.Connection) -> dict[str, tuple[CheckResult, ...]]:
    """Each server's last results, oldest first."""
    found: dict[str, list[CheckResult]] = {}
    rows = database.execute(
        """
        SELECT server, at, ok, seconds, reason, source
        FROM (SELECT *, row_number() OVER (PARTITION BY server ORDER BY id DESC) AS place FROM checks)
        WHERE place <= ? ORDER BY id
        """,
        (CHECKS,),
    )
    for server, *values in rows:
        with contextlib.suppress(msgspec.ValidationError):  # what a damaged row says
            result = dict(zip(CheckResult.__struct_fields__, values, strict=True))
            found.setdefault(server, []).append(msgspec.convert(result, CheckResult, strict=False))
    return {server: tuple(results) for server, results in found.items()}


def _opened(folder: Folder, now: float) -> Opened:
    finish(folder)
    beside, recovery = copy_beside(folder), None
    try:
        _look(folder, beside)
        database = _up_to_date(folder.database)
        try:
            recovery = _put_right(database, beside)
        except BaseException:
            database.close()
            raise
    except (Damaged, sqlite3.Error) as error:
        if not is_damage(error):
            raise
        recovery = recover(folder, beside, reason_of(error), now)
        database = _up_to_date(folder.database)
    folder.suspect.unlink(missing_ok=True)
    _tidy(database)
    renew_copy(folder, database)
    return Opened(folder, database, recovery)


def _look(folder: Folder, beside: Picture | None) -> None:
    """Raises `Damaged`, `sqlite3.Error`, and `StoreError` when the database is newer than this program; changes nothing."""
    size = folder.database.stat().st_size if folder.database.exists() else 0
    if size == 0:
        if beside is not None and beside.revision:
            raise Damaged("the file is gone" if not folder.database.exists() else "the file is empty")
        return
    with closing(connect_to_read(folder.database)) as database:
        examine(database, whole=size <= CHECKED_WHOLE or folder.suspect.exists())
        refuse_newer(database, str(folder.database))


def _up_to_date(path: Path) -> sqlite3.Connection:
    database = connect(path)
    try:
        migrate(database, str(path))
        if registry.meta(database, "revision") is None:
            with transaction(database, durable=True):
                registry.make_identity(database)
    except BaseException:
        database.close()
        raise
    return database


def _put_right(database: sqlite3.Connection, beside: Picture | None) -> Recovery | None:
    """Give a database its last changes back that it has lost without SQLite's noticing, and rows that it has wrong. Raises
    `Damaged`, `sqlite3.Error`.
    """
    found = export.picture_of(database)
    if beside is None or beside.revision < found.revision:
        return None
    if beside.revision == found.revision and beside.says_as(found):
        return None
    behind = beside.revision - found.revision
    reason = f"its last {behind} changes are missing" if behind else "rows are not as they were written"
    log = structlog.get_logger(component="store")
    log.critical("the database has lost changes; the export has them", reason=reason)
    with transaction(database, durable=True):
        put_back(database, beside)
    return Recovery(reason, None, {table: len(beside.rows(table)) for table in registry.TABLES}, exported=True)


def _tidy(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute(f"PRAGMA incremental_vacuum({VACUUMED})").fetchall()
    database.execute("PRAGMA optimize")
