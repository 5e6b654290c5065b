"""Simulated clients against simulated servers, with no gateway between: each mood and each manner tells what happened."""

from collections.abc import Sequence
from random import Random

import pytest
import trio
from quiver.proxy.network import Address
from quiver.proxy.testing.clients import Client, ClientLog, Manner
from quiver.proxy.testing.network import SimulatedNetwork
from quiver.proxy.testing.seen import Ask, Seen
from quiver.proxy.testing.upstream import MOODS, WELL, ModelServer, Mood, ServerLog, Start
from trio.testing import MockClock

ADDRESS = Address("10.0.0.1", 9000)


async def meet(manner: Manner, asks: Sequence[Ask], mood: Mood = "ok") -> tuple[ClientLog, ServerLog]:
    """What both sides remember of a visit."""
    network, clients, servers = SimulatedNetwork(Random(1)), ClientLog(), ServerLog()
    server = ModelServer("s", ["10.0.0.1"], ["m"], network, Random(2), servers, mood=lambda: mood)
    client = Client("c", "10.9.0.1", None, ADDRESS, network, Random(3), clients, patience=60)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        await client.visit(manner, asks)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert network.open_ends("10.0.0.1") == network.open_ends("10.9.0.1") == []
    return clients, servers


def ask(marker: str = "a", *, stream: bool = True) -> Ask:
    return Ask(marker, f"request-{marker}", "m", stream, max_tokens=8)


def tokens(start: Start) -> list[tuple[str, int, int]]:
    return [(start.marker, start.number, place) for place in range(start.made)]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mood", WELL)
async def test_well_server_answers_whole(mood: Mood, stream: bool, autojump_clock: MockClock) -> None:
    clients, servers = await meet(Client.polite, [ask(stream=stream)], mood)
    (seen,), (start,) = clients.seen, servers.starts
    assert (seen.status, seen.done, seen.ending) == (200, True, "whole")
    assert seen.tokens == tokens(start)
    assert len(seen.tokens) == start.planned
    assert servers.complaints == clients.complaints == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mood", [mood for mood in MOODS if mood not in (*WELL, "garbage")])
async def test_ill_server_never_finishes(mood: Mood, stream: bool, autojump_clock: MockClock) -> None:
    clients, servers = await meet(Client.polite, [ask(stream=stream)], mood)
    (seen,), (start,) = clients.seen, servers.starts
    assert not seen.done
    assert not start.done
    if mood in ("stall", "black_hole"):
        assert seen.ending == "patience"
    else:
        assert seen.error or seen.status >= 400 or seen.ending == "cut"
    assert seen.tokens == tokens(start)[: len(seen.tokens)]


async def test_garbage_is_complained_of(autojump_clock: MockClock) -> None:
    clients, _ = await meet(Client.polite, [ask()], "garbage")
    assert clients.complaints or clients.seen[0].ending in ("cut", "closed")


async def test_polite_client_keeps_connection(autojump_clock: MockClock) -> None:
    clients, servers = await meet(Client.polite, [ask("a"), ask("b", stream=False), ask("c")])
    assert [(seen.ask.marker, seen.done) for seen in clients.seen] == [("a", True), ("b", True), ("c", True)]
    assert len({seen.connection for seen in clients.seen}) == len({start.connection for start in servers.starts}) == 1


async def test_pipelined_replies_come_in_order(autojump_clock: MockClock) -> None:
    clients, servers = await meet(Client.pipelining, [ask("a"), ask("b")])
    assert [seen.tokens for seen in clients.seen] == [tokens(start) for start in servers.starts]


@pytest.mark.parametrize("manner", [Client.leaving_while_waiting, Client.leaving_in_stream])
async def test_server_notices_departure(manner: Manner, autojump_clock: MockClock) -> None:
    clients, servers = await meet(manner, [Ask("a", "a", "m", max_tokens=500)], "stall")
    (seen,), (start,) = clients.seen, servers.starts
    assert seen.ended is not None
    assert start.ended is not None
    assert start.peer_left
    assert seen.ended <= start.ended < seen.ended + 1


@pytest.mark.parametrize("manner", [Client.stalling, Client.dripping])
async def test_slow_client_gets_all(manner: Manner, autojump_clock: MockClock) -> None:
    clients, _ = await meet(manner, [ask()])
    assert [seen.done for seen in clients.seen] == [True]


@pytest.mark.parametrize("manner", [Client.leaving_early, Client.misbehaving, Client.never_reading])
async def test_bad_manners_end(manner: Manner, autojump_clock: MockClock) -> None:
    clients, _ = await meet(manner, [ask()])
    assert all(seen.ending == "left" for seen in clients.seen)


# What a client makes of bytes: the reply's data and the error or end it is expected to find.
EVENTS: list[tuple[str, str | None, bool]] = [
    ("data: [DONE]\n\n", None, True),
    (": heartbeat\n\ndata: [DONE]\n\n", None, True),
    ('data: {"error": {"message": "m", "code": "c"}}\n\n', "c", False),
    ('data: {"choices": []}\n\n', None, False),
    ('data: [DONE]\n\ndata: {"choices": []}\n\n', "an event after the last", True),
    ('data: {"choices": []}', "half an event", False),
]


@pytest.mark.parametrize(("data", "error", "done"), EVENTS)
async def test_end_of_stream_is_judged(data: str, error: str | None, done: bool, autojump_clock: MockClock) -> None:
    seen = Seen(ask(), "c", "", 1)
    seen.status, seen.fields = 200, {b"content-type": b"text/event-stream"}
    for byte in data.encode():
        seen.data(bytes([byte]))
    seen.whole()
    assert (seen.error, seen.done, seen.ending) == (error, done, "whole")
