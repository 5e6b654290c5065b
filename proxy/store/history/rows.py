"""Requests as rows of their table, written a few dozen with one statement.

SQLite lets go of the interpreter while it runs a statement, so the event loop waits for the making of as many rows at most. One
statement for a whole batch, which would take the records as JSON, costs the processor three times as much.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from ...telemetry.record import Record

COLUMNS = (
    *("request_id", "at", "client", "endpoint", "model", "server", "stream", "status", "outcome", "error", "source"),
    *("attempts", "queued", "duration", "first_byte", "prompt_tokens", "completion_tokens", "tokens", "cached_tokens"),
    *("reasoning_tokens", "estimated", "charged", "trace_id", "engine", "failures", "prompt", "answer"),
)
TOGETHER = 48


def insert(database: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Write `records`."""
    for start in range(0, len(records), TOGETHER):
        some = records[start : start + TOGETHER]
        database.execute(_inserting(len(some)), [value for record in some for value in _row(record)])


@lru_cache(maxsize=TOGETHER)
def _inserting(count: int) -> str:
    row = f"({', '.join('?' * len(COLUMNS))})"
    return f"INSERT INTO requests ({', '.join(COLUMNS)}) VALUES {', '.join([row] * count)}"  # noqa: S608 - our own names


def _row(record: Record) -> tuple[Any, ...]:
    usage = record.usage
    prompt = completion = total = cached = reasoning = None
    if usage is not None:
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        total = prompt + completion
        if usage.prompt_tokens_details:
            cached = usage.prompt_tokens_details.cached_tokens
        if usage.completion_tokens_details:
            reasoning = usage.completion_tokens_details.reasoning_tokens
    return (
        record.request_id,
        record.at,
        record.client,
        record.endpoint,
        record.model,
        record.server_id,
        record.stream,
        record.status,
        record.outcome,
        record.error,
        record.source,
        record.attempts,
        record.queued,
        record.duration,
        record.first_byte,
        prompt,
        completion,
        total,
        cached,
        reasoning,
        record.estimated,
        record.charged,
        record.trace_id,
        None if record.engine is None else _encode(record.engine).decode(),
        _encode(record.failures).decode() if record.failures else None,
        record.prompt,
        record.answer,
    )


_encode = msgspec.json.Encoder().encode
