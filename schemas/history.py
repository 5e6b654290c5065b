"""What the history tells, and what can be asked of it: requests, what they add up to, errors, events, figures over time.

Moments are Unix time, durations seconds.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from .config import said

Moment = Annotated[float, Meta(ge=0, le=100_000_000_000)]
Text = Annotated[str, Meta(min_length=1, max_length=512)]
Limit = Annotated[int, Meta(ge=1, le=1000, description="rows of a page")]
Cursor = Annotated[str, Meta(min_length=1, max_length=200, description="`next` of the page before")]
Outcome = Literal["completed", "failed", "client_gone", "cancelled"]
Source = Literal["server", "shared", "cache"]
Sort = Literal["time", "duration", "tokens"]
Dimension = Literal["model", "client", "server", "endpoint", "outcome", "hour", "day"]
Since = Annotated[Moment | None, said("ended at this moment or later")]
Until = Annotated[Moment | None, said("ended before this moment")]


class RequestFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which requests are meant; unset fields do not matter."""

    model: Annotated[Text | None, said("the model that was asked")] = None
    client: Annotated[Text | None, said("who asked: a key's name, or an address")] = None
    server: Annotated[Text | None, said("the server that answered")] = None
    endpoint: Annotated[Text | None, said("the path below `/v1/`")] = None
    outcome: Annotated[Outcome | None, said("what became of it")] = None
    since: Since = None
    until: Until = None


