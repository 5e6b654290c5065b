"""The tunnel's protocol: whatever comes in whatever pieces, every byte arrives once and in order, or the peer is refused."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiver.proxy.tunnel.frames import (
    HEADER_SIZE,
    MAX_PAYLOAD,
    FrameReader,
    Kind,
    ProtocolError,
    encode,
    encode_window,
)
from quiver.proxy.tunnel.multiplexer import (
    BACKLOG,
    MAX_CREDIT,
    MAX_STREAMS,
    MAX_URGENT,
    WINDOW,
    Multiplexer,
    Opened,
    Said,
    Stream,
)

FRAMES = st.lists(
    st.builds(
        lambda kind, payload: (kind, 0 if kind < Kind.OPEN else 7, payload),
        st.sampled_from(Kind),
        st.binary(max_size=300),
    ),
    max_size=20,
)


@given(FRAMES, st.lists(st.integers(1, 40)))
def test_frames_survive_any_splits(frames: list[tuple[Kind, int, bytes]], sizes: list[int]) -> None:
    data, reader, found = b"".join(encode(*frame) for frame in frames), FrameReader(), []
    for size in sizes:
        found += reader.feed(data[:size])
        data = data[size:]
    found += reader.feed(data)
    assert found == frames


def pair() -> tuple[Multiplexer, Multiplexer]:
    """A gateway's end and a joiner's, offer and welcome behind them."""
    gateway, joiner = Multiplexer(opens=True), Multiplexer(opens=False)
    gateway.establish()
    gateway.say(Kind.WELCOME)
    assert joiner.receive(gateway.outgoing()) == [Said(Kind.WELCOME, b"")]
    return gateway, joiner


def carry(sender: Multiplexer, receiver: Multiplexer) -> list[Stream]:
    """Everything that waits, to the other end; the streams that it opens there."""
    opened = []
    while sender.pending:
        opened += [event.stream for event in receiver.receive(sender.outgoing()) if isinstance(event, Opened)]
    return opened


def opened(gateway: Multiplexer, joiner: Multiplexer) -> tuple[Stream, Stream]:
    here = gateway.open()
    (there,) = carry(gateway, joiner)
    joiner.accept(there)
    carry(joiner, gateway)
    assert here.opened
    return here, there


class Pump:
    """Moves random numbers of bytes of both directions of many streams, and checks them at every step."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.ends = pair()
        self.under_way: tuple[list[bytes], list[bytes]] = ([], [])
        self.streams: list[tuple[Stream, Stream]] = []
        self.wanted: dict[tuple[int, int], bytearray] = {}
        self.got: dict[tuple[int, int], bytearray] = {}
        self.finished: set[tuple[int, int]] = set()
        self.dead: set[int] = set()
        self.pairs: dict[int, list[Stream | None]] = {}

    def step(self) -> None:
        self.random.choice((self.open, self.put, self.put, self.take, self.take, self.send, self.arrive, self.end))()
        for end in self.ends:
            end.stirred.clear()
            figures = end.statistics()
            assert figures.buffered <= figures.streams * (WINDOW + BACKLOG)

    def open(self) -> None:
        if not self.ends[0].full and len(self.pairs) < 12:
            stream = self.ends[0].open()
            self.pairs[stream.id] = [stream, None]
            for side in (0, 1):
                self.wanted[stream.id, side], self.got[stream.id, side] = bytearray(), bytearray()

    def put(self) -> None:
        found = self._some(lambda id, side, stream: stream.opened and (id, side) not in self.finished)
        if found is not None:
            id, side, stream = found
            data = self.random.randbytes(self.random.choice((1, 50, 3000, 3000, 100_000)))
            size = self.ends[side].put(stream, data)
            assert size <= len(data)
            self.wanted[id, side] += data[:size]

    def take(self) -> None:
        found = self._some(lambda id, side, stream: stream.readable)
        if found is not None:
            id, side, stream = found
            self.got[id, side] += self.ends[side].take(stream, self.random.choice((1, 1000, 65_536)))
            self.check(id, side)

    def check(self, id: int, side: int) -> None:
        """What one side got is the beginning of what the other has put."""
        got = self.got[id, side]
        assert self.wanted[id, 1 - side][: len(got)] == got

    def send(self) -> None:
        side = self.random.randrange(2)
        if data := self.ends[side].outgoing():
            self.under_way[side].append(data)

    def arrive(self) -> None:
        side = self.random.randrange(2)
        if not self.under_way[side]:
            return
        data = self.under_way[side].pop(0)
        if len(data) > 1 and self.random.random() < 0.5:
            size = self.random.randrange(1, len(data))
            self.under_way[side].insert(0, data[size:])
            data = data[:size]
        for event in self.ends[1 - side].receive(data):
            if isinstance(event, Opened):
                self.pairs[event.stream.id][1] = event.stream
                if self.random.random() < 0.9:
                    self.ends[1].accept(event.stream)
                else:
                    self.ends[1].reset(event.stream, "refused")
                    self.dead.add(event.stream.id)

    def end(self) -> None:
        found = self._some(lambda id, side, stream: stream.opened)
        if found is not None and self.random.random() < 0.3:
            id, side, stream = found
            if self.random.random() < 0.7:
                self.ends[side].finish(stream)
                self.finished.add((id, side))
            else:
                self.ends[side].reset(stream, "given up")
                self.dead.add(id)

    def settle(self) -> None:
        """Everything arrives, and everything is taken."""
        for _ in range(10_000):
            if not any((*self.under_way, self.ends[0].pending, self.ends[1].pending, self._readable())):
                return
            self.send()
            self.arrive()
            for id, side in list(self.got):
                stream = self.pairs[id][side]
                if stream is not None and stream.broken is None and stream.readable:
                    self.got[id, side] += self.ends[side].take(stream, 65_536)
        raise AssertionError("it does not come to rest")

    def _readable(self) -> bool:
        return any(
            stream is not None and stream.broken is None and bool(stream._incoming)
            for streams in self.pairs.values()
            for stream in streams
        )

    def _some(self, fits: Callable[[int, int, Stream], bool]) -> tuple[int, int, Stream] | None:
        found = [
            (id, side, stream)
            for id, streams in self.pairs.items()
            for side, stream in enumerate(streams)
            if stream is not None and stream.broken is None and fits(id, side, stream)
        ]
        return self.random.choice(found) if found else None


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_any_schedule_delivers_every_byte(first: int) -> None:
    for seed in range(first, first + 100):
        pump = Pump(Random(seed))
        for _ in range(200):
            pump.step()
        pump.settle()
        for id, side in pump.got:
            pump.check(id, side)
            if id not in pump.dead:
                assert pump.got[id, side] == pump.wanted[id, 1 - side], (seed, id, side)
        for id in pump.dead:
            assert all(stream is None or stream.broken or stream.over for stream in pump.pairs[id]), (seed, id)
        over = sum((id, 0) in pump.finished and (id, 1) in pump.finished for id in pump.pairs if id not in pump.dead)
        living = len(pump.pairs) - len(pump.dead) - over
        assert [end.statistics().streams for end in pump.ends] == [living, living], seed
        assert [end.statistics().buffered for end in pump.ends] == [0, 0], seed


