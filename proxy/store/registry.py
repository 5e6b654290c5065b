"""The rows that must never be lost: servers, their modes, keys, models and settings. Each is a JSON document under an id.

These functions are parts of a transaction, which ends with `count_change`: the revision says whether the export is behind.
"""

import secrets
import sqlite3
from collections.abc import Iterator
from typing import Any, Literal, TypeVar, get_args

import msgspec
import structlog
from quiver.schemas.saved import Mode, Saved, SavedKey, SavedModel, SavedServer, SavedState

T = TypeVar("T")
Table = Literal["servers", "keys", "models", "settings"]
TABLES: tuple[Table, ...] = ("servers", "keys", "models", "settings")

_encode = msgspec.json.Encoder().encode


def put(database: sqlite3.Connection, table: Table, id: str, row: object) -> None:
    """Add a row, or change the one with this id."""
    database.execute(
        f"INSERT INTO {table} VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",  # noqa: S608 - our name
        (id, _encode(row).decode()),
    )


def drop(database: sqlite3.Connection, table: Table, id: str) -> None:
    """Remove a row, if it is there."""
    database.execute(f"DELETE FROM {table} WHERE id = ?", (id,))  # noqa: S608 - our name


def drop_server(database: sqlite3.Connection, id: str) -> None:
    """Remove a server, and how it stood."""
    drop(database, "servers", id)
    database.execute("DELETE FROM server_states WHERE id = ?", (id,))


def put_state(database: sqlite3.Connection, state: SavedState) -> None:
    """How a server stands, its mode included."""
    note_state(database, state)
    database.execute("UPDATE server_states SET mode = ? WHERE id = ?", (state.mode, state.id))


def note_state(database: sqlite3.Connection, state: SavedState) -> None:
    """How a server was last seen. Its mode stays: that one is an operator's word, and may be newer than what was seen."""
    database.execute(
        "INSERT INTO server_states (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        (state.id, _encode(state).decode()),
    )


def count_change(database: sqlite3.Connection) -> None:
    """One more change of these tables."""
    database.execute("UPDATE meta SET value = value + 1 WHERE name = 'revision'")


def make_identity(database: sqlite3.Connection) -> None:
    """What a new database starts with: no changes, and a secret of its own to hash clients' keys with."""
    database.execute("INSERT INTO meta VALUES ('revision', 0) ON CONFLICT DO NOTHING")
    database.execute("INSERT INTO meta VALUES ('secret', ?) ON CONFLICT DO NOTHING", (secrets.token_bytes(32),))


def meta(database: sqlite3.Connection, name: str) -> Any:
    """A value of the database as a whole; None when there is none."""
    row = database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def saved(database: sqlite3.Connection) -> Saved:
    """Everything. A row that cannot be read is left out, and left where it is, with a word in the log."""
    states = {}
    for id, mode, body in database.execute("SELECT id, mode, body FROM server_states ORDER BY rowid"):
        if (state := _decoded("server_states", id, body, SavedState)) is not None:
            states[id] = msgspec.structs.replace(state, id=id, mode=mode if mode in get_args(Mode) else "serving")
    return Saved(
        servers=tuple(_rows(database, "servers", SavedServer)),
        states=states,
        keys=tuple(_rows(database, "keys", SavedKey)),
        models=tuple(_rows(database, "models", SavedModel)),
        settings={id: msgspec.json.decode(body) for id, body in database.execute("SELECT id, body FROM settings")},
    )


def _rows(database: sqlite3.Connection, table: Table, kind: type[T]) -> Iterator[T]:
    for id, body in database.execute(f"SELECT id, body FROM {table} ORDER BY rowid"):  # noqa: S608 - our name
        if (row := _decoded(table, id, body, kind)) is not None:
            yield row


def _decoded(table: str, id: str, body: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        log = structlog.get_logger(component="store")
        log.error("a row cannot be read and is left out", table=table, id=id, reason=str(error))
        return None
