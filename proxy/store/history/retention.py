"""What is too old is deleted, in steps so small that nobody waits for one, and the room it took is given back."""

import sqlite3
from collections.abc import Callable, Iterator

import trio
from quiver.schemas import config

from ..connection import Connection, transaction
from .rollups import DAY, SPANS, VIEWS

# Rows of one step, and the pause after it, in which others have their turn.
STEP_ROWS, STEP_PAUSE = 500, 0.05
# Pages given back in one step, and how many may stay unused.
STEP_PAGES, SPARE_PAGES = 256, 2048
# Longer than the longest period of a budget.
SPENDING_DAYS = 400

Step = Callable[[sqlite3.Connection], int]


async def tidy(connection: Connection, limits: config.Store, now: float) -> int:
    """Delete what is older than `limits` allow at `now` (Unix time), and shrink the file; how many rows went.

    Raises `sqlite3.Error`, `OSError`.
    """
    deleted = 0
    for step in _steps(limits, now):
        deleted += await _repeat(connection, step)
    await _repeat(connection, _shrink)
    await connection.use(_optimize)
    return deleted


async def forget_requests(connection: Connection, before: float) -> int:
    """Delete requests that ended before a moment; how many. What they add up to stays. Raises `sqlite3.Error`."""
    return await _repeat(connection, _older("requests", before))


async def _repeat(connection: Connection, step: Step) -> int:
    """Take `step` until it finds nothing more to do."""
    total = 0
    while count := await connection.use(step):
        total += count
        await trio.sleep(STEP_PAUSE)
    return total


def _steps(limits: config.Store, now: float) -> Iterator[Step]:
    yield _older("requests", now - limits.request_days * DAY)
    yield _older("events", now - limits.event_days * DAY)
    yield _deleting("samples", "name, at", "at < ?", now - limits.metric_days * DAY)
    sums = now - limits.rollup_days * DAY
    for span in SPANS:
        for view in VIEWS:
            yield _first_start(span, view, sums - span)
    yield _deleting("errors", "detail, hour, code, server, model", "hour < ?", sums)
    yield _deleting("spending", "client, day", "day > 0 AND day < ?", now - SPENDING_DAYS * DAY)
    yield _surplus_checks(limits.checks)


def _deleting(table: str, key: str, condition: str, *parameters: float) -> Step:
    statement = f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT {STEP_ROWS})"  # noqa: S608

    def step(database: sqlite3.Connection) -> int:
        with transaction(database, durable=False):
            return database.execute(statement, parameters).rowcount

    return step


def _older(table: str, before: float) -> Step:
    return _deleting(table, "id", "at < ?", before)


def _first_start(span: int, view: int, before: float) -> Step:
    """The roll-ups of one hour, or day, are deleted together."""

    def step(database: sqlite3.Connection) -> int:
        where = "span = ? AND view = ?"
        [first] = database.execute(f"SELECT min(start) FROM rollups WHERE {where}", (span, view)).fetchone()  # noqa: S608
        if first is None or first >= before:
            return 0
        with transaction(database, durable=False):
            statement = f"DELETE FROM rollups WHERE {where} AND start = ?"  # noqa: S608
            return database.execute(statement, (span, view, first)).rowcount

    return step


def _surplus_checks(kept: int) -> Step:
    """The last `kept` of each server stay."""
    ranked = "SELECT id, row_number() OVER (PARTITION BY server ORDER BY id DESC) AS place FROM checks"
    return _deleting("checks", "id", f"id IN (SELECT id FROM ({ranked}) WHERE place > ?)", kept)  # noqa: S608


def _optimize(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA analysis_limit = 400")  # else it would read whole indexes while others wait
    database.execute("PRAGMA optimize")


def _shrink(database: sqlite3.Connection) -> int:
    [free] = database.execute("PRAGMA freelist_count").fetchone()
    if free <= SPARE_PAGES:
        return 0
    database.execute(f"PRAGMA incremental_vacuum({STEP_PAGES})").fetchall()
    [left] = database.execute("PRAGMA freelist_count").fetchone()
    return int(free - left)
