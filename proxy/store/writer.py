"""What is kept without waiting: it gathers, and one task writes it in batches, each a transaction.

A locked database is waited for. A disk that is full, or a file that cannot be written, makes the store *degraded*: that is
said once and loudly, writing is tried again with growing pauses, meanwhile a little is kept back and the rest is dropped and
counted. An entry that can never be written is dropped alone.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, Concatenate, ParamSpec

import msgspec
import structlog
import trio
from quiver.schemas import config

from ..telemetry.histogram import Histogram
from .connection import Connection, transaction
from .failure import CANTOPEN, CORRUPT, FULL, IO, NOTADB, READONLY, code_of, is_locked, reason_of
from .history import rows
from .history.entries import STATEMENTS, Kind

P = ParamSpec("P")
Note = Callable[[sqlite3.Connection], None]
Entries = dict[Kind | None, list[Any]]  # notes, which are no kind, under None

# After so many unwritten entries the disk is considered stuck, and new ones are counted as dropped.
BACKLOG = 65_536
# What is kept back while nothing can be written, for when it can.
DEGRADED_BACKLOG = 4096
# A batch holds the database for as long as it takes, and a durable change waits for it.
MOST = 2048
RETRY, MAX_RETRY = 0.5, 60.0
# What a closing gateway gives a disk that does not answer.
PATIENCE = 5.0

_UNWRITABLE = (CANTOPEN, CORRUPT, FULL, IO, NOTADB, READONLY)
_encode = msgspec.json.Encoder().encode


class Writer:
    """Writes entries in the order they came; `flushes` counts how long each batch took. `told` hears why nothing can be
    written, and None once it can again.
    """

    def __init__(self, connection: Connection, config: config.Store) -> None:
        self._connection, self._pause = connection, config.flush_pause
        self._entries: Entries = {}
        self._more = trio.Event()
        self._closing = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._deadline = inf
        self._token: trio.lowlevel.TrioToken | None = None
        self._log = structlog.get_logger(component="store")
        self.told: Callable[[str | None], None] = lambda reason: None
        self.written = self.dropped = 0
        self.flushes = Histogram()
        self.degraded: str | None = None

    def __repr__(self) -> str:
        return f"<Writer: {self.written} written, {self.waiting} waiting{', degraded' if self.degraded else ''}>"

    @property
    def waiting(self) -> int:
        """Entries that are not written yet."""
        return _count(self._entries)

    def keep(self, work: Callable[Concatenate[sqlite3.Connection, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do `work(database, ...)` in the next batch. May be called in any thread."""
        self._add(None, [lambda database: work(database, *args, **kwargs)])

    def keep_all(self, kind: Kind, values: Sequence[Any]) -> None:
        """Write `values` with the next batch. May be called in any thread."""
        self._add(kind, values)

    async def write(self) -> None:
        """Write until `close` was called and nothing waits, or nothing can be written."""
        self._token = trio.lowlevel.current_trio_token()
        if self._entries:
            self._more.set()
        while not self._closing.is_set() or self._entries:
            await self._more.wait()
            if not self._closing.is_set() and self.waiting < MOST:
                with trio.move_on_after(self._pause):
                    await self._closing.wait()
            if batch := self._take():
                await self._write_somehow(batch)
            if not self._entries:
                self._idle.set()
        if self.dropped:
            self._log.error("the store lost entries", count=self.dropped)

    async def wait_idle(self) -> None:
        """Return once nothing waits."""
        while self._entries or not self._idle.is_set():
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()

    def close(self) -> None:
        """No more entries; `write` ends when the rest is written."""
        self._deadline = trio.current_time() + PATIENCE
        self._closing.set()
        self._more.set()

    def _add(self, kind: Kind | None, values: Sequence[Any]) -> None:
        room = max((DEGRADED_BACKLOG if self.degraded else BACKLOG) - self.waiting, 0)
        if len(values) > room:
            self.dropped += len(values) - room
            values = values[:room]
        if not values:
            return
        self._entries.setdefault(kind, []).extend(values)
        if self._token is not None and not self._more.is_set():
            if trio.lowlevel.in_trio_run():
                self._more.set()
            else:
                self._token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        self._more.set()

    def _take(self) -> Entries:
        """The next batch: of each kind the oldest entries."""
        waiting, self._entries = self._entries, {}
        if not self._closing.is_set():
            self._more = trio.Event()
        if self._idle.is_set():
            self._idle = trio.Event()
        batch = {kind: values[:MOST] for kind, values in waiting.items() if values}
        rest = {kind: values[MOST:] for kind, values in waiting.items() if len(values) > MOST}
        if rest:
            self._entries = rest
            self._more.set()
        return batch

    async def _write_somehow(self, batch: Entries) -> None:
        """Write `batch`, waiting for a disk that cannot take it now. What can never be written is dropped."""
        pause, locked = RETRY, False
        while True:
            began = trio.current_time()
            try:
                await self._connection.use(partial(_write, batch))
            except Exception as error:
                if is_locked(error):
                    if not locked:
                        self._log.warning("writing waits", reason=reason_of(error))
                    locked = True
                elif isinstance(error, OSError) or code_of(error) in _UNWRITABLE:
                    self._degrade(reason_of(error))
                else:
                    await self._write_apart(batch, error)
                    return
                if trio.current_time() >= self._deadline:
                    self.dropped += _count(batch)
                    return
                await self._wait(pause)
                pause = min(pause * 2, MAX_RETRY)
            else:
                self.written += _count(batch)
                self.flushes.observe(trio.current_time() - began)
                self._recover()
                return

    async def _wait(self, seconds: float) -> None:
        """Pause before the next try; a gateway that closes tries at once, and then for a little while."""
        with trio.move_on_at(min(trio.current_time() + seconds, self._deadline)):
            if not self._closing.is_set():
                await self._closing.wait()
            else:
                await trio.sleep_forever()

    async def _write_apart(self, batch: Entries, error: Exception) -> None:
        """Write the halves of a batch of which something is at fault, so that only that is lost."""
        kinds = list(batch)
        if len(kinds) > 1:
            for kind in kinds:
                await self._write_somehow({kind: batch[kind]})
            return
        [(kind, values)] = batch.items()
        if len(values) == 1:
            self.dropped += 1
            self._log.error("an entry could not be written", kind=kind, reason=reason_of(error), exc_info=error)
            return
        half = len(values) // 2
        await self._write_somehow({kind: values[:half]})
        await self._write_somehow({kind: values[half:]})

    def _degrade(self, reason: str) -> None:
        if self.degraded is None:
            self._log.error("the store cannot be written; until it can, requests are only logged", reason=reason)
            self.degraded = reason
            self.told(reason)
        excess = self.waiting - DEGRADED_BACKLOG
        for values in self._entries.values():
            if excess > 0:
                gone = min(excess, len(values))
                del values[len(values) - gone :]
                self.dropped += gone
                excess -= gone

    def _recover(self) -> None:
        if self.degraded is not None:
            self.degraded = None
            self._log.warning("the store can be written again", dropped=self.dropped)
            self.told(None)


def _count(entries: Entries) -> int:
    return sum(map(len, entries.values()))


def _write(batch: Entries, database: sqlite3.Connection) -> None:
    with transaction(database, durable=False):
        for kind, values in batch.items():
            if kind is None:
                for note in values:
                    note(database)
                continue
            given: dict[str, Any] = {}
            if kind == "records":
                [given["before"]] = database.execute("SELECT coalesce(max(id), 0) FROM requests").fetchone()
                rows.insert(database, values)
            else:
                given["batch"] = _encode(values).decode()
            for statement in STATEMENTS[kind]:
                database.execute(statement, given)
