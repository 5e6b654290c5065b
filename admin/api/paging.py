"""A page of a list that lives in memory: sorted, and cut where the page before ended, whatever has come or gone since."""

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from quiver.schemas import errors
from quiver.schemas.errors import ApiError


class Row(Protocol):
    """What is listed. No two rows have the same `id`."""

    @property
    def id(self) -> str: ...


class Query(Protocol):
    """How a list is asked for."""

    @property
    def sort(self) -> str: ...

    @property
    def order(self) -> Literal["asc", "desc"]: ...

    @property
    def limit(self) -> int: ...

    @property
    def cursor(self) -> str | None: ...


R = TypeVar("R", bound=Row)


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last row of a page, by what it was sorted by. A page goes on behind it even if it is gone by then."""

    sort: str
    order: str
    value: str | float | None
    id: str


def cut(
    rows: Iterable[R], query: Query, value_of: Callable[[R, Any], Any], texts: frozenset[str]
) -> tuple[list[R], str | None]:
    """The page that `query` asks for, and the cursor of the next one if there is one. `value_of(row, sort)` is what a row is
    sorted by, `texts` names the sorts by which that is text and no number. Rows without a value come last.

    Raises `ApiError` (400) for a cursor of another list.
    """
    downwards = query.order == "desc"
    keyed = [(value_of(row, query.sort), row) for row in rows]
    valued = sorted(((value, row.id, row) for value, row in keyed if value is not None), key=_place, reverse=downwards)
    bare = sorted(((value, row.id, row) for value, row in keyed if value is None), key=_id, reverse=downwards)
    found = valued + bare
    if query.cursor is not None:
        after = _decoded(query.cursor, query, texts)
        found = [each for each in found if _is_behind(each[0], each[1], after, downwards)]
    page = [row for _, _, row in found[: query.limit]]
    if len(found) == len(page):
        return page, None
    value, id, _ = found[query.limit - 1]
    return page, _encoded(_Cursor(query.sort, query.order, value, id))


def _place(keyed: tuple[Any, str, object]) -> tuple[Any, str]:
    return keyed[0], keyed[1]


def _id(keyed: tuple[Any, str, object]) -> str:
    return keyed[1]


def _is_behind(value: Any, id: str, after: _Cursor, downwards: bool) -> bool:
    if value is None or after.value is None:
        if (value is None) != (after.value is None):
            return value is None
        return id < after.id if downwards else id > after.id
    here, there = (value, id), (after.value, after.id)
    return here < there if downwards else here > there


def _encoded(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _decoded(text: str, query: Query, texts: frozenset[str]) -> _Cursor:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(raw, type=_Cursor)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise _foreign() from None
    of_kind = cursor.value is None or isinstance(cursor.value, str) is (query.sort in texts)
    if (cursor.sort, cursor.order) != (query.sort, query.order) or not of_kind:
        raise _foreign()
    return cursor


def _foreign() -> ApiError:
    return ApiError(
        errors.INVALID_REQUEST, "`cursor`: expected `next_cursor` of a page of the same list", param="cursor"
    )
