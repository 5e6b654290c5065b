"""A store with a month of history, made by SQL: as many requests as asked for, of 10 models, 50 servers and 20 keys."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import trio
from quiver.proxy.store.history.rollups import rolling_up
from quiver.proxy.store.store import Store
from quiver.schemas import config

MODELS, SERVERS, KEYS = 10, 50, 20
DAYS = 30
# Rolled up at a time, so that memory stays small.
CHUNK = 50_000

# One request in 40 fails; half of them stream; they take some seconds, a few of them a minute.
_REQUESTS = f"""
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1),
drawn AS MATERIALIZED (
    SELECT n, abs(random()) % {MODELS} AS model, abs(random()) % {SERVERS // MODELS} AS place, abs(random()) % {KEYS} AS key,
           abs(random()) % 40 = 0 AS failed, abs(random()) % 1000 / 1000.0 AS luck, abs(random()) % 2 AS stream
    FROM numbers
)
INSERT INTO requests (request_id, at, client, endpoint, model, server, stream, status, outcome, error, source, attempts,
    queued, duration, first_byte, prompt_tokens, completion_tokens, tokens, estimated, charged)
SELECT printf('11111111-2222-4333-a444-%012x', n), ?2 - (?1 - n) * ({DAYS} * 86400.0 / ?1), printf('student-%02d', key),
    'chat/completions', printf('model-%d', model), printf('server-%02d', model * {SERVERS // MODELS} + place), stream,
    iif(failed, 502, 200), iif(failed, 'failed', 'completed'), iif(failed, 'upstream_unreachable', NULL), 'server', 1 + failed,
    0, 0.2 + 5 * luck * luck + iif(luck > 0.99, 60, 0), 0.05 + luck / 4, 200 + n % 300, 50 + n % 400, 250 + n % 300 + n % 400,
    0, 0
FROM drawn
"""


def fill(folder: Path, count: int) -> float:
    """Make the store in `folder` with `count` requests up to now; the seconds that took."""
    began = time.perf_counter()
    trio.run(_make, folder)
    with closing(sqlite3.connect(folder / "quiver.db", isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        database.execute(_REQUESTS, (count, time.time()))
        for first in range(0, count, CHUNK):
            database.execute(rolling_up(f"id > {first} AND id <= {first + CHUNK}"))
        database.execute(
            "INSERT INTO errors SELECT detail, CAST(at / 3600 AS INTEGER) * 3600, error, iif(detail, server, ''), "
            "iif(detail, model, ''), count(*), min(at), max(at), request_id FROM requests, "
            "(SELECT 0 AS detail UNION ALL SELECT 1) WHERE error IS NOT NULL GROUP BY 1, 2, 3, 4, 5"
        )
        database.execute(
            "INSERT INTO events (at, kind, subject, details) SELECT at, 'server.paused', server, '{}' FROM requests "
            "WHERE id % 100 = 0"
        )
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return time.perf_counter() - began


async def _make(folder: Path) -> None:
    """An empty store."""
    store = Store.open(folder, config.Store(), time.time)
    store.close()
    await store.write()
