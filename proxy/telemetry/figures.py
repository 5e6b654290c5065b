"""What the gateway's parts tell the metrics page, gathered when somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import trio

from ..local.backend import EngineModel
from ..registry import OUT_OF_SERVICE, Registry
from ..remote.backend import RemoteServer
from ..remote.figures import server_figures
from ..tunnel.figures import link_figures
from ..tunnel.joined import JoinedServer
from .metrics import Figure

if TYPE_CHECKING:
    from ..gateway import Gateway, State


def gateway_figures(gateway: Gateway) -> Iterator[Figure]:
    """Of everything that counts for itself. Models and servers are those that the registry knows now."""
    yield Figure(
        "states", "quiver_state", "What the gateway is doing", {state: state == gateway.state for state in STATES}
    )
    yield from _queue(gateway)
    yield from _cache(gateway)
    for why, count in gateway.keys.refused.items():
        yield Figure(
            "counter", "quiver_keys_refused", "Requests refused for their key, by why", count, (("reason", why),)
        )
    ledger = gateway.ledger
    yield Figure("gauge", "quiver_records_waiting", "Records not yet written", ledger.waiting)
    yield Figure("counter", "quiver_records_dropped", "Records that could not be written", ledger.dropped)
    yield from _store(gateway)
    yield from _models(gateway.registry, gateway.exchanges.in_flight_by_model())
    for backend in gateway.registry:
        labels = (("server", backend.id),)
        tier, load = backend.tier(trio.current_time()), backend.load
        yield Figure("gauge", "quiver_server_up", "Whether a server is in service", tier < OUT_OF_SERVICE, labels)
        yield Figure("gauge", "quiver_server_in_flight", "Requests on a server", load.in_flight, labels)
        if isinstance(backend, EngineModel):
            yield from backend.figures()
        elif isinstance(backend, RemoteServer):
            yield from server_figures(backend)
            if isinstance(backend, JoinedServer):
                yield from link_figures(backend)


STATES: tuple[State, ...] = ("starting", "ready", "draining")


def _queue(gateway: Gateway) -> Iterator[Figure]:
    admission, limits = gateway.admission.statistics(), gateway.config.admission
    for priority, waiting in admission.queue.by_priority.items():
        yield Figure(
            "gauge", "quiver_queue_waiting", "Requests that wait for a free server", waiting, (("priority", priority),)
        )
    yield Figure("gauge", "quiver_queue_limit", "Requests that may wait", limits.queue)
    yield Figure("counter", "quiver_queue_full", "Requests refused because too many waited", admission.full)
    yield Figure("counter", "quiver_queue_timeouts", "Requests that waited too long", admission.timed_out)
    yield Figure("counter", "quiver_queue_left", "Requests whose client left while they waited", admission.cancelled)


def _cache(gateway: Gateway) -> Iterator[Figure]:
    reuse = gateway.reuse.statistics()
    yield Figure("gauge", "quiver_cache_bytes", "Memory taken by kept answers", reuse.bytes)
    yield Figure("gauge", "quiver_cache_answers", "Answers kept", reuse.kept)
    yield Figure("counter", "quiver_cache_hits", "Requests answered from memory", reuse.hits)
    yield Figure("counter", "quiver_cache_shared", "Requests that shared another's answer", reuse.shared)
    yield Figure("counter", "quiver_cache_misses", "Repeatable requests with no answer yet", reuse.misses)
    yield Figure("counter", "quiver_cache_evictions", "Kept answers that left for lack of room", reuse.evicted)
    yield Figure("counter", "quiver_cache_expirations", "Kept answers that left by age", reuse.expired)


def _store(gateway: Gateway) -> Iterator[Figure]:
    store = gateway.store.statistics()
    yield Figure("gauge", "quiver_store_waiting", "Entries that are not in the database yet", store.waiting)
    yield Figure("counter", "quiver_store_written", "Entries written to the database", store.written)
    yield Figure("counter", "quiver_store_dropped", "Entries that never came into the database", store.dropped)
    yield Figure("gauge", "quiver_store_degraded", "Whether the database cannot be written", bool(store.degraded))
    yield Figure("histogram", "quiver_store_flush_seconds", "Time to write a batch", gateway.store.flushes)
    yield Figure("gauge", "quiver_store_bytes", "Bytes of the database on the disk, a minute ago", store.size)


def _models(registry: Registry, in_flight: dict[str, int]) -> Iterator[Figure]:
    serving: dict[str, int] = {}
    for backend in registry:
        up = backend.tier(trio.current_time()) < OUT_OF_SERVICE
        for model in backend.models:
            serving[model] = serving.get(model, 0) + up
    for model, servers in serving.items():
        labels = (("model", model),)
        yield Figure("gauge", "quiver_model_servers", "Servers in service that offer a model", servers, labels)
    for model in {*serving, *in_flight}:
        labels = (("model", model),)
        yield Figure("gauge", "quiver_model_in_flight", "Requests being worked on", in_flight.get(model, 0), labels)