def test_slow_stream_holds_up_no_other() -> None:
    gateway, joiner = pair()
    slow, fast = opened(gateway, joiner), opened(gateway, joiner)
    put = 0
    while size := joiner.put(slow[1], b"x" * 100_000):
        put += size
        carry(joiner, gateway)
    assert put == WINDOW + BACKLOG
    assert not slow[1].writable
    for _ in range(100):
        assert joiner.put(fast[1], b"y" * 20_000) == 20_000
        carry(joiner, gateway)
        assert len(gateway.take(fast[0], 65_536)) == 20_000
        carry(gateway, joiner)
    assert gateway.take(slow[0], WINDOW) == b"x" * WINDOW
    carry(gateway, joiner)
    carry(joiner, gateway)
    assert slow[1].writable


def test_streams_take_turns() -> None:
    gateway, joiner = pair()
    streams = [opened(gateway, joiner) for _ in range(4)]
    for _, there in streams:
        joiner.put(there, b"z" * BACKLOG)
    gateway.receive(joiner.outgoing())
    assert [here.buffered for here, _ in streams] == [16_384] * 4


def test_reset_reaches_the_other_end() -> None:
    gateway, joiner = pair()
    here, there = opened(gateway, joiner)
    joiner.put(there, b"late")
    gateway.reset(here)
    carry(gateway, joiner)
    assert there.broken
    carry(joiner, gateway)  # what was under way is passed over
    assert [end.statistics().streams for end in (gateway, joiner)] == [0, 0]


