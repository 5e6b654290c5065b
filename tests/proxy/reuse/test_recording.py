"""A recording plays the same answer to everyone, whenever they come, however slow they are, whoever leaves."""

from random import Random

import pytest
import trio
from quiver.proxy.reply import DownstreamGone, Reply
from quiver.proxy.reuse.recording import Recording
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from trio.testing import MockClock, wait_all_tasks_blocked

from .listeners import DONE, EVENTS, JSON_HEADERS, STREAM_HEADERS, Client, Listener, produce_stream

ANSWER = b"".join(EVENTS) + DONE
LARGE = 1 << 20


def recorded(max_entry: int = LARGE) -> Recording:
    return Recording(b"key", 0.0, max_entry)


async def listen_at(moment: float, recording: Recording, listener: Listener) -> None:
    await trio.sleep(moment)
    await recording.play(listener)


async def expect_error(recording: Recording, listener: Listener, caught: list[ApiError]) -> None:
    with pytest.raises(ApiError) as info:
        await recording.play(listener)
    caught.append(info.value)


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0, 7.5, 19.9, 20.0, 100.0])
async def test_late_listener_hears_everything(moment: float, autojump_clock: MockClock) -> None:
    recording, listener = recorded(), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce_stream, recording, 1.0)
        nursery.start_soon(listen_at, moment, recording, listener)
    assert (listener.body, listener.ended) == (ANSWER, True)


async def test_twenty_hear_the_same(autojump_clock: MockClock) -> None:
    random, recording = Random(20), recorded()
    listeners = [Listener(pause=random.choice([0.0, 0.1, 3.0])) for _ in range(20)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce_stream, recording, 1.0)
        for listener in listeners:
            nursery.start_soon(listen_at, random.uniform(0, 25), recording, listener)
    assert {listener.body for listener in listeners} == {ANSWER}
    assert all(listener.ended for listener in listeners)


async def test_events_pass_at_once(autojump_clock: MockClock) -> None:
    recording, listener = recorded(), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.play, listener)
        nursery.start_soon(produce_stream, recording, 1.0)
        await trio.sleep(3.5)
        assert listener.writes == EVENTS[:3]


async def test_finished_stream_is_one_write() -> None:
    recording, listener = recorded(), Listener()
    await produce_stream(recording)
    await recording.play(listener)
    assert listener.writes == [ANSWER]


@pytest.mark.parametrize("status", [200, 400])
async def test_whole_reply_is_completed(status: int) -> None:
    recording, listener = recorded(), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.play, listener)
        await wait_all_tasks_blocked()
        await recording.send_response(status, JSON_HEADERS, b'{"ok": true}')
    assert (listener.status, listener.body) == (status, b'{"ok": true}')
    assert listener.headers == [(b"content-type", b"application/json")]


async def test_json_in_pieces_is_whole() -> None:
    recording, listener = recorded(max_entry=4), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.play, listener)
        await recording.send_response(200, JSON_HEADERS, None)
        await recording.send_data(b"        ")
        await wait_all_tasks_blocked()
        await recording.send_end(b"{}")
    assert (listener.status, listener.writes) == (200, [b"        {}"])


async def test_early_failure_reaches_all() -> None:
    recording, caught = recorded(), list[ApiError]()
    listeners = [Listener() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(expect_error, recording, listener, caught)
        await wait_all_tasks_blocked()
        recording.fail(ApiError(errors.QUEUE_FULL, "too many", retry_after=3, extra=[(b"x-queue-length", b"9")]))
    assert [listener.writes for listener in listeners] == [[], [], []]
    assert [error.message for error in caught] == ["too many"] * 3
    assert caught[0].headers() == [(b"x-queue-length", b"9"), (b"retry-after", b"3")]
    assert len({id(error) for error in caught}) == 3


async def test_late_failure_follows_content(autojump_clock: MockClock) -> None:
    recording, caught = recorded(), list[ApiError]()
    prompt, slow, unheard = Listener(), Listener(pause=10), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_error, recording, prompt, caught)
        nursery.start_soon(expect_error, recording, slow, caught)
        await recording.send_response(200, STREAM_HEADERS, None)
        for event in EVENTS[:3]:
            await recording.send_data(event)
            await trio.sleep(1)
        recording.fail(ApiError(errors.UPSTREAM_TRUNCATED, "cut"))
        nursery.start_soon(expect_error, recording, unheard, caught)
    assert prompt.body == slow.body == b"".join(EVENTS[:3])
    assert [prompt.ended, slow.ended] == [False, False]
    assert unheard.writes == []
    assert [error.kind.code for error in caught] == ["upstream_truncated"] * 3


