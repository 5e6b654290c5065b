"""Questions about what was counted: errors by the hour, figures by the minute, tokens by the day."""

from quiver.schemas.history import ErrorQuery, SeriesQuery

from .pages import Conditions, Question
from .rollups import DAY, HOUR

# The code, its count, first and last moment, the last request, and counts over time.
ErrorRow = tuple[str, int, float, float, str, list[tuple[float, int]]]

# Put ahead of a request's id, so that the largest text is the latest request.
_STAMP = "%018.6f"


def _stamp(at: float) -> str:
    return _STAMP % at


def errors(asked: ErrorQuery) -> Question:
    """`ErrorRow`s, the most common first."""
    found = Conditions()
    found.add("detail = ?", asked.model is not None or asked.server is not None)
    for column in ("code", "model", "server"):
        found.equal(column, getattr(asked, column))
    if asked.since is not None:
        found.add("hour >= ?", asked.since // HOUR * HOUR)
    if asked.until is not None:
        found.add("hour < ?", asked.until)
    step = DAY if asked.step == "day" else HOUR
    statement = f"""
        SELECT '[' || coalesce(group_concat(line), '') || ']' FROM (
            SELECT json_array(code, sum(count), min(first_at), max(last_at), substr(max(latest), {len(_stamp(0)) + 1}),
                    json_group_array(json_array(step, count))) AS line
            FROM (
                SELECT code, CAST(hour / {step} AS INTEGER) * {step} AS step, sum(count) AS count,
                       min(first_at) AS first_at, max(last_at) AS last_at,
                       max(printf('{_STAMP}', last_at) || last_request_id) AS latest
                FROM errors WHERE {found} GROUP BY 1, 2 ORDER BY 1, 2)
            GROUP BY code ORDER BY sum(count) DESC, code)
    """  # noqa: S608 - made of our own names
    return statement, found.parameters


def series(asked: SeriesQuery, since: float) -> Question:
    """`[[name, [[at, mean, min, max], ...]], ...]`."""
    found = Conditions()
    if asked.name:
        found.add(f"name IN ({', '.join('?' * len(asked.name))})", *asked.name)
    found.between(since, asked.until)
    step = asked.step
    statement = f"""
        SELECT json_group_array(json_array(name, json(points))) FROM (
            SELECT name, json_group_array(json_array(step, mean, low, high)) AS points FROM (
                SELECT name, CAST(at / {step} AS INTEGER) * {step} AS step, avg(value) AS mean, min(value) AS low,
                       max(value) AS high
                FROM samples WHERE {found} GROUP BY 1, 2 ORDER BY 1, 2)
            GROUP BY name ORDER BY name)
    """  # noqa: S608 - made of our own names
    return statement, found.parameters


def today(now: float) -> Question:
    """`[[model, requests, failed, prompt tokens, completion tokens, mean seconds], ...]`, the most used first."""
    statement = f"""
        SELECT '[' || coalesce(group_concat(line), '') || ']' FROM (
            SELECT json_array(nullif(model, ''), sum(requests), sum(failed), sum(prompt_tokens), sum(completion_tokens),
                              round(sum(duration) / sum(requests), 6)) AS line
            FROM rollups WHERE span = {DAY} AND view = 1 AND start = ? GROUP BY model ORDER BY sum(requests) DESC)
    """  # noqa: S608 - made of our own names
    return statement, [now // DAY * DAY]


def spent(client: str, since: float) -> Question:
    """Tokens that were charged on whole days, or ever."""
    where: str
    parameters: tuple[float, ...]
    if since <= 0:
        where, parameters = "day = 0", ()
    else:
        where, parameters = "day > 0 AND day >= ?", (since // DAY * DAY,)
    total = f"SELECT coalesce(sum(charged), 0) FROM spending WHERE client = ? AND {where}"  # noqa: S608
    return f"SELECT json(({total}))", [client, *parameters]


def last_used(client: str) -> Question:
    """The moment, or null."""
    return "SELECT (SELECT json(last_at) FROM spending WHERE client = ? AND day = 0)", [client]
