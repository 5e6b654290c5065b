"""What ends an exchange from outside, and the guard that notices: departures, time limits, silence."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from random import Random

import msgspec
import pytest
import trio
import trio.testing
from quiver.proxy.network import Wire
from quiver.proxy.registry import Backend, Call
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.reply import DownstreamGone, Headers, Reply
from quiver.proxy.testing import RecordingDownstream, ScriptedBackend, fixed_world, request
from quiver.proxy.watch import TICK, Watch
from quiver.schemas import errors
from quiver.schemas.config import Config, Health, Limits, RemoteBackend
from quiver.schemas.errors import ApiError
from trio.testing import MockClock

from .conftest import Build, records

CHAT = "/v1/chat/completions"
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
STREAM = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
SHARED = b'{"model": "m", "stream": true, "temperature": 0, "messages": []}'


class Client:
    """A client that says whether anybody watches it."""

    def __init__(self) -> None:
        self.left = trio.Event()
        self.watchers = 0

    async def wait_departure(self) -> None:
        self.watchers += 1
        try:
            await self.left.wait()
        finally:
            self.watchers -= 1


class SlowDownstream(RecordingDownstream):
    """Takes a while for each write, and finds it a mistake to be written to meanwhile."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds, self._busy = seconds, False

    async def send_response(self, status: int, headers: Headers, body: bytes | None) -> None:
        await self._take()
        await super().send_response(status, headers, body)

    async def send_data(self, data: bytes) -> None:
        await self._take()
        await super().send_data(data)

    async def send_end(self, last: bytes) -> None:
        await self._take()
        await super().send_end(last)

    async def _take(self) -> None:
        assert not self._busy, "one write began inside another"
        self._busy = True
        await trio.sleep(self._seconds)
        self._busy = False


@asynccontextmanager
async def guarded(reply: Reply | None = None, client: Client | None = None, time: float = inf) -> AsyncIterator[Watch]:
    """A watch with its guard."""
    watch = Watch(trio.current_time(), time)
    async with trio.open_nursery() as nursery:
        watch.begin_guard(nursery, client or Client(), reply or Reply(RecordingDownstream(), "req_1"))
        yield watch
        await watch.close()


def late(seconds: float) -> ApiError:
    return ApiError(errors.UPSTREAM_TIMEOUT, f"late after {seconds:g} s")


async def step(watch: Watch, *limits: tuple[float, float]) -> None:
    """One step: it expects to come further within so many seconds, and takes so many for it, again and again."""
    with watch:
        for seconds, taken in limits:
            watch.expect(seconds, late)
            await trio.sleep(taken)


async def whole(call: Call, reply: Reply) -> None:
    await reply.complete(200, b'{"ok": true}')


async def forever(call: Call, reply: Reply) -> None:
    await trio.sleep_forever()


async def one_event_then_silence(call: Call, reply: Reply) -> None:
    await reply.send_events(b"data: one\n\n")
    await trio.sleep_forever()


# Steps.


async def test_step_ends_when_due(autojump_clock: MockClock) -> None:
    async with guarded() as watch:
        for seconds in (7, 2, 30):
            began = trio.current_time()
            with pytest.raises(ApiError, match=f"late after {seconds} s"):
                await step(watch, (seconds, inf))
            assert trio.current_time() - began == seconds
        assert watch.cause is None, "a step that is late does not end the exchange"


async def test_progress_moves_due(autojump_clock: MockClock) -> None:
    async with guarded() as watch:
        await step(watch, *[(10, 9)] * 5)
        with watch:
            await trio.sleep(100)  # a step that expects nothing
        await step(watch, (10, 9))


async def test_later_limit_may_be_shorter(autojump_clock: MockClock) -> None:
    async with guarded() as watch:
        with pytest.raises(ApiError, match="late after 1 s"):
            await step(watch, (300, 5), (1, inf))
        assert trio.current_time() == 6


async def test_deadline_ends_all_steps(autojump_clock: MockClock) -> None:
    async with guarded(time=10) as watch:
        with watch:
            await trio.sleep(8)
        with pytest.raises(ApiError, match="longer than 10 s") as caught:
            await step(watch, (300, inf))
        assert trio.current_time() == 10
        with pytest.raises(ApiError) as again:
            await step(watch, (300, inf))
        assert again.value is caught.value is watch.cause


async def test_first_cause_stays(autojump_clock: MockClock) -> None:
    async with guarded() as watch:
        watch.end(DownstreamGone())
        watch.end(late(1))
        with pytest.raises(DownstreamGone):
            await step(watch, (1, inf))


async def test_outer_cancellation_passes(autojump_clock: MockClock) -> None:
    async with guarded() as watch:
        with trio.move_on_after(1) as outer, watch:
            await trio.sleep_forever()
        assert outer.cancelled_caught
        assert watch.cause is None


