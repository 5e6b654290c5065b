"""Sending traces to a collector by OTLP over HTTP, with OpenTelemetry's own SDK and its environment variables.

A finished trace waits as it is in the SDK's queue; spans are made of it in the SDK's thread, just before they are sent.
"""

import os
import threading
from collections.abc import Sequence

import quiver
from opentelemetry.context import Context as SdkContext
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.trace.sampling import _get_from_env_or_default as sampler_of_environment
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from quiver.proxy.telemetry.record import Record
from quiver.proxy.telemetry.tracing import Context, Trace
from quiver.schemas.config import Telemetry

from .spans import spans_of

SERVICE = "quiver"
PATH = "/v1/traces"
# The part of a trace's id that the SDK's own ratio sampler looks at, so that services decide alike.
RATIO_BITS = (1 << 64) - 1


class OtelTracer:
    """See `quiver.proxy.telemetry.tracing.Tracer`."""

    def __init__(self, config: Telemetry) -> None:
        self.content = config.content
        self._resource = _resource()
        self._bound = round(config.sampling * (RATIO_BITS + 1))
        self._sampler: Sampler | None = sampler_of_environment() if os.environ.get(OTEL_TRACES_SAMPLER) else None
        endpoint = config.endpoint and config.endpoint.rstrip("/").removesuffix(PATH) + PATH
        self._exporter = _Expanding(OTLPSpanExporter(endpoint=endpoint))
        self._processor = BatchSpanProcessor(self._exporter)

    def samples(self, trace_id: int, parent: Context | None) -> bool:
        if self._sampler is not None:
            decided = self._sampler.should_sample(_sdk_context(parent), trace_id, "request")
            return decided.decision is Decision.RECORD_AND_SAMPLE
        return parent.sampled if parent is not None else trace_id & RATIO_BITS < self._bound

    def keep(self, trace: Trace, record: Record) -> None:
        self._processor.on_end(_Kept(trace, record, self._resource))

    def close(self, seconds: float) -> None:
        closing = threading.Thread(target=self._processor.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(seconds)
        if closing.is_alive():
            self._exporter.shutdown()  # ends its retries


class _Kept(ReadableSpan):
    """A trace in the SDK's queue, where only spans may wait."""

    def __init__(self, trace: Trace, record: Record, resource: Resource) -> None:
        context = SpanContext(
            trace.trace_id, trace.span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
        )
        super().__init__(record.endpoint, context, resource=resource)
        self.trace, self.record = trace, record


class _Expanding(SpanExporter):
    """Makes spans of the traces it is given, and passes them on."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._scope = InstrumentationScope(SERVICE, quiver.__version__)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        made: list[ReadableSpan] = []
        for kept in spans:
            assert isinstance(kept, _Kept)
            made += spans_of(kept.trace, kept.record, kept.resource, self._scope)
        return self._exporter.export(made)

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _resource() -> Resource:
    """Who we are, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say otherwise."""
    found = Resource.create({"service.version": quiver.__version__})
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": SERVICE}))
    return found


def _sdk_context(parent: Context | None) -> SdkContext | None:
    if parent is None:
        return None
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return set_span_in_context(NonRecordingSpan(SpanContext(parent.trace_id, parent.span_id, True, flags)))
