"""A damaged database: set aside, and a new one made of what can be read of it and of the export beside it.

The export is as new as the database unless the disk was full, and its digest vouches for it. So it decides what is
registered, and the damaged file where it knows of later changes, or there is no export.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import structlog
from quiver.schemas.saved import Mode, SavedState

from . import registry
from .connection import connect, transaction
from .export import Picture
from .folder import Folder, parts_of
from .migrations import migrate
from .registry import KINDS, TABLES, Table
from .salvage import copy_rows, open_damaged, read_rows

# Rows of these tables are put back one by one, not copied.
REGISTRY_TABLES = frozenset({*TABLES, "meta", "server_states"})


class Recovery(msgspec.Struct, frozen=True):
    """What was done about a damaged database: `reason` says what was found, `aside` where it is kept. `rows` were brought
    over, by table; `incomplete` tables have lost some, or may have. `exported`: whether the export decided what is registered.
    """

    reason: str
    aside: str | None
    rows: dict[str, int]
    incomplete: tuple[str, ...] = ()
    exported: bool = False


def recover(folder: Folder, export: Picture | None, reason: str, now: float) -> Recovery:
    """Make a new database in the place of the damaged one. Raises `sqlite3.Error`, `OSError`, `StoreError`.

    Whenever this is cut short, either the damaged one or the finished new one is there: see `finish`.
    """
    log = structlog.get_logger(component="store")
    log.critical("the database is damaged and is rebuilt", file=str(folder.database), reason=reason)
    unfinished = folder.database.with_name("quiver.db.unfinished")
    for part in parts_of(unfinished):
        part.unlink(missing_ok=True)
    damaged = open_damaged(folder.database) if folder.database.exists() else None
    database = connect(unfinished)
    try:
        migrate(database, str(unfinished))
        # It is thrown away when this is cut short, so there is nothing to roll back.
        database.execute("PRAGMA journal_mode = OFF")
        with _without_indexes(database), transaction(database, durable=True):
            recovery = _fill(database, damaged, export, reason)
        database.execute("PRAGMA journal_mode = WAL")
    finally:
        database.close()
        if damaged is not None:
            damaged.close()
    unfinished.replace(folder.rebuilt)
    aside = set_aside(folder.database, "damaged", now)
    finish(folder)
    recovery = msgspec.structs.replace(recovery, aside=aside and aside.name)
    log.critical("the database was rebuilt", **msgspec.to_builtins(recovery))
    return recovery


def finish(folder: Folder) -> None:
    """End a recovery whose last step is missing, and forget one that has to be repeated."""
    if not folder.database.exists() and folder.rebuilt.exists():
        folder.rebuilt.replace(folder.database)
    folder.rebuilt.unlink(missing_ok=True)


def set_aside(database: Path, why: str, now: float) -> Path | None:
    """Give the database's files a name that tells why and when; None when there are none."""
    with closing(sqlite3.connect(":memory:")) as clock:
        stamp = clock.execute("SELECT strftime('%Y%m%d-%H%M%S', ?, 'unixepoch')", (now,)).fetchone()[0]
    aside, number = database.with_name(f"{database.name}.{why}-{stamp}"), 1
    while any(part.exists() for part in parts_of(aside)):
        number += 1
        aside = database.with_name(f"{database.name}.{why}-{stamp}-{number}")
    for part, name in zip(reversed(parts_of(database)), reversed(parts_of(aside)), strict=True):
        if part.exists():
            part.replace(name)
    return aside if aside.exists() else None


def put_back(database: sqlite3.Connection, picture: Picture) -> None:
    """Let the registry's rows be those of `picture`, and its revision a new one. Part of a transaction."""
    for table in TABLES:
        database.execute(f"DELETE FROM {table}")  # noqa: S608 - our name
        for id, body in picture.rows(table).items():
            registry.put_body(database, table, id, bytes(body))
    database.execute("UPDATE server_states SET mode = 'serving'")
    for id, mode in picture.modes.items():
        registry.put_mode(database, id, mode)
    registry.put_identity(database, picture.revision + 1, bytes.fromhex(picture.secret))


