"""What the store gives out again, to whom, and for how long."""

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from quiver.proxy.reuse.identity import ALLOW_NOTHING, Directives
from quiver.proxy.reuse.recording import Recording
from quiver.proxy.reuse.store import ENTRY_OVERHEAD, ReuseStore
from quiver.schemas import errors
from quiver.schemas.config import Reuse
from quiver.schemas.errors import ApiError
from trio.testing import wait_all_tasks_blocked

from .listeners import DONE, JSON_HEADERS, STREAM_HEADERS, Listener, produce_stream

NO_READ = Directives(read=False)
NO_SHARE = Directives(share=False)
NO_STORE = Directives(share=False, store=False)


def finish_now(recording: Recording, status: int, body: bytes) -> None:
    """A whole reply, without a task: it waits for nothing."""
    with pytest.raises(StopIteration):
        recording.send_response(status, JSON_HEADERS, body).send(None)


def keep(store: ReuseStore, key: bytes, body: bytes = b"{}", now: float = 1.0) -> Recording:
    recording = store.begin(key, now)
    finish_now(recording, 200, body)
    store.finish(recording, now)
    return recording


def kept_keys(store: ReuseStore, keys: Sequence[bytes], now: float) -> list[bytes]:
    """Which of `keys` are kept. Asking changes which was used last."""
    return [key for key in keys if store.find(key, now) is not None]


async def test_miss_then_shared_then_hit() -> None:
    store = ReuseStore(Reuse())
    assert store.find(b"a", 1.0) is None
    recording = store.begin(b"a", 1.0)
    assert store.find(b"a", 1.0) is recording
    assert store.statistics().in_flight == 1
    await produce_stream(recording)
    store.finish(recording, 2.0)
    assert store.find(b"a", 3.0) is recording
    assert store.find(b"b", 3.0) is None
    listener = Listener()
    await recording.play(listener)
    assert listener.body.endswith(DONE)
    statistics = store.statistics()
    assert (statistics.hits, statistics.shared, statistics.misses) == (1, 1, 2)
    assert (statistics.in_flight, statistics.kept, statistics.bytes) == (0, 1, recording.size + ENTRY_OVERHEAD)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"choices": []}', True),
        (200, b'{"error": null}', True),
        (200, b'{"choices": [{"content": "\\"error\\": {"}]}', True),
        (200, b'{"error": {"message": "overloaded"}}', False),
        (200, b'{"error":{"message": "overloaded"}}', False),
        (200, b'{"object":"error","message":"overloaded"}', False),
        (201, b"{}", False),
        (400, b"{}", False),
        (500, b"{}", False),
        (200, b"x" * 1000, True),
        (200, b"x" * 1001, False),
    ],
)
def test_only_good_replies_stay(status: int, body: bytes, expected: bool) -> None:
    store = ReuseStore(Reuse(max_entry=1000))
    recording = store.begin(b"a", 1.0)
    finish_now(recording, status, body)
    store.finish(recording, 1.0)
    assert (store.find(b"a", 1.0) is recording) is expected


@pytest.mark.parametrize(
    ("events", "last", "expected"),
    [
        ([b"data: 1\n\n"], DONE, True),
        ([b"data: 1\n\n", DONE], b"", True),
        ([b"data: 1\n\n"], b"data: [DONE]\r\n\r\n", True),
        ([b"data: 1\n\n"], b"", False),
        ([b'data: {"error": {"message": "no"}}\n\n'], DONE, False),
        ([b"data: " + b"x" * 1000 + b"\n\n"], DONE, False),
    ],
)
async def test_only_whole_streams_stay(events: list[bytes], last: bytes, expected: bool) -> None:
    store, listener = ReuseStore(Reuse(max_entry=1000)), Listener()
    recording = store.begin(b"a", 1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.play, listener)
        await recording.send_response(200, STREAM_HEADERS, None)
        for event in events:
            await recording.send_data(event)
        await recording.send_end(last)
    store.finish(recording, 1.0)
    assert (store.find(b"a", 1.0) is recording) is expected
    assert listener.body == b"".join(events) + last


