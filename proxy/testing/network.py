"""TCP and DNS in memory, in virtual time: what the data plane's `Network` is in a simulation.

Every random choice comes from one generator, and everything that has an order has the order in which it was made, so
one seed always gives the same run. Sockets are bare enough to run under a real `Wire`.
"""

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from random import Random
from typing import Literal

import msgspec
import trio

from ..network import Acceptor, Address, Wire
from .pipe import Direction, FaultKind, Pipe

# What Linux waits for an answer to its SYNs.
CONNECT_TIMEOUT = 127.0
FIRST_FREE_PORT = 40_000
BACKLOG = 64
# A window below this does not take a whole reply, so that writing it has to wait for the reader.
NARROW = 4096
LOOPBACK = "127.0.0.1"


class Link(msgspec.Struct, frozen=True):
    """What becomes of one connection: whether it opens, and how its two directions behave."""

    outcome: Literal["open", "refused", "black_hole"] = "open"
    there: Direction = Direction()
    back: Direction = Direction()


class Answer(msgspec.Struct, frozen=True):
    """What a name stands for from `since` on, in virtual seconds; without addresses it does not exist."""

    since: float
    addresses: tuple[str, ...]


def fair_weather(address: Address, source: str) -> Link:
    """Every connection opens and nothing breaks."""
    return Link()


class SimulatedSocket:
    """One end of a connection, as a `Wire` needs it, and with a name at each end, as servers want to know."""

    family = socket.AF_INET

    def __init__(
        self, number: int, own: Address, peer: Address, incoming: Pipe, outgoing: Pipe, closed: Callable[[], None]
    ) -> None:
        self.number, self._own, self._peer = number, own, peer
        self._incoming, self._outgoing, self._closed = incoming, outgoing, closed
        self.recv, self.send = incoming.take, outgoing.put

    def getsockname(self) -> tuple[str, int]:
        return self._own.host, self._own.port

    def getpeername(self) -> tuple[str, int]:
        return self._peer.host, self._peer.port

    def shutdown(self, how: int) -> None:
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self._outgoing.finish()

    def close(self) -> None:
        """FIN, or a reset where bytes were left unread, as Linux does."""
        if not self._incoming.reader_closed:
            if self._incoming.close_reader():
                self._outgoing.abort()
            else:
                self._outgoing.finish()
            self._outgoing.close_writer()
            self._closed()


class SimulatedAcceptor:
    """A listening address. See `quiver.proxy.network.Acceptor`."""

    def __init__(self, address: Address, closed: Callable[[], object]) -> None:
        self.address = address
        self._waiting: deque[tuple[float, Wire]] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._when_closed = closed
        self._closed = False

    def __repr__(self) -> str:
        return f"<SimulatedAcceptor {self.address}: {len(self._waiting)} waiting>"

    def push(self, wire: Wire) -> None:
        """A client has come."""
        self._waiting.append((trio.current_time(), wire))
        self._lot.unpark_all()

    async def accept(self) -> list[Wire]:
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._closed:
                raise trio.ClosedResourceError
            await self._lot.park()
        return [self._waiting.popleft()[1] for _ in range(min(BACKLOG, len(self._waiting)))]

    def close(self) -> None:
        """Stop listening; who waits to be accepted is turned away."""
        self._closed = True
        self._when_closed()
        self._lot.unpark_all()
        while self._waiting:
            self._waiting.popleft()[1].close()


