"""Query parameters become a struct; what is wrong with one is said by its name."""

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta
from quart import Request
from quiver.admin.api.openapi import _query
from quiver.admin.api.query import decoded_query
from quiver.schemas.errors import ApiError
from werkzeug.datastructures import Headers


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=100, description="rows of a page")] = 50
    since: float | None = None
    order: Literal["time", "duration"] = "time"
    tags: tuple[str, ...] = ()
    stream: bool | None = None
    name: str | None = None


def request(query: str) -> Request:
    scope: Any = {}

    async def push(path: str, headers: Headers) -> None: ...

    return Request("GET", "http", "/x", query.encode(), Headers(), "", "1.1", scope, send_push_promise=push)


FOUND = [
    ("", Wanted()),
    ("limit=7&since=1.5", Wanted(limit=7, since=1.5)),
    ("tags=a&tags=b&tags=c%20d", Wanted(tags=("a", "b", "c d"))),
    ("stream=true&order=duration", Wanted(stream=True, order="duration")),
    ("name=null", Wanted(name="null")),
    ("name=", Wanted(name="")),
    ("name=12", Wanted(name="12")),
]


@pytest.mark.parametrize(("query", "found"), FOUND)
def test_query_becomes_struct(query: str, found: Wanted) -> None:
    assert decoded_query(request(query), Wanted) == found


REFUSED = [
    ("limt=7", "limt", "`limt` is not a parameter here; did you mean `limit`?"),
    ("zzzzzz=7", "zzzzzz", "known are `limit`"),
    ("limit=7&limit=8", "limit", "given 2 times"),
    ("limit=x", "limit", "`limit`: expected a whole number"),
    ("limit=", "limit", "`limit`: expected a whole number"),
    ("limit=101", "limit", "`limit`: expected a whole number <= 100"),
    ("since=nan", "since", "`since`: expected a number"),
    ("since=inf", "since", "`since`: expected a number"),
    ("since=null", "since", "`since`: expected something other than `null`"),
    ("stream=null", "stream", "`stream`: expected something other than `null`"),
    ("stream=maybe", "stream", "`stream`: expected `true` or `false`"),
    ("order=size", "order", "`order`: expected one of `duration`, `time`"),
]


@pytest.mark.parametrize(("query", "param", "words"), REFUSED)
def test_refusal_names_parameter(query: str, param: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        decoded_query(request(query), Wanted)
    assert (caught.value.kind.status, caught.value.param) == (400, param)
    assert words in caught.value.message


def test_query_is_described() -> None:
    parameters = {parameter["name"]: parameter for parameter in _query(Wanted)}
    assert parameters["limit"] == {
        "name": "limit",
        "in": "query",
        "description": "rows of a page",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 50},
    }
    assert parameters["tags"]["schema"]["type"] == "array"
