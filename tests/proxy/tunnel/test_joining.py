"""A whole gateway and whole joiners in memory and virtual time."""

import signal
from typing import Any

import msgspec
import pytest
import trio
from quiver.proxy.network import Wire
from quiver.proxy.reconfigure import reconfigure
from quiver.proxy.testing.network import LOOPBACK
from quiver.proxy.tunnel.frames import Kind, encode
from quiver.proxy.tunnel.joiner import gateway_origin
from quiver.proxy.tunnel.multiplexer import BACKLOG, WINDOW
from quiver.proxy.tunnel.websocket import Refused, WebSocket
from quiver.schemas.config import Auth, Health, Join, Server
from quiver.schemas.events import Event
from quiver.schemas.join import Farewell, Offer

from ..gateways import BODY, GATEWAY, LAST, OK, STREAM, WORD, answering, chats, code_in, running, streaming, unchunked
from ..servers import Asked, Farm, Said, response
from .joining import QUICK, laptop, offer, servers, wait_until

CLOSE = b"Connection: close"
KEY = "join-key-0123456789"


async def test_serves_whole_and_streamed(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with laptop(farm, answering(OK)) as owned:
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
            reply = await gateway.ask(BODY, CLOSE)
            assert reply.startswith(b"HTTP/1.1 200")
            assert b"x-gateway-server-id: laptop" in reply.lower()
            assert reply.endswith(b'{"ok": true}')
            owned.server.answer = answering(streaming(5))
            assert unchunked(await gateway.ask(STREAM, CLOSE)) == WORD * 5 + LAST
            assert chats(owned.server) == 2
            tally = owned.joiner.status().tally
            assert tally is not None
            await wait_until(lambda: (now := owned.joiner.status().tally) is not None and now.served == 2)
        gateway.signal(signal.SIGINT)


async def test_two_share_a_model(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with laptop(farm, answering(OK), "one") as one, laptop(farm, answering(OK), "two") as two:
            await wait_until(lambda: set(servers(gateway).values()) == {"healthy"})
            for _ in range(6):
                await gateway.ask(BODY, CLOSE)
            assert (chats(one.server), chats(two.server)) == (3, 3)
        gateway.signal(signal.SIGINT)


async def test_slow_client_holds_up_no_other(farm: Farm, autojump_clock: object) -> None:
    """A reply of many windows, whose client reads nothing, beside others on the same link."""
    long = response(b"200 OK", b"[" + b"1," * 2_000_000 + b"1]")
    async with running(farm, [], join=QUICK) as gateway:
        async with laptop(farm, answering(Said(long))) as owned:
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
            slow = await gateway.connect()
            body = STREAM
            await slow.send_all(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            await trio.sleep(1)
            owned.server.answer = answering(OK)
            for _ in range(5):
                assert (await gateway.ask(BODY, CLOSE)).startswith(b"HTTP/1.1 200")
            held = gateway.gateway.joins.servers()[0].link.statistics()
            assert held.buffered <= held.streams * (WINDOW + BACKLOG)
            slow.close()
        gateway.signal(signal.SIGINT)


async def test_client_that_leaves_frees_the_server(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with laptop(farm, answering(streaming(10_000))):
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
            client = await gateway.connect()
            await client.send_all(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(STREAM) + STREAM
            )
            await trio.sleep(3)
            before = len(farm.network.open_ends("10.0.0.1"))
            client.close()
            await trio.sleep(1.5)
            assert len(farm.network.open_ends("10.0.0.1")) == before - 1
        gateway.signal(signal.SIGINT)


async def test_server_that_is_down_stays_joined(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK, health=Health(interval=1)) as gateway:
        async with laptop(farm, answering(OK)) as owned:
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
            await farm.close()
            # What is kept open still works; what is opened does not.
            owned.server.answer = lambda asked: Said(b"", cut=True)
            await wait_until(lambda: servers(gateway) == {"laptop": "ejected"})
            (server,) = gateway.gateway.joins.servers()
            assert "cannot connect to it: connection refused" in str(server.circuit.reason)
            assert owned.joiner.state == "joined"
            assert code_in(await gateway.ask(BODY, CLOSE)) in ("no_healthy_backend", "upstream_truncated")
        gateway.signal(signal.SIGINT)


async def test_pause_lets_open_requests_end(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with laptop(farm, answering(streaming(5))) as owned, trio.open_nursery() as nursery:
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
            bodies: list[bytes] = []

            async def ask() -> None:
                bodies.append(unchunked(await gateway.ask(STREAM, CLOSE)))

            nursery.start_soon(ask)
            await trio.sleep(2)
            owned.joiner.pause()
            await trio.sleep(0.5)
            assert code_in(await gateway.ask(BODY, CLOSE)) == "servers_paused"
            await wait_until(lambda: bool(bodies))
            assert bodies == [WORD * 5 + LAST]
            owned.joiner.pause(False)
            await trio.sleep(0.5)
            assert unchunked(await gateway.ask(STREAM, CLOSE)) == WORD * 5 + LAST
        gateway.signal(signal.SIGINT)


async def test_leaving_lets_open_requests_end(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with laptop(farm, answering(streaming(5))) as owned, trio.open_nursery() as nursery:
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
            bodies: list[bytes] = []

            async def ask() -> None:
                bodies.append(unchunked(await gateway.ask(STREAM, CLOSE)))

            nursery.start_soon(ask)
            await trio.sleep(2)
            owned.joiner.leave()
            await owned.over.wait()
            await wait_until(lambda: bool(bodies), 1)
            assert bodies == [WORD * 5 + LAST]
            await wait_until(lambda: servers(gateway) == {}, 1)
            assert code_in(await gateway.ask(BODY, CLOSE)) == "model_not_found"
        gateway.signal(signal.SIGINT)


async def test_deregistered_server_leaves_for_good(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with laptop(farm, answering(OK)) as owned:
            assert gateway.gateway.deregister("laptop")
            await owned.over.wait()
            assert owned.refused is not None
            assert owned.refused.code == "dismissed"
        gateway.signal(signal.SIGINT)


async def test_lost_server_leaves_after_grace(farm: Farm, autojump_clock: object) -> None:
    events: list[Event] = []
    async with running(farm, [], join=QUICK) as gateway:
        gateway.gateway.journal.keep = events.append
        async with laptop(farm, answering(OK)) as owned:
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
            owned.scope.cancel()  # its process is gone, without a word
            await wait_until(lambda: servers(gateway) == {"laptop": "disabled"}, 1)
            assert code_in(await gateway.ask(BODY, CLOSE)) == "no_healthy_backend"
            await trio.sleep(QUICK.grace - 2)
            assert servers(gateway) == {"laptop": "disabled"}
            await trio.sleep(2)
            assert servers(gateway) == {}
        gateway.signal(signal.SIGINT)
    told = [event.kind for event in events if event.kind.startswith("server.") and event.kind != "server.state"]
    assert told == ["server.joined", "server.link_lost", "server.left"]


async def test_name_is_taken_while_its_link_lives(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with (
            laptop(farm, answering(OK), resume="a" * 32) as first,
            laptop(farm, answering(OK), resume="b" * 32, wait=False) as second,
        ):
            await trio.sleep(10)
            assert second.joiner.status().state == "waiting"
            assert "is joined already" in str(second.joiner.reason)
            first.scope.cancel()
            await wait_until(lambda: second.joiner.state == "joined")
            assert len(gateway.gateway.joins.servers()) == 1
        gateway.signal(signal.SIGINT)


async def test_own_dead_link_is_replaced_at_once(farm: Farm, autojump_clock: object) -> None:
    slow = msgspec.structs.replace(QUICK, heartbeat=300.0)
    async with running(farm, [], join=slow) as gateway, laptop(farm, answering(OK)):
        (before,) = gateway.gateway.joins.servers()
        async with laptop(farm, answering(OK)) as again:  # with the same token
            (server,) = gateway.gateway.joins.servers()
            assert server is not before
            assert server.reconnects == 1
            assert before.link.lost is not None
            assert again.joiner.state == "joined"
        gateway.signal(signal.SIGINT)


async def test_name_of_another_server_is_refused(farm: Farm, autojump_clock: object) -> None:
    config, _ = await farm.configure(answering(OK))
    async with running(farm, [config], join=QUICK) as gateway:
        async with laptop(farm, answering(OK), "b1", wait=False) as owned:
            await owned.over.wait()
            assert owned.refused is not None
            assert owned.refused.code == "name_taken"
        gateway.signal(signal.SIGINT)


async def test_too_many_are_refused(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=msgspec.structs.replace(QUICK, max_joined=1)) as gateway:
        async with laptop(farm, answering(OK), "one"), laptop(farm, answering(OK), "two", wait=False) as two:
            await trio.sleep(3)
            assert "no more than 1 may be joined" in str(two.joiner.reason)
        gateway.signal(signal.SIGINT)


async def test_shutdown_says_goodbye_after_open_requests(farm: Farm, autojump_clock: object) -> None:
    async with (
        running(farm, [], join=QUICK) as gateway,
        laptop(farm, answering(streaming(5))) as owned,
        trio.open_nursery() as nursery,
    ):
        await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
        bodies: list[bytes] = []

        async def ask() -> None:
            bodies.append(unchunked(await gateway.ask(STREAM, CLOSE)))

        nursery.start_soon(ask)
        await trio.sleep(2)
        gateway.signal(signal.SIGTERM)
        await wait_until(lambda: owned.joiner.state == "waiting")
        assert bodies == [WORD * 5 + LAST]
        assert owned.joiner.reason == "the gateway shuts down"
        await wait_until(lambda: gateway.code is not None, 5)


@pytest.mark.parametrize(
    ("sections", "key", "on_loopback", "code"),
    [
        ({}, None, True, None),
        ({}, None, False, "join_forbidden"),
        ({"join": Join(key=KEY)}, KEY, False, None),
        ({"join": Join(key=KEY)}, None, True, "invalid_api_key"),
        ({"join": Join(key=KEY)}, "another-key-0123", True, "invalid_api_key"),
        ({"auth": Auth(admin_key=KEY)}, KEY, False, None),
        ({"auth": Auth(keys=("client-key-01",)), "join": Join(key=KEY)}, "client-key-01", True, "join_forbidden"),
        ({"join": Join(enabled=False)}, None, True, "join_forbidden"),
    ],
)
async def test_who_may_join(
    farm: Farm,
    autojump_clock: object,
    sections: dict[str, Any],
    key: str | None,
    on_loopback: bool,
    code: str | None,
) -> None:
    async with running(farm, [], on_loopback=on_loopback, **sections) as gateway:
        async with laptop(farm, answering(OK), key=key, wait=False) as owned:
            await trio.sleep(2)
            assert (owned.refused.code if owned.refused else None) == code
            assert (owned.joiner.state == "joined") is (code is None)
        gateway.signal(signal.SIGINT)


async def test_key_can_be_changed_while_the_gateway_runs(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway, laptop(farm, answering(OK), "early") as early:
        wanted = msgspec.structs.replace(gateway.gateway.config, join=msgspec.structs.replace(QUICK, key=KEY))
        await reconfigure(gateway.gateway, wanted)
        async with laptop(farm, answering(OK), "keyless", wait=False) as keyless, laptop(farm, answering(OK), key=KEY):
            await trio.sleep(1)
            assert keyless.refused is not None
            assert keyless.refused.code == "invalid_api_key"
            assert early.joiner.state == "joined", "who is in stays in"
        gateway.signal(signal.SIGINT)


async def connect(farm: Farm) -> tuple[Wire, WebSocket]:
    wire = await farm.network.connect(GATEWAY, LOOPBACK)
    return wire, await WebSocket.connect(wire, str(GATEWAY), "/admin/join", [])


async def farewell(socket: WebSocket) -> Farewell:
    """What the gateway says before it closes."""
    data = b"".join([piece async for piece in pieces(socket)])
    return msgspec.json.decode(data[data.index(b"{") :], type=Farewell)


async def pieces(socket: WebSocket):  # type: ignore[no-untyped-def] # an async generator of bytes
    while data := await socket.receive():
        yield data


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"{}", "bad_offer"),
        (b"not json", "bad_offer"),
        (b'{"protocol": 99}', "unknown_version"),
        (msgspec.json.encode(offer("http://x:99999")), "bad_offer"),
        (msgspec.json.encode(offer("http://x", "a name")), "bad_offer"),
    ],
)
async def test_bad_offers_are_answered(farm: Farm, autojump_clock: object, said: bytes, code: str) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        wire, socket = await connect(farm)
        await socket.send(encode(Kind.OFFER, 0, said))
        assert (await farewell(socket)).code == code
        wire.close()
        gateway.signal(signal.SIGINT)


async def test_silent_joiner_is_sent_away(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=Join(heartbeat=60)) as gateway:
        wire, socket = await connect(farm)
        assert "no offer" in (await farewell(socket)).message
        wire.close()
        gateway.signal(signal.SIGINT)


async def test_noise_ends_the_link_only(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        for noise in (b"\xff" * 100, encode(Kind.OPEN, 1), encode(Kind.TALLY), encode(Kind.OFFER)[:5]):
            wire, socket = await connect(farm)
            await socket.send(noise)
            with trio.fail_after(30):
                async for _ in pieces(socket):
                    pass
            wire.close()
        async with laptop(farm, answering(OK)):
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
        gateway.signal(signal.SIGINT)


async def test_owner_cannot_fill_the_journal(farm: Farm, autojump_clock: object) -> None:
    events: list[Event] = []
    async with running(farm, [], join=QUICK) as gateway, laptop(farm, answering(OK)) as owned:
        keep = gateway.gateway.journal.keep
        gateway.gateway.journal.keep = events.append
        for turn in range(1000):
            owned.joiner.pause(turn % 2 == 0)
        await wait_until(lambda: any(event.kind == "server.link_lost" for event in events))
        gateway.gateway.journal.keep = keep
        assert len(events) < 100
        (lost,) = (event for event in events if event.kind == "server.link_lost")
        assert "without end" in lost.details["reason"]
        gateway.signal(signal.SIGINT)


async def test_web_pages_cannot_join(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        wire = await farm.network.connect(GATEWAY, LOOPBACK)
        with pytest.raises(Refused) as caught:
            await WebSocket.connect(wire, str(GATEWAY), "/admin/join", [(b"origin", b"http://127.0.0.1:8080")])
        assert caught.value.status == 403
        wire.close()
        gateway.signal(signal.SIGINT)


async def test_guesses_are_counted_by_client_behind_a_trusted_proxy(farm: Farm, autojump_clock: object) -> None:
    """Who guesses keys through the proxy does not lock out the others behind it."""
    sections: dict[str, Any] = {"join": Join(key=KEY), "server": Server(trusted_proxies=("127.0.0.1",))}

    async def status(address: bytes, key: str) -> int:
        wire = await farm.network.connect(GATEWAY, LOOPBACK)
        headers = [(b"x-forwarded-for", address), (b"authorization", b"Bearer " + key.encode())]
        try:
            await WebSocket.connect(wire, str(GATEWAY), "/admin/join", headers)
        except Refused as refused:
            return refused.status
        finally:
            wire.close()
        return 101

    async with running(farm, [], on_loopback=False, **sections) as gateway:
        guesses = [await status(b"203.0.113.7", f"guess-number-{n:04}") for n in range(100)]
        assert (guesses[0], guesses[-1]) == (401, 429)
        assert await status(b"203.0.113.7", KEY) == 429
        assert await status(b"203.0.113.8", KEY) == 101
        gateway.signal(signal.SIGINT)


async def test_joiner_connects_to_its_server_only(farm: Farm, autojump_clock: object) -> None:
    """Whatever the gateway asks for, it reaches the one server that was offered."""
    asked: list[Asked] = []

    def answer(request: Asked) -> Said:
        asked.append(request)
        return OK

    async with running(farm, [], join=QUICK) as gateway:
        async with laptop(farm, answer):
            (server,) = gateway.gateway.joins.servers()
            wire = await server._open_stream("169.254.169.254", 80)
            await wire.send_all(b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n")
            assert (await wire.receive_some()).startswith(b"HTTP/1.1 200")
            wire.close()
            assert asked[-1].path == b"http://169.254.169.254/"
        gateway.signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("gateway.lab:8080", "http://gateway.lab:8080/v1"),
        ("wss://gateway.lab", "https://gateway.lab/v1"),
        ("https://gateway.lab/quiver/", "https://gateway.lab/quiver/v1"),
        ("ws://[::1]:9/v1", "http://[::1]:9/v1"),
    ],
)
def test_gateways_addresses(written: str, found: str) -> None:
    assert str(gateway_origin(written)) == found


@pytest.mark.parametrize("written", ["ftp://x", "http://", "http://u:p@x", "http://x?key=1", "http://x:99999"])
def test_no_gateways_addresses(written: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        gateway_origin(written)


def test_secrets_are_not_shown() -> None:
    shown = repr(msgspec.structs.replace(offer("http://x"), api_key="sk-secret")) + repr(Join(key=KEY))
    assert "sk-secret" not in shown
    assert KEY not in shown
    assert isinstance(offer("http://x"), Offer)
