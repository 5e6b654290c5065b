"""Accounting: exactly one record per request, written off the request's path by one writer.

`Ledger.record` never waits: it counts the record and puts it on a list. The writer takes the whole list a few times a
second and hands it to the sink, off the event loop.
"""

from collections.abc import Callable, Sequence

import structlog
import trio
from msgspec.structs import replace

from ..content import Content
from ..seams import offload
from .metrics import Metrics
from .record import Record

Sink = Callable[[Sequence[Record]], None]

# After so many unwritten records the writer is considered stuck, and new ones are counted as dropped.
BACKLOG = 65_536
# Records wait this long for others to be written with.
PAUSE = 0.1


class Ledger:
    """Takes records from exchanges, gives them to the sink in the order they came. `keep` gets them first, on the event
    loop, and must not wait.
    """

    def __init__(self, metrics: Metrics, sink: Sink, keep: Sink = lambda records: None) -> None:
        self._metrics, self._sink, self._keep = metrics, sink, keep
        self._waiting: list[Record | tuple[Record, Content]] = []
        self._more = trio.Event()
        self._closed = False
        self._log = structlog.get_logger(component="ledger")
        self.dropped = 0
        self.written = 0

    def __repr__(self) -> str:
        return f"<Ledger: {self.written} written, {len(self._waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return len(self._waiting)

    def record(self, record: Record, content: Content | None = None) -> None:
        """Count and queue one record, and what of its `content` is to be kept with it."""
        self._metrics.observe(record)
        waiting = self._waiting
        if len(waiting) >= BACKLOG:
            self.dropped += 1
            return
        if not waiting:
            self._more.set()
        waiting.append(record if content is None else (record, content))

    async def write_records(self) -> None:
        """Write until `close` was called and nothing waits. A sink that fails loses its batch, loudly."""
        while not self._closed or self._waiting:
            await self._more.wait()
            if not self._closed:
                await trio.sleep(PAUSE)
            batch, self._waiting = self._waiting, []
            if not self._closed:
                self._more = trio.Event()
            if batch:
                await self._write(batch)
        if self.dropped:
            self._log.error("records were dropped", count=self.dropped, backlog=BACKLOG)

    def close(self) -> None:
        """No more records; `write_records` ends when the rest is written."""
        self._closed = True
        self._more.set()

    async def _write(self, batch: Sequence[Record | tuple[Record, Content]]) -> None:
        try:
            records = [item for item in batch if isinstance(item, Record)]
            if len(records) < len(batch):
                records = await offload(_with_content, batch)
            self._keep(records)
            await offload(self._sink, records)
        except Exception:
            self.dropped += len(batch)
            self._log.exception("records could not be written", count=len(batch))
        else:
            self.written += len(batch)


def _with_content(batch: Sequence[Record | tuple[Record, Content]]) -> list[Record]:
    """The records with their prompts and answers, which become text here."""
    records = []
    for item in batch:
        if isinstance(item, tuple):
            record, content = item
            item = replace(record, keep_content=content.own, prompt=content.prompt(), answer=content.answer())
        records.append(item)
    return records
