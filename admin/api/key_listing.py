"""A page of the client keys that a query asks for: filtered, sorted, and cut where the page before ended."""

import base64
import binascii
from typing import Any

import msgspec
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.keys import KeyList, KeyQuery, KeyReport, KeySort


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last key of a page, by what it was sorted by. A page goes on behind it even if it is gone by then."""

    sort: KeySort
    order: str
    value: str | float | None
    id: str


def page(reports: list[KeyReport], query: KeyQuery) -> KeyList:
    """The keys of `reports` that `query` asks for. Raises `ApiError` (400) for a cursor of another list."""
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
    return KeyList(found, len(wanted), _encoded(found[-1], query) if more else None)


def _matches(report: KeyReport, query: KeyQuery) -> bool:
    words = f"{report.id}\n{report.name}\n{report.hint or ''}".casefold()
    return (
        query.state in (None, report.state)
        and query.origin in (None, report.origin)
        and query.priority in (None, report.priority)
        and (query.model is None or not report.models or query.model in report.models)
        and (query.text is None or query.text.casefold() in words)
    )


def _value(report: KeyReport, sort: KeySort) -> Any:
    if sort == "spent":
        return None if report.budget is None else report.budget.spent
    return getattr(report, sort)


def _is_behind(report: KeyReport, after: _Cursor, downwards: bool) -> bool:
    value = _value(report, after.sort)
    if value is None or after.value is None:
        if (value is None) != (after.value is None):
            return value is None
        return report.id < after.id if downwards else report.id > after.id
    here, there = (value, report.id), (after.value, after.id)
    return here < there if downwards else here > there


def _encoded(last: KeyReport, query: KeyQuery) -> str:
    cursor = _Cursor(query.sort, query.order, _value(last, query.sort), last.id)
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _decoded(text: str, query: KeyQuery) -> _Cursor:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(raw, type=_Cursor)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise _foreign() from None
    of_kind = cursor.value is None or isinstance(cursor.value, str) is (query.sort == "name")
    if (cursor.sort, cursor.order) != (query.sort, query.order) or not of_kind:
        raise _foreign()
    return cursor


def _foreign() -> ApiError:
    return ApiError(
        errors.INVALID_REQUEST, "`cursor`: expected `next_cursor` of a page of the same list", param="cursor"
    )
