"""Reading what can still be read of a damaged database, row by row."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import structlog

from .connection import connect_to_read

# Rows read at a time, while all goes well.
STRIDE = 500


def copy_rows(damaged: sqlite3.Connection, target: sqlite3.Connection, table: str) -> tuple[int, bool]:
    """Copy a table's rows, as far as both databases have the same columns; how many, and whether these were all."""
    copied = 0
    try:
        columns = [name for name in _columns(target, table) if name in _columns(damaged, table)]
    except sqlite3.Error:
        return 0, False
    if not columns:
        return 0, False
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    complete = True
    for batch in read_rows(damaged, table, names):
        if batch is None:
            complete = False
            continue
        for row in batch:
            try:
                target.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", row)  # noqa: S608 - our names
                copied += 1
            except sqlite3.Error:  # a row that breaks a rule is one that was damaged
                complete = False
    return copied, complete


def read_rows(damaged: sqlite3.Connection, table: str, columns: str) -> Iterator[list[tuple[object, ...]] | None]:
    """The rows that can be read, in batches; None for each gap. Where reading fails it goes on behind the bad page, with
    steps that double, so that a large gap is passed quickly and a small one costs few rows.
    """
    try:
        last = damaged.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]  # noqa: S608 - our name
    except sqlite3.Error:
        last = None
        yield None
    rowid, step = 0, 1
    while last is None or rowid <= last:
        query = f"SELECT rowid, {columns} FROM {table} WHERE rowid >= ? ORDER BY rowid LIMIT ?"  # noqa: S608 - our names
        found: list[tuple[object, ...]] = []
        try:
            for row in damaged.execute(query, (rowid, STRIDE)):
                found.append(row)
        except sqlite3.Error:
            if found:
                yield [row[1:] for row in found]
            yield None
            rowid = _next(found, rowid) + step
            step *= 2
            if step > 2**40:
                return
            continue
        if not found:
            return
        step = 1
        yield [row[1:] for row in found]
        rowid = _next(found, rowid)


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


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]


def _next(found: list[tuple[object, ...]], rowid: int) -> int:
    last = found[-1][0] if found else None
    return last + 1 if isinstance(last, int) else rowid
