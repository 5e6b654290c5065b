"""The metrics page: it parses, and says what the records say."""

from random import Random

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from quiver.proxy.histogram import SECONDS
from quiver.proxy.metrics import Figure, Metrics
from quiver.proxy.record import Record
from quiver.proxy.testing import ScriptedBackend
from quiver.schemas.openai import Usage
from trio.testing import MockClock

from .conftest import Build, records
from .samples import record
from .scripts import ALICE, ask, streamed

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: Metrics) -> Samples:
    """The page as a scraper reads it: a value for each name and set of labels."""
    families = list(text_string_to_metric_families(metrics.exposition().decode()))
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
    return record(
        endpoint=random.choice(("chat/completions", "embeddings", "models", "other", "none")),
        model=random.choice(("m", "n", None)),
        server_id=random.choice(("b1", "b2", None)),
        status=200 if answered else random.choice((0, 400, 429, 503)),
        outcome=outcome,
        source=random.choice(("server", "shared", "cache")),
        attempts=random.randint(0, 3),
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
    assert value(found, "quiver_retries_total") == sum(max(0, one.attempts - 1) for one in seen)
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
    assert value(found, "quiver_retries_total") == 0


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
            Figure("gauge", "quiver_up", "Whether it is up", True, ("server", "b1")),
            Figure("counter", "quiver_drops", "What was dropped", 3),
            Figure("gauge", "quiver_up", "Whether it is up", False, ("server", "b2")),
        ]
    )
    found = samples(metrics)
    assert (value(found, "quiver_kept_bytes"), value(found, "quiver_drops_total")) == (42, 3)
    assert [value(found, "quiver_up", server=server) for server in ("b1", "b2")] == [1, 0]
    assert metrics.exposition().count(b"# TYPE quiver_up gauge") == 1


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
