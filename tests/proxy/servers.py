"""Model servers in memory that answer as a function says, for real `RemoteServer`s to talk to."""

import contextlib
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

import msgspec
import trio
from quiver.proxy.network import Acceptor, Address, Wire
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.testing import SimulatedNetwork, fixed_world
from quiver.schemas.config import Health, Limits, RemoteBackend


def response(status: bytes, body: bytes, *headers: bytes) -> bytes:
    """A whole JSON reply."""
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def events(*data: bytes) -> bytes:
    """A whole streamed reply, a chunk for each piece."""
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in data]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(chunks) + b"0\r\n\r\n"


class Asked(NamedTuple):
    """One request as a server got it."""

    path: bytes
    head: bytes
    body: bytes

    @property
    def model(self) -> object:
        return msgspec.json.decode(self.body)["model"]


class Said(NamedTuple):
    """What a server answers: pieces, each `after` so many seconds. `cut`: it closes the connection then."""

    data: bytes | Sequence[bytes]
    after: float = 0.0
    cut: bool = False


Answer = Callable[[Asked], Said]


class Server:
    """Answers every request as `answer` says, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []

    async def run(self, acceptor: Acceptor) -> None:
        async with trio.open_nursery() as nursery:
            with contextlib.suppress(trio.ClosedResourceError):
                while True:
                    for wire in await acceptor.accept():
                        nursery.start_soon(self._serve, wire)

    async def _serve(self, wire: Wire) -> None:
        async with wire:
            with contextlib.suppress(trio.BrokenResourceError):
                await self._answer(wire)

    async def _answer(self, wire: Wire) -> None:
        while (asked := await _request(wire)) is not None:
            self.asked.append(asked)
            said = self.answer(asked)
            for piece in [said.data] if isinstance(said.data, bytes) else said.data:
                await trio.sleep(said.after)
                await wire.send_all(piece)
            if said.cut:
                return


async def _request(wire: Wire) -> Asked | None:
    received = b""
    while b"\r\n\r\n" not in received:
        if not (data := await wire.receive_some()):
            return None
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while len(body) < sum(lengths):
        if not (data := await wire.receive_some()):
            return None
        body += data
    return Asked(head.split(b" ")[1], head, body)


class Farm:
    """Servers on one simulated network; they run in `nursery`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.network = SimulatedNetwork(Random(1))
        self._nursery = nursery
        self._servers = 0
        self._acceptors: list[Acceptor] = []

    async def add(
        self,
        answer: Answer,
        *,
        models: tuple[str, ...] = ("m",),
        max_concurrency: int | None = None,
        limits: Limits | None = None,
    ) -> tuple[RemoteServer, Server]:
        """A backend called `b1`, `b2` and so on, and the server behind it."""
        config, server = await self.configure(answer, models=models, max_concurrency=max_concurrency)
        return RemoteServer(config, limits or Limits(), Health(), fixed_world(), self._open_wire), server

    async def configure(
        self, answer: Answer, *, models: tuple[str, ...] = ("m",), max_concurrency: int | None = None
    ) -> tuple[RemoteBackend, Server]:
        """The same as an entry of the configuration."""
        self._servers += 1
        host, server = f"10.0.0.{self._servers}", Server(answer)
        (acceptor,) = await self.network.listen(host, 9000)
        self._acceptors.append(acceptor)
        self._nursery.start_soon(server.run, acceptor)
        name = f"b{self._servers}"
        return RemoteBackend(
            url=f"http://{host}:9000", name=name, models=models, max_concurrency=max_concurrency
        ), server

    async def close(self) -> None:
        """No server listens any more."""
        await trio.lowlevel.checkpoint()
        for acceptor in self._acceptors:
            acceptor.close()

    async def _open_wire(self, host: str, port: int) -> Wire:
        return await self.network.connect(Address(host, port))
