"""What is kept without waiting: notes gather, and one task writes them in batches."""

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Concatenate, ParamSpec

import structlog
import trio
from quiver.schemas import config

from .connection import Connection, transaction
from .failure import reason_of

P = ParamSpec("P")
Note = Callable[[sqlite3.Connection], None]

# After so many unwritten notes the disk is considered stuck, and new ones are counted as dropped.
BACKLOG = 65_536


class Writer:
    """Writes notes in the order they came, each batch a transaction."""

    def __init__(self, connection: Connection, config: config.Store) -> None:
        self._connection, self._pause = connection, config.flush_pause
        self._waiting: list[Note] = []
        self._more = trio.Event()
        self._closed = False
        self._log = structlog.get_logger(component="store")
        self.written = self.dropped = 0

    def __repr__(self) -> str:
        return f"<Writer: {self.written} written, {len(self._waiting)} waiting>"

    def keep(self, work: Callable[Concatenate[sqlite3.Connection, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do `work(database, ...)` in the next batch."""
        if len(self._waiting) >= BACKLOG:
            self.dropped += 1
            return
        self._waiting.append(lambda database: work(database, *args, **kwargs))
        self._more.set()

    async def write(self) -> None:
        """Write until `close` was called and nothing waits."""
        while not self._closed or self._waiting:
            await self._more.wait()
            if not self._closed:
                await trio.sleep(self._pause)
                self._more = trio.Event()
            batch, self._waiting = self._waiting, []
            if batch:
                await self._write(batch)

    def close(self) -> None:
        """No more notes; `write` ends when the rest is written."""
        self._closed = True
        self._more.set()

    async def _write(self, batch: list[Note]) -> None:
        try:
            await self._connection.use(partial(_write, batch))
        except (sqlite3.Error, OSError) as error:
            self.dropped += len(batch)
            self._log.error("notes could not be written", count=len(batch), reason=reason_of(error))
        else:
            self.written += len(batch)


def _write(batch: list[Note], database: sqlite3.Connection) -> None:
    with transaction(database, durable=False):
        for note in batch:
            note(database)
