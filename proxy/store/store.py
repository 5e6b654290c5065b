"""The store as the gateway sees it: what was there at start, durable changes, and notes that are written in time.

A change is durable when its method returns; if it raises, nothing was changed. Notes never wait and may be lost with the
process, a few tenths of a second's worth of them.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import msgspec
import structlog
import trio
from quiver.schemas import config, errors
from quiver.schemas.errors import ApiError
from quiver.schemas.events import Event
from quiver.schemas.saved import CheckResult, Saved, SavedKey, SavedModel, SavedServer, SavedState
from quiver.schemas.sizes import bytes_of, size
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

from ..telemetry.histogram import Histogram
from ..telemetry.record import Record
from . import registry
from .connection import Connection, transaction
from .failure import is_locked, reason_of
from .history import counts
from .history.history import History
from .history.reader import Reader
from .history.retention import forget_requests, tidy
from .opening import Opened, open_folder, open_in_memory, renew_copy
from .writer import Writer

P = ParamSpec("P")

# A locked database is tried this often, each time for as long as SQLite itself waits.
TRIES = 4
RETRY_AFTER = 5


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Entries that wait, were written and were dropped; why nothing can be written, if so; bytes on the disk, and those of
    them that are unused, as they were a minute ago.
    """

    waiting: int
    written: int
    dropped: int
    degraded: str | None
    size: int
    free: int


