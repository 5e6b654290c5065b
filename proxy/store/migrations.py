"""The database's tables, as steps from one version to the next. A step that was ever released is never changed.

Each step and the note that it was taken are one transaction. Add new ones at the end.
"""

import sqlite3
from contextlib import closing

from sqlite_utils import Database, Migrations

from .failure import Damaged, StoreError, code_of, is_damage, reason_of
from .history import entries as kinds

MIGRATIONS = Migrations("quiver")


@MIGRATIONS()
def registry_tables(db: Database) -> None:
    """What must never be lost, each row a JSON document. `meta.revision` counts the changes of these tables."""
    db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value)")
    for table in ("servers", "keys", "models", "settings"):
        db.execute(f"CREATE TABLE {table} (id TEXT PRIMARY KEY, body TEXT NOT NULL)")
    # The mode is an operator's word, the rest what was last seen: they are written at different times.
    db.execute(
        "CREATE TABLE server_states (id TEXT PRIMARY KEY, mode TEXT NOT NULL DEFAULT 'serving', body TEXT NOT NULL)"
    )


@MIGRATIONS()
def history_tables(db: Database) -> None:
    """What happened: requests and what they add up to, errors, events, checks, figures."""
    for statement in kinds.TABLES:
        db.execute(statement)


def known() -> list[str]:
    """The names of all steps, in order."""
    with closing(sqlite3.connect(":memory:")) as nothing:
        return [step.name for step in MIGRATIONS.pending(Database(nothing, execute_plugins=False))]


def applied(connection: sqlite3.Connection) -> list[str]:
    """The steps that a database has taken. Raises `sqlite3.Error`."""
    return [step.name for step in MIGRATIONS.applied(Database(connection, execute_plugins=False))]


def refuse_newer(connection: sqlite3.Connection, name: str) -> None:
    """Raises `StoreError` when the database called `name` is newer than this program, `Damaged` when it never was Quiver's
    or is not any more, and `sqlite3.Error`.
    """
    steps, ours = applied(connection), known()
    if steps[: len(ours)] == ours[: len(steps)]:
        if len(steps) > len(ours):
            raise StoreError(
                f"`{name}` was written by a newer version of Quiver: this one does not know `{steps[len(ours)]}`",
                "install that version again, or give this one another folder with QUIVER_DATA_DIR",
            )
        if steps or not Database(connection, execute_plugins=False).table_names():
            return
    raise Damaged("its list of versions is not one of Quiver's")


def migrate(connection: sqlite3.Connection, name: str) -> list[str]:
    """Bring the database called `name` up to date; the steps that were taken now.

    Raises `StoreError` when a step fails, which is undone, `sqlite3.DatabaseError` when the file is damaged.
    """
    before = applied(connection)
    pending = known()[len(before) :]
    if not pending:
        return []
    try:
        MIGRATIONS.apply(Database(connection, execute_plugins=False))
    except Exception as error:
        if is_damage(error):
            raise
        failed = known()[len(applied(connection))]
        words = reason_of(error) if code_of(error) > 1 else f"{type(error).__name__}: {error}"
        raise StoreError(
            f"`{name}` could not be brought up to date: step `{failed}` failed and was undone: {words}",
            "nothing is lost: the version that wrote it can still use it",
        ) from error
    return pending
