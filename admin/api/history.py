"""The admin API's routes for what happened: requests, what they add up to, errors, events, figures over time, the store."""

import csv
import io
from collections.abc import AsyncIterator, Callable

import msgspec
from quart import Blueprint, Response, request
from quiver.proxy.gateway import Gateway
from quiver.proxy.store.history.history import History
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.history import (
    AggregateQuery,
    Deleted,
    DeletionQuery,
    ErrorQuery,
    EventQuery,
    HistoryQuery,
    RequestEntry,
    RequestQuery,
    SeriesQuery,
    StoreReport,
)
from quiver.schemas.sizes import bytes_of

from .answers import json_reply
from .lock import actor_of
from .query import decoded_query

Write = Callable[[list[RequestEntry], bool], bytes]

CSV, NDJSON = "text/csv", "application/x-ndjson"
FORMATS = {"csv": CSV, "ndjson": NDJSON}
PAGE = 50
# Rows of a stream that are made before others get their turn.
PIECE = 200
COLUMNS = [field.name for field in msgspec.structs.fields(RequestEntry) if field.name != "engine"]


def add_history(api: Blueprint, gateway: Gateway) -> None:
    """The routes below `/admin/history`, and their neighbours."""
    _add_requests(api, gateway)
    _add_counts(api, gateway)

    @api.get("/store")
    async def store() -> Response:
        return json_reply(await _store_report(gateway))


def _add_requests(api: Blueprint, gateway: Gateway) -> None:
    history = gateway.store.history

    @api.get("/history")
    async def requests() -> Response:
        query = decoded_query(request, HistoryQuery)
        wanted = query.format or _accepted()
        if wanted == "json":
            return json_reply(await history.requests(_asked(query, query.limit or PAGE)))
        pages = _pages(history, _asked(query, PIECE), query.limit)
        first: list[RequestEntry] = await anext(pages, [])  # so that a bad cursor is refused before the reply begins
        response = Response(_written(first, pages, _csv if wanted == "csv" else _ndjson), content_type=FORMATS[wanted])
        response.timeout = None  # a month takes as long as it takes
        response.headers["Content-Disposition"] = f'attachment; filename="history.{wanted}"'
        return response

    @api.delete("/history")
    async def delete() -> Response:
        before = decoded_query(request, DeletionQuery).before
        # Noted first: it takes its time, and whoever asked may leave before all is gone.
        gateway.journal.note("history.deleted", "history", actor=actor_of(request), before=before)
        return json_reply(Deleted(await gateway.store.forget_requests(before)))

    @api.get("/history/aggregate")
    async def aggregate() -> Response:
        return json_reply(await history.aggregate(decoded_query(request, AggregateQuery)))

    # Clients choose their requests' ids, and may put slashes into them.
    @api.get("/history/<path:id>")
    async def one(id: str) -> Response:
        found = await history.request(id)
        if found is None:
            raise ApiError(errors.NOT_FOUND, f"No request `{id[:100]}` is known, or not any more")
        return json_reply(found)


def _add_counts(api: Blueprint, gateway: Gateway) -> None:
    history = gateway.store.history

    @api.get("/errors")
    async def error_counts() -> Response:
        return json_reply(await history.errors(decoded_query(request, ErrorQuery)))

    @api.get("/events")
    async def events() -> Response:
        return json_reply(await history.events(decoded_query(request, EventQuery)))

    @api.get("/metrics/history")
    async def series() -> Response:
        return json_reply(await history.series(decoded_query(request, SeriesQuery)))


async def _store_report(gateway: Gateway) -> StoreReport:
    store = gateway.store
    figures, path = store.statistics(), store.path
    return StoreReport(
        file=None if path is None else path.name,
        size=figures.size,
        free=figures.free,
        size_warning=bytes_of(gateway.config.store.size_warning),
        waiting=figures.waiting,
        written=figures.written,
        dropped=figures.dropped,
        degraded=figures.degraded,
        oldest=await store.history.oldest(),
    )


def _accepted() -> str:
    """The format that `Accept` asks for by name."""
    best = request.accept_mimetypes.best_match(["application/json", NDJSON, CSV], "application/json")
    return next((name for name, content_type in FORMATS.items() if content_type == best), "json")


def _asked(query: HistoryQuery, limit: int) -> RequestQuery:
    fields = {name: getattr(query, name) for name in RequestQuery.__struct_fields__}
    return RequestQuery(**(fields | {"limit": limit}))


async def _pages(history: History, asked: RequestQuery, left: int | None) -> AsyncIterator[list[RequestEntry]]:
    """All that is asked for, `left` rows at most, a page at a time: nothing is held open between two of them."""
    while True:
        if left is not None:
            asked = msgspec.structs.replace(asked, limit=min(left, PIECE))
            left -= asked.limit
        page = await history.requests(asked)
        yield page.requests
        if page.next is None or left == 0:
            return
        asked = msgspec.structs.replace(asked, cursor=page.next)


async def _written(
    first: list[RequestEntry], rest: AsyncIterator[list[RequestEntry]], write: Write
) -> AsyncIterator[bytes]:
    yield write(first, True)
    async for page in rest:
        yield write(page, False)


def _ndjson(page: list[RequestEntry], first: bool) -> bytes:
    return msgspec.json.Encoder().encode_lines(page)


def _csv(page: list[RequestEntry], first: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    if first:
        writer.writerow(COLUMNS)
    writer.writerows([_harmless(getattr(entry, column)) for column in COLUMNS] for entry in page)
    return text.getvalue().encode()


def _harmless(value: object) -> object:
    """Text that a spreadsheet would take for a formula is marked as text: clients choose their requests' ids."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