class _Remains:
    """What of the registry can be read of a damaged database. Rows that say nothing sensible are left out."""

    def __init__(self, damaged: sqlite3.Connection | None) -> None:
        self.rows: dict[Table, dict[str, msgspec.Raw]] = {table: {} for table in TABLES}
        self.states: dict[str, SavedState] = {}
        self.incomplete = set(REGISTRY_TABLES)
        self.revision: int | None = None
        self.secret: bytes | None = None
        if damaged is not None:
            self._read(damaged)

    def _read(self, damaged: sqlite3.Connection) -> None:
        self.incomplete = set()
        for name, value in self._values(damaged, "meta", "name, value"):
            if name == "revision" and isinstance(value, int):
                self.revision = value
            if name == "secret" and isinstance(value, bytes) and len(value) == 32:
                self.secret = value
        for table in TABLES:
            for id, body in self._values(damaged, table, "id, body"):
                if _sound(body, KINDS[table]):
                    self.rows[table][str(id)] = msgspec.Raw(str(body))
                else:
                    self.incomplete.add(table)
        for id, mode, body in self._values(damaged, "server_states", "id, mode, body"):
            try:
                state = msgspec.json.decode(str(body), type=SavedState)
                told = {"id": str(id), "mode": str(mode)}
                self.states[str(id)] = msgspec.convert(msgspec.to_builtins(state) | told, SavedState)
            except msgspec.DecodeError:
                self.incomplete.add("server_states")

    def _values(self, damaged: sqlite3.Connection, table: str, columns: str) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for batch in read_rows(damaged, table, columns):
            if batch is None:
                self.incomplete.add(table)
            else:
                found += batch
        return found


def _fill(
    database: sqlite3.Connection, damaged: sqlite3.Connection | None, export: Picture | None, reason: str
) -> Recovery:
    remains = _Remains(damaged)
    for state in remains.states.values():
        registry.put_state(database, state)
    older = damaged is None or (remains.revision is not None and export and remains.revision <= export.revision)
    exported = export is not None and bool(older)
    picture = export if exported else _merged(remains, export)
    if picture is None:
        registry.make_identity(database)
    else:
        put_back(database, picture)
    copied: dict[str, int] = {table: len(picture.rows(table)) if picture else 0 for table in TABLES}
    incomplete = set() if exported else remains.incomplete
    for table in _other_tables(database):
        copied[table], whole = (0, False) if damaged is None else copy_rows(damaged, database, table)
        if not whole:
            incomplete.add(table)
    return Recovery(reason, None, copied, tuple(sorted(incomplete)), exported)


def _merged(remains: _Remains, export: Picture | None) -> Picture | None:
    """What is registered from now on, where the damaged database may know of later changes than the export, or there is none;
    None when neither says anything.
    """
    if export is None:
        if remains.secret is None and not any(remains.rows.values()):
            return None
        # Without the secret that they were hashed with, clients' keys fit no more.
        secret = remains.secret or registry.new_secret()
        export = Picture(0, secret.hex())
    rows = {}
    for table in TABLES:
        here, there = remains.rows[table], export.rows(table)
        if remains.revision is None:
            rows[table] = here | there
        elif table in remains.incomplete:
            rows[table] = there | here
        else:
            rows[table] = here
    modes: dict[str, Mode] = {id: state.mode for id, state in remains.states.items() if state.mode != "serving"}
    return Picture(max(remains.revision or 0, export.revision), export.secret, **rows, modes=export.modes | modes)


@contextmanager
def _without_indexes(database: sqlite3.Connection) -> Iterator[None]:
    """Indexes are made at the end: that takes a fraction of the time."""
    found = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for name, _ in found:
        database.execute(f"DROP INDEX {name}")
    yield
    for _, statement in found:
        database.execute(statement)


def _other_tables(database: sqlite3.Connection) -> list[str]:
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in found if name not in REGISTRY_TABLES and not name.startswith(("sqlite_", "_sqlite_"))]


def _sound(body: object, kind: object) -> bool:
    try:
        msgspec.json.decode(str(body), type=kind)
    except msgspec.DecodeError:
        return False
    return True