class RequestQuery(RequestFilter, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of requests."""

    status: Annotated[Annotated[int, Meta(ge=100, le=599)] | None, said("the reply's status")] = None
    error: Annotated[Text | None, said("the error's code")] = None
    troubled: Annotated[bool | None, said("`true`: only what did not complete, or has an error status")] = None
    source: Annotated[Source | None, said("where the answer came from")] = None
    request_id: Annotated[Text | None, said("the request's id")] = None
    min_duration: Annotated[Annotated[float, Meta(ge=0)] | None, said("took at least so long")] = None
    sort: Annotated[Sort, said("by its end, its duration, or its tokens")] = "time"
    order: Annotated[Literal["desc", "asc"], said("largest or smallest first")] = "desc"
    limit: Limit = 50
    cursor: Cursor | None = None


class HistoryQuery(RequestQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of requests, or with another format all of them."""

    format: Annotated[
        Literal["json", "ndjson", "csv"] | None,
        said("`json`: a page; `ndjson` and `csv`: all of them, as a stream. Unset: as `Accept` says"),
    ] = None
    limit: Annotated[Limit | None, said("rows, of a page 50 if unset, of a stream all")] = None  # type: ignore[assignment]


class EngineFigures(msgspec.Struct, frozen=True):
    """Where the built-in engine's time went, and its tokens."""

    queue: float
    prompt: float
    generation: float
    first_token: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


class AttemptEntry(msgspec.Struct, frozen=True):
    """An attempt on a server that failed, with the error's code and words."""

    server_id: str
    code: str
    message: str


class RequestEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `at`: its end; `client`: a key's name, or an address; `estimated`: the tokens are our guess; `charged`:
    those that counted against its client's limits; `trace_id`: the W3C trace it belongs to.
    """

    request_id: str
    at: float
    client: str
    endpoint: str
    model: str | None
    server: str | None
    stream: bool
    status: int
    outcome: Outcome
    error: str | None
    source: Source
    attempts: int
    queued: float
    duration: float
    first_byte: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool
    charged: int
    trace_id: str | None
    engine: EngineFigures | None


class HistoryPage(msgspec.Struct, frozen=True):
    """A page of requests. `next`: the `cursor` of the page after it, null on the last one."""

    requests: list[RequestEntry]
    next: str | None


class EventEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the gateway. `actor`: who made it, null when the gateway did so by itself."""

    at: float
    kind: str
    subject: str
    actor: str | None
    request_id: str | None
    details: dict[str, Any]


class ErrorMeaning(msgspec.Struct, frozen=True):
    """What the catalogue says of an error's code."""

    code: str
    category: str
    meaning: str


class RequestDetails(RequestEntry, frozen=True, kw_only=True):
    """One request with everything that is known of it. `failures`: its attempts that failed, in order. `prompt` and
    `answer`: where they are kept.
    """

    failures: list[AttemptEntry]
    prompt: str | None
    answer: str | None
    meaning: ErrorMeaning | None
    events: list[EventEntry]


class Distribution(msgspec.Struct, frozen=True):
    """How values are spread. Percentiles are right to a quarter of themselves."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """What requests of one group add up to. `group`: its values of what was grouped by. `first_byte` of those that had
    one; `tokens_per_second` of streams, from their first byte on.
    """

    group: dict[str, str | float | None]
    requests: int
    failed: int
    error_share: float
    retries: int
    prompt_tokens: int
    completion_tokens: int
    duration: Distribution
    first_byte: Distribution | None
    tokens_per_second: Distribution | None


class ModelTotals(msgspec.Struct, frozen=True):
    """What requests for one model add up to. `model` null: those that named none, or one that is not offered."""

    model: str | None
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    mean_seconds: float


class AggregateQuery(RequestFilter, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to add up. Without `since` all that is known."""

    by: Annotated[
        Annotated[tuple[Dimension, ...], Meta(min_length=1, max_length=2)], said("one or two; `hour` and `day` are UTC")
    ] = ("model",)
    limit: Annotated[int, Meta(ge=1, le=5000, description="groups; those with most requests, or the latest")] = 500


class AggregateReport(msgspec.Struct, frozen=True):
    """Groups, and the time they cover: whole hours or days. `cut`: there were more groups."""

    since: float | None
    until: float | None
    groups: list[Aggregate]
    cut: bool


class ErrorQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which errors to count."""

    code: Annotated[Text | None, said("only this one")] = None
    category: Annotated[Text | None, said("only those of this category")] = None
    model: Annotated[Text | None, said("the model that was asked")] = None
    server: Annotated[Text | None, said("the server that was asked")] = None
    since: Since = None
    until: Until = None
    step: Annotated[Literal["hour", "day"], said("of the counts over time")] = "hour"


class Count(msgspec.Struct, frozen=True):
    """How many there were from `at` on, for one step."""

    at: float
    count: int


class ErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    """One error. `over_time`: steps without any are left out."""

    code: str
    category: str
    meaning: str
    count: int
    first_at: float
    last_at: float
    last_request_id: str
    over_time: list[Count]


class ErrorReport(msgspec.Struct, frozen=True):
    """The errors of the time asked for, the most common first."""

    errors: list[ErrorCount]
    total: int


class EventQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of events, latest first."""

    kind: Annotated[
        tuple[Text, ...], said("only these, such as `server.paused`; `server` means all that begin with `server.`")
    ] = ()
    subject: Annotated[Text | None, said("what was changed, by its id")] = None
    actor: Annotated[Text | None, said("who made the change")] = None
    request_id: Annotated[Text | None, said("the request that made it")] = None
    since: Annotated[Moment | None, said("at this moment or later")] = None
    until: Annotated[Moment | None, said("before this moment")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class EventPage(msgspec.Struct, frozen=True):
    """A page of events. `next`: the `cursor` of the page after it, null on the last one."""

    events: list[EventEntry]
    next: str | None


class SeriesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which figures, over which time."""

    name: Annotated[tuple[Text, ...], said("the figures; all if unset")] = ()
    since: Annotated[Moment | None, said("from this moment on; an hour ago if unset")] = None
    until: Annotated[Moment | None, said("before this moment")] = None
    step: Annotated[Annotated[int, Meta(ge=60, le=86_400)], said("seconds that are drawn together into one point")] = 60


class Point(msgspec.Struct, frozen=True):
    """A figure in one step of time."""

    at: float
    mean: float
    min: float
    max: float


class Series(msgspec.Struct, frozen=True):
    """One figure over time."""

    name: str
    points: list[Point]


class SeriesReport(msgspec.Struct, frozen=True):
    """Figures over time, each in steps of `step` seconds."""

    step: int
    series: list[Series]


class DeletionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to delete."""

    before: Annotated[Moment, said("delete requests that ended before this moment")]


class Deleted(msgspec.Struct, frozen=True):
    """Requests that are no longer in the history."""

    deleted: int


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """The store. `size`: bytes on the disk, with the log beside the database; `free`: of those, unused; `waiting`, `written`
    and `dropped`: entries since the start; `degraded`: why nothing can be written; `oldest`: the first request it has.
    """

    file: str | None
    size: int
    free: int
    size_warning: int
    waiting: int
    written: int
    dropped: int
    degraded: str | None
    oldest: float | None
