"""Accounting: exactly one record per request, written off the request's path by one writer.

`Ledger.record` never waits; the writer task logs the line. Metrics are counted at once, since they only touch memory.
"""

import math

import structlog
import trio

from .metrics import Metrics
from .record import Record

# After so many unwritten records the writer is considered stuck, and new ones are counted as dropped.
BACKLOG = 65_536


class Ledger:
    """Takes records from exchanges, gives them to the writer."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._send, self._receive = trio.open_memory_channel[Record](math.inf)
        self._log = structlog.get_logger(component="request")
        self.dropped = 0
        self.written = 0

    def __repr__(self) -> str:
        return f"<Ledger: {self.written} written, {self._receive.statistics().current_buffer_used} waiting>"

    def record(self, record: Record) -> None:
        """Count and queue one record."""
        self._metrics.observe(record)
        if self._receive.statistics().current_buffer_used >= BACKLOG:
            self.dropped += 1
            return
        self._send.send_nowait(record)

    async def write_records(self) -> None:
        """Write until `close` was called and the queue is empty."""
        async with self._receive:
            async for record in self._receive:
                self._write(record)
                self.written += 1
        if self.dropped:
            self._log.error("records were dropped", count=self.dropped, backlog=BACKLOG)

    def close(self) -> None:
        """No more records; `write_records` ends when the rest is written."""
        self._send.close()

    def _write(self, record: Record) -> None:
        log = self._log.info if record.outcome == "completed" else self._log.warning
        log(
            record.outcome,
            request_id=record.request_id,
            endpoint=record.endpoint,
            model=record.model,
            server=record.server_id,
            status=record.status,
            error=record.error,
            attempts=record.attempts,
            seconds=round(record.duration, 4),
            first_byte=None if record.first_byte is None else round(record.first_byte, 4),
            prompt_tokens=record.usage.prompt_tokens if record.usage else None,
            completion_tokens=record.usage.completion_tokens if record.usage else None,
        )
