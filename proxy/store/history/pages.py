"""Questions about single requests: pages of them, and one with all that is known of it."""

import base64
from typing import Any

import msgspec
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.history import EventQuery, RequestEntry, RequestFilter, RequestQuery

from .entries import TROUBLED

SORTS = {"time": "at", "duration": "duration", "tokens": "coalesce(tokens, 0)"}
_FIELDS = [field.name for field in msgspec.structs.fields(RequestEntry) if field.name != "engine"]
ENTRY = ", ".join(f"'{name}', {name}" for name in _FIELDS) + ", 'engine', json(engine)"
EVENT = (
    "json_object('at', at, 'kind', kind, 'subject', subject, 'actor', actor, 'request_id', request_id, "
    "'details', json(details))"
)

Question = tuple[str, list[Any]]


class Conditions:
    """What is asked for, as SQL and its parameters."""

    def __init__(self) -> None:
        self._terms = ["true"]
        self.parameters: list[Any] = []

    def add(self, term: str, *values: Any) -> None:
        self._terms.append(term)
        self.parameters += values

    def equal(self, column: str, value: Any) -> None:
        """Unset values do not matter."""
        if value is not None:
            self.add(f"{column} = ?", value)

    def between(self, since: float | None, until: float | None) -> None:
        if since is not None:
            self.add("at >= ?", since)
        if until is not None:
            self.add("at < ?", until)

    def __str__(self) -> str:
        return " AND ".join(self._terms)


def conditions(asked: RequestFilter) -> Conditions:
    """Which requests are meant."""
    found = Conditions()
    for column in ("model", "client", "server", "endpoint", "outcome"):
        found.equal(column, getattr(asked, column))
    if asked.outcome not in (None, "completed"):
        found.add(TROUBLED)
    found.between(asked.since, asked.until)
    return found


def page(asked: RequestQuery) -> Question:
    """`[[value, id, entry], ...]`, one more than the page holds. Raises `ApiError` (400) for a cursor that is not ours."""
    found = conditions(asked)
    for column in ("status", "error", "source", "request_id"):
        found.equal(column, getattr(asked, column))
    if asked.troubled or asked.error is not None or (asked.status or 0) >= 400:
        found.add(TROUBLED)
    elif asked.troubled is False:
        found.add(f"NOT {TROUBLED}")
    if asked.min_duration is not None:
        found.add("duration >= ?", asked.min_duration)
    column, direction = SORTS[asked.sort], asked.order
    if asked.cursor is not None:
        value, id = _unpacked(asked.cursor, asked.sort, direction)
        compare = "<" if direction == "desc" else ">"
        found.add(f"({column}, id) {compare} (?, ?)", value, id)
    order = f"ORDER BY {column} {direction}, id {direction}"
    # The inner question needs an index only; rows are read for the page alone.
    statement = f"""
        SELECT json_group_array(json_array({_exactly(column)}, id, json_object({ENTRY}))) FROM (
            SELECT * FROM requests WHERE id IN (SELECT id FROM requests WHERE {found} {order} LIMIT ?) {order})
    """  # noqa: S608 - made of our own names
    return statement, [*found.parameters, asked.limit + 1]


def one(request_id: str) -> Question:
    """A list of the latest request of that id with its events, or of none."""
    statement = f"""
        SELECT json_group_array(json(entry)) FROM (
            SELECT json_object({ENTRY}, 'failures', json(coalesce(failures, '[]')), 'prompt', prompt, 'answer', answer,
                'meaning', NULL, 'events', json((
                SELECT json_group_array(json(event)) FROM (
                    SELECT {EVENT} AS event FROM events WHERE request_id = ?1 ORDER BY at, id LIMIT 1000)))) AS entry
            FROM requests WHERE request_id = ?1 ORDER BY id DESC LIMIT 1)
    """  # noqa: S608 - made of our own names
    return statement, [request_id]


def events(asked: EventQuery) -> Question:
    """`[[at, id, event], ...]`, one more than the page holds. Raises `ApiError` (400) for a cursor that is not ours."""
    found = Conditions()
    if asked.kind:
        exact = [kind for kind in asked.kind if "." in kind[:-1]]
        terms = [f"kind IN ({', '.join('?' * len(exact))})"] * bool(exact)
        prefixes = [f"{kind.removesuffix('.')}." for kind in asked.kind if kind not in exact]
        terms += ["substr(kind, 1, ?) = ?"] * len(prefixes)
        found.add(f"({' OR '.join(terms)})", *exact, *(part for each in prefixes for part in (len(each), each)))
    for column in ("subject", "actor", "request_id"):
        found.equal(column, getattr(asked, column))
    found.between(asked.since, asked.until)
    if asked.cursor is not None:
        found.add("(at, id) < (?, ?)", *_unpacked(asked.cursor, "time", "desc"))
    statement = f"""
        SELECT json_group_array(json_array({_exactly("at")}, id, json(event))) FROM (
            SELECT at, id, {EVENT} AS event FROM events WHERE {found} ORDER BY at DESC, id DESC LIMIT ?)
    """  # noqa: S608 - made of our own names
    return statement, [*found.parameters, asked.limit + 1]


def _exactly(column: str) -> str:
    """A number with all its digits: SQLite writes fifteen, and a cursor that is off by a microsecond repeats a row."""
    return f"json(printf('%!.17g', {column}))"


def packed(sort: str, order: str, value: float, id: int) -> str:
    """A cursor: the place after a row, in a page sorted so."""
    return base64.urlsafe_b64encode(msgspec.json.encode([sort, order, value, id])).decode().rstrip("=")


def _unpacked(cursor: str, sort: str, order: str) -> tuple[float, int]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        of, towards, value, id = msgspec.json.decode(text, type=tuple[str, str, float, int])
    except (ValueError, msgspec.DecodeError):
        raise ApiError(errors.INVALID_REQUEST, "`cursor`: expected `next` of a page", param="cursor") from None
    if (of, towards) != (sort, order):
        raise ApiError(
            errors.INVALID_REQUEST, "`cursor`: this is of a page that was sorted another way", param="cursor"
        )
    return value, id