@pytest.mark.parametrize(
    ("config", "begun", "asking", "in_flight", "kept"),
    [
        (Reuse(), Directives(), Directives(), True, True),
        (Reuse(share=False), Directives(), Directives(), False, True),
        (Reuse(cache=False), Directives(), Directives(), True, False),
        (Reuse(share=False, cache=False), Directives(), Directives(), False, False),
        (Reuse(), NO_SHARE, Directives(), False, True),
        (Reuse(), Directives(), NO_SHARE, False, True),
        (Reuse(), NO_STORE, Directives(), False, False),
        (Reuse(), Directives(), NO_READ, True, False),
        (Reuse(), NO_READ, Directives(), True, True),
        (Reuse(), Directives(), ALLOW_NOTHING, False, False),
        (Reuse(), ALLOW_NOTHING, Directives(), False, False),
    ],
)
def test_both_sides_must_agree(
    config: Reuse, begun: Directives, asking: Directives, in_flight: bool, kept: bool
) -> None:
    store = ReuseStore(config)
    recording = store.begin(b"a", 1.0, begun)
    assert (store.find(b"a", 1.0, asking) is recording) is in_flight
    finish_now(recording, 200, b"{}")
    store.finish(recording, 1.0)
    assert (store.find(b"a", 1.0, asking) is recording) is kept


@pytest.mark.parametrize(
    ("config", "directives", "expected"),
    [
        (Reuse(), Directives(), True),
        (Reuse(), ALLOW_NOTHING, False),
        (Reuse(), Directives(share=False, read=False), True),
        (Reuse(cache=False), NO_SHARE, False),
        (Reuse(share=False), Directives(read=False, store=False), False),
        (Reuse(share=False, cache=False), Directives(), False),
        (Reuse(max_entry=0), Directives(), False),
    ],
)
def test_recording_only_when_useful(config: Reuse, directives: Directives, expected: bool) -> None:
    assert ReuseStore(config).applies(directives) is expected


@pytest.mark.parametrize(
    ("max_age", "now", "expected"),
    [
        (None, 10.9, True),
        (None, 11.0, False),
        (5.0, 6.0, True),
        (5.0, 6.1, False),
        (0.0, 1.0, True),
        (0.0, 1.1, False),
        (99.0, 11.0, False),
    ],
)
def test_age_limits_what_is_found(max_age: float | None, now: float, expected: bool) -> None:
    store = ReuseStore(Reuse(ttl=10.0))
    keep(store, b"a", now=1.0)
    assert (store.find(b"a", now, Directives(max_age=max_age)) is not None) is expected


def test_use_does_not_prolong_life() -> None:
    store = ReuseStore(Reuse(ttl=10.0))
    keep(store, b"a", now=1.0)
    assert store.find(b"a", 10.0) is not None
    assert store.find(b"a", 11.0) is None
    assert (store.statistics().expired, store.statistics().bytes) == (1, 0)


def test_newer_answer_replaces_older() -> None:
    store = ReuseStore(Reuse(ttl=10.0))
    keep(store, b"a", b"old", now=1.0)
    newer = keep(store, b"a", b"newer", now=9.0)
    assert store.find(b"a", 15.0) is newer
    assert store.statistics().bytes == len(b"newer") + ENTRY_OVERHEAD


def test_least_recently_used_leaves() -> None:
    store = ReuseStore(Reuse(max_bytes=3 * (ENTRY_OVERHEAD + 10)))
    for key in (b"a", b"b", b"c"):
        keep(store, key, b"x" * 10)
    assert store.find(b"a", 1.0) is not None
    keep(store, b"d", b"x" * 10)
    assert kept_keys(store, [b"a", b"b", b"c", b"d"], 1.0) == [b"a", b"c", b"d"]
    assert store.statistics().evicted == 1