async def test_own_error_is_not_replaced(autojump_clock: MockClock) -> None:
    async def fail(watch: Watch) -> None:
        with watch:
            watch.end(late(1))
            raise ZeroDivisionError

    async with guarded() as watch:
        with pytest.raises(ZeroDivisionError):
            await fail(watch)


# Departures.


def remote_that_never_connects() -> RemoteServer:
    async def open_wire(host: str, port: int) -> Wire:
        await trio.sleep_forever()
        raise AssertionError

    config = RemoteBackend(url="http://10.0.0.1", name="b", models=("m",))
    return RemoteServer(config, Limits(connect=60), Health(), fixed_world(), open_wire)


def full_backend() -> ScriptedBackend:
    backend = ScriptedBackend("b", ["m"], whole)
    backend.load.limit = 1
    backend.load.taken()
    return backend


@pytest.mark.parametrize(
    ("make", "body"),
    [
        (full_backend, BODY),
        (full_backend, STREAM),
        (remote_that_never_connects, STREAM),
        (lambda: ScriptedBackend("b", ["m"], forever), BODY),
        (lambda: ScriptedBackend("b", ["m"], forever), STREAM),
        (lambda: ScriptedBackend("b", ["m"], one_event_then_silence), STREAM),
        (lambda: ScriptedBackend("b", ["m"], forever), SHARED),
        (lambda: ScriptedBackend("b", ["m"], one_event_then_silence), SHARED),
    ],
    ids=["queued", "queued_stream", "connecting", "waiting", "waiting_stream", "streaming", "sharing", "shared_stream"],
)
@pytest.mark.parametrize("patience", [0, TICK / 2, 1, 20])
async def test_departure_ends_every_phase(
    build: Build, autojump_clock: MockClock, make: type[Backend], body: bytes, patience: float
) -> None:
    backend = make()
    before = backend.load.in_flight
    handler, downstream = build([backend]), RecordingDownstream()
    gone: list[float] = []

    async def ask() -> None:
        with pytest.raises(DownstreamGone):
            await handler.handle(request("POST", CHAT, body), downstream)
        gone.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(patience)
        downstream.left.set()
    await trio.testing.wait_all_tasks_blocked()
    assert gone[0] <= patience + 2 * TICK
    assert [record.outcome for record in records(handler)] == ["client_gone"]
    assert (handler.in_flight, backend.load.in_flight, handler.admission.statistics().in_flight) == (0, before, 0)
    assert handler.reuse.statistics().in_flight == 0


async def test_nobody_watches_after_close(autojump_clock: MockClock) -> None:
    for patience in (0, 1):
        client = Client()
        watch = Watch(trio.current_time(), inf)
        async with trio.open_nursery() as nursery:
            watch.begin_guard(nursery, client, Reply(RecordingDownstream(), "req_1"))
            await trio.sleep(patience)
            await watch.close()
            assert client.watchers == 0


async def test_cancelled_exchange_lets_go_first(autojump_clock: MockClock) -> None:
    client = Client()
    async with trio.open_nursery() as nursery:
        watch = Watch(trio.current_time(), inf)
        watch.begin_guard(nursery, client, Reply(RecordingDownstream(), "req_1"))
        await trio.sleep(1)
        assert client.watchers == 1
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await watch.close()
            assert client.watchers == 0


async def test_quick_exchange_needs_no_guard(build: Build, autojump_clock: MockClock) -> None:
    class Unwatched(RecordingDownstream):
        async def wait_departure(self) -> None:
            raise AssertionError("it was watched")

    downstream = Unwatched()
    await build([ScriptedBackend("b", ["m"], whole)]).handle(request("POST", CHAT, BODY), downstream)
    assert downstream.status == 200
    await trio.sleep(1)


# Silence.


async def test_nudge_brings_beat_forward(autojump_clock: MockClock) -> None:
    downstream = RecordingDownstream()
    reply = Reply(downstream, "req_1")
    reply.beats(15, stream=True)
    async with guarded(reply) as watch:
        await trio.sleep(1)
        reply.say_meanwhile(lambda: b": queued\n\n", 5)
        watch.nudge()
        await trio.sleep(4.9)
        assert downstream.writes == []
        await trio.sleep(0.2)
        assert downstream.body == b": queued\n\n"


async def test_comment_repeats_at_its_interval(autojump_clock: MockClock) -> None:
    downstream, told = RecordingDownstream(), list[float]()

    def comment() -> bytes:
        told.append(trio.current_time())
        return b": queued\n\n"

    reply = Reply(downstream, "req_1")
    reply.beats(15, stream=True)
    async with guarded(reply) as watch:
        reply.say_meanwhile(comment, 5)
        watch.nudge()
        await trio.sleep(21)
        reply.say_meanwhile(None)
        await trio.sleep(30)
    assert told == [5, 10, 15, 20]
    assert downstream.body.startswith(b": queued\n\n" * 4 + b": heartbeat\n\n")


