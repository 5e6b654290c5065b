"""What the log looks like to who reads it: lines, pages of them, and how much is logged."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .config import Level, said
from .forms import whole

AwareTime = Annotated[datetime, Meta(tz=True)]
Component = Annotated[str, Meta(min_length=1, max_length=64, pattern=whole(r"[!-~]+"))]


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. `timestamp`: ISO 8601, UTC. `source`: file and function. `fields`: what else it says."""

    timestamp: str
    level: Level
    component: str | None
    message: str
    source: str | None = None
    request_id: str | None = None
    fields: dict[str, Any] = {}


class LogPage(msgspec.Struct, frozen=True):
    """Lines, the newest first. `next`: the cursor of what is older; null at the end. A page may hold less than was asked for
    and yet have a next one: so much of the log is looked through at a time.
    """

    lines: list[LogLine]
    next: str | None


class LevelReport(msgspec.Struct, frozen=True):
    """The least level that a component logs; `all` stands for those that have none of their own. `seconds_left`: then it goes
    back to what it was.
    """

    component: str
    level: Level
    seconds_left: float | None = None


class LevelsReport(msgspec.Struct, frozen=True):
    """How much is logged: `all` first, then the components that differ."""

    levels: list[LevelReport]


class LevelChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A component's new level; null for the one of `all`. `seconds`: for how long."""

    component: Component
    level: Level | None
    seconds: Annotated[float, Meta(gt=0, le=604_800)] | None = None


class LogQuery(msgspec.Struct, frozen=True):
    """Which lines of the log: all that is given must fit."""

    level: Annotated[Level | None, said("The least level.")] = None
    component: Annotated[Component | None, said("Who says it, like `request` or `health`.")] = None
    request_id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128)] | None, said("What was said while it was answered.")
    ] = None
    since: Annotated[AwareTime | None, said("The earliest time, ISO 8601 with its zone.")] = None
    until: Annotated[AwareTime | None, said("The latest time.")] = None
    search: Annotated[
        Annotated[str, Meta(min_length=1, max_length=200)] | None, said("Text anywhere in the line, in any case.")
    ] = None
    limit: Annotated[Annotated[int, Meta(ge=1, le=1000)], said("At most so many lines.")] = 100
    cursor: Annotated[str | None, said("`next` of the page before.")] = None
    follow: Annotated[bool, said("Send new lines as they are written, as `Accept: text/event-stream` does.")] = False
