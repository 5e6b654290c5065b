"""Distributed tracing: which trace a request belongs to, and what is noted on the way for whoever makes spans of it.

W3C Trace Context (https://www.w3.org/TR/trace-context/) is read from the client and written to servers here. Spans themselves
are made elsewhere, by a `Tracer`, from a `Trace` and the record of its request; without one a request costs one look for a
header.
"""

import re
from collections.abc import Sequence
from random import Random
from typing import Protocol

import msgspec
import trio
from quiver.schemas.errors import ApiError

from ..registry import Backend, Call
from ..reply import DownstreamGone
from ..request import Request
from .record import Record

Headers = Sequence[tuple[bytes, bytes]]

# Versions after 00 may have more behind; `ff` is forbidden.
TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
# What W3C asks everybody to pass on at least; longer ones are dropped whole.
MAX_STATE = 512
CONTEXT = (b"traceparent", b"tracestate")
# What is kept of a request and of its answer, where they are wanted.
MAX_CONTENT = 65_536

# Why an attempt ended that nobody was at fault for.
GONE, CANCELLED = "client_gone", "cancelled"

MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"')
FINISH_REASON = re.compile(rb'"finish_reason"\s*:\s*"([a-z_]+)"')


class Context(msgspec.Struct, frozen=True):
    """Where a request stands in somebody's trace. `state` is vendors' own and passed on as it is."""

    trace_id: int
    span_id: int
    sampled: bool
    state: bytes = b""


def read_context(request: Request) -> Context | None:
    """The client's context; None when it sent none, or an invalid one."""
    given = request.header(b"traceparent")
    if given is None:
        return None
    found = TRACEPARENT.fullmatch(given)
    if found is None or (found[1] == b"00" and found[5] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id or sum(name == b"traceparent" for name, _ in request.headers) > 1:
        return None
    state = b",".join(value.strip() for name, value in request.headers if name == b"tracestate")
    return Context(trace_id, span_id, bool(int(found[4], 16) & 1), state if len(state) <= MAX_STATE else b"")


class Tracer(Protocol):
    """Makes spans, and sends them away. `content`: whether it wants prompts and answers."""

    content: bool

    def samples(self, trace_id: int, parent: Context | None) -> bool:
        """Whether spans of this trace are wanted."""
        ...

    def keep(self, trace: "Trace", record: Record) -> None:
        """Take a finished trace. Never waits."""
        ...

    def close(self, seconds: float) -> None:
        """Send what is left, for so long at most. Blocks."""
        ...


class Attempt:
    """One attempt on one server. `call` is the one to carry out, which tells the server of the trace. Times are on Trio's
    clock.
    """

    __slots__ = ("address", "began", "call", "ended", "error", "server_id", "span_id")

    def __init__(self, span_id: int, call: Call, server_id: str, address: str, began: float) -> None:
        self.span_id, self.call, self.server_id, self.address, self.began = span_id, call, server_id, address, began
        self.ended: float | None = None
        self.error: str | None = None

    def end(self, error: BaseException | None) -> None:
        """It is over, with `error` if it failed."""
        self.ended = trio.current_time()
        match error:
            case ApiError():
                self.error = error.kind.code
            case DownstreamGone():
                self.error = GONE
            case trio.Cancelled():
                self.error = CANCELLED
            case Exception():
                self.error = type(error).__name__


class Answer:
    """What a reply says of itself: the model that answered and why each choice ended; and all of it, if `content` is wanted."""

    __slots__ = ("content", "finish_reasons", "model")

    def __init__(self, content: bool) -> None:
        self.model: str | None = None
        self.finish_reasons: list[str] = []
        self.content: bytearray | None = bytearray() if content else None

    def read(self, data: bytes) -> None:
        """Note what is in a piece of the reply. In JSON no string within another could look like these fields."""
        if self.model is None and (found := MODEL.search(data)):
            self.model = found[1].decode("utf-8", "replace")
        if b'"finish_reason"' in data:
            self.finish_reasons += [reason.decode() for reason in FINISH_REASON.findall(data)]
        if self.content is not None and len(self.content) < MAX_CONTENT:
            self.content += data[: MAX_CONTENT - len(self.content)]


class Trace:
    """What becomes of one request. `parent` is the client's context; `answer` is there when spans are wanted.

    `queued` holds the times spent waiting for a server, `attempts` the servers tried.
    """

    __slots__ = (
        "_random",
        "answer",
        "attempts",
        "ended",
        "parent",
        "queued",
        "request",
        "sampled",
        "span_id",
        "trace_id",
    )

    def __init__(self, parent: Context | None, trace_id: int, random: Random) -> None:
        self._random = random
        self.parent, self.trace_id = parent, trace_id
        self.span_id = self._new_id()
        self.sampled = False
        self.answer: Answer | None = None
        self.request: bytes | None = None
        self.queued: list[tuple[float, float]] = []
        self.attempts: list[Attempt] = []
        self.ended = 0.0

    def __repr__(self) -> str:
        return f"<Trace {self.trace_id:032x}: {len(self.attempts)} attempts{'' if self.sampled else ', not sampled'}>"

    def attempt(self, backend: Backend, call: Call) -> Attempt:
        """Begin an attempt. Servers of other machines are told its context."""
        span_id = self._new_id()
        address = backend.status().address if self.sampled else ""
        call = msgspec.structs.replace(call, headers=self._with_context(call.headers, span_id))
        attempt = Attempt(span_id, call, backend.id, address, trio.current_time())
        self.attempts.append(attempt)
        return attempt

    def _with_context(self, headers: Headers, span_id: int) -> Headers:
        sent = [header for header in headers if header[0] not in CONTEXT]
        sent.append((b"traceparent", b"00-%032x-%016x-%02x" % (self.trace_id, span_id, self.sampled)))
        if self.parent is not None and self.parent.state:
            sent.append((b"tracestate", self.parent.state))
        return sent

    def _new_id(self) -> int:
        return self._random.getrandbits(64) or 1


class Tracing:
    """Begins traces. Without a `tracer` the client's context passes through the gateway as it came; with `propagate` a request
    that has none is given one.
    """

    def __init__(self, random: Random, tracer: Tracer | None = None, *, propagate: bool = False) -> None:
        self._random, self._tracer, self._propagate = random, tracer, propagate

    def __repr__(self) -> str:
        return f"<Tracing: {'on' if self._tracer else 'propagating' if self._propagate else 'off'}>"

    def begin(self, request: Request) -> tuple[str | None, Trace | None]:
        """The id of the request's trace, and where to note what becomes of it; None where there is none."""
        parent, tracer = read_context(request), self._tracer
        if tracer is None and (parent is not None or not self._propagate):
            return f"{parent.trace_id:032x}" if parent is not None else None, None
        trace_id = parent.trace_id if parent is not None else self._random.getrandbits(128) or 1
        trace = Trace(parent, trace_id, self._random)
        if tracer is not None and tracer.samples(trace_id, parent):
            trace.sampled, trace.answer = True, Answer(tracer.content)
            trace.request = request.body if tracer.content and len(request.body) <= MAX_CONTENT else None
        return f"{trace_id:032x}", trace

    def end(self, trace: Trace, record: Record, ended: float) -> None:
        """The request of `trace` is over since `ended`, on Trio's clock."""
        trace.ended = ended
        if trace.sampled and self._tracer is not None:
            self._tracer.keep(trace, record)