async def test_ended_recording_cannot_fail() -> None:
    recording, listener = recorded(), Listener()
    await produce_stream(recording)
    recording.fail(ApiError(errors.INTERNAL_ERROR, "too late"))
    await recording.play(listener)
    assert recording.ok
    assert listener.body == ANSWER


async def test_leaving_disturbs_nobody(autojump_clock: MockClock) -> None:
    recording, staying = recorded(), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce_stream, recording, 1.0)
        nursery.start_soon(recording.play, staying)
        with trio.move_on_after(4.5):
            await recording.play(Listener())
        with pytest.raises(DownstreamGone):
            await recording.play(Listener(leaves_after=2))
        assert not staying.ended
    assert not recording.production.cancel_called
    assert (staying.body, recording.players) == (ANSWER, 0)


async def test_last_leaver_ends_production(autojump_clock: MockClock) -> None:
    recording = recorded()

    async def produce() -> None:
        with recording.production:
            await produce_stream(recording, 1.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        nursery.start_soon(listen_until, 2.5, recording)
        nursery.start_soon(listen_until, 4.5, recording)
        await trio.sleep(3)
        assert recording.joinable
    assert trio.current_time() == pytest.approx(4.5)
    assert recording.production.cancelled_caught
    assert not recording.joinable


async def listen_until(moment: float, recording: Recording) -> None:
    with trio.move_on_at(moment):
        await recording.play(Listener())


async def test_finished_production_is_left_alone() -> None:
    recording = recorded()
    await produce_stream(recording)
    with pytest.raises(DownstreamGone):
        await recording.play(Listener(leaves_after=0))
    assert not recording.production.cancel_called
    assert recording.joinable


async def test_slow_player_delays_nobody(autojump_clock: MockClock) -> None:
    recording, prompt, slow = recorded(), Listener(), Listener(pause=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.play, slow)
        nursery.start_soon(recording.play, prompt)
        nursery.start_soon(produce_stream, recording, 1.0)
    assert prompt.ended_at == pytest.approx(20.0)
    assert prompt.body == slow.body == ANSWER


async def test_laggard_bounds_what_is_held(autojump_clock: MockClock) -> None:
    limit = 3 * len(EVENTS[0])
    recording, slow, sizes = recorded(limit), Listener(pause=10), list[int]()

    async def watch() -> None:
        while not recording.finished:
            sizes.append(recording.size)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.play, slow)
        nursery.start_soon(produce_stream, recording)
        nursery.start_soon(watch)
    assert slow.body == ANSWER
    assert limit < max(sizes) <= limit + 2 * len(EVENTS[-1])


async def test_leaving_laggard_frees_production(autojump_clock: MockClock) -> None:
    recording, prompt = recorded(len(EVENTS[0])), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.play, prompt)
        nursery.start_soon(listen_slowly_until, 50.0, recording)
        nursery.start_soon(produce_stream, recording)
        await trio.sleep(49)
        assert not prompt.ended
    assert prompt.body == ANSWER
    assert prompt.ended_at == pytest.approx(50.0)


async def listen_slowly_until(moment: float, recording: Recording) -> None:
    with trio.move_on_at(moment):
        await recording.play(Listener(pause=1000))