def test_stream_given_up_before_it_was_told_leaves_no_trace() -> None:
    gateway, joiner = pair()
    gateway.reset(gateway.open())
    assert not gateway.pending
    assert opened(gateway, joiner)[0].id == 2


def test_reason_of_a_refusal_is_told() -> None:
    gateway, joiner = pair()
    here = gateway.open()
    (there,) = carry(gateway, joiner)
    joiner.reset(there, "connection refused")
    carry(joiner, gateway)
    assert here.broken == "connection refused"


def test_too_many_streams_are_refused_one_by_one() -> None:
    gateway, joiner = pair()
    streams = [gateway.open() for _ in range(MAX_STREAMS)]
    assert gateway.full
    carry(gateway, joiner)
    joiner.receive(encode(Kind.OPEN, MAX_STREAMS + 1))
    assert joiner.outgoing() == encode(Kind.RESET, MAX_STREAMS + 1, b"it has too many connections")
    gateway.reset(streams[0])
    assert not gateway.full


# What a peer may not do to a gateway, and to a joiner, whose stream 1 is open.
BAD_FOR_GATEWAY = {
    "unknown kind": bytes([99]) + bytes(HEADER_SIZE - 1),
    "oversized": encode(Kind.DATA, 1)[:5] + (MAX_PAYLOAD + 1).to_bytes(4, "big"),
    "stream frame for the tunnel": encode(Kind.DATA, 0, b"x"),
    "tunnel frame for a stream": encode(Kind.PING, 1),
    "stream nobody opened": encode(Kind.DATA, 2, b"x"),
    "joiner opens": encode(Kind.OPEN, 2),
    "answered twice": encode(Kind.OPENED, 1),
    "empty data": encode(Kind.DATA, 1),
    "data after the end": encode(Kind.EOF, 1) + encode(Kind.DATA, 1, b"x"),
    "ended twice": encode(Kind.EOF, 1) * 2,
    "over the window": encode(Kind.DATA, 1, b"x" * MAX_PAYLOAD) * 5,
    "short window": encode(Kind.WINDOW, 1, b"xx"),
    "window of nothing": encode_window(1, 0),
    "window overflows": encode_window(1, MAX_CREDIT),
    "long ping": encode(Kind.PING, 0, b"x" * 65),
}
BAD_FOR_JOINER = {
    "id again": encode(Kind.OPEN, 1),
    "id backwards": encode(Kind.OPEN, 9) + encode(Kind.OPEN, 8),
    "content in open": encode(Kind.OPEN, 9, b"x"),
    "over the window": encode(Kind.DATA, 1, b"x" * MAX_PAYLOAD) * 5,
    "answers its own": encode(Kind.OPENED, 1),
    "flood": b"".join(encode(Kind.OPEN, 2 + n) for n in range(MAX_STREAMS + MAX_URGENT + 1)),
}


@pytest.mark.parametrize("bad", BAD_FOR_GATEWAY)
def test_hostile_joiner_is_refused(bad: str) -> None:
    gateway, joiner = pair()
    opened(gateway, joiner)
    with pytest.raises(ProtocolError) as caught:
        gateway.receive(BAD_FOR_GATEWAY[bad])
    assert str(caught.value)


@pytest.mark.parametrize("bad", BAD_FOR_JOINER)
def test_hostile_gateway_is_refused(bad: str) -> None:
    gateway, joiner = pair()
    opened(gateway, joiner)
    with pytest.raises(ProtocolError):
        joiner.receive(BAD_FOR_JOINER[bad])


def test_no_stream_before_the_welcome() -> None:
    with pytest.raises(ProtocolError, match="before the welcome"):
        Multiplexer(opens=False).receive(encode(Kind.OPEN, 1))
    with pytest.raises(ProtocolError, match="before the welcome"):
        Multiplexer(opens=True).receive(encode(Kind.DATA, 1, b"x"))


def test_pings_do_not_pile_up() -> None:
    gateway, _ = pair()
    gateway.receive(b"".join(encode(Kind.PING, 0, b"%d" % n) for n in range(10_000)))
    assert gateway.outgoing() == encode(Kind.PONG, 0, b"9999")


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_noise_breaks_nothing(noise: bytes) -> None:
    gateway, joiner = pair()
    opened(gateway, joiner)
    for end in (gateway, joiner):
        try:
            end.receive(noise)
        except ProtocolError:
            continue
        assert end.statistics().buffered <= WINDOW
