"""The metrics page: it parses, and says what the records say."""

from random import Random

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from quiver.proxy.registry import Call
from quiver.proxy.reply import DownstreamGone, Reply
from quiver.proxy.telemetry.exposition import Page, exposition
from quiver.proxy.telemetry.histogram import SECONDS
from quiver.proxy.telemetry.metrics import MAX_CELLS, MAX_PAIRS, Figure, Metrics
from quiver.proxy.telemetry.record import FailedAttempt, Record
from quiver.proxy.testing import RecordingDownstream, ScriptedBackend, request
from quiver.schemas import errors
from quiver.schemas.config import Config
from quiver.schemas.openai import Usage
from trio.testing import MockClock

from ..conftest import Build, Exchanges, Start, records
from ..samples import record
from ..scripts import ALICE, BODY, SHARED, STREAM, WORDS, ask, ask_and_leave, failing, streamed, whole

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: Metrics) -> Samples:
    """The page as a scraper reads it: a value for each name and set of labels."""
    families = list(text_string_to_metric_families(exposition(metrics).decode()))
    assert all(family.documentation for family in families)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def total(found: Samples, name: str, **labels: str) -> float:
    """Of all series with these labels."""
    return sum(count for (of, given), count in found.items() if of == name and labels.items() <= dict(given).items())


def random_record(random: Random) -> Record:
    outcome = random.choice(("completed", "failed", "client_gone", "cancelled"))
    answered = outcome == "completed"
    attempts = random.randint(0, 3)
    failing = random.choices(("upstream_timeout", "upstream_error"), k=attempts - answered) if attempts else []
    return record(
        endpoint=random.choice(("chat/completions", "embeddings", "models", "other", "none")),
        model=random.choice(("m", "n", None)),
        server_id=random.choice(("b1", "b2", None)),
        status=200 if answered else random.choice((0, 400, 429, 503)),
        outcome=outcome,
        source=random.choice(("server", "shared", "cache")),
        error=random.choice(("upstream_error", "rate_limit_exceeded")) if outcome == "failed" else None,
        attempts=attempts,
        failures=tuple(FailedAttempt("b1", code, "it failed") for code in failing),
        queued=random.choice((0.0, 0.3, 40.0)),
        duration=random.uniform(0, 400),
        first_byte=random.choice((None, 0.004, 0.5, 301.0)),
        usage=random.choice((None, Usage(3, 4, 7), Usage(0, 9, 9))),
    )


@pytest.mark.parametrize("seed", range(10))
def test_figures_equal_the_records(seed: int) -> None:
    random, metrics = Random(seed), Metrics()
    seen = [random_record(random) for _ in range(300)]
    for one in seen:
        metrics.observe(one)
    found = samples(metrics)
    assert total(found, "quiver_requests_total") == len(seen)
    for outcome in ("completed", "failed", "client_gone", "cancelled"):
        expected = sum(one.outcome == outcome for one in seen)
        assert total(found, "quiver_requests_total", outcome=outcome) == expected
    for source in ("server", "shared", "cache"):
        assert total(found, "quiver_requests_total", source=source) == sum(one.source == source for one in seen)
    for endpoint in {one.endpoint for one in seen}:
        here = [one for one in seen if one.endpoint == endpoint]
        _check_histogram(found, "quiver_request_seconds", endpoint, [one.duration for one in here])
        first = [one.first_byte for one in here if one.first_byte is not None]
        _check_histogram(found, "quiver_first_byte_seconds", endpoint, first)
        _check_histogram(found, "quiver_queue_seconds", endpoint, [one.queued for one in here if one.queued])
    for code in ("upstream_timeout", "upstream_error"):
        reasons = [failure.code for one in seen for failure in one.failures[: one.attempts - 1]]
        assert total(found, "quiver_retries_total", reason=code) == reasons.count(code)
    assert total(found, "quiver_retries_total") == sum(max(0, one.attempts - 1) for one in seen)
    for code, kind in errors.BY_CODE.items():
        labels = {"code": code, "category": kind.category, "fault": kind.fault, "plane": "inference"}
        assert value(found, "quiver_errors_total", **labels) == sum(one.error == code for one in seen)
    limited = sum(one.error == "rate_limit_exceeded" for one in seen)
    assert value(found, "quiver_rate_limited_total", limit="requests") == limited
    usages = [one for one in seen if one.usage is not None]
    assert total(found, "quiver_tokens_total", direction="prompt") == sum(_tokens(one).prompt_tokens for one in usages)
    assert total(found, "quiver_tokens_total", model="unknown", direction="completion") == sum(
        _tokens(one).completion_tokens for one in usages if one.model is None
    )
    wasted = sum(_tokens(one).completion_tokens for one in usages if one.outcome == "client_gone")
    assert value(found, "quiver_wasted_tokens_total") == wasted


