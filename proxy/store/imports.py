"""Taking over what an export holds into a folder whose gateway does not run."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

import msgspec
from quiver.schemas.saved import Mode

from . import export, registry
from .connection import connect_to_read, transaction
from .export import Picture, picture_of
from .failure import Damaged, StoreError, reason_of
from .folder import Folder
from .migrations import refuse_newer
from .opening import open_locked, renew_copy
from .registry import KINDS, TABLES, Table

Outcome = Literal["added", "changed", "unchanged", "skipped"]


class Imported(msgspec.Struct, frozen=True):
    """What became of one row. `note`: why it was skipped."""

    table: str
    id: str
    outcome: Outcome
    note: str | None = None


def export_of(folder: Folder) -> Picture:
    """The rows in a folder, be its gateway running or not. Raises `StoreError`."""
    if not folder.database.is_file():
        raise StoreError(f"there is nothing to export: `{folder.database}` is no file")
    try:
        with closing(connect_to_read(folder.database)) as database:
            refuse_newer(database, str(folder.database))
            return picture_of(database)
    except (sqlite3.Error, Damaged) as error:
        raise StoreError(
            f"`{folder.database}` cannot be read: {reason_of(error)}", "`quiver db check` says what can be done"
        ) from error


def read_export(path: Path) -> Picture:
    """The rows in a file, each of them valid. Raises `StoreError` with the place at fault."""
    try:
        picture = export.read(path.read_bytes())
        for table in TABLES:
            for id, body in picture.rows(table).items():
                _validate(table, id, body)
        bytes.fromhex(picture.secret)
    except OSError as error:
        raise StoreError(f"`{path}` cannot be read: {reason_of(error)}") from None
    except Damaged as error:
        raise StoreError(f"`{path}`: {error}", "`quiver db export` writes what can be imported") from None
    except (msgspec.ValidationError, ValueError) as error:
        raise StoreError(f"`{path}`: {error}", "nothing was imported; correct it, or export it again") from None
    return picture


def import_into(folder: Folder, picture: Picture, now: float) -> list[Imported]:
    """Add the rows of `picture`, and change those that are there with other contents; all of them, or none.

    Raises `StoreError`, also while a gateway uses the folder.
    """
    folder.prepare()
    folder.lock()
    try:
        opened = open_locked(folder, now)
        try:
            with transaction(opened.database, durable=True):
                told = _merge(opened.database, picture)
                registry.count_change(opened.database)
            renew_copy(folder, opened.database)
        finally:
            opened.database.close()
    except (sqlite3.Error, OSError, Damaged) as error:
        raise StoreError(f"nothing was imported: {reason_of(error)}") from error
    finally:
        folder.release()
    return told


def _merge(database: sqlite3.Connection, picture: Picture) -> list[Imported]:
    here = picture_of(database)
    fits = here.secret == picture.secret or not here.keys
    if fits:
        registry.put_identity(database, here.revision, bytes.fromhex(picture.secret))
    told = []
    for table in TABLES:
        for id, body in picture.rows(table).items():
            if table == "keys" and not fits:
                note = "it was hashed with another gateway's secret, and this one has keys of its own"
                told.append(Imported(table, id, "skipped", note))
                continue
            told.append(Imported(table, id, _outcome(here.rows(table), id, body)))
            registry.put_body(database, table, id, _compact(body))
    for id, mode in picture.modes.items():
        before: Mode = here.modes.get(id, "serving")
        told.append(Imported("modes", id, "unchanged" if before == mode else "changed"))
        registry.put_mode(database, id, mode)
    return told


def _outcome(rows: dict[str, msgspec.Raw], id: str, body: msgspec.Raw) -> Outcome:
    if id not in rows:
        return "added"
    return "unchanged" if _compact(rows[id]) == _compact(body) else "changed"


def _validate(table: Table, id: str, body: msgspec.Raw) -> None:
    try:
        row = msgspec.json.decode(body, type=KINDS[table])
    except msgspec.ValidationError as error:
        rule, _, place = str(error).partition(" - at `$")
        raise ValueError(f"`registry.{table}.{id}{place.rstrip('`')}`: {rule}") from None
    if table != "settings" and row.id != id:
        raise ValueError(f"`registry.{table}.{id}.id`: it says `{row.id}`")


def _compact(body: msgspec.Raw) -> bytes:
    """A row as the store writes it, however it was laid out."""
    return msgspec.json.format(body, indent=-1)
