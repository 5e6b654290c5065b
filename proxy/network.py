"""The network as the data plane sees it: names become addresses, addresses become wires, listening gives acceptors.

The only file that touches sockets. A `Wire` works on any non-blocking socket: the kernel's here, an in-memory one in a
simulation, which so runs everything above this line unchanged. Writes that the socket takes at once do not yield to
other tasks, which saves a scheduler pass on each; every loop over them has a checkpoint of its own.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Protocol

import trio

CHUNK = 65_536
# Bytes a second that a peer has to read, lest it holds a task for ever by reading now and then.
LEAST_RATE = 1024
# How many clients are taken from the kernel's queue before other tasks have their turn.
ACCEPT_BATCH = 64
# What accept() reports when the process or the machine is out of descriptors or memory; it passes.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a port: what a name was resolved to, and what is connected to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# The peer of every wire that came over the Unix socket: as near as loopback, and surely the gateway's own user.
LOCAL = Address("127.0.0.1", 0)


class UnknownHost(OSError):
    """A name that stands for no address."""


class Unreachable(OSError):
    """A server that cannot be connected to, for a reason in words that clients may see."""


class Socket(Protocol):
    """What a wire needs of a connected socket. `recv` and `send` raise `BlockingIOError` instead of waiting."""

    def recv(self, size: int, /) -> bytes: ...

    def send(self, data: bytes | memoryview, /) -> int: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


class Acceptor(Protocol):
    """A listening socket. Close with `close`."""

    @property
    def address(self) -> Address: ...

    async def accept(self) -> "list[Wire]":
        """The clients that wait to be accepted, at least one unless the machine is out of resources."""
        ...

    def close(self) -> None: ...


class Network(Protocol):
    """Where wires come from."""

    async def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses of `host`, best first. Raises `OSError`, of which `UnknownHost` is one."""
        ...

    async def connect(self, address: Address) -> "Wire":
        """A wire to exactly this address. Raises `OSError`; has no time limit of its own."""
        ...

    async def listen(self, host: str, port: int) -> list[Acceptor]:
        """Listen on every address of `host`; port 0 takes a free one. Raises `OSError`."""
        ...


