"""Reading while others write: connections that cannot write, a time limit for each question, and an end when nobody waits.

A question is one statement that makes one row of JSON, which is decoded where it was read: Python is entered once for an
answer and not once for a row, so a long answer does not hold up the event loop.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio
from quiver.schemas import errors
from quiver.schemas.errors import ApiError

from ...seams import offload
from ..connection import Connection
from ..failure import reason_of

T = TypeVar("T")
# A question that takes longer would keep others waiting.
TIMEOUT = 20.0
# Questions that are answered at a time.
CONNECTIONS = 3


class Reader:
    """Answers questions over the database at `path`, or over `shared` where it is in memory."""

    def __init__(self, path: Path | None, shared: Connection) -> None:
        self._path, self._shared = path, shared
        self._free: list[sqlite3.Connection] = []
        self._room = trio.Semaphore(CONNECTIONS)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Reader of {self._path or 'memory'}>"

    async def ask(self, statement: str, parameters: Sequence[Any], kind: type[T]) -> T:
        """The JSON in the first column of the statement's only row, as `kind`.

        Raises `ApiError` (503) when it takes too long or the database cannot be read.
        """
        decode = _decoder(kind).decode  # type: ignore[arg-type]  # types are hashable

        def read(database: sqlite3.Connection) -> T:
            found: T = decode(database.execute(statement, parameters).fetchone()[0])
            return found

        return await self._use(read)

    def close(self) -> None:
        """No more questions. What is being answered ends first."""
        self._closed = True
        while self._free:
            self._free.pop().close()

    async def _use(self, read: Callable[[sqlite3.Connection], T]) -> T:
        answer: list[T] = []
        try:
            with trio.move_on_after(TIMEOUT):
                async with self._room:
                    answer.append(await self._read(read))
        except sqlite3.Error as error:
            raise ApiError(
                errors.STORE_UNAVAILABLE, f"The history cannot be read: {reason_of(error)}", retry_after=5
            ) from error
        if not answer:
            raise ApiError(errors.QUERY_TIMEOUT, "The question took too long; narrow its time with `since` and `until`")
        return answer[0]

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        if self._path is None:
            return await self._shared.use(read)
        database = self._free.pop() if self._free else await offload(_open, self._path)
        try:
            return await _interruptible(database, read)
        finally:
            self._free.append(database)
            if self._closed:
                self.close()


@cache
def _decoder(kind: Any) -> "msgspec.json.Decoder[Any]":
    """Making one takes longer than a page to decode. SQLite's truth values are numbers."""
    return msgspec.json.Decoder(kind, strict=False)


def _open(path: Path) -> sqlite3.Connection:
    # Opened with the right to write, which SQLite needs after a crash, and bound not to.
    database = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA query_only = 1")
    return database


async def _interruptible(database: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """`read(database)`; when this is cancelled, the statement is too. Nobody else may be using `database`."""
    answer: list[T] = []
    failure: Exception | None = None
    reading = True

    async def interrupt_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                while reading:  # again, since the statement may not have begun
                    database.interrupt()
                    await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupt_when_cancelled)
        try:
            answer.append(await offload(read, database))
        except Exception as error:  # told below, outside the nursery's group
            failure = error
        finally:
            reading = False
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return answer[0]
