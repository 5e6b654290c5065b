"""A page of servers: every filter, every order, and pages that together hold each server once."""

import pytest
from quiver.admin.api.servers.listing import page
from quiver.schemas.errors import ApiError
from quiver.schemas.saved import Metadata
from quiver.schemas.servers import Connections, ServerQuery, ServerReport


def report(id: str, **fields: object) -> ServerReport:
    told: dict[str, object] = {
        "url": f"http://{id}:8000/v1",
        "models": ["m"],
        "health": "healthy",
        "state": "healthy",
        "reason": None,
        "since": 1.0,
        "until": None,
        "failures": 0,
        "checked_at": 5.0,
        "success_rate": 1.0,
        "mean_seconds": 0.5,
        "uptime": 1.0,
        "in_flight": 0,
        "reported_load": None,
        "weight": 1.0,
        "max_concurrency": None,
        "connections": Connections(0, 0),
        "mode": "serving",
        "origin": "registered",
        "metadata": Metadata(),
        "created": 1.0,
        "changed": 1.0,
        "version": 1,
    }
    return ServerReport(id=id, **{**told, **fields})  # type: ignore[arg-type]  # each test says what it needs


LAB = report(
    "lab",
    models=["qwen3", "Gemma"],
    metadata=Metadata(owner="anna", description="In room 4", tags=("gpu", "fast")),
    created=3.0,
    in_flight=2,
)
ATTIC = report("attic", health="unhealthy", state="ejected", reason="no answer", mean_seconds=None, created=1.0)
DESK = report("desk", mode="paused", origin="configuration", created=2.0, mean_seconds=0.1, checked_at=None)
ALL = [LAB, ATTIC, DESK]

FILTERS: list[tuple[ServerQuery, set[str]]] = [
    (ServerQuery(), {"lab", "attic", "desk"}),
    (ServerQuery(model="qwen3"), {"lab"}),
    (ServerQuery(model="qwen"), set()),
    (ServerQuery(health="unhealthy"), {"attic"}),
    (ServerQuery(state="ejected"), {"attic"}),
    (ServerQuery(mode="paused"), {"desk"}),
    (ServerQuery(origin="registered"), {"lab", "attic"}),
    (ServerQuery(owner="anna"), {"lab"}),
    (ServerQuery(tag=("gpu", "fast")), {"lab"}),
    (ServerQuery(tag=("gpu", "slow")), set()),
    (ServerQuery(text="ROOM 4"), {"lab"}),
    (ServerQuery(text="gemma"), {"lab"}),
    (ServerQuery(text="no answer"), {"attic"}),
    (ServerQuery(text="desk:8000"), {"desk"}),
    (ServerQuery(health="healthy", origin="registered"), {"lab"}),
]


@pytest.mark.parametrize(("query", "ids"), FILTERS)
def test_filters_join(query: ServerQuery, ids: set[str]) -> None:
    found = page(ALL, query)
    assert ({each.id for each in found.servers}, found.total, found.next_cursor) == (ids, len(ids), None)


# Who has no value comes last, upwards and downwards.
ORDERS: list[tuple[str, list[str], list[str]]] = [
    ("created", ["attic", "desk", "lab"], ["lab", "desk", "attic"]),
    ("id", ["attic", "desk", "lab"], ["lab", "desk", "attic"]),
    ("model", ["lab", "attic", "desk"], ["desk", "attic", "lab"]),
    ("health", ["desk", "lab", "attic"], ["attic", "lab", "desk"]),
    ("checked", ["attic", "lab", "desk"], ["lab", "attic", "desk"]),
    ("latency", ["desk", "lab", "attic"], ["lab", "desk", "attic"]),
    ("in_flight", ["attic", "desk", "lab"], ["lab", "desk", "attic"]),
]


@pytest.mark.parametrize(("sort", "upwards", "downwards"), ORDERS)
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_hold_each_once(sort: str, upwards: list[str], downwards: list[str], limit: int) -> None:
    for order, ids in (("asc", upwards), ("desc", downwards)):
        seen: list[str] = []
        cursor = None
        while True:
            found = page(ALL, ServerQuery(sort=sort, order=order, limit=limit, cursor=cursor))  # type: ignore[arg-type]
            assert (found.total, len(found.servers) <= limit) == (3, True)
            seen += [each.id for each in found.servers]
            cursor = found.next_cursor
            if cursor is None:
                break
        assert seen == ids


def test_page_goes_on_behind_what_is_gone() -> None:
    first = page(ALL, ServerQuery(sort="id", limit=1))
    assert [each.id for each in first.servers] == ["attic"]
    rest = page([LAB, DESK], ServerQuery(sort="id", limit=5, cursor=first.next_cursor))
    assert [each.id for each in rest.servers] == ["desk", "lab"]


def test_foreign_cursor_is_refused() -> None:
    cursor = page(ALL, ServerQuery(sort="id", limit=1)).next_cursor
    for query in (
        ServerQuery(sort="created", cursor=cursor),
        ServerQuery(sort="id", order="desc", cursor=cursor),
        ServerQuery(cursor="!"),
        ServerQuery(cursor="aGVsbG8"),
        ServerQuery(sort="latency", cursor="WyJsYXRlbmN5IiwiYXNjIiwieCIsImIiXQ"),
    ):
        with pytest.raises(ApiError, match="cursor") as refused:
            page(ALL, query)
        assert (refused.value.kind.status, refused.value.param) == (400, "cursor")