class SimulatedNetwork:
    """Implements `Network`. `plan` decides what becomes of each connection.

    `trace` tells what happened, each entry beginning with the virtual time and what it is about. `struck` has the fault
    that befell each connection, by its number; the numbers in `narrow` take less than a usual message at a time.
    """

    def __init__(self, random: Random, plan: Callable[[Address, str], Link] = fair_weather) -> None:
        self._random, self._plan = random, plan
        self._names: dict[str, Sequence[Answer]] = {}
        self._acceptors: dict[Address, SimulatedAcceptor] = {}
        self._ends: dict[tuple[int, str], Address] = {}
        self._pipes: dict[int, tuple[Pipe, Pipe]] = {}
        self._connections = 0
        self._healed = False
        self._ports = FIRST_FREE_PORT
        self.narrow: set[int] = set()
        self.struck: dict[int, FaultKind] = {}
        self.trace: list[tuple[object, ...]] = []

    def __repr__(self) -> str:
        return f"<SimulatedNetwork: {len(self._acceptors)} listening, {len(self._ends)} ends open>"

    def note(self, *what: object) -> None:
        """Add to the trace."""
        self.trace.append((round(trio.current_time(), 6), *what))

    def name(self, host: str, *answers: Answer) -> None:
        """Let `host` be a name with these answers over time, earliest first."""
        self._names[host] = answers

    def caller_holds(self, number: int) -> bool:
        """Whether who opened the connection has not closed it yet."""
        return (number, "near") in self._ends

    def open_ends(self, host: str) -> list[str]:
        """The sockets that are open on `host`, oldest first."""
        return [f"#{number} {side} of {at}" for (number, side), at in self._ends.items() if at.host == host]

    def heal(self) -> None:
        """From now on nothing breaks; connections that had stalled are reset."""
        self._plan, self._healed = fair_weather, True
        for pipes in list(self._pipes.values()):
            for pipe in pipes:
                pipe.heal()

    async def resolve(self, host: str, port: int) -> list[Address]:
        """See `Network.resolve`."""
        await trio.sleep(self._random.choice((0, 0.001, 0.05)))
        if _is_address(host):
            return [Address(host, port)]
        found = [answer for answer in self._names.get(host, ()) if answer.since <= trio.current_time()]
        addresses = found[-1].addresses if found else ()
        self.note("resolve", host, *addresses)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [Address(address, port) for address in addresses]

    async def connect(self, address: Address, source: str = LOOPBACK) -> Wire:
        """See `Network.connect`. `source`: the host that connects."""
        self._connections += 1
        number = self._connections
        link = self._plan(address, source)
        self.note("connect", number, str(address), source, link.outcome)
        await trio.sleep(link.there.latency)
        if link.outcome == "black_hole":
            await trio.sleep(CONNECT_TIMEOUT)
            raise _error(errno.ETIMEDOUT)
        acceptor = self._acceptors.get(address)
        if link.outcome == "refused" or acceptor is None:
            await trio.sleep(link.back.latency)
            raise _error(errno.ECONNREFUSED)
        self._ports += 1
        near, far = self._pair(number, link, Address(source, self._ports), address)
        acceptor.push(far)
        try:
            await trio.sleep(link.back.latency)
        except trio.Cancelled:
            near.close()
            raise
        return near

    async def listen(self, host: str, port: int) -> list[Acceptor]:
        """See `Network.listen`. `host` is an address or a name that has one."""
        return [self._listen(address) for address in await self.resolve(host, port)]

    def _listen(self, address: Address) -> SimulatedAcceptor:
        if not address.port:
            self._ports += 1
            address = Address(address.host, self._ports)
        if address in self._acceptors:
            raise _error(errno.EADDRINUSE)
        acceptor = SimulatedAcceptor(address, partial(self._acceptors.pop, address, None))
        self._acceptors[address] = acceptor
        return acceptor

    def _pair(self, number: int, link: Link, source: Address, target: Address) -> Iterator[Wire]:
        """The two ends of a new connection: who connected, then who listens."""
        there = Pipe(link.there, self._random, partial(self._strike, number, "there"))
        back = Pipe(link.back, self._random, partial(self._strike, number, "back"))
        there.reverse, back.reverse = back, there
        self._pipes[number] = there, back
        if self._healed:  # it had its fate from before
            there.heal()
            back.heal()
        if min(link.there.window, link.back.window) < NARROW:
            self.narrow.add(number)
        ends = (("near", source, target, back, there), ("far", target, source, there, back))
        for side, own, peer, incoming, outgoing in ends:
            self._ends[number, side] = own
            end = SimulatedSocket(number, own, peer, incoming, outgoing, partial(self._close, number, side))
            yield Wire(end, peer, incoming.wait_readable, outgoing.wait_writable)

    def _strike(self, number: int, direction: str, kind: FaultKind, after: int) -> None:
        self.struck[number] = kind
        self.note("fault", kind, number, direction, after)

    def _close(self, number: int, side: str) -> None:
        self.note("close", number, side)
        del self._ends[number, side]
        if (number, "near") not in self._ends and (number, "far") not in self._ends:
            del self._pipes[number]


def connection_number(wire: Wire) -> int:
    """Which connection of its network a simulated wire belongs to: 1 for the first."""
    assert isinstance(wire.socket, SimulatedSocket)
    return wire.socket.number


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
