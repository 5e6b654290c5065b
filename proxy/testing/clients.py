"""Simulated clients: each has manners, good or bad, and remembers exactly what it saw.

They write HTTP/1.1 by hand, so that they can write it badly, and read it with h11.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from random import Random

import h11
import trio

from ..network import Address, Wire
from .network import SimulatedNetwork, connection_number
from .seen import Ask, Reader, Seen

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
MALFORMED = (
    b"GET / HTTP/1.1\r\nHost : gateway\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\nHost: gateway\n\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    b"POST /v1/chat/completions HTTP/3.0\r\nHost: gateway\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
)


class ClientLog:
    """What all clients together saw, in the order of their asking, and the rules the gateway broke towards them. `browsed`:
    connections that began with a page of the control plane; `refused`: nonsense, and what came back.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.refused: list[tuple[bytes, Seen]] = []
        self.browsed: set[int] = set()
        self.complaints: list[str] = []

    def __repr__(self) -> str:
        return f"<ClientLog: {len(self.seen)} requests, {len(self.complaints)} complaints>"


class Client:
    """One client: its address, its key, and what it does with the requests it is given.

    `patience` is the longest it waits for a reply, in seconds; a client that has to give up has met a fault, its
    network's or the gateway's.
    """

    def __init__(
        self,
        name: str,
        source: str,
        key: str | None,
        gateway: Address,
        network: SimulatedNetwork,
        random: Random,
        log: ClientLog,
        patience: float,
    ) -> None:
        self.name, self.owner, self._source, self._key = name, key or source, source, key
        self._gateway, self._network, self._random, self._log = gateway, network, random, log
        self._patience = patience

    def __repr__(self) -> str:
        return f"<Client {self.name} at {self._source}>"

    async def visit(self, manner: "Manner", asks: Sequence[Ask]) -> None:
        """Connect and behave; never raises for what the network or the gateway does."""
        try:
            with trio.fail_after(self._patience):
                wire = await self._network.connect(self._gateway, self._source)
        except (OSError, trio.TooSlowError):
            return
        try:
            await manner(self, wire, asks)
        except BROKEN:
            pass
        except h11.RemoteProtocolError as error:
            if connection_number(wire) not in self._network.struck:
                self._log.complaints.append(f"{self.name} was sent bad HTTP: {error}")
        finally:
            wire.close()

    # Manners.

    async def polite(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """One request after another on one connection, each read to its end."""
        reader = Reader(wire)
        for ask in asks:
            seen = self._begin(wire, ask)
            if not await self._send(wire, seen) or not await self._read(reader, seen):
                return
            await trio.sleep(self._random.choice((0, 0, 0.1, 3)))

    async def pipelining(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """All requests at once, then all replies."""
        reader = Reader(wire)
        waiting = [self._begin(wire, ask) for ask in asks]
        began = trio.current_time()
        await wire.send_all(b"".join(b"".join(seen.ask.head_and_body()) for seen in waiting))
        for seen in waiting:
            seen.attentive = trio.current_time() == began  # who is busy writing does not read
        for seen in waiting:
            seen.asked = trio.current_time()
            if not await self._read(reader, seen):
                break
        for seen in waiting:
            seen.end("closed")

    async def leaving_early(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """Hang up inside the request."""
        seen = self._begin(wire, asks[0])
        message = b"".join(asks[0].head_and_body())
        await wire.send_all(message[: self._random.randrange(len(message))])
        await trio.sleep(self._random.choice((0, 0.01, 2)))
        self._leave(wire, seen)

    async def leaving_while_waiting(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """Ask, and hang up after a while, whatever has come."""
        seen = self._begin(wire, asks[0])
        if await self._send(wire, seen):
            await trio.sleep(self._random.choice((0, 0.001, 0.05, 0.5, 3)))
            self._leave(wire, seen)

    async def leaving_in_stream(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """Read some tokens, then hang up."""
        seen = self._begin(wire, asks[0])
        if await self._send(wire, seen):
            await self._read(Reader(wire), seen, tokens=self._random.randint(1, 3))
            self._leave(wire, seen)

    async def stalling(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """Read some, rest, read on."""
        reader, seen = Reader(wire), self._begin(wire, asks[0])
        if await self._send(wire, seen):
            seen.attentive = False
            await trio.sleep(self._random.choice((0.5, 2, 8)))
            await self._read(reader, seen)

    async def never_reading(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """Ask for everything and read nothing."""
        for ask in asks:
            seen = self._begin(wire, ask)
            seen.attentive = False
            await self._send(wire, seen)
        await trio.sleep(self._random.choice((1, 20)))
        for seen in self._log.seen:
            if seen.connection == connection_number(wire):
                seen.end("left")

    async def dripping(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """Send the request in small pieces, perhaps more slowly than anyone would wait for."""
        reader, seen = Reader(wire), self._begin(wire, asks[0])
        message = b"".join(asks[0].head_and_body())
        pause, size = self._random.choice(((0.001, 17), (0.02, 31), (0.5, 40)))
        try:
            for place in range(0, len(message), size):
                await wire.send_all(message[place : place + size])
                await trio.sleep(pause)
        except BROKEN:
            seen.attentive = False
        seen.asked = trio.current_time()
        await self._read(reader, seen)

    async def browsing(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """Look at a page of the control plane first, then chat on the same connection."""
        page = Seen(asks[0], self.name, self.owner, connection_number(wire))
        self._log.browsed.add(page.connection)
        await wire.send_all(b"GET /health HTTP/1.1\r\nHost: gateway\r\n\r\n")
        if await self._read(Reader(wire), page):
            manner = self._random.choice((Client.polite, Client.leaving_while_waiting, Client.leaving_in_stream))
            await manner(self, wire, asks)

    async def misbehaving(self, wire: Wire, asks: Sequence[Ask]) -> None:
        """Send what is not HTTP and wait for the refusal, which must come before the end."""
        message = self._random.choice(MALFORMED)
        seen = Seen(asks[0], self.name, self.owner, connection_number(wire))
        await wire.send_all(message)
        await self._read(Reader(wire), seen)
        self._log.refused.append((message, seen))

    # What manners are made of.

    def _begin(self, wire: Wire, ask: Ask) -> Seen:
        seen = Seen(ask, self.name, self.owner, connection_number(wire))
        self._log.seen.append(seen)
        return seen

    async def _send(self, wire: Wire, seen: Seen) -> bool:
        try:
            for part in seen.ask.head_and_body():
                await wire.send_all(part)
        except BROKEN:
            seen.end("closed")
            return False
        seen.asked = trio.current_time()
        return True

    async def _read(self, reader: Reader, seen: Seen, tokens: float = inf) -> bool:
        """Whether the connection may carry another request."""
        try:
            with trio.move_on_after(self._patience) as patience:
                return await reader.read(seen, tokens)
        except BROKEN:
            pass
        except h11.RemoteProtocolError:
            if not reader.ended:
                raise
        finally:
            if len(seen.tokens) < tokens:
                seen.end("patience" if patience.cancelled_caught else "cut" if seen.status else "closed")
            self._network.note("seen", seen.ask.marker, seen.status, len(seen.tokens), seen.error, seen.ending)
        return False

    def _leave(self, wire: Wire, seen: Seen) -> None:
        wire.close()
        seen.end("left")
        self._network.note("left", seen.ask.marker)


Manner = Callable[[Client, Wire, Sequence[Ask]], Awaitable[None]]
MANNERS: tuple[Manner, ...] = (
    Client.polite,
    Client.pipelining,
    Client.leaving_early,
    Client.leaving_while_waiting,
    Client.leaving_in_stream,
    Client.stalling,
    Client.never_reading,
    Client.dripping,
    Client.browsing,
    Client.misbehaving,
)
