"""Whole copies of the database: taken while a gateway runs, and put back while none does."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from . import registry
from .connection import connect_to_read, transaction
from .export import picture_of
from .failure import Damaged, StoreError, is_damage, reason_of
from .folder import Folder, parts_of
from .migrations import applied, refuse_newer
from .opening import copy_beside, examine, renew_copy
from .recovery import finish, set_aside

# Told the stage, how far it is and where it ends, in bytes.
Told = Callable[[str, int, int], None]
# Pages copied between two looks at how far it is.
STEP = 2000


class Copied(msgspec.Struct, frozen=True):
    """A copy that was made: where it lies, its size in bytes, and rows by table. `kept`: what was there before."""

    file: str
    bytes: int
    rows: dict[str, int]
    kept: str | None = None


def backup(folder: Folder, target: Path, told: Told) -> Copied:
    """Copy the database to `target`, as it is at this moment, and look through the copy. A file that is there already is
    replaced, once the copy is sound. Raises `StoreError`.
    """
    _require(folder.database, "there is nothing to back up")
    if target.exists() and target.samefile(folder.database):
        raise StoreError(f"`{target}` is the database itself", "give the backup another name")
    part = target.with_name(f"{target.name}.part")
    try:
        rows = _copy(folder.database, part, told)
        part.replace(target)
    except (sqlite3.Error, OSError, Damaged) as error:
        raise StoreError(f"the backup `{target}` could not be made: {_words(error)}") from error
    finally:
        _remove(part)
    return Copied(str(target), target.stat().st_size, rows)


def restore(folder: Folder, source: Path, now: float, told: Told) -> Copied:
    """Put the backup `source` in the place of the database, which is kept under another name.

    Raises `StoreError`, also while a gateway uses the folder, and then nothing has changed.
    """
    _require(source, "there is no such backup")
    folder.prepare()
    folder.lock()
    part = folder.database.with_name("quiver.db.restoring")
    try:
        finish(folder)
        with closing(connect_to_read(source)) as database:
            refuse_newer(database, str(source))
            if not applied(database):
                raise Damaged("it is empty")
        rows = _copy(source, part, told)
        _outdate_export(folder, part)
        kept = set_aside(folder.database, "before-restore", now)
        part.replace(folder.database)
        with closing(connect_to_read(folder.database)) as database:
            renew_copy(folder, database)
    except (sqlite3.Error, OSError, Damaged) as error:
        raise StoreError(
            f"`{source}` cannot be restored: {_words(error)}",
            "nothing was changed; `quiver db check` looks at what is there",
        ) from error
    finally:
        _remove(part)
        folder.release()
    return Copied(str(folder.database), folder.database.stat().st_size, rows, None if kept is None else str(kept))


def row_counts(database: sqlite3.Connection) -> dict[str, int]:
    """Rows by table, without those that are SQLite's or about the database itself. Raises `sqlite3.Error`."""
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    names = [name for (name,) in found if not name.startswith(("sqlite_", "_sqlite_")) and name != "meta"]
    return {name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}  # noqa: S608 - from the schema


def _copy(source: Path, target: Path, told: Told) -> dict[str, int]:
    """Copy and check; rows by table. The copy is one plain file."""
    _remove(target)
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(connect_to_read(source)) as database, closing(sqlite3.connect(target, isolation_level=None)) as copy:
        # One moment's state: while a transaction is open, what others write is not seen, and the copy need not begin anew.
        database.execute("BEGIN")
        size = database.execute("PRAGMA page_size").fetchone()[0]
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()

        def progress(status: int, remaining: int, total: int) -> None:
            told("copying", (total - remaining) * size, total * size)

        database.backup(copy, pages=STEP, progress=progress)
        database.execute("COMMIT")
        copy.execute("PRAGMA journal_mode = DELETE")
        told("checking", 0, 0)
        examine(copy, whole=True, thorough=True)
        rows = row_counts(copy)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return rows


def _outdate_export(folder: Folder, database: Path) -> None:
    """Let the export beside the database be older than `database`, or the next start would undo the restoration."""
    beside = copy_beside(folder)
    with closing(sqlite3.connect(database, isolation_level=None)) as copy:
        found = picture_of(copy)
        revision = max(found.revision, beside.revision if beside is not None else 0) + 1
        with transaction(copy, durable=True):
            registry.put_identity(copy, revision, bytes.fromhex(found.secret))


def _require(path: Path, why: str) -> None:
    if not path.is_file():
        raise StoreError(f"{why}: `{path}` is no file")


def _words(error: Exception) -> str:
    if isinstance(error, Damaged):
        return f"it is damaged: {error}"
    return reason_of(error) if not is_damage(error) else f"it is damaged: {reason_of(error)}"


def _remove(path: Path) -> None:
    for part in parts_of(path):
        part.unlink(missing_ok=True)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
