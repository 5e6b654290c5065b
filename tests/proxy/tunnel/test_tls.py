"""A joiner dials a gateway behind TLS, and believes only who is trusted."""

import signal
import ssl

import trio
import trustme
from quiver.proxy.network import Wire
from quiver.proxy.testing.network import LOOPBACK
from quiver.proxy.testing.network import Answer as Name
from quiver.proxy.tunnel.joiner import Joiner

from ..gateways import BODY, GATEWAY, OK, answering, running
from ..servers import Farm
from .joining import QUICK, Laptop, offer, servers, wait_until, world

AUTHORITY = trustme.CA()
URL = "https://gateway.test:8443"


async def terminate(farm: Farm, task_status: trio.TaskStatus[None]) -> None:
    """What stands before a gateway on the internet."""
    farm.network.name("gateway.test", Name(0.0, (LOOPBACK,)))
    (acceptor,) = await farm.network.listen(LOOPBACK, 8443)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("gateway.test").configure_cert(context)
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                for wire in await acceptor.accept():
                    nursery.start_soon(relay, farm, wire, context)
    finally:
        acceptor.close()


async def relay(farm: Farm, wire: Wire, context: ssl.SSLContext) -> None:
    inner = await farm.network.connect(GATEWAY, LOOPBACK)
    outer = trio.SSLStream(wire, context, server_side=True, https_compatible=True)

    async def copy(source: trio.abc.ReceiveStream, target: trio.abc.SendStream, ends: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some():
                await target.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        ends.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, outer, inner, nursery.cancel_scope)
            nursery.start_soon(copy, inner, outer, nursery.cancel_scope)
    finally:
        wire.close()
        inner.close()


async def join(farm: Farm, nursery: trio.Nursery, trusted: trustme.CA) -> Laptop:
    config, server = await farm.configure(answering(OK))
    context = ssl.create_default_context()
    trusted.configure_trust(context)
    found = Laptop(Joiner(URL, offer(config.url), world(farm.network), tls=context), server)
    nursery.start_soon(found.run)
    return found


async def test_serves_through_tls(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with trio.open_nursery() as nursery:
            await nursery.start(terminate, farm)
            owned = await join(farm, nursery, AUTHORITY)
            await wait_until(lambda: servers(gateway) == {"laptop": "healthy"})
            assert (await gateway.ask(BODY, b"Connection: close")).endswith(b'{"ok": true}')
            owned.joiner.leave()
            await owned.over.wait()
            nursery.cancel_scope.cancel()
        gateway.signal(signal.SIGINT)


async def test_stranger_is_not_told_the_key(farm: Farm, autojump_clock: object) -> None:
    async with running(farm, [], join=QUICK) as gateway:
        async with trio.open_nursery() as nursery:
            await nursery.start(terminate, farm)
            owned = await join(farm, nursery, trustme.CA())
            await wait_until(lambda: owned.joiner.state == "waiting")
            assert "certificate is not trusted" in str(owned.joiner.reason)
            assert servers(gateway) == {}
            nursery.cancel_scope.cancel()
        gateway.signal(signal.SIGINT)
