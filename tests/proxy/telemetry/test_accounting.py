"""The ledger: every record is counted at once and written once, in order, whatever the sink does."""

from collections.abc import Callable, Sequence

import pytest
import trio
from quiver.proxy.seams import offload_runner
from quiver.proxy.telemetry import accounting
from quiver.proxy.telemetry.accounting import PAUSE, Ledger
from quiver.proxy.telemetry.metrics import Metrics
from quiver.proxy.telemetry.record import Record
from trio.testing import MockClock, wait_all_tasks_blocked

from ..conftest import at_once
from ..samples import record
from .test_metrics import samples, total


class Sink:
    """Keeps the batches it was given, and fails where it is told to."""

    def __init__(self, *failing: int) -> None:
        self._failing = failing
        self.batches: list[list[str]] = []
        self.times: list[float] = []

    def __call__(self, batch: Sequence[Record]) -> None:
        self.batches.append([record.request_id for record in batch])
        self.times.append(trio.current_time())
        if len(self.batches) in self._failing:
            raise OSError("the disk is full")


async def write(sink: Sink, *pauses: float) -> Ledger:
    """Record one after each pause; the ledger after it was closed and has written."""
    offload_runner.set(at_once)
    ledger = Ledger(Metrics(), sink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.write_records)
        for number, pause in enumerate(pauses):
            await trio.sleep(pause)
            ledger.record(record(request_id=f"r{number}"))
        await trio.sleep(PAUSE * 1.5)
        ledger.close()
    return ledger


async def test_records_come_in_batches(autojump_clock: MockClock) -> None:
    sink = Sink()
    ledger = await write(sink, 1, 0.05, 0.04, 5, 0)
    assert sink.batches == [["r0", "r1", "r2"], ["r3", "r4"]]
    assert sink.times == pytest.approx([1 + PAUSE, 6.09 + PAUSE])
    assert (ledger.written, ledger.dropped) == (5, 0)


async def test_closing_writes_the_rest(autojump_clock: MockClock) -> None:
    offload_runner.set(at_once)
    sink = Sink()
    ledger = Ledger(Metrics(), sink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.write_records)
        await wait_all_tasks_blocked()
        for number in range(3):
            ledger.record(record(request_id=f"r{number}"))
        ledger.close()
    assert sink.batches == [["r0", "r1", "r2"]]
    assert trio.current_time() < PAUSE * 2


async def test_failing_sink_loses_its_batch_only(autojump_clock: MockClock) -> None:
    sink = Sink(2)
    ledger = await write(sink, 1, 1, 1)
    assert sink.batches == [["r0"], ["r1"], ["r2"]]
    assert (ledger.written, ledger.dropped) == (2, 1)


async def test_records_during_a_write_wait(autojump_clock: MockClock) -> None:
    sink = Sink()

    async def slow(fn: Callable[..., object], *args: object) -> object:
        await trio.sleep(10)
        return await at_once(fn, *args)

    ledger = Ledger(Metrics(), sink)
    async with trio.open_nursery() as nursery:
        offload_runner.set(slow)
        nursery.start_soon(ledger.write_records)
        for number in range(5):
            ledger.record(record(request_id=f"r{number}"))
            await trio.sleep(4)
        ledger.close()
    assert [name for batch in sink.batches for name in batch] == [f"r{number}" for number in range(5)]
    assert ledger.written == 5


async def test_full_backlog_drops_and_counts(autojump_clock: MockClock) -> None:
    offload_runner.set(at_once)
    sink, metrics = Sink(), Metrics()
    ledger = Ledger(metrics, sink)
    one = record()
    for _ in range(accounting.BACKLOG + 3):
        ledger.record(one)
    assert ledger.dropped == 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.write_records)
        await wait_all_tasks_blocked()
        ledger.close()
    assert (ledger.written, ledger.dropped) == (accounting.BACKLOG, 3)
    counted = total(samples(metrics), "quiver_requests_total")
    assert counted == accounting.BACKLOG + 3, "what cannot be written is counted all the same"


async def test_nothing_is_written_for_nothing(autojump_clock: MockClock) -> None:
    sink = Sink()
    ledger = await write(sink)
    assert (sink.batches, ledger.written) == ([], 0)


async def test_default_sink_runs_in_a_thread() -> None:
    threads: list[bool] = []

    def sink(batch: Sequence[Record]) -> None:
        threads.append(trio.lowlevel.in_trio_run())

    ledger = Ledger(Metrics(), sink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.write_records)
        ledger.record(record())
        ledger.close()
    assert threads == [False]
