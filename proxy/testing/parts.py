"""Parts for testing a gateway without models or sockets: a scripted backend and a downstream that remembers.

Hand-written stand-ins with the real interfaces; nothing is patched.
"""

from collections.abc import Awaitable, Callable, Sequence
from random import Random

import trio

from ..registry import BackendStatus, Call, Health
from ..reply import DownstreamGone, Headers, Reply
from ..request import Request
from ..routing.load import Load
from ..seams import World
from ..watch import Watch

Script = Callable[[Call, Reply], Awaitable[None]]


class ScriptedBackend:
    """A backend that does what its script says with each call, and remembers the calls."""

    def __init__(self, id: str, models: Sequence[str], script: Script) -> None:
        self.id, self.models, self._script = id, tuple(models), script
        self.load = Load()
        self.endpoints: tuple[str, ...] = ("chat/completions", "completions", "embeddings")
        self.health: Health = "healthy"
        self.serving = True
        self.calls: list[Call] = []

    def __repr__(self) -> str:
        return f"<ScriptedBackend {self.id}: {len(self.calls)} calls>"

    def status(self) -> BackendStatus:
        return BackendStatus(self.id, "remote", "scripted", self.models, self.health, None, 0)

    def takes(self, call: Call) -> bool:
        return call.endpoint in self.endpoints

    def fits(self, call: Call) -> bool:
        return True

    def ready(self, call: Call, now: float) -> bool:
        return self.serving and self.health == "healthy" and not self.load.full and self.takes(call)

    def tier(self, now: float) -> int:
        return {"healthy": 0, "unknown": 1, "unhealthy": 3}[self.health]

    def paused_until(self, model: str) -> float:
        return 0.0

    async def forward(self, call: Call, reply: Reply, watch: Watch) -> None:
        self.calls.append(call)
        with watch:
            await self._script(call, reply)


class RecordingDownstream:
    """A client that takes everything, until `leaves_after` writes have been made."""

    def __init__(self, leaves_after: int | None = None) -> None:
        self._leaves_after = leaves_after
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.writes: list[bytes] = []
        self.ended = False
        self.left = trio.Event()

    async def wait_departure(self) -> None:
        await self.left.wait()

    async def send_response(self, status: int, headers: Headers, body: bytes | None) -> None:
        self._write(body or b"")
        self.status, self.headers = status, dict(headers)
        self.ended = body is not None

    async def send_data(self, data: bytes) -> None:
        self._write(data)

    async def send_end(self, last: bytes) -> None:
        self._write(last)
        self.ended = True

    def _write(self, data: bytes) -> None:
        if self._leaves_after is not None and len(self.writes) >= self._leaves_after:
            raise DownstreamGone
        self.writes.append(data)
        self.body += data


def request(method: str, path: str, body: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = ()) -> Request:
    """A parsed request."""
    return Request(method, path, headers, body, dict(headers).get)


def fixed_world(seed: int = 0) -> World:
    """A world whose clock stands still and whose randomness repeats."""
    return World(wall_clock=lambda: 1_700_000_000.0, random=Random(seed))  # noqa: S311 - repeatability is the point