def _tokens(one: Record) -> Usage:
    assert one.usage is not None
    return one.usage


def _check_histogram(found: Samples, name: str, endpoint: str, values: list[float]) -> None:
    assert value(found, f"{name}_count", endpoint=endpoint) == len(values)
    assert value(found, f"{name}_sum", endpoint=endpoint) == pytest.approx(sum(values))
    for bound in (*(str(float(second)) for second in SECONDS), "+Inf"):
        below = sum(one <= float(bound) for one in values)
        assert value(found, f"{name}_bucket", endpoint=endpoint, le=bound) == below


def test_page_without_requests_parses() -> None:
    found = samples(Metrics())
    assert value(found, "quiver_in_flight") == value(found, "quiver_connections") == 0
    assert total(found, "quiver_retries_total") == total(found, "quiver_errors_total") == 0


def test_odd_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.observe(record(model='a"b\\c/{d}', server_id='"'))
    found = samples(metrics)
    assert total(found, "quiver_requests_total", model='a"b\\c/{d}', server='"') == 1


def test_figures_of_other_parts_are_shown() -> None:
    metrics = Metrics()
    metrics.figures = lambda: iter(
        [
            Figure("gauge", "quiver_kept_bytes", "Memory of kept answers", 42),
            Figure("gauge", "quiver_up", "Whether it is up", True, (("server", "b1"),)),
            Figure("counter", "quiver_drops", "What was dropped", 3),
            Figure("gauge", "quiver_up", "Whether it is up", False, (("server", "b2"),)),
        ]
    )
    found = samples(metrics)
    assert (value(found, "quiver_kept_bytes"), value(found, "quiver_drops_total")) == (42, 3)
    assert [value(found, "quiver_up", server=server) for server in ("b1", "b2")] == [1, 0]
    assert exposition(metrics).count(b"# TYPE quiver_up gauge") == 1


async def test_clients_add_no_series(build: Build) -> None:
    """A name that nobody offers comes from a client, and there is no end to them."""
    handler = build([ScriptedBackend("b1", ["m"], streamed)])
    before: Samples = {}
    for number in range(20):
        body = b'{"model": "made-up-%d", "messages": []}' % number
        assert (await ask(handler, body)).status == 404
        await ask(handler, b"", path=f"/v1/models/made-up-{number}")
        await ask(handler, b"", path=f"/v1/made-up-{number}")
        series = samples(handler.metrics)
        assert not before or set(series) == set(before)
        before = series


async def test_requests_reach_the_page(build: Build, autojump_clock: MockClock) -> None:
    handler = build([ScriptedBackend("b1", ["m"], streamed)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler, b'{"model": "m", "stream": true, "messages": []}', ALICE)
        await trio.sleep(2)
        assert value(samples(handler.metrics), "quiver_in_flight") == 1
    found = samples(handler.metrics)
    labels = {"endpoint": "chat/completions", "model": "m", "server": "b1", "source": "server"}
    assert value(found, "quiver_requests_total", status="200", outcome="completed", **labels) == 1
    assert value(found, "quiver_in_flight") == 0
    assert value(found, "quiver_first_byte_seconds_sum", endpoint="chat/completions") == 1
    assert value(found, "quiver_request_seconds_sum", endpoint="chat/completions") == 5
    assert value(found, "quiver_tokens_total", model="m", direction="completion") == 5
    assert len(records(handler)) == 1


async def test_streams_are_timed(build: Build, autojump_clock: MockClock) -> None:
    handler = build([ScriptedBackend("b1", ["m"], streamed)])
    await ask(handler, STREAM)
    await ask(handler, BODY)  # the script streams all the same, but nobody asked for that
    found, labels = samples(handler.metrics), {"model": "m", "server": "b1"}
    assert value(found, "quiver_time_to_first_token_seconds_count", **labels) == 1
    assert value(found, "quiver_time_to_first_token_seconds_sum", **labels) == 1
    assert value(found, "quiver_inter_token_seconds_count", **labels) == len(WORDS) - 1
    assert value(found, "quiver_inter_token_seconds_sum", **labels) == pytest.approx(len(WORDS) - 1)


async def test_departures_are_timed(build: Build, autojump_clock: MockClock) -> None:
    """From the moment that the gateway notices, by reading or by writing, to the end of the work for it."""

    async def slow_to_leave(call: Call, reply: Reply) -> None:
        try:
            await streamed(call, reply)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.3)

    handler = build([ScriptedBackend("b1", ["m"], slow_to_leave)])
    await ask_and_leave(handler, STREAM, 2.5)
    with pytest.raises(DownstreamGone):
        await ask(handler, STREAM, downstream=RecordingDownstream(leaves_after=2))
    found = samples(handler.metrics)
    assert value(found, "quiver_cancel_latency_seconds_count", server="b1") == 2
    assert value(found, "quiver_cancel_latency_seconds_sum", server="b1") == pytest.approx(0.6)


