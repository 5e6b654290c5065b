"""A connection to the database: one use at a time, off the event loop."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import trio

from ..seams import offload
from .failure import is_damage

P = ParamSpec("P")
T = TypeVar("T")

# How long SQLite itself waits for another process' lock.
BUSY_TIMEOUT = 1.0
# What is left of the write-ahead log after its content went into the database.
LARGEST_WAL = 16 * 1024 * 1024


class Connection:
    """Whoever comes first uses it first, so that a durable write waits for one batch at most. `damaged` is called when the
    database turns out to be.
    """

    def __init__(self, database: sqlite3.Connection, damaged: Callable[[], None] = lambda: None) -> None:
        self._database, self._damaged = database, damaged
        self._turn = trio.Lock()

    def __repr__(self) -> str:
        return f"<Connection {'in use' if self._turn.locked() else 'idle'}>"

    async def use(self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(database, ...)`. Once begun it is not cancelled. Raises what `work` raises, so `sqlite3.Error`."""
        async with self._turn:
            return await offload(lambda: self._work(lambda: work(self._database, *args, **kwargs)))

    def at_once(self, question: tuple[str, Sequence[Any]]) -> Any:
        """The first value of a statement's only row. Blocks, and nobody may be using it."""
        return self._database.execute(*question).fetchone()[0]

    async def close(self) -> None:
        """Close it once nobody uses it. Later uses raise `sqlite3.Error`."""
        with trio.CancelScope(shield=True):  # a thread may be in the middle of a statement, which ends by itself
            async with self._turn:
                self._database.close()

    def _work(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            if is_damage(error):
                self._damaged()
            raise


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection for use from any thread, one at a time; None: a database in memory. Raises `sqlite3.Error`, `OSError`."""
    if path is None:
        return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives the files beside it the same rights
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # decided while a file is empty
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA journal_size_limit = {LARGEST_WAL}")
    except BaseException:
        database.close()
        raise
    return database


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing of the database. Raises `sqlite3.Error`."""
    where = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(where, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, uri=True)


@contextmanager
def transaction(database: sqlite3.Connection, *, durable: bool) -> Iterator[None]:
    """All or nothing. `durable`: on the disk once this is left; else it may be lost when the machine fails, though not when
    the process does.
    """
    database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # some errors have rolled back already
            database.execute("ROLLBACK")
        raise