async def test_queued_stream_is_told_its_place(build: Build, autojump_clock: MockClock) -> None:
    backend = full_backend()
    handler, downstream = build([backend]), RecordingDownstream()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handler.handle, request("POST", CHAT, STREAM), downstream)
        await trio.sleep(6)
        assert downstream.body.startswith(b": queued position=1 estimated_wait=")
        assert downstream.body.endswith(b"s\n\n")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(40))
async def test_heartbeat_never_inside_a_write(autojump_clock: MockClock, seed: int) -> None:
    """Each write takes long, so that heartbeats come due inside writes, and writes while a heartbeat is on its way."""
    random = Random(seed)
    downstream = SlowDownstream(random.choice((0.5, 2, 3)))
    reply = Reply(downstream, "req_1")
    reply.beats(1, stream=True)
    words = [b"data: %d\n\n" % number for number in range(10)]
    async with guarded(reply):
        for word in words:
            await trio.sleep(random.choice((0, 0.5, 1, 1.5, 2, 4)))
            await reply.send_events(word)
        await reply.end_stream(b"data: [DONE]\n\n")
    assert [write for write in downstream.writes if write.startswith(b"data")] == [*words, b"data: [DONE]\n\n"]


async def test_no_heartbeat_after_end(autojump_clock: MockClock) -> None:
    downstream = RecordingDownstream()
    reply = Reply(downstream, "req_1")
    reply.beats(1, stream=True)
    async with guarded(reply):
        await reply.end_stream(b"data: [DONE]\n\n")
        await trio.sleep(10)
    assert downstream.writes == [b"", b"data: [DONE]\n\n"]


LATE_JSON = Config(limits=Limits(json_heartbeat=5))


async def test_blanks_precede_long_json(build: Build, autojump_clock: MockClock) -> None:
    async def late(call: Call, reply: Reply) -> None:
        await trio.sleep(12)
        await whole(call, reply)

    handler, downstream = build([ScriptedBackend("b", ["m"], late)], config=LATE_JSON), RecordingDownstream()
    await handler.handle(request("POST", CHAT, BODY), downstream)
    assert (downstream.status, downstream.body) == (200, b'  {"ok": true}')
    assert downstream.headers[b"content-type"] == b"application/json"
    assert downstream.ended
    assert [record.outcome for record in records(handler)] == ["completed"]


async def test_quick_json_has_no_blanks(build: Build, autojump_clock: MockClock) -> None:
    handler, downstream = build([ScriptedBackend("b", ["m"], whole)], config=LATE_JSON), RecordingDownstream()
    await handler.handle(request("POST", CHAT, BODY), downstream)
    assert downstream.body == b'{"ok": true}'


async def test_blanks_leave_retry_open(build: Build, autojump_clock: MockClock) -> None:
    async def late_failure(call: Call, reply: Reply) -> None:
        await trio.sleep(7)
        raise ApiError(errors.UPSTREAM_TIMEOUT, "too slow")

    backends = [ScriptedBackend("b1", ["m"], late_failure), ScriptedBackend("b2", ["m"], whole)]
    downstream = RecordingDownstream()
    await build(backends, config=LATE_JSON).handle(request("POST", CHAT, BODY), downstream)
    assert downstream.body == b' {"ok": true}'


async def test_error_after_blanks_is_an_envelope(build: Build, autojump_clock: MockClock) -> None:
    async def late_failure(call: Call, reply: Reply) -> None:
        await trio.sleep(7)
        raise ApiError(errors.UPSTREAM_TIMEOUT, "too slow")

    handler, downstream = build([ScriptedBackend("b", ["m"], late_failure)], config=LATE_JSON), RecordingDownstream()
    await handler.handle(request("POST", CHAT, BODY), downstream)
    assert downstream.body.startswith(b" {")
    assert msgspec.json.decode(downstream.body)["error"]["code"] == "upstream_timeout"
    assert downstream.ended
    (record,) = records(handler)
    assert (record.status, record.outcome, record.error) == (200, "failed", "upstream_timeout")


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_refusal_after_heartbeat_is_no_success(build: Build, autojump_clock: MockClock, body: bytes) -> None:
    """The status that went out with the heartbeat cannot tell of it; the record must."""

    async def late_refusal(call: Call, reply: Reply) -> None:
        await trio.sleep(20)
        await reply.complete(400, b'{"error": {"message": "no"}}')

    handler = build([ScriptedBackend("b", ["m"], late_refusal)], config=LATE_JSON)
    await handler.handle(request("POST", CHAT, body), RecordingDownstream())
    assert [record.outcome for record in records(handler)] == ["failed"]


class BrokenClient(Client):
    """Has a fault of its own."""

    async def wait_departure(self) -> None:
        raise RuntimeError("a fault of ours")


async def test_broken_guard_costs_its_exchange(autojump_clock: MockClock) -> None:
    async with guarded(client=BrokenClient()) as watch:
        with pytest.raises(ApiError) as caught, watch:
            await trio.sleep(1000)
        assert caught.value.kind is errors.INTERNAL_ERROR
        assert trio.current_time() < 1