def test_too_large_evicts_nothing() -> None:
    store = ReuseStore(Reuse(max_bytes=ENTRY_OVERHEAD + 10))
    keep(store, b"a", b"x" * 10)
    keep(store, b"b", b"x" * 11)
    assert kept_keys(store, [b"a", b"b"], 1.0) == [b"a"]


def test_expired_ones_make_room() -> None:
    store = ReuseStore(Reuse(ttl=10.0))
    keep(store, b"a", now=1.0)
    keep(store, b"b", now=2.0)
    keep(store, b"c", now=11.5)
    statistics = store.statistics()
    assert (statistics.kept, statistics.expired, statistics.evicted) == (2, 1, 0)


async def test_deserted_answer_is_not_found() -> None:
    store = ReuseStore(Reuse())
    deserted = store.begin(b"a", 1.0)
    with trio.move_on_after(0):
        await deserted.play(Listener())
    assert store.find(b"a", 1.0) is None
    follower = store.begin(b"a", 1.0)
    store.abandon(deserted)
    assert store.find(b"a", 1.0) is follower


def test_failed_answer_is_not_found() -> None:
    store = ReuseStore(Reuse())
    recording = store.begin(b"a", 1.0)
    recording.fail(ApiError(errors.UPSTREAM_TIMEOUT, "slow"))
    assert store.find(b"a", 1.0) is None
    store.finish(recording, 1.0)
    assert store.find(b"a", 1.0) is None
    assert store.statistics().in_flight == 0


@pytest.mark.parametrize("give_up", ["finish", "abandon"])
async def test_unfinished_answer_frees_players(give_up: str) -> None:
    store, caught = ReuseStore(Reuse()), list[ApiError]()
    recording = store.begin(b"a", 1.0)

    async def listen() -> None:
        with pytest.raises(ApiError) as info:
            await recording.play(Listener())
        caught.append(info.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        if give_up == "finish":
            store.finish(recording, 1.0)
        else:
            store.abandon(recording)
    assert [error.kind for error in caught] == [errors.INTERNAL_ERROR]
    assert store.statistics().in_flight == 0


def test_clear_forgets_everything() -> None:
    store = ReuseStore(Reuse())
    keep(store, b"a", now=1.0)
    running = store.begin(b"b", 1.0)
    store.clear(2.0)
    assert kept_keys(store, [b"a", b"b"], 2.0) == []
    finish_now(running, 200, b"{}")
    store.finish(running, 3.0)
    keep(store, b"c", now=3.0)
    assert kept_keys(store, [b"a", b"b", b"c"], 3.0) == [b"c"]
    assert store.statistics().bytes == 2 + ENTRY_OVERHEAD


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000), st.floats(0, 5)), max_size=60))
def test_memory_stays_bounded(answers: list[tuple[int, int, float]]) -> None:
    """Whatever comes, the bytes are right and within bounds, and nothing is found that is older than allowed."""
    store, now, kept_at = ReuseStore(Reuse(max_bytes=8000, max_entry=2500, ttl=10.0)), 1.0, dict[bytes, float]()
    for number, size, pause in answers:
        now += pause
        key = b"%d" % number
        found = store.find(key, now)
        if found is not None:
            assert now - kept_at[key] < 10.0
            continue
        keep(store, key, b"x" * size, now)
        kept_at[key] = now
        statistics = store.statistics()
        assert statistics.bytes <= 8000
        assert statistics.kept <= statistics.bytes // ENTRY_OVERHEAD
        assert (statistics.bytes == 0) == (statistics.kept == 0)


def test_state_is_readable() -> None:
    store = ReuseStore(Reuse())
    keep(store, b"a")
    store.begin(b"b", 1.0)
    assert repr(store) == f"<ReuseStore: 1 in flight, 1 kept, {2 + ENTRY_OVERHEAD} bytes>"
