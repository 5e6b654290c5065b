"""TLS to a remote server, over real sockets: whom it trusts, that it keeps connections, and how its end is noticed."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from math import inf

import pytest
import trio
import trustme
from quiver.proxy.egress import EgressPolicy, open_wire
from quiver.proxy.network import KernelNetwork, Wire
from quiver.proxy.registry import Call
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.reply import DownstreamGone, Reply
from quiver.proxy.testing import RecordingDownstream, fixed_world
from quiver.proxy.watch import Watch
from quiver.schemas.config import Health, Limits, RemoteBackend
from quiver.schemas.errors import ApiError

from ..servers import events, response

BODY = b'{"model": "m", "messages": []}'
REPLY = b'{"id": "x"}'
EVENTS = (b"data: {}\n\n", b"data: [DONE]\n\n")


class Host:
    """A model server behind TLS; how often it was connected to, and whether its last client has left."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self.context)
        self.connections = 0
        self.left = trio.Event()
        self.answer = response(b"200 OK", REPLY)

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.connections += 1
        try:
            while await stream.receive_some(65_536):
                await stream.send_all(self.answer)
        except trio.BrokenResourceError:
            pass
        self.left.set()


@asynccontextmanager
async def backend(host: Host, name: str = "localhost") -> AsyncIterator[RemoteServer]:
    network, policy = KernelNetwork(), EgressPolicy(private=True)

    async def connect(host: str, port: int) -> Wire:
        return await open_wire(network, policy, "127.0.0.1", port)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        secure = trio.SSLListener(listener, host.context, https_compatible=True)
        nursery.start_soon(trio.serve_listeners, host.serve, [secure])
        port = listener.socket.getsockname()[1]
        config = RemoteBackend(url=f"https://{name}:{port}", name="tls", models=("m",))
        remote = RemoteServer(config, Limits(), Health(), fixed_world(), connect)
        yield remote
        remote.close()
        nursery.cancel_scope.cancel()


async def ask(remote: RemoteServer, *, stream: bool = False) -> RecordingDownstream:
    downstream = RecordingDownstream()
    call = Call("chat/completions", "m", stream, BODY, [], "req_1", "")
    await remote.forward(call, Reply(downstream, "req_1"), Watch(trio.current_time(), inf))
    return downstream


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """An authority that this process trusts as it trusts the machine's own."""
    authority = trustme.CA()
    with authority.cert_pem.tempfile() as file:
        monkeypatch.setenv("SSL_CERT_FILE", file)
        yield authority


async def test_replies_come_over_one_connection(authority: trustme.CA) -> None:
    host = Host(authority.issue_cert("localhost"))
    async with backend(host) as remote:
        assert [(await ask(remote)).body for _ in range(3)] == [REPLY] * 3
        host.answer = events(*EVENTS)
        assert (await ask(remote, stream=True)).body == b"".join(EVENTS)
        assert host.connections == 1
        assert (remote.statistics().busy, remote.statistics().idle) == (0, 1)


async def test_unknown_authority_is_refused(authority: trustme.CA) -> None:
    host = Host(trustme.CA().issue_cert("localhost"))
    async with backend(host) as remote:
        with pytest.raises(ApiError, match="cannot be reached") as caught:
            await ask(remote)
    assert caught.value.kind.code == "upstream_unreachable"


async def test_name_has_to_be_the_certificates(authority: trustme.CA) -> None:
    host = Host(authority.issue_cert("other.test"))
    async with backend(host) as remote:
        with pytest.raises(ApiError, match="cannot be reached"):
            await ask(remote)


async def test_lost_connection_is_replaced(authority: trustme.CA) -> None:
    host = Host(authority.issue_cert("localhost"))
    host.answer = response(b"200 OK", REPLY, b"Connection: close")
    async with backend(host) as remote:
        for connections in (1, 2):
            await ask(remote)
            assert host.connections == connections


async def test_departure_ends_the_request(authority: trustme.CA) -> None:
    host = Host(authority.issue_cert("localhost"))
    host.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    async with backend(host) as remote, trio.open_nursery() as nursery:
        downstream = RecordingDownstream()
        watch, reply = Watch(trio.current_time(), inf), Reply(downstream, "req_1")
        watch.begin_guard(nursery, downstream, reply)
        downstream.left.set()
        with pytest.raises(DownstreamGone):
            await remote.forward(Call("chat/completions", "m", False, BODY, [], "r", ""), reply, watch)
        await watch.close()
        assert remote.statistics().busy == 0
        with trio.fail_after(5):
            await host.left.wait()