class Store:
    """`saved` is what was there at start; `secret`, made once, keys the hashes of clients' keys. `recovery`: what had to be
    done about a damaged database, if so.
    """

    def __init__(self, opened: Opened, config: config.Store, wall_clock: Callable[[], float]) -> None:
        self.saved: Saved = opened.saved
        self.secret = opened.secret
        self.recovery = opened.recovery
        self.opened, self._wall_clock = opened, wall_clock
        self._connection = Connection(opened.database, opened.suspect)
        self._writer = Writer(self._connection, config)
        self._reader = Reader(self.path, self._connection)
        self.history = History(self._reader, wall_clock)
        self._config = config
        self._size = self._free = 0
        self._heavy = False
        self._log = structlog.get_logger(component="store")
        self._writer.told = self._health_changed
        # Hears why nothing can be written, and None once it can again.
        self.told: Callable[[str | None], None] = lambda reason: None

    @classmethod
    def open(cls, folder: Path | None, config: config.Store, wall_clock: Callable[[], float]) -> "Store":
        """The store in `folder`; None: in memory. Blocks. Raises `StoreError` when another process uses the folder, it
        cannot be written, the database is newer than this program, or cannot be brought up to date.
        """
        return cls(open_in_memory() if folder is None else open_folder(folder, wall_clock()), config, wall_clock)

    def __repr__(self) -> str:
        return f"<Store {self.opened.folder or 'in memory'}>"

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

    def keep_records(self, records: Sequence[Record]) -> None:
        """Finished requests. They may hold prompts and answers for the log alone; those are not kept here."""
        if not self._config.content:
            records = [_without_content(record) for record in records]
        self._writer.keep_all("records", records)

    def keep_refusal(self, code: str, request_id: str) -> None:
        """An error that the control plane answered with; requests for inference bring theirs along."""
        self._writer.keep_all("refusals", [(self._wall_clock(), code, request_id)])

    def keep_event(self, event: Event) -> None:
        """A change of the gateway."""
        self._writer.keep_all("events", [event])

    def keep_check(self, server: str, result: CheckResult) -> None:
        """How a check of `server` ended."""
        self._writer.keep_all("checks", [(server, result)])

    def keep_sample(self, figures: Mapping[str, float]) -> None:
        """How the gateway is now; its figures over time are made of these."""
        self._writer.keep_all("samples", [(self._wall_clock(), figures)])

    def spent(self, client: str, since: float) -> int:
        """As `history.spent`. Blocks: only for use before anything runs."""
        return int(self._connection.at_once(counts.spent(client, since)))

    def last_used(self, client: str) -> float | None:
        """When the last request of `client` ended, as Unix time. Blocks: only for use before anything runs."""
        found = self._connection.at_once(counts.last_used(client))
        return None if found is None else float(found)

    @property
    def path(self) -> Path | None:
        """The database's file; None: it is in memory."""
        return None if self.opened.folder is None else self.opened.folder.database

    def statistics(self) -> Statistics:
        writer = self._writer
        return Statistics(
            waiting=writer.waiting,
            written=writer.written,
            dropped=writer.dropped,
            degraded=writer.degraded,
            size=self._size,
            free=self._free,
        )

    @property
    def flushes(self) -> Histogram:
        """How long each batch took to be written, in seconds."""
        return self._writer.flushes

    async def tidy(self) -> int:
        """Delete what is too old; how many rows went. What hinders that is logged."""
        try:
            return await tidy(self._connection, self._config, self._wall_clock())
        except (sqlite3.Error, OSError) as error:
            self._log.warning("what is too old could not be deleted", reason=reason_of(error))
            return 0

    async def forget_requests(self, before: float) -> int:
        """Delete the requests that ended before this moment, those on their way included; how many.

        Raises `ApiError` (503) when the database cannot be written; some may be gone then.
        """
        await self.wait_written()
        try:
            return await forget_requests(self._connection, before)
        except (sqlite3.Error, OSError) as error:
            raise ApiError(
                errors.STORE_UNAVAILABLE, f"Not all is deleted: {reason_of(error)}", retry_after=RETRY_AFTER
            ) from error

    async def weigh(self) -> None:
        """Look how large the files are, and warn when they are larger than they should be."""
        with contextlib.suppress(sqlite3.Error, OSError):
            self._size, self._free = await self._connection.use(partial(_weight, self.path))
        limit = bytes_of(self._config.size_warning)
        if self._size > limit and not self._heavy:
            self._log.warning(
                "the database is large; `store.request_days` says how long requests are kept",
                size=size(self._size),
                limit=size(limit),
            )
        self._heavy = self._size > limit

    async def wait_written(self) -> None:
        """Return once nothing waits to be written."""
        await self._writer.wait_idle()

    async def write(self) -> None:
        """Write what is kept, until `close` was called and nothing waits."""
        try:
            await self._writer.write()
        finally:
            self._reader.close()
            await self._connection.close()
            self.opened.close()

    def close(self) -> None:
        """No more changes or notes; `write` ends when the rest is written."""
        self._writer.close()

    def release(self) -> None:
        """Let others use the folder, whatever became of this store; nothing happens when `write` has ended."""
        self._reader.close()
        self.opened.close()

    def _health_changed(self, reason: str | None) -> None:
        self.told(reason)

    async def _change(
        self, change: Callable[Concatenate[sqlite3.Connection, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Make one durable change. Raises `ApiError` (503), and then nothing was changed."""

        def commit(database: sqlite3.Connection) -> None:
            with transaction(database, durable=True):
                change(database, *args, **kwargs)
                registry.count_change(database)
            if self.opened.folder is not None:
                renew_copy(self.opened.folder, database)

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


def _without_content(record: Record) -> Record:
    """`record` without its prompt and answer, unless its client asked to have them kept."""
    if record.keep_content or record.prompt is None:
        return record
    return msgspec.structs.replace(record, prompt=None, answer=None)


def _weight(path: Path | None, database: sqlite3.Connection) -> tuple[int, int]:
    """Bytes of the files, and those of them that are unused."""
    [page] = database.execute("PRAGMA page_size").fetchone()
    [pages] = database.execute("PRAGMA page_count").fetchone()
    [free] = database.execute("PRAGMA freelist_count").fetchone()
    if path is None:
        return pages * page, free * page
    files = [path, path.with_name(f"{path.name}-wal")]
    return sum(file.stat().st_size for file in files if file.exists()), free * page