class Wire(trio.abc.HalfCloseableStream):
    """A connected socket. `peer`: who is at the other end. Close with `close` or `aclose`.

    One task may receive and one may send at a time.
    """

    def __init__(
        self,
        sock: Socket,
        peer: Address,
        wait_readable: Callable[[], Awaitable[object]],
        wait_writable: Callable[[], Awaitable[object]],
        before_close: Callable[[], object] = lambda: None,
    ) -> None:
        self.socket, self.peer = sock, peer
        self.closed = False
        # How long a peer may read nothing of what is sent; the owner sets it. Such a peer must not hold a task.
        self.write_timeout = inf
        self._recv, self._send = sock.recv, sock.send
        self._wait_readable, self._wait_writable, self._before_close = wait_readable, wait_writable, before_close

    def __repr__(self) -> str:
        return f"<Wire to {self.peer}{', closed' if self.closed else ''}>"

    def quiet(self) -> bool:
        """Whether the connection is open and nothing has come on it. What had come is lost: for wires that are then closed."""
        try:
            self._recv(1)
        except BlockingIOError:
            return not self.closed
        except OSError:
            return False
        return False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes; b"" once the peer has sent all. Always lets other tasks run.

        Raises `trio.BrokenResourceError` when the connection broke, `trio.ClosedResourceError` when we closed it.
        """
        if self.closed:
            raise trio.ClosedResourceError
        size = max_bytes or CHUNK
        while True:
            await self._wait_readable()
            try:
                return self._recv(size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._translated() from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`. Yields to other tasks only when the socket does not take it all at once.

        Raises as `receive_some`, and `trio.BrokenResourceError` when the peer has read nothing for `write_timeout`, or
        reads too slowly.
        """
        if self.closed:
            raise trio.ClosedResourceError
        try:
            sent = self._send(data)  # type: ignore[arg-type] # any buffer will do
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._translated() from error
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        """Part of Trio's interface."""
        if self.closed:
            raise trio.ClosedResourceError
        await self._wait_writable()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._translated() from error

    def close(self) -> None:
        """Close at once. A task that waits on the wire gets `trio.ClosedResourceError`."""
        if not self.closed:
            self.closed = True
            self._before_close()
            self.socket.close()

    async def aclose(self) -> None:
        """Part of Trio's interface: `close`, with a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    async def _send_rest(self, rest: memoryview) -> None:
        """The peer has to read something within `write_timeout`, and all of it at `LEAST_RATE` at least."""
        now = trio.current_time()
        end = now + self.write_timeout + len(rest) / LEAST_RATE
        with trio.CancelScope(deadline=now + self.write_timeout) as stall:
            while rest:
                await self._wait_writable()
                try:
                    rest = rest[self._send(rest) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise self._translated() from error
                stall.deadline = min(end, trio.current_time() + self.write_timeout)
            return
        raise trio.BrokenResourceError("the peer does not read")

    def _translated(self) -> Exception:
        return trio.ClosedResourceError() if self.closed else trio.BrokenResourceError()


class KernelNetwork:
    """TCP through the operating system."""

    async def resolve(self, host: str, port: int) -> list[Address]:
        """See `Network.resolve`."""
        try:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise UnknownHost(f"`{host}`: {error.strerror}") from error
        return list(dict.fromkeys(Address(str(where[0]), int(where[1])) for *_, where in found))

    async def connect(self, address: Address) -> Wire:
        """See `Network.connect`."""
        sock = socket.socket(_family(address.host), socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            error = sock.connect_ex((address.host, address.port))
            if error in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                await trio.lowlevel.wait_writable(sock)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            host, port, *_ = sock.getpeername()
            return _wire(sock, Address(host, port))
        except BaseException:
            sock.close()
            raise

    async def listen(self, host: str, port: int) -> list[Acceptor]:
        """See `Network.listen`."""
        return [_KernelAcceptor(_detached(listener)) for listener in await trio.open_tcp_listeners(port, host=host)]


def listen_locally(path: Path) -> "LocalAcceptor":
    """Listen on the Unix socket `path`, which only this user may open. One that nobody listens on any more is replaced.

    Raises `OSError`.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if path.is_socket() and probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()
        listener.bind(str(path))
        path.chmod(0o600)  # nobody can connect before `listen`
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return LocalAcceptor(listener, path)


class _KernelAcceptor:
    """Accepts without Trio's stream layer, so that a session gets the bare socket."""

    def __init__(self, listener: socket.socket) -> None:
        self._socket = listener
        self._socket.setblocking(False)
        self.address = self._address_of(listener.getsockname())

    def _address_of(self, name: Any) -> Address:
        return Address(name[0], name[1])

    async def accept(self) -> list[Wire]:
        await trio.lowlevel.wait_readable(self._socket)
        wires: list[Wire] = []
        while len(wires) < ACCEPT_BATCH:
            try:
                sock, name = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in EXHAUSTED:
                    await trio.sleep(EXHAUSTED_PAUSE)
                    break
                continue  # the client left while it waited
            sock.setblocking(False)
            wires.append(_wire(sock, self._address_of(name)))
        return wires

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


class LocalAcceptor(_KernelAcceptor):
    """A Unix socket, whose file goes when it is closed. Its clients are this machine's own."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        super().__init__(listener)
        self._path = path

    def _address_of(self, name: Any) -> Address:
        return LOCAL

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            self._path.unlink()


def _wire(sock: socket.socket, peer: Address) -> Wire:
    # Small writes are whole messages here; waiting to merge them only adds latency (40 ms with delayed ACKs).
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Wire(
        sock,
        peer,
        partial(trio.lowlevel.wait_readable, sock),
        partial(trio.lowlevel.wait_writable, sock),
        partial(trio.lowlevel.notify_closing, sock),
    )


def _detached(listener: trio.SocketListener) -> socket.socket:
    """The listener's socket, out of Trio's hands."""
    detached = socket.socket(fileno=os.dup(listener.socket.fileno()))
    listener.socket.close()
    return detached


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