async def test_failure_frees_waiting_production(autojump_clock: MockClock) -> None:
    recording = recorded(len(EVENTS[0]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_error, recording, Listener(pause=10), [])
        nursery.start_soon(produce_stream, recording, 0.0, EVENTS[:2])
        await trio.sleep(1)
        assert not recording.finished
        recording.fail(ApiError(errors.SHUTTING_DOWN, "bye"))


async def test_oversize_takes_no_more_players(autojump_clock: MockClock) -> None:
    recording, first = recorded(2 * len(EVENTS[0])), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.play, first)
        nursery.start_soon(produce_stream, recording, 1.0)
        await trio.sleep(2.5)
        assert recording.joinable
        await trio.sleep(1)
        assert not recording.joinable
        with pytest.raises(RuntimeError, match="lost its beginning"):
            await recording.play(Listener())
    assert first.body == ANSWER
    assert recording.size < len(ANSWER)


async def test_producer_is_known_before_writing(autojump_clock: MockClock) -> None:
    recording, listener, told = recorded(), Listener(), list[tuple[str | None, int, int]]()

    def begun() -> None:
        told.append((recording.notes.server_id, recording.status, len(listener.writes)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.play, listener, begun)
        await wait_all_tasks_blocked()
        recording.notes = producer = Reply(Client(), "req_1")
        producer.server_id = "b1"
        await produce_stream(recording, 1.0)
    assert told == [("b1", 200, 0)]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("limit", [LARGE, 4 * len(EVENTS[0])])
async def test_storm_of_leavers(seed: int, limit: int, autojump_clock: MockClock) -> None:
    """Whoever stays has all of it, whoever leaves a beginning of it, and nothing hangs."""
    random, recording = Random(seed), recorded(limit)
    outcomes: list[tuple[Listener, bool]] = []

    async def client() -> None:
        await trio.sleep(random.choice([0.0, 0.0, random.uniform(0, 30)]))
        if not recording.joinable:
            return
        listener = Listener(random.choice([0.0, 0.5, 2.0]), random.choice([None, None, 1, 4]))
        with trio.move_on_after(random.uniform(0, 60)) as patience:
            try:
                await recording.play(listener)
            except DownstreamGone:
                patience.cancel()
        outcomes.append((listener, not patience.cancel_called))

    async def produce() -> None:
        with recording.production:
            await produce_stream(recording, random.choice([0.0, 0.7]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        for _ in range(12):
            nursery.start_soon(client)
    assert outcomes
    for listener, stayed in outcomes:
        assert ANSWER.startswith(listener.body)
        assert not stayed or (listener.body == ANSWER and listener.ended)
    assert recording.players == 0
    assert recording.ok or recording.production.cancelled_caught


@pytest.mark.parametrize(
    ("stream", "content_type"), [(True, b"text/event-stream; charset=utf-8"), (False, b"text/x-any")]
)
async def test_between_real_replies(stream: bool, content_type: bytes) -> None:
    """The whole way: from a backend's reply to the replies of two clients, each with its own request id."""
    recording, clients = recorded(), [Client(), Client()]
    produced = Reply(recording, "producer's")
    produced.server_id = "b1"
    async with trio.open_nursery() as nursery:
        for number, client in enumerate(clients):
            nursery.start_soon(recording.play, Reply(client, f"request-{number}"))
        if stream:
            await produced.send_events(EVENTS[0])
            await produced.end_stream(DONE)
        else:
            await produced.complete(200, EVENTS[0] + DONE, [(b"content-type", b"text/x-any")])
    for number, client in enumerate(clients):
        assert (client.status, client.body, client.ended) == (200, EVENTS[0] + DONE, True)
        assert client.headers.count((b"content-type", content_type)) == 1
        assert [value for name, value in client.headers if name == b"x-request-id"] == [b"request-%d" % number]
        assert b"x-gateway-server-id" not in dict(client.headers)


async def test_state_is_readable() -> None:
    recording = recorded()
    assert repr(recording) == "<Recording: running, 0 bytes held, 0 players>"
    await recording.send_response(200, JSON_HEADERS, b"{}")
    assert repr(recording) == "<Recording: finished, 2 bytes held, 0 players>"
    failed = recorded()
    failed.fail(ApiError(errors.INTERNAL_ERROR, "no"))
    assert repr(failed) == "<Recording: failed, 0 bytes held, 0 players>"