async def test_shared_work_that_nobody_wants_is_timed(start: Start, autojump_clock: MockClock) -> None:
    handler = await start([ScriptedBackend("b1", ["m"], streamed)])
    await ask_and_leave(handler, SHARED, 2.5)
    await trio.testing.wait_all_tasks_blocked()
    assert value(samples(handler.metrics), "quiver_cancel_latency_seconds_count", server="b1") == 1


async def test_retries_have_reasons(build: Build, autojump_clock: MockClock) -> None:
    busy, broken = failing(errors.UPSTREAM_BUSY), failing(errors.UPSTREAM_TIMEOUT)
    backends = [ScriptedBackend(f"b{n}", ["m"], script) for n, script in enumerate((busy, whole, broken))]
    handler = build(backends)
    assert (await ask(handler)).status == 200
    found = samples(handler.metrics)
    assert value(found, "quiver_retries_total", reason="upstream_busy") == 1
    assert value(found, "quiver_retries_total", reason="upstream_timeout") == 1
    assert total(found, "quiver_errors_total") == 0, "nobody was told of an error"
    assert [(failure.server_id, failure.code) for failure in records(handler)[0].failures] == [
        ("b0", "upstream_busy"),
        ("b2", "upstream_timeout"),
    ]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=40),
            st.text(max_size=40),
            st.sampled_from(["chat/completions", "embeddings", "models/x", "else", "models"]),
            st.lists(st.tuples(st.sampled_from([b"x-request-id", b"traceparent", b"x-quiver-priority"]), st.binary())),
        ),
        max_size=8,
    )
)
def test_no_request_adds_a_label(requests: list[tuple[bytes, str, str, list[tuple[bytes, bytes]]]]) -> None:
    """Whatever clients send, labels take values that the gateway knew before: none holds what a client said."""

    async def send() -> Samples:
        async with trio.open_nursery() as nursery:
            handler = Exchanges([ScriptedBackend("b1", ["m"], whole)], Config())
            nursery.start_soon(handler.run)
            for raw, model, path, headers in requests:
                for body in (raw, msgspec.json.encode({"model": model, "messages": [], "prompt": "", "input": ""})):
                    for method in ("GET", "POST"):
                        asked = request(method, f"/v1/{path}", body, headers)
                        await handler.handle(asked, RecordingDownstream())
            nursery.cancel_scope.cancel()
        return samples(handler.metrics)

    found = trio.run(send)
    known = {
        "endpoint": {"chat/completions", "embeddings", "models", "other"},
        "model": {"m", "unknown"},
        "server": {"b1", "none"},
        "outcome": {"completed", "failed"},
        "source": {"server"},
        "code": set(errors.BY_CODE),
        "limit": {"requests", "tokens"},
    }
    for _, labels in found:
        for name, said in labels:
            assert said in known.get(name, {said}), (name, said)
    assert {name for _, labels in found for name, _ in labels} <= {*known, *UNBOUND}


# Labels whose values the gateway makes itself.
UNBOUND = {"status", "le", "direction", "reason", "category", "fault", "plane", "version", "python"}


def test_series_have_a_bound() -> None:
    """Servers name their models themselves, and may do so anew at every check."""
    metrics = Metrics()
    for number in range(MAX_CELLS + 100):
        metrics.observe(record(model=f"m{number}", stream=True, first_byte=1.0))
        metrics.gaps_of(f"m{number}", "b").observe(1)
        metrics.torn_down(f"b{number}", 1)
    assert len(metrics.cells) <= MAX_CELLS + 1
    assert all(len(of) <= MAX_PAIRS + 1 for of in (metrics.gaps, metrics.first_tokens, metrics.cancelled))
    found = samples(metrics)
    assert total(found, "quiver_requests_total") == MAX_CELLS + 100
    assert total(found, "quiver_cancel_latency_seconds_count") == MAX_CELLS + 100


async def test_page_is_open_metrics_when_asked(build: Build) -> None:
    handler = build([ScriptedBackend("b1", ["m"], whole)])
    await ask(handler)
    handler.metrics.figures = lambda: iter([Figure("states", "quiver_state", "What it does", {"ready": True})])
    page, content_type = await Page(handler.metrics).write(
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    )
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert page.endswith(b"# EOF\n")
    parsed = openmetrics_families(page.decode())  # type: ignore[no-untyped-call] # it has no annotations
    families = {family.name: family for family in parsed}
    assert families["quiver_requests"].type == "counter"
    assert families["quiver_state"].type == "stateset"
    assert families["quiver_build"].type == "info"
    assert "process_cpu_seconds" in families
    plain, content_type = await Page(handler.metrics).write("*/*")
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"# EOF" not in plain
