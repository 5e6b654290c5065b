"""The admin API's routes for the log: what was logged, what is being logged, and how much."""

from collections.abc import AsyncIterator

import msgspec
import trio
from quart import Blueprint, Response, request
from quiver.proxy.decoding import decode_body
from quiver.proxy.gateway import Gateway
from quiver.proxy.seams import offload
from quiver.proxy.telemetry.levels import ALL, LEVELS
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.logs import LevelChange, LevelReport, LevelsReport, LogQuery

from ..logs.pipeline import Pipeline
from ..logs.search import Cursor, Wanted, search
from ..logs.standing import StandingLevels
from .answers import json_reply
from .bodies import json_body
from .lock import actor_of
from .query import decoded_query
from .streams import DONE, event, event_stream, wants_events

# A follower that hears nothing for so long is told that the connection still stands: seconds.
HEARTBEAT = 15.0
# How soon one notices that the gateway stops.
TURN = 0.5
FOLLOWERS = 32

_decode_change = msgspec.json.Decoder(LevelChange).decode


def add_logs(api: Blueprint, gateway: Gateway, pipeline: Pipeline) -> None:
    """The routes below `/admin/logs`."""

    @api.get("/logs")
    async def log_lines() -> Response:
        query = decoded_query(request, LogQuery)
        wanted = _wanted(query)
        if query.follow or wants_events(request):
            return _stream(gateway, pipeline, wanted)
        path = None if pipeline.file is None else pipeline.file.path
        return json_reply(await offload(search, pipeline.ring, path, wanted, query.limit, _cursor(query.cursor)))

    standing = StandingLevels(gateway.store, lambda: gateway.config.log)

    @api.get("/logs/levels")
    async def log_levels() -> Response:
        return json_reply(levels_report())

    @api.put("/logs/levels")
    async def set_log_level() -> Response:
        wanted = decode_body(await json_body(request), _decode_change)
        if wanted.component == ALL and wanted.level is None:
            raise ApiError(errors.INVALID_REQUEST, f"`{ALL}` needs a level", param="level")
        async with gateway.changes:
            if wanted.seconds is None:
                await standing.keep(wanted.component, wanted.level)
            LEVELS.change(wanted.component, wanted.level, wanted.seconds)
        gateway.journal.note(
            "log.level", wanted.component, actor=actor_of(request), to=wanted.level, seconds=wanted.seconds
        )
        return json_reply(levels_report())


def levels_report() -> LevelsReport:
    """How much is logged now."""
    passing, now = LEVELS.passing(), trio.current_time()
    own = LEVELS.own()
    # Also those that have no level of their own just now, and will have one again.
    names = [ALL, *sorted((own.keys() | passing.keys()) - {ALL})]
    return LevelsReport(
        [
            LevelReport(
                name,
                LEVELS.common if name == ALL else own.get(name, LEVELS.common),
                round(max(0.0, passing[name].until - now), 1) if name in passing else None,
            )
            for name in names
        ]
    )


def _wanted(query: LogQuery) -> Wanted:
    return Wanted(query.level, query.component, query.request_id, query.since, query.until, query.search)


def _cursor(text: str | None) -> Cursor | None:
    if text is None:
        return None
    try:
        return Cursor.parse(text)
    except ValueError:
        raise ApiError(errors.INVALID_REQUEST, "`cursor`: expected `next` of another page", param="cursor") from None


def _stream(gateway: Gateway, pipeline: Pipeline, wanted: Wanted) -> Response:
    if len(pipeline.followers) >= FOLLOWERS:
        raise ApiError(errors.RATE_LIMITED, f"{FOLLOWERS} others follow the log already", retry_after=10)
    return event_stream(_followed(gateway, pipeline, wanted))


async def _followed(gateway: Gateway, pipeline: Pipeline, wanted: Wanted) -> AsyncIterator[bytes]:
    """New lines until the client leaves, does not keep up, or the gateway stops."""
    follower = pipeline.followers.add()
    try:
        yield b": following\n\n"
        quiet = 0.0
        while not follower.late and gateway.state != "draining":
            lines = _chosen(await follower.take(TURN), wanted)
            if lines:
                yield lines
                quiet = 0.0
            elif (quiet := quiet + TURN) >= HEARTBEAT:
                yield b": heartbeat\n\n"
                quiet = 0.0
        if follower.late:
            error = ApiError(errors.REQUEST_TIMEOUT, "The log was not read as fast as it was written; begin again")
            yield event(error.envelope())
        else:
            yield DONE
    finally:
        pipeline.followers.remove(follower)


def _chosen(lines: bytes, wanted: Wanted) -> bytes:
    shown = (wanted.takes(line) for line in lines.splitlines())
    return b"".join(event(line) for line in shown if line is not None)
