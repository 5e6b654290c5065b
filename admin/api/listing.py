"""A page of the servers that a query asks for: filtered, sorted, and cut where the page before ended."""

import base64
import binascii
from typing import Any

import msgspec
from quiver.schemas import errors
from quiver.schemas.admin import ServerList, ServerReport
from quiver.schemas.errors import ApiError
from quiver.schemas.servers import ServerQuery, ServerSort


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last server of a page, by what it was sorted by. A page goes on behind it even if it is gone by then."""

    sort: ServerSort
    order: str
    value: str | float | None
    id: str


def page(reports: list[ServerReport], query: ServerQuery) -> ServerList:
    """The servers of `reports` that `query` asks for. Raises `ApiError` (400) for a cursor of another list."""
    wanted = [report for report in reports if _matches(report, query)]
    downwards = query.order == "desc"
    valued = [report for report in wanted if _value(report, query.sort) is not None]
    bare = [report for report in wanted if _value(report, query.sort) is None]
    valued.sort(key=lambda report: (_value(report, query.sort), report.id), reverse=downwards)
    bare.sort(key=lambda report: report.id, reverse=downwards)
    rest = valued + bare
    if query.cursor is not None:
        after = _decoded(query.cursor, query)
        rest = [report for report in rest if _is_behind(report, after, downwards)]
    found = rest[: query.limit]
    more = len(rest) > len(found)
    return ServerList(found, len(wanted), _encoded(found[-1], query) if more else None)


def _matches(report: ServerReport, query: ServerQuery) -> bool:
    metadata = report.metadata
    return (
        query.model in (None, *report.models)
        and query.health in (None, report.health)
        and query.state in (None, report.state)
        and query.mode in (None, report.mode)
        and query.origin in (None, report.origin)
        and query.owner in (None, metadata.owner)
        and all(tag in metadata.tags for tag in query.tag)
        and (query.text is None or query.text.casefold() in _words(report))
    )


def _words(report: ServerReport) -> str:
    metadata = report.metadata
    texts = (report.id, report.url, *report.models, metadata.owner, metadata.description, *metadata.tags, report.reason)
    return "\n".join(text for text in texts if text).casefold()


def _value(report: ServerReport, sort: ServerSort) -> Any:
    match sort:
        case "created" | "id" | "health" | "in_flight":
            return getattr(report, sort)
        case "model":
            return min(report.models, default=None)
        case "checked":
            return report.checked_at
        case "latency":
            return report.mean_seconds


def _is_behind(report: ServerReport, after: _Cursor, downwards: bool) -> bool:
    value = _value(report, after.sort)
    if value is None or after.value is None:
        if (value is None) != (after.value is None):
            return value is None
        return report.id < after.id if downwards else report.id > after.id
    here, there = (value, report.id), (after.value, after.id)
    return here < there if downwards else here > there


def _encoded(last: ServerReport, query: ServerQuery) -> str:
    cursor = _Cursor(query.sort, query.order, _value(last, query.sort), last.id)
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _decoded(text: str, query: ServerQuery) -> _Cursor:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(raw, type=_Cursor)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise _foreign() from None
    numeric = query.sort in ("created", "checked", "latency", "in_flight")
    of_kind = cursor.value is None or isinstance(cursor.value, str) is not numeric
    if (cursor.sort, cursor.order) != (query.sort, query.order) or not of_kind:
        raise _foreign()
    return cursor


def _foreign() -> ApiError:
    return ApiError(
        errors.INVALID_REQUEST, "`cursor`: expected `next_cursor` of a page of the same list", param="cursor"
    )
