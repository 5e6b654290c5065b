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
TABLES: tuple[Table, ...] = get_args(Table)
# What a row's document says; settings are whatever JSON can say.
KINDS: dict[Table, Any] = {"servers": SavedServer, "keys": SavedKey, "models": SavedModel, "settings": Any}

_encode = msgspec.json.Encoder().encode


def put(database: sqlite3.Connection, table: Table, id: str, row: object) -> None:
    """Add a row, or change the one with this id."""
    put_body(database, table, id, _encode(row))


def put_body(database: sqlite3.Connection, table: Table, id: str, body: bytes) -> None:
    """The same for a row that is written as JSON already."""
    database.execute(
        f"INSERT INTO {table} VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",  # noqa: S608 - our name
        (id, body.decode()),
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
    put_mode(database, state.id, state.mode)


def put_mode(database: sqlite3.Connection, id: str, mode: Mode) -> None:
    """Whether a server gets new requests."""
    database.execute(
        "INSERT INTO server_states VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET mode = excluded.mode",
        (id, mode, _encode(SavedState(id=id)).decode()),
    )


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
    put_identity(database, 0, new_secret())


def new_secret() -> bytes:
    """What clients' keys are hashed with."""
    return secrets.token_bytes(32)


def put_identity(database: sqlite3.Connection, revision: int, secret: bytes) -> None:
    """How many changes there were, and the secret."""
    database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [("revision", revision), ("secret", secret)])


def meta(database: sqlite3.Connection, name: str) -> Any:
    """A value of the database as a whole; None when there is none."""
    row = database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def rows(database: sqlite3.Connection, table: Table) -> list[tuple[str, bytes]]:
    """Ids and documents, the oldest first. Raises `sqlite3.Error`."""
    # As bytes: what is not UTF-8 any more is still read, and found out when it is decoded.
    found = database.execute(f"SELECT CAST(id AS BLOB), CAST(body AS BLOB) FROM {table} ORDER BY rowid")  # noqa: S608 - our name
    return [(id.decode(errors="replace"), body) for id, body in found]


def modes(database: sqlite3.Connection) -> dict[str, Mode]:
    """Which servers get new requests, where that was ever said. Raises `sqlite3.Error`."""
    found = database.execute("SELECT id, mode FROM server_states ORDER BY id")
    return {id: mode for id, mode in found if mode in get_args(Mode)}


def saved(database: sqlite3.Connection) -> Saved:
    """Everything. A row that cannot be read is left out, and left where it is, with a word in the log."""
    states = {}
    for id, mode, body in database.execute("SELECT id, mode, body FROM server_states ORDER BY rowid"):
        if (state := _decoded("server_states", id, body, SavedState)) is not None:
            states[id] = msgspec.structs.replace(state, id=id, mode=mode if mode in get_args(Mode) else "serving")
    return Saved(
        servers=tuple(_read(database, "servers", SavedServer)),
        states=states,
        keys=tuple(_read(database, "keys", SavedKey)),
        models=tuple(_read(database, "models", SavedModel)),
        settings=dict(_settings(database)),
    )


def _read(database: sqlite3.Connection, table: Table, kind: type[T]) -> Iterator[T]:
    for id, body in rows(database, table):
        if (row := _decoded(table, id, body, kind)) is not None:
            yield row


def _settings(database: sqlite3.Connection) -> Iterator[tuple[str, Any]]:
    for id, body in rows(database, "settings"):
        try:
            yield id, msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            _tell_unreadable("settings", id, error)


def _decoded(table: str, id: str, body: bytes | str, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        _tell_unreadable(table, id, error)
        return None


def _tell_unreadable(table: str, id: str, error: msgspec.DecodeError) -> None:
    log = structlog.get_logger(component="store")
    log.error("a row cannot be read and is left out", table=table, id=id, reason=str(error))
