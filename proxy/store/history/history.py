"""The history as the gateway asks it: pages of requests, what they add up to, errors, events, figures over time.

Every question is answered off the event loop, within a time limit, and given up when whoever asked is gone.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec
import trio
from quiver.schemas import errors
from quiver.schemas.history import (
    AggregateQuery,
    AggregateReport,
    Count,
    ErrorCount,
    ErrorMeaning,
    ErrorQuery,
    ErrorReport,
    EventEntry,
    EventPage,
    EventQuery,
    HistoryPage,
    ModelTotals,
    Point,
    RequestDetails,
    RequestEntry,
    RequestQuery,
    Series,
    SeriesQuery,
    SeriesReport,
)

from . import aggregates, counts, pages
from .reader import Reader

T = TypeVar("T")
# Groups that are worked out before others get their turn.
TURN = 16
SERIES_TIME = 3600.0


class History:
    """Answers from what was written; the last moments' records are on their way. Raises `ApiError`: 400 for a cursor that
    is not its own, 503 when a question takes too long or the database cannot be read.
    """

    def __init__(self, reader: Reader, wall_clock: Callable[[], float]) -> None:
        self._reader, self._wall_clock = reader, wall_clock

    def __repr__(self) -> str:
        return f"<History {self._reader!r}>"

    async def requests(self, asked: RequestQuery) -> HistoryPage:
        """A page of requests."""
        rows = await self._ask(pages.page(asked), list[tuple[float, int, RequestEntry]])
        next = None
        if len(rows) > asked.limit:
            value, id, _ = rows[asked.limit - 1]
            next = pages.packed(asked.sort, asked.order, value, id)
        return HistoryPage([entry for _, _, entry in rows[: asked.limit]], next)

    async def request(self, request_id: str) -> RequestDetails | None:
        """The latest request with this id, and all that is known of it."""
        for found in await self._ask(pages.one(request_id), list[RequestDetails]):
            meaning = None if found.error is None else _meaning(found.error)
            return msgspec.structs.replace(found, meaning=meaning)
        return None

    async def aggregate(self, asked: AggregateQuery) -> AggregateReport:
        """What requests add up to."""
        rows = await self._ask(aggregates.question(asked), list[aggregates.Row])
        groups = []
        for place, row in enumerate(rows[: asked.limit], 1):
            groups.append(aggregates.aggregate(asked.by, row))
            if place % TURN == 0:
                await trio.lowlevel.checkpoint()
        return AggregateReport(*aggregates.covered(asked), groups, len(rows) > asked.limit)

    async def errors(self, asked: ErrorQuery) -> ErrorReport:
        """How often each error was met."""
        rows = await self._ask(counts.errors(asked), list[counts.ErrorRow])
        found = []
        for code, count, first, last, request_id, over_time in rows:
            meaning = _meaning(code)
            if asked.category in (None, meaning.category):
                found.append(
                    ErrorCount(
                        code=code,
                        category=meaning.category,
                        meaning=meaning.meaning,
                        count=count,
                        first_at=first,
                        last_at=last,
                        last_request_id=request_id,
                        over_time=[Count(*each) for each in over_time],
                    )
                )
        return ErrorReport(found, sum(each.count for each in found))

    async def events(self, asked: EventQuery) -> EventPage:
        """A page of events."""
        rows = await self._ask(pages.events(asked), list[tuple[float, int, EventEntry]])
        next = None
        if len(rows) > asked.limit:
            at, id, _ = rows[asked.limit - 1]
            next = pages.packed("time", "desc", at, id)
        return EventPage([event for _, _, event in rows[: asked.limit]], next)

    async def series(self, asked: SeriesQuery) -> SeriesReport:
        """Figures over time."""
        since = self._wall_clock() - SERIES_TIME if asked.since is None else asked.since
        rows = await self._ask(counts.series(asked, since), list[tuple[str, list[tuple[float, float, float, float]]]])
        return SeriesReport(asked.step, [Series(name, [Point(*each) for each in points]) for name, points in rows])

    async def today(self) -> list[ModelTotals]:
        """What each model did since midnight, UTC."""
        rows = await self._ask(counts.today(self._wall_clock()), list[tuple[str | None, int, int, int, int, float]])
        return [ModelTotals(*row) for row in rows]

    async def spent(self, client: str, since: float) -> int:
        """Tokens that `client` was charged since the beginning (UTC) of the day of `since`; of 0: ever."""
        return await self._ask(counts.spent(client, since), int)

    async def oldest(self) -> float | None:
        """When the first request ended that is still known."""
        found = await self._ask(("SELECT json_array(min(at)) FROM requests", []), list[float | None])
        return found[0]

    async def _ask(self, question: pages.Question, kind: type[T]) -> T:
        return await self._reader.ask(*question, kind)


def _meaning(code: str) -> ErrorMeaning:
    kind = errors.BY_CODE.get(code)
    if kind is None:
        return ErrorMeaning(code, "unknown", "A code of another version.")
    return ErrorMeaning(code, kind.category, kind.meaning)
