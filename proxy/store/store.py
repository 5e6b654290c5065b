"""The store as the gateway sees it: what was there at start, durable changes, and notes that are written in time.

A change is durable when its method returns; if it raises, nothing was changed. Notes never wait and may be lost with the
process, a few tenths of a second's worth of them.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import structlog
import trio
from quiver.schemas import config, errors
from quiver.schemas.errors import ApiError
from quiver.schemas.saved import Saved, SavedKey, SavedModel, SavedServer, SavedState
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

from . import registry
from .connection import Connection, transaction
from .failure import is_locked, reason_of
from .opening import Opened, open_folder, open_in_memory, renew_copy
from .writer import Writer

P = ParamSpec("P")

# A locked database is tried this often, each time for as long as SQLite itself waits.
TRIES = 4
RETRY_AFTER = 5


class Store:
    """`saved` is what was there at start; `secret`, made once, keys the hashes of clients' keys."""

    def __init__(self, opened: Opened, config: config.Store, wall_clock: Callable[[], float]) -> None:
        self.saved: Saved = opened.saved
        self.secret = opened.secret
        self._opened = opened
        self._connection = Connection(opened.database)
        self._writer = Writer(self._connection, config)
        self._log = structlog.get_logger(component="store")

    @classmethod
    def open(cls, folder: Path | None, config: config.Store, wall_clock: Callable[[], float]) -> "Store":
        """The store in `folder`; None: in memory. Blocks. Raises `StoreError` when another process uses the folder, it
        cannot be written, the database is newer than this program, or cannot be brought up to date.
        """
        return cls(open_in_memory() if folder is None else open_folder(folder, wall_clock()), config, wall_clock)

    def __repr__(self) -> str:
        return f"<Store {self._opened.folder or 'in memory'}>"

    async def save_server(self, server: SavedServer) -> None:
        await self._change(registry.put, "servers", server.id, server)

    async def remove_server(self, id: str) -> None:
        """Forget the server, and how it stood."""
        await self._change(registry.drop_server, id)

    async def save_state(self, state: SavedState) -> None:
        """How a server stands, its mode included."""
        await self._change(registry.put_state, state)

    async def save_key(self, key: SavedKey) -> None:
        await self._change(registry.put, "keys", key.id, key)

    async def save_model(self, model: SavedModel) -> None:
        await self._change(registry.put, "models", model.id, model)

    async def remove_model(self, id: str) -> None:
        await self._change(registry.drop, "models", id)

    async def save_setting(self, name: str, value: Any) -> None:
        """`value`: anything that JSON can say."""
        await self._change(registry.put, "settings", name, value)

    def keep_state(self, state: SavedState) -> None:
        """How a server was last seen; its mode stays as it was saved."""
        self._writer.keep(registry.note_state, state)

    async def write(self) -> None:
        """Write what is kept, until `close` was called and nothing waits."""
        try:
            await self._writer.write()
        finally:
            self._connection.close()
            if self._opened.folder is not None:
                self._opened.folder.release()

    def close(self) -> None:
        """No more changes or notes; `write` ends when the rest is written."""
        self._writer.close()

    async def _change(
        self, change: Callable[Concatenate[sqlite3.Connection, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Make one durable change. Raises `ApiError` (503), and then nothing was changed."""

        def commit(database: sqlite3.Connection) -> None:
            with transaction(database, durable=True):
                change(database, *args, **kwargs)
                registry.count_change(database)
            if self._opened.folder is not None:
                renew_copy(self._opened.folder, database)

        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(is_locked),
                stop=stop_after_attempt(TRIES),
                wait=wait_exponential(0.1),
                sleep=trio.sleep,
                reraise=True,
            ):
                with attempt:
                    await self._connection.use(commit)
        except (sqlite3.Error, OSError) as error:
            reason = reason_of(error)
            self._log.error("a change could not be written", reason=reason)
            raise ApiError(
                errors.STORE_UNAVAILABLE, f"The change was not made: {reason}", retry_after=RETRY_AFTER
            ) from error
