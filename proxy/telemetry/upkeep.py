"""What the gateway does for its own history while it runs: a look at itself once a minute, and the deletion of what is old."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..seams import offload

if TYPE_CHECKING:
    from ..gateway import Gateway
    from ..store.store import Store

SAMPLE = 60.0
# The first soon after the start, when what is needed more urgently is done.
FIRST_TIDY, TIDY = 30.0, 600.0


async def take_samples(gateway: Gateway) -> None:
    """Note the gateway's figures every minute, until cancelled."""
    began, lag = trio.current_time(), gateway.metrics.loop_lag
    late, looks = 0.0, 0
    while True:
        await gateway.store.weigh()
        now = trio.current_time()
        memory = await offload(_resident)
        figures = dict(_figures(gateway, now - began))
        if memory is not None:
            figures["memory_bytes"] = memory
        total, count = lag.total, sum(lag.counts)
        if count > looks:
            figures["loop_lag_seconds"] = (total - late) / (count - looks)
        late, looks = total, count
        gateway.store.keep_sample(figures)
        await trio.sleep_until(now + SAMPLE)


async def tidy_store(store: Store) -> None:
    """Delete what is too old, now and then, until cancelled."""
    await trio.sleep(FIRST_TIDY)
    while True:
        await store.tidy()
        await trio.sleep(TIDY)


def _figures(gateway: Gateway, uptime: float) -> Iterator[tuple[str, float]]:
    store = gateway.store.statistics()
    yield "uptime_seconds", uptime
    yield "in_flight", gateway.exchanges.in_flight
    yield "connections", gateway.metrics.connections
    yield "queue_waiting", gateway.admission.statistics().queue.waiting
    yield "tasks", trio.lowlevel.current_statistics().tasks_living
    yield "store_bytes", store.size
    yield "store_waiting", store.waiting
    for figure in gateway.gpus.figures():
        if isinstance(figure.value, int | float):
            yield f"{figure.name.removeprefix('quiver_')}.{figure.labels[0][1]}", figure.value


def _resident() -> float | None:
    """Bytes of memory that the process holds, where the system tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError, AttributeError):
        return None
