"""The joiner's one server: every stream of the tunnel becomes a connection to it, and to nothing else."""

import ssl
from contextlib import suppress

import trio

from ..egress import EgressPolicy, open_wire
from ..network import CHUNK, UnknownHost, Unreachable, Wire
from ..remote.connections import Origin
from ..seams import World
from .link import Link, StreamEnd

CONNECT_TIME = 10.0
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
# The owner names the addresses here; nobody else can.
ANYWHERE = EgressPolicy(private=True, allow=("0.0.0.0/0", "::/0"))


class LocalServer:
    """The server that is offered, by its URL. Raises `ValueError` when it has no host."""

    def __init__(self, url: str, world: World) -> None:
        self.origin = Origin.parse(url)
        self._world = world
        self._tls = ssl.create_default_context() if self.origin.scheme == "https" else None

    def __repr__(self) -> str:
        return f"<LocalServer {self.origin}>"

    async def serve(self, link: Link, end: StreamEnd) -> None:
        """Carry one stream until both directions have ended, or either broke. Closes `end`."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._lead_on, link, end, nursery.cancel_scope)
                await end.wait_broken()  # whatever has been reached by then
                nursery.cancel_scope.cancel()
        finally:
            end.close()

    async def _lead_on(self, link: Link, end: StreamEnd, serving: trio.CancelScope) -> None:
        """Connect, and carry; `serving` ends with that."""
        try:
            stream, wire = await self._connect()
        except Unreachable as error:
            end.close_because(str(error))
        else:
            try:
                link.accept(end)
                await _carry(end, end.wire(), stream)
            finally:
                wire.close()
        serving.cancel()

    async def _connect(self) -> tuple[trio.abc.Stream, Wire]:
        """Raises `Unreachable`."""
        try:
            with trio.fail_after(CONNECT_TIME):
                return await connect(self._world, self.origin, self._tls)
        except trio.TooSlowError:
            raise Unreachable(f"its machine got no connection to it within {CONNECT_TIME:g} s") from None
        except (OSError, ssl.SSLError, *BROKEN) as error:
            raise Unreachable(f"its machine cannot connect to it: {reason_of(error)}") from None


async def _carry(end: StreamEnd, tunnel: Wire, local: trio.abc.Stream) -> None:
    async def upwards() -> None:
        try:
            while data := bytes(await local.receive_some(CHUNK)):
                await tunnel.send_all(data)
            await tunnel.send_eof()
        except BROKEN:
            end.close_because("its server broke off the connection")

    async def downwards() -> None:
        with suppress(*BROKEN):  # what is wrong shows on the way back
            while data := await tunnel.receive_some():
                await local.send_all(data)
            if isinstance(local, trio.abc.HalfCloseableStream):
                await local.send_eof()

    async with trio.open_nursery() as both:
        both.start_soon(upwards)
        both.start_soon(downwards)


async def connect(world: World, origin: Origin, tls: ssl.SSLContext | None) -> tuple[trio.abc.Stream, Wire]:
    """A connection to `origin`: the stream to speak on, and the wire below it, which is closed. Has no time limit.

    Raises `OSError`, `ssl.SSLError`, `trio.BrokenResourceError`.
    """
    wire = await open_wire(world.network, ANYWHERE, origin.host, origin.port)
    if tls is None:
        return wire, wire
    secure = trio.SSLStream(wire, tls, server_hostname=origin.host, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        wire.close()
        raise
    return secure, wire


def reason_of(error: BaseException) -> str:
    """A failed connection in words."""
    if isinstance(error, BaseExceptionGroup):
        return reason_of(error.exceptions[0])
    if isinstance(error, UnknownHost):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, trio.BrokenResourceError):
        return reason_of(error.__cause__) if error.__cause__ is not None else "the connection broke"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
