"""What is kept without waiting, kind by kind: the tables, and the statements that write a batch of one kind.

A batch is one JSON array, `:batch`. Statements run without Python, so that writing does not hold up the event loop: SQLite lets
go of the interpreter once for a batch instead of once for a row. Requests, of which there are the most, go in by `rows`; what
they add up to is read from their table again, of the rows after `:before`.
"""

from typing import Literal

from .rollups import SPEND, SPENDING_TABLE, rolling_up
from .rollups import TABLE as ROLLUPS_TABLE

Kind = Literal["records", "refusals", "events", "checks", "samples"]

# Requests that did not go as they should are few, and asked for most: they have an index of their own.
TROUBLED = "(outcome <> 'completed' OR status >= 400)"

TABLES = (
    """
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL, at REAL NOT NULL, client TEXT NOT NULL, endpoint TEXT NOT NULL,
        model TEXT, server TEXT, stream INTEGER NOT NULL, status INTEGER NOT NULL, outcome TEXT NOT NULL, error TEXT,
        source TEXT NOT NULL, attempts INTEGER NOT NULL, queued REAL NOT NULL, duration REAL NOT NULL, first_byte REAL,
        prompt_tokens INTEGER, completion_tokens INTEGER, tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER,
        estimated INTEGER NOT NULL, charged INTEGER NOT NULL, trace_id TEXT, engine TEXT, failures TEXT,
        prompt TEXT, answer TEXT
    )
    """,
    # Holds what pages are sorted by, so that sorting reads no rows.
    "CREATE INDEX requests_at ON requests (at, duration, tokens)",
    "CREATE INDEX requests_model ON requests (model, at)",
    "CREATE INDEX requests_client ON requests (client, at)",
    "CREATE INDEX requests_server ON requests (server, at)",
    "CREATE INDEX requests_request_id ON requests (request_id)",
    f"CREATE INDEX requests_troubled ON requests (at) WHERE {TROUBLED}",
    ROLLUPS_TABLE,
    SPENDING_TABLE,
    """
    CREATE TABLE errors (
        detail INTEGER NOT NULL, hour INTEGER NOT NULL, code TEXT NOT NULL, server TEXT NOT NULL, model TEXT NOT NULL,
        count INTEGER NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL, last_request_id TEXT NOT NULL,
        PRIMARY KEY (detail, hour, code, server, model)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
        actor TEXT, request_id TEXT, details TEXT NOT NULL
    )
    """,
    "CREATE INDEX events_at ON events (at)",
    "CREATE INDEX events_subject ON events (subject, at)",
    "CREATE INDEX events_request_id ON events (request_id) WHERE request_id IS NOT NULL",
    """
    CREATE TABLE checks (
        id INTEGER PRIMARY KEY, server TEXT NOT NULL, at REAL NOT NULL, ok INTEGER NOT NULL, seconds REAL NOT NULL,
        reason TEXT, source TEXT NOT NULL
    )
    """,
    "CREATE INDEX checks_server ON checks (server)",
    "CREATE TABLE samples (name TEXT NOT NULL, at REAL NOT NULL, value REAL NOT NULL, PRIMARY KEY (name, at)) WITHOUT ROWID",
)

_COUNTED = """
ON CONFLICT (detail, hour, code, server, model) DO UPDATE SET
    count = count + excluded.count, first_at = min(first_at, excluded.first_at),
    last_request_id = CASE WHEN excluded.last_at >= last_at THEN excluded.last_request_id ELSE last_request_id END,
    last_at = max(last_at, excluded.last_at)
"""
# In all, and in detail: by server and model too.
_ERRORS = f"""
INSERT INTO errors (detail, hour, code, server, model, count, first_at, last_at, last_request_id)
SELECT detail, hour, error, shown_server, shown_model, count(*), first_at, max(at), request_id
FROM (
    SELECT *, min(at) OVER (PARTITION BY detail, hour, error, shown_server, shown_model) AS first_at
    FROM (
        SELECT detail, at, error, request_id, CAST(at / 3600 AS INTEGER) * 3600 AS hour,
            iif(detail, coalesce(server, ''), '') AS shown_server, iif(detail, coalesce(model, ''), '') AS shown_model
        FROM requests, (SELECT 0 AS detail UNION ALL SELECT 1)
        WHERE id > :before AND error IS NOT NULL
    )
)
WHERE true
GROUP BY detail, hour, error, shown_server, shown_model
{_COUNTED}
"""  # noqa: S608 - made of our own names
# Each is `[at, code, request_id]`: what the control plane refused is in no table of its own, and of no server or model.
_REFUSALS = f"""
INSERT INTO errors (detail, hour, code, server, model, count, first_at, last_at, last_request_id)
SELECT 0, CAST(at / 3600 AS INTEGER) * 3600 AS hour, code, '', '', count(*), first_at, max(at), request_id
FROM (
    SELECT at, code, request_id, min(at) OVER (PARTITION BY CAST(at / 3600 AS INTEGER), code) AS first_at
    FROM (
        SELECT json_extract(value, '$[0]') AS at, json_extract(value, '$[1]') AS code,
            json_extract(value, '$[2]') AS request_id
        FROM json_each(:batch)
    )
)
WHERE true
GROUP BY hour, code
{_COUNTED}
"""  # noqa: S608 - made of our own names
_EVENTS = """
INSERT INTO events (at, kind, subject, actor, request_id, details)
SELECT json_extract(value, '$.at'), json_extract(value, '$.kind'), json_extract(value, '$.subject'),
    json_extract(value, '$.actor'), json_extract(value, '$.request_id'), coalesce(json_extract(value, '$.details'), '{}')
FROM json_each(:batch)
"""
# Each is `[server, result]`.
_CHECKS = """
INSERT INTO checks (server, at, ok, seconds, reason, source)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1].at'), json_extract(value, '$[1].ok'),
    json_extract(value, '$[1].seconds'), json_extract(value, '$[1].reason'), json_extract(value, '$[1].source')
FROM json_each(:batch)
"""
# Each is `[at, {name: value, ...}]`.
_SAMPLES = """
INSERT OR REPLACE INTO samples (name, at, value)
SELECT figure.key, json_extract(sample.value, '$[0]'), figure.value
FROM json_each(:batch) AS sample, json_each(sample.value, '$[1]') AS figure
WHERE figure.value IS NOT NULL
"""

STATEMENTS: dict[Kind, tuple[str, ...]] = {
    "records": (rolling_up("id > :before"), SPEND, _ERRORS),
    "refusals": (_REFUSALS,),
    "events": (_EVENTS,),
    "checks": (_CHECKS,),
    "samples": (_SAMPLES,),
}
