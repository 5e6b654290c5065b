"""Spans as a real collector gets them, from a gateway in memory: names, parents, attributes, and what must not be in them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import trio
from quiver.admin.telemetry.opening import MissingExtra, open_tracer
from quiver.admin.telemetry.otel import OtelTracer
from quiver.proxy.registry import Call
from quiver.proxy.telemetry.record import EngineTimings
from quiver.proxy.telemetry.tracing import Attempt, Tracing
from quiver.proxy.testing import fixed_world, request
from quiver.schemas.config import Health, Telemetry
from quiver.schemas.openai import Usage
from trio.testing import MockClock

from ...proxy.gateways import Running, answering, running, streaming
from ...proxy.samples import record
from ...proxy.servers import Asked, Farm, Said, events, response
from .collector import Collector, attributes, collecting

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"traceparent: 00-{TRACE}-{PARENT}-01".encode()
PLANTED = "planted-secret-7731"
STREAM = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "%s"}]}' % PLANTED.encode()
CHUNKS = [
    b'data: {"id": "1", "model": "m-2024", "choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n'
    % PLANTED.encode(),
    b'data: {"id": "1", "model": "m-2024", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n',
    b'data: {"id": "1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}\n\n',
    b"data: [DONE]\n\n",
]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    with collecting() as collector:
        yield collector


def tracer(collector: Collector, **settings: Any) -> OtelTracer:
    return OtelTracer(Telemetry(tracing=True, endpoint=collector.url, **settings))


async def ask_with_a_retry(farm: Farm, tracer: OtelTracer, *headers: bytes) -> tuple[list[Asked], Running]:
    """The first server fails, the second one streams; what each was asked, by the gateway that has ended since."""
    first, broken = await farm.configure(answering(Said(response(b"500 Oops", b""))))
    second, well = await farm.configure(answering(Said(events(*CHUNKS))))
    async with running(farm, [first, second], health=Health(interval=300), tracer=tracer) as gateway:
        assert PLANTED.encode() in await gateway.ask(STREAM, b"Authorization: Bearer " + PLANTED.encode(), *headers)
        gateway.signal(2)
    asked = [one for server in (broken, well) for one in server.asked if one.path == b"/v1/chat/completions"]
    return asked, gateway


async def test_streamed_request_with_a_retry(farm: Farm, autojump_clock: MockClock, collector: Collector) -> None:
    asked, gateway = await ask_with_a_retry(farm, tracer(collector), TRACEPARENT, b"tracestate: vendor=1")
    (server,) = collector.named("POST /v1/chat/completions")
    failed, answered = collector.named("chat m")
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert server.parent_span_id.hex() == PARENT
    assert {span.parent_span_id for span in (failed, answered)} == {server.span_id}
    assert len({span.span_id for span in collector.spans}) == len(collector.spans) == 3
    for one, span in zip(asked, (failed, answered), strict=True):
        assert f"traceparent: 00-{TRACE}-{span.span_id.hex()}-01".encode() in one.head.lower()
        assert b"tracestate: vendor=1" in one.head.lower()
    assert gateway.records[0].trace_id == TRACE

    told = attributes(server)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "m"
    assert told["gen_ai.response.model"] == "m-2024"
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (5, 2)
    assert (told["http.request.method"], told["http.route"]) == ("POST", "/v1/chat/completions")
    assert (told["http.response.status_code"], told["quiver.attempts"]) == (200, 2)
    assert told["quiver.request_id"] == gateway.records[0].request_id
    assert server.kind == server.SPAN_KIND_SERVER
    assert server.status.code == server.status.STATUS_CODE_UNSET
    assert server.start_time_unix_nano <= failed.start_time_unix_nano <= failed.end_time_unix_nano
    assert failed.end_time_unix_nano <= answered.start_time_unix_nano <= answered.end_time_unix_nano
    assert answered.end_time_unix_nano <= server.end_time_unix_nano

    told = attributes(failed)
    assert failed.kind == failed.SPAN_KIND_CLIENT
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert (told["error.type"], told["server.address"], told["server.port"]) == ("upstream_error", "10.0.0.1", 9000)
    assert "gen_ai.usage.output_tokens" not in told
    told = attributes(answered)
    assert (told["gen_ai.provider.name"], told["quiver.server"]) == ("openai", "b2")
    assert (told["http.request.resend_count"], told["gen_ai.usage.output_tokens"]) == (1, 2)
    (resource,) = collector.resources
    assert resource["service.name"] == "quiver"


async def test_spans_hold_no_secrets(farm: Farm, autojump_clock: MockClock, collector: Collector) -> None:
    await ask_with_a_retry(farm, tracer(collector))
    assert len(collector.spans) == 3
    assert PLANTED not in "".join(map(str, collector.spans))


async def test_content_is_in_spans_when_asked_for(farm: Farm, autojump_clock: MockClock, collector: Collector) -> None:
    await ask_with_a_retry(farm, tracer(collector, content=True))
    (server,) = collector.named("POST /v1/chat/completions")
    told = attributes(server)
    text = {"type": "text", "content": PLANTED}
    assert msgspec.json.decode(told["gen_ai.input.messages"]) == [{"role": "user", "parts": [text]}]
    assert msgspec.json.decode(told["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [text], "finish_reason": "stop"}
    ]


async def test_waits_are_spans(farm: Farm, autojump_clock: MockClock, collector: Collector) -> None:
    config, _ = await farm.configure(answering(streaming(3)), max_concurrency=1)
    async with running(farm, [config], tracer=tracer(collector)) as gateway, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(gateway.ask, STREAM, b"Connection: close")
        await trio.sleep(60)
        gateway.signal(2)
    (waited,) = collector.named("queue")
    assert 3e9 < waited.end_time_unix_nano - waited.start_time_unix_nano < 6e9
    assert waited.parent_span_id in {span.span_id for span in collector.named("POST /v1/chat/completions")}


async def test_unwanted_traces_are_passed_on(farm: Farm, autojump_clock: MockClock, collector: Collector) -> None:
    """Nothing is sampled here, and servers are told so."""
    asked, gateway = await ask_with_a_retry(farm, tracer(collector, sampling=0.0))
    assert collector.spans == []
    assert gateway.records[0].trace_id is not None
    for one in asked:
        assert f"traceparent: 00-{gateway.records[0].trace_id}".encode() in one.head.lower()
        assert b"-00\r\n" in one.head.lower() + b"\r\n"


async def test_parents_decide(farm: Farm, autojump_clock: MockClock, collector: Collector) -> None:
    await ask_with_a_retry(farm, tracer(collector, sampling=0.0), TRACEPARENT)
    assert len(collector.spans) == 3
    await ask_with_a_retry(Farm(farm._nursery), tracer(collector), TRACEPARENT[:-2] + b"00")
    assert len(collector.spans) == 3


async def test_environment_is_honoured(
    farm: Farm, autojump_clock: MockClock, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "our-quiver")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=abc")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    await ask_with_a_retry(farm, OtelTracer(Telemetry(tracing=True)), TRACEPARENT)
    assert collector.spans == []
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    await ask_with_a_retry(Farm(farm._nursery), OtelTracer(Telemetry(tracing=True, sampling=0.0)))
    assert collector.resources[0]["service.name"] == "our-quiver"
    assert collector.headers[0]["x-token"] == "abc"
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_tracer(Telemetry(tracing=True)) is None


def test_dead_collector_does_not_hold_up_the_end() -> None:
    """Nobody listens there; the exporter would try again for ten seconds."""
    dead = OtelTracer(Telemetry(tracing=True, endpoint="http://127.0.0.1:9"))
    tracing = Tracing(fixed_world().random, dead)
    _, trace = tracing.begin(request("POST", "/v1/chat/completions"))
    assert trace is not None
    tracing.end(trace, record(), 1.0)
    began = time.monotonic()
    dead.close(0.2)
    assert time.monotonic() - began < 5


def test_nothing_is_imported_unless_asked_for() -> None:
    script = (
        "import sys, quiver.admin.serve as serve; from quiver.schemas.config import Telemetry\n"
        "assert serve.open_tracer(Telemetry()) is None\n"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "quiver.admin.telemetry.otel"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtra, match=r"telemetry\.tracing") as caught:
        open_tracer(Telemetry(tracing=True))
    assert "pip install 'quiver-gateway[otel]'" in caught.value.hint


def test_phases_of_the_engine_are_spans(collector: Collector) -> None:
    sending = tracer(collector)
    tracing = Tracing(fixed_world().random, sending)
    _, trace = tracing.begin(request("POST", "/v1/chat/completions"))
    assert trace is not None
    trace.attempts.append(
        Attempt(77, Call("chat/completions", "bolt", True, b"", [], "id", ""), "engine:bolt", "", 10.0)
    )
    trace.attempts[0].ended = 13.0
    engine = EngineTimings(0.5, 1.0, 1.5, 1.5, prompt_tokens=9, completion_tokens=4, cached_tokens=3)
    done = record(
        duration=4.0, server_id="engine:bolt", engine=engine, usage=Usage(9, 4, 13), stream=True, first_byte=1.6
    )
    tracing.end(trace, done, 13.5)
    sending.close(5)
    (attempt,) = collector.named("chat bolt")
    phases = [span for name in ("queue", "prompt", "generation") for span in collector.named(f"engine {name}")]
    assert {span.parent_span_id for span in phases} == {attempt.span_id}
    assert [round((span.end_time_unix_nano - span.start_time_unix_nano) / 1e9, 3) for span in phases] == [0.5, 1, 1.5]
    told = attributes(attempt)
    assert (told["gen_ai.provider.name"], told["gen_ai.usage.cache_read.input_tokens"]) == ("quiver", 3)
    assert told["gen_ai.response.time_to_first_chunk"] == 1.6
    assert "server.address" not in told
