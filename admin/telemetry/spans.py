"""One request as OpenTelemetry spans, by the semantic conventions for HTTP servers and for generative AI.

A server span for the whole; below it an internal one for each wait in the queue and a client span for each attempt; below an
attempt on the built-in engine its phases.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from quiver.proxy.telemetry.record import Record
from quiver.proxy.telemetry.tracing import CANCELLED, GONE, Attempt, Trace

from .content import input_messages, output_messages

Attributes = dict[str, str | bool | int | float | list[str]]

OPERATIONS = {"chat/completions": "chat", "completions": "text_completion", "embeddings": "embeddings"}
# Every server speaks OpenAI's protocol, and that is what the conventions want named where no more is known.
OPENAI, OWN_ENGINE = "openai", "quiver"
ENGINE = "engine:"


def spans_of(trace: Trace, record: Record, resource: Resource, scope: InstrumentationScope) -> list[ReadableSpan]:
    """The spans of one finished request."""
    return list(_Maker(trace, record, resource, scope).spans())


class _Maker:
    """Makes the spans of one request. Times of the trace are on Trio's clock; the record's end ties them to Unix time."""

    def __init__(self, trace: Trace, record: Record, resource: Resource, scope: InstrumentationScope) -> None:
        self._trace, self._record, self._resource, self._scope = trace, record, resource, scope
        self._ids = trace.span_id

    def spans(self) -> Iterator[ReadableSpan]:
        trace, record = self._trace, self._record
        yield self._server()
        for began, ended in trace.queued:
            yield self._span("queue", SpanKind.INTERNAL, self._next_id(), trace.span_id, began, ended, {})
        for number, attempt in enumerate(trace.attempts):
            yield self._attempt(attempt, number)
            if attempt.server_id.startswith(ENGINE) and record.engine is not None:
                yield from self._phases(attempt)

    def _server(self) -> ReadableSpan:
        trace, record = self._trace, self._record
        route = "/v1/{path}" if record.endpoint == "other" else f"/v1/{record.endpoint}"
        method = "GET" if record.endpoint == "models" else "POST"
        attributes: Attributes = {
            http_attributes.HTTP_REQUEST_METHOD: method,
            http_attributes.HTTP_ROUTE: route,
            "quiver.request_id": record.request_id,
            "quiver.outcome": record.outcome,
            "quiver.source": record.source,
            "quiver.attempts": record.attempts,
        }
        if record.status:
            attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] = record.status
        if record.server_id is not None:
            attributes["quiver.server"] = record.server_id
        if record.endpoint in OPERATIONS:
            attributes |= self._asked(record.model) | {gen_ai.GEN_AI_PROVIDER_NAME: OWN_ENGINE} | self._answered()
        attributes |= self._content()
        if record.error is not None:
            attributes[error_attributes.ERROR_TYPE] = record.error
        parent = trace.parent.span_id if trace.parent is not None else None
        began = trace.ended - record.duration
        # By the convention a client's own mistake is no error of the server's.
        failed = record.error if record.status >= 500 or (record.error and record.status < 400) else None
        return self._span(
            f"{method} {route}", SpanKind.SERVER, trace.span_id, parent, began, trace.ended, attributes, failed
        )

    def _attempt(self, attempt: Attempt, number: int) -> ReadableSpan:
        engine = attempt.server_id.startswith(ENGINE)
        attributes: Attributes = {
            **self._asked(attempt.call.model),
            gen_ai.GEN_AI_PROVIDER_NAME: OWN_ENGINE if engine else OPENAI,
            "quiver.server": attempt.server_id,
        }
        if number:
            attributes[http_attributes.HTTP_REQUEST_RESEND_COUNT] = number
        if not engine:
            attributes |= _address(attempt.address)
        if attempt.error is None:
            attributes |= self._answered()
        else:
            attributes[error_attributes.ERROR_TYPE] = attempt.error
        name = f"{OPERATIONS.get(attempt.call.endpoint, attempt.call.endpoint)} {attempt.call.model}"
        ended = attempt.ended if attempt.ended is not None else self._trace.ended
        kind = SpanKind.INTERNAL if engine else SpanKind.CLIENT
        span_id, parent = attempt.span_id, self._trace.span_id
        failed = None if attempt.error in (GONE, CANCELLED) else attempt.error
        return self._span(name, kind, span_id, parent, attempt.began, ended, attributes, failed)

    def _phases(self, attempt: Attempt) -> Iterator[ReadableSpan]:
        """Where the engine's time went. Of several choices these are the longest of each."""
        timings = self._record.engine
        assert timings is not None
        at = attempt.began
        counts: Attributes = {"quiver.engine.cached_tokens": timings.cached_tokens}
        drafts: Attributes = {
            "quiver.engine.drafted_tokens": timings.drafted_tokens,
            "quiver.engine.accepted_tokens": timings.accepted_tokens,
        }
        phases: list[tuple[str, float, Attributes]] = [
            ("engine queue", timings.queue, {}),
            ("engine prompt", timings.prompt, counts),
            ("engine generation", timings.generation, drafts),
        ]
        for name, seconds, attributes in phases:
            yield self._span(name, SpanKind.INTERNAL, self._next_id(), attempt.span_id, at, at + seconds, attributes)
            at += seconds

    def _asked(self, model: str | None) -> Attributes:
        found: Attributes = {}
        if self._record.endpoint in OPERATIONS:
            found[gen_ai.GEN_AI_OPERATION_NAME] = OPERATIONS[self._record.endpoint]
        if model is not None:
            found[gen_ai.GEN_AI_REQUEST_MODEL] = model
        if self._record.stream:
            found[gen_ai.GEN_AI_REQUEST_STREAM] = True
        return found

    def _answered(self) -> Attributes:
        record, answer = self._record, self._trace.answer
        found: Attributes = {}
        if answer is not None and answer.model is not None:
            found[gen_ai.GEN_AI_RESPONSE_MODEL] = answer.model
        if answer is not None and answer.finish_reasons:
            found[gen_ai.GEN_AI_RESPONSE_FINISH_REASONS] = answer.finish_reasons
        if record.usage is not None:
            found[gen_ai.GEN_AI_USAGE_INPUT_TOKENS] = record.usage.prompt_tokens
            found[gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS] = record.usage.completion_tokens
        if record.engine is not None:
            found[gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] = record.engine.cached_tokens
        if record.stream and record.first_byte is not None:
            found[gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = record.first_byte
        return found

    def _content(self) -> Attributes:
        trace, found = self._trace, Attributes()
        if trace.request is not None and (asked := input_messages(trace.request)):
            found[gen_ai.GEN_AI_INPUT_MESSAGES] = asked
        if trace.answer is not None and trace.answer.content and (said := output_messages(bytes(trace.answer.content))):
            found[gen_ai.GEN_AI_OUTPUT_MESSAGES] = said
        return found

    def _span(
        self,
        name: str,
        kind: SpanKind,
        span_id: int,
        parent: int | None,
        began: float,
        ended: float,
        attributes: Attributes,
        failed: str | None = None,
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            self._context(span_id),
            parent=self._context(parent) if parent is not None else None,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.ERROR, failed) if failed else Status(StatusCode.UNSET),
            start_time=self._nanoseconds(began),
            end_time=self._nanoseconds(ended),
            instrumentation_scope=self._scope,
        )

    def _context(self, span_id: int) -> SpanContext:
        return SpanContext(self._trace.trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def _nanoseconds(self, at: float) -> int:
        return int((self._record.at + at - self._trace.ended) * 1e9)

    def _next_id(self) -> int:
        """Ids of spans that nobody was told of: any will do that no other span of the trace has."""
        self._ids = (self._ids * 0x5851F42D4C957F2D + 1) % (1 << 64) or 1  # Knuth's generator, which visits all
        return self._ids


def _address(url: str) -> Attributes:
    parts = urlsplit(url)
    found: Attributes = {server_attributes.SERVER_ADDRESS: parts.hostname or ""}
    found[server_attributes.SERVER_PORT] = parts.port or (443 if parts.scheme == "https" else 80)
    return found
