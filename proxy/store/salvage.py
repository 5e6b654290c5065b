"""Reading what can still be read of a damaged database, row by row."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from .connection import connect_to_read

# Rows read at a time, while all goes well.
STRIDE = 500
# A gap that is wider than this is the end of what there is.
WIDEST = 2**40

Rows = list[tuple[object, ...]]


def copy_rows(damaged: sqlite3.Connection, target: sqlite3.Connection, table: str) -> tuple[int, bool]:
    """Copy a table's rows, as far as both databases have the same columns; how many, and whether these were all."""
    before = target.total_changes
    try:
        there = set(_columns(damaged, table))
    except sqlite3.Error:
        return 0, False
    columns = [name for name in _columns(target, table) if name in there]
    if not columns:
        return 0, False
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    # A row may be read twice; one that breaks a rule is one that was damaged.
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - our names
    keys = _keys(target, table)
    complete = True
    for batch in read_rows(damaged, table, names) if not keys else _read_by_keys(damaged, table, names, keys):
        if batch is None:
            complete = False
        else:
            target.executemany(insert, batch)
    return target.total_changes - before, complete


def read_rows(damaged: sqlite3.Connection, table: str, columns: str) -> Iterator[Rows | None]:
    """The rows that can be read, in batches; None for each gap. Where reading fails it goes on behind the bad page, with
    steps that double, so that a large gap is passed quickly and a small one costs few rows.
    """
    try:
        last = damaged.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]  # noqa: S608 - our name
    except sqlite3.Error:
        last = None
        yield None
    query = f"SELECT rowid, {columns} FROM {table} WHERE rowid >= ? ORDER BY rowid LIMIT ?"  # noqa: S608 - our names
    rowid, step = 0, 1
    while (last is None or rowid <= last) and step < WIDEST:
        found, failed = _read(damaged, query, (rowid, STRIDE))
        if found:
            rowid = int(str(found[-1][0])) + 1
            yield [row[1:] for row in found]
        if failed:
            yield None
            rowid, step = rowid + step, step * 2
        elif not found:
            return
        else:
            step = 1


def open_damaged(path: Path) -> sqlite3.Connection | None:
    """A connection that changes nothing; None when there is no reading the file at all."""
    database = connect_to_read(path)
    database.text_factory = lambda text: text.decode(errors="replace")
    try:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        structlog.get_logger(component="store").error("nothing can be read of the damaged database", reason=str(error))
        database.close()
        return None
    return database


def _read_by_keys(damaged: sqlite3.Connection, table: str, columns: str, keys: Sequence[str]) -> Iterator[Rows | None]:
    """The same for a table without rowids: from its beginning to the first bad page, and from its end to the last one."""
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{key} {direction}" for key in keys)
        found, failed = _read(damaged, f"SELECT {columns} FROM {table} ORDER BY {order}")  # noqa: S608 - our names
        yield found
        if not failed:
            return
        yield None


def _read(damaged: sqlite3.Connection, query: str, parameters: Sequence[int] = ()) -> tuple[Rows, bool]:
    """The rows up to the first that cannot be read, and whether there was one."""
    found: Rows = []
    try:
        for row in damaged.execute(query, parameters):
            found.append(row)
    except sqlite3.Error:
        return found, True
    return found, False


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]


def _keys(database: sqlite3.Connection, table: str) -> list[str]:
    """The primary key's columns of a table without rowids; empty for others."""
    try:
        database.execute(f"SELECT rowid FROM {table} LIMIT 0")  # noqa: S608 - our name
    except sqlite3.OperationalError:
        placed = [(row[5], row[1]) for row in database.execute(f"PRAGMA table_info({table})") if row[5]]
        return [name for _, name in sorted(placed)]
    return []
