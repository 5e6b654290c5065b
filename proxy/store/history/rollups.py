"""Roll-ups: what requests add up to, by hour and by day, so that a question over a month reads some thousand rows.

Who sent a request and who answered it are not rolled up together: with both, nearly every request would be a row of its own.
There are four views instead, and the narrowest that knows what is asked for answers; what none of them knows is answered
from the requests themselves, by the same sums.
"""

from .percentiles import FIGURES, SPEED

HOUR, DAY = 3600, 86_400
SPANS = (HOUR, DAY)
# What a view tells apart, beside the time; elsewhere its rows have an empty text.
VIEWS: dict[int, tuple[str, ...]] = {
    1: ("model", "endpoint", "outcome"),
    2: ("client", "endpoint", "outcome"),
    3: ("model", "client", "endpoint", "outcome"),
    4: ("model", "server", "endpoint", "outcome"),
}
DIMENSIONS = ("model", "client", "server", "endpoint", "outcome")

# Columns that add up, each with its value of one request as `given` below names them.
SUMS: dict[str, str] = {
    "requests": "1",
    "prompt_tokens": "asked",
    "completion_tokens": "made",
    "retries": "max(attempts - 1, 0)",
    "failed": "outcome = 'failed'",
    "duration": "duration",
    "first_bytes": "first_byte IS NOT NULL",
    "first_byte": "coalesce(first_byte, 0)",
    "speeds": "speed IS NOT NULL",
    "speed": "coalesce(speed, 0)",
}
MOST = ("duration", "first_byte", "speed")
COUNTS: dict[str, str] = {
    column: f"coalesce({figure.name} <= {bound!r}, 0)"
    for figure in FIGURES
    for column, bound in zip(figure.columns, figure.bounds, strict=True)
}

_ADDED = ", ".join(f"sum({value}) AS {column}" for column, value in (SUMS | COUNTS).items())
_MOST = ", ".join(f"coalesce(max({name}), 0) AS most_{name}" for name in MOST)
_COLUMNS = (*SUMS, *COUNTS, *(f"most_{name}" for name in MOST))

TABLE = f"""
CREATE TABLE rollups (
    span INTEGER NOT NULL, view INTEGER NOT NULL, start INTEGER NOT NULL,
    {", ".join(f"{name} TEXT NOT NULL" for name in DIMENSIONS)},
    {", ".join(f"{name} NOT NULL" for name in _COLUMNS)},
    PRIMARY KEY (span, view, start, {", ".join(DIMENSIONS)})
) WITHOUT ROWID
"""

# Tokens a second while the answer was written: the wait ahead of its first byte does not count.
_WRITING = "(duration - queued - coalesce(first_byte, 0))"
SPEED_OF = f"CASE WHEN source = 'server' AND made > 1 AND stream AND {_WRITING} > 0 THEN made / {_WRITING} END"


def _shown(name: str) -> str:
    views = ", ".join(str(view) for view, known in VIEWS.items() if name in known)
    return f"CASE WHEN view IN ({views}) THEN {name} ELSE '' END"


def _adding(names: tuple[str, ...]) -> str:
    added = [f"{name} = {name} + excluded.{name}" for name in (*SUMS, *COUNTS)]
    added += [f"most_{name} = max(most_{name}, excluded.most_{name})" for name in MOST]
    return f"ON CONFLICT ({', '.join(names)}) DO UPDATE SET {', '.join(added)}"


# What roll-ups are made of.
FROM_REQUESTS = """
    SELECT at, coalesce(model, '') AS model, client, coalesce(server, '') AS server, endpoint, outcome, source, stream,
           attempts, queued, duration, first_byte, coalesce(prompt_tokens, 0) AS asked, coalesce(completion_tokens, 0) AS made
    FROM requests
"""


def rolling_up(requests: str) -> str:
    """The statement that adds `requests`, a condition on their table, to the roll-ups.

    They are added up as finely as any view needs first, and by the hour; views and days are made of that.
    """
    finest = ", ".join(DIMENSIONS)
    shown = ", ".join(f"{_shown(name)} AS shown_{name}" for name in DIMENSIONS)
    again = ", ".join([*(f"sum({name})" for name in (*SUMS, *COUNTS)), *(f"max(most_{name})" for name in MOST)])
    return f"""
    WITH given AS (SELECT *, {SPEED_OF} AS {SPEED.name} FROM ({FROM_REQUESTS} WHERE {requests})),
    added AS MATERIALIZED (
        SELECT CAST(at / {HOUR} AS INTEGER) * {HOUR} AS hour, {finest}, {_ADDED}, {_MOST} FROM given GROUP BY 1, {finest}
    )
    INSERT INTO rollups (span, view, start, {finest}, {", ".join(_COLUMNS)})
    SELECT span, view, CAST(hour / span AS INTEGER) * span AS start, {shown}, {again}
    FROM added, (SELECT {HOUR} AS span UNION ALL SELECT {DAY}),
         ({" UNION ALL ".join(f"SELECT {view} AS view" for view in VIEWS)})
    WHERE true
    GROUP BY 1, 2, 3, {", ".join(f"shown_{name}" for name in DIMENSIONS)}
    {_adding(("span", "view", "start", *DIMENSIONS))}
    """  # noqa: S608 - made of our own names


# What each client used and was charged, by day and, on day 0, ever, and when it did last: budgets are counted by it, and it
# outlives the rest.
SPENDING_TABLE = """
CREATE TABLE spending (
    client TEXT NOT NULL, day INTEGER NOT NULL, requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    charged INTEGER NOT NULL, last_at REAL NOT NULL,
    PRIMARY KEY (client, day)
) WITHOUT ROWID
"""
SPEND = f"""
INSERT INTO spending (client, day, requests, prompt_tokens, completion_tokens, charged, last_at)
SELECT client, CAST(at / {DAY} AS INTEGER) * {DAY} * kept AS day, count(*), sum(coalesce(prompt_tokens, 0)),
       sum(coalesce(completion_tokens, 0)), sum(charged), max(at)
FROM requests, (SELECT 0 AS kept UNION ALL SELECT 1)
WHERE id > :before
GROUP BY 1, 2
ON CONFLICT (client, day) DO UPDATE SET
    requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    charged = charged + excluded.charged,
    last_at = max(last_at, excluded.last_at)
"""  # noqa: S608 - made of our own names
