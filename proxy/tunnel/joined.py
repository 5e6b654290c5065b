"""A server that joined through a tunnel, as a backend: a remote server whose wires are streams of its link."""

from typing import Literal

import msgspec
import trio
from quiver.schemas.config import Health as HealthConfig
from quiver.schemas.config import Limits, RemoteBackend
from quiver.schemas.errors import ApiError
from quiver.schemas.join import Farewell, Offer, Tally
from quiver.schemas.servers import Entry

from ..network import Unreachable, Wire
from ..registry import OUT_OF_SERVICE, Call
from ..remote.backend import RemoteServer
from ..remote.connections import Origin
from ..reply import Reply
from ..seams import World
from ..watch import Watch
from .link import Link

Standing = Literal["up", "down", "leaving"]


class JoinedServer(RemoteServer):
    """One join. `link` is its tunnel, dead or alive; `lost_at` when it died (Trio's clock), None while it lives. While it is
    `paused` by its owner, or on its way out with a word of `departure`, it gets no new calls. A link that comes back makes a
    new one of these, which succeeds this.
    """

    def __init__(self, offer: Offer, link: Link, peer: str, limits: Limits, health: HealthConfig, world: World) -> None:
        now = world.wall_clock()
        entry = Entry(origin="joined", metadata=offer.metadata, created=now, changed=now)
        super().__init__(_as_backend(offer), limits, health, world, self._open_stream, entry)
        self.offer, self.link, self.peer = offer, link, peer
        self.joined_at = self.linked_at = trio.current_time()
        self.lost_at: float | None = None
        self.reconnects = 0
        self.paused = offer.paused
        self.departure: Farewell | None = None
        self.departs = trio.Event()
        self.served = self.failed = self.tokens = 0

    def __repr__(self) -> str:
        return f"<JoinedServer {self.id}: {self.standing}{', paused' if self.paused else ''}, {self.circuit.state}>"

    @property
    def standing(self) -> Standing:
        if self.departure is not None:
            return "leaving"
        return "up" if self.lost_at is None else "down"

    @property
    def available(self) -> bool:
        """Whether it may have new calls, as far as its owner and its link are concerned."""
        return self.lost_at is None and not self.paused and self.departure is None

    @property
    def serving(self) -> bool:
        """Whether both its owner and the gateway's operator let it have new calls."""
        return super().serving and not self.paused and self.departure is None

    @property
    def origin(self) -> Origin:
        """Its own: that of another machine's server may be written the same way."""
        return Origin("joined", self.id, 0, super().origin.base)

    def ready(self, call: Call, now: float) -> bool:
        return self.available and super().ready(call, now)

    def tier(self, now: float) -> int:
        return super().tier(now) if self.available else OUT_OF_SERVICE

    def lose(self, reason: str, at: str) -> None:
        """Its link is gone: `at`, by the clock on the wall."""
        self.lost_at = trio.current_time()
        self.circuit.cut_off(f"its link is down since {at}: {reason}", self.lost_at)
        self._upstream.close()

    def depart(self, farewell: Farewell) -> None:
        """Let it go once its calls are over: it gets no new ones."""
        if self.departure is None:
            self.departure = farewell
            self.departs.set()

    def close(self) -> None:
        """See `RemoteServer.close`. Its joiner is told, and the link ends with its calls."""
        super().close()
        self.depart(Farewell("dismissed", "the gateway's operator has taken the server out", final=True))

    def succeed(self, before: RemoteServer) -> None:
        """Take the place of `before`; of an earlier link of the same join with all that is known of it."""
        super().succeed(before)
        if isinstance(before, JoinedServer):
            self._found_models = before._found_models
            if self.config == before.config and self.entry.metadata == before.entry.metadata:
                self.entry = before.entry
            else:
                changes = before.entry.version + 1
                self.entry = msgspec.structs.replace(self.entry, created=before.entry.created, version=changes)
            self.joined_at, self.reconnects = before.joined_at, before.reconnects + 1
            self.served, self.failed, self.tokens = before.served, before.failed, before.tokens

    def tally(self) -> Tally:
        """What its owner is told."""
        return Tally(self.served, self.failed, self.load.in_flight, self.tokens, self.mode)

    async def forward(self, call: Call, reply: Reply, watch: Watch) -> None:
        """See `Backend.forward`."""
        try:
            await super().forward(call, reply, watch)
        except ApiError:
            self.failed += 1
            raise
        self.served += 1
        if reply.usage is not None:
            self.tokens += reply.usage.total_tokens

    async def _open_stream(self, host: str, port: int) -> Wire:
        """The address is the joiner's affair: it connects to its one server."""
        if self.lost_at is not None:
            raise Unreachable(self.circuit.reason or "its link is down")
        return await self.link.open()


def _as_backend(offer: Offer) -> RemoteBackend:
    # The tunnel's inside is plain HTTP: if its server wants TLS, the joiner speaks it.
    scheme, _, rest = offer.url.partition("://")
    host, slash, path = rest.partition("/")
    if scheme == "https" and not host.rpartition(":")[2].isdigit():
        host += ":443"
    return RemoteBackend(
        url=f"http://{host}{slash}{path}",
        name=offer.name,
        models=offer.models,
        api_key=offer.api_key,
        weight=offer.weight,
        max_concurrency=offer.max_concurrency,
        capabilities=offer.capabilities,
    )
