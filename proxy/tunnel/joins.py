"""The servers that are joined: who may take which name, what becomes of them when a link dies and when it comes back.

A server whose link is down stays registered for a while, out of service, so that it comes back as what it was.
"""

import hmac
from typing import Protocol

import msgspec
import quiver
import structlog
import trio
from quiver.schemas.config import Config
from quiver.schemas.join import PROTOCOL, Farewell, FarewellCode, Offer, Welcome
from quiver.schemas.saved import Mode

from ..access.buckets import per_minute
from ..registry import Registry
from ..remote.backend import RemoteServer
from ..remote.standings import Standings
from ..seams import World
from ..store.store import Store
from ..telemetry.journal import Journal
from .frames import Kind, ProtocolError
from .joined import JoinedServer
from .link import Link, LinkLost
from .multiplexer import Event, Multiplexer, Said
from .websocket import WebSocket

# What a joiner gets to say what it offers.
OFFER_TIME = 10.0
# How often an owner is told what its server has served, at most.
TALLY_INTERVAL = 1.0
# How often it is looked whether a server that leaves has finished.
IDLE_INTERVAL = 0.1
MAX_REMEMBERED = 1000
# How often an owner may pause and resume; every time is noted and kept.
TURNS_A_MINUTE = 60

encode = msgspec.json.encode
_decode_offer = msgspec.json.Decoder(Offer).decode
_decode_farewell = msgspec.json.Decoder(Farewell).decode


class _Version(msgspec.Struct):
    protocol: int


class Host(Protocol):
    """The gateway, as far as joins change it."""

    config: Config
    world: World
    journal: Journal
    registry: Registry
    store: Store
    standings: Standings

    def adopt(self, server: RemoteServer) -> None: ...

    def deregister(self, id: str) -> bool: ...


class Joins:
    """The joined servers of one gateway. `run` has to run beside it. `draining`: nobody may join any more."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.draining = False
        # What an operator has paused stays so when it comes again.
        self._modes: dict[str, Mode] = {}
        self._nursery: trio.Nursery | None = None
        self._log = structlog.get_logger(component="join")

    def __repr__(self) -> str:
        return f"<Joins: {', '.join(server.id for server in self.servers()) or 'none'}>"

    def servers(self) -> list[JoinedServer]:
        """Those whose link is up, and those that may come back."""
        return [backend for backend in self.host.registry if isinstance(backend, JoinedServer)]

    async def run(self) -> None:
        """Let servers leave whose links do not come back, until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def serve(self, socket: WebSocket, peer: str) -> None:
        """Serve one link until it ends."""
        await _Visit(self, socket, peer).serve()

    def close(self) -> None:
        """Tell every joiner that the gateway shuts down, and end the links."""
        self.draining = True
        for server in self.servers():
            if server.lost_at is None:
                _say_farewell(server.link, Farewell("shutting_down", "the gateway shuts down"))

    def objection(self, offer: Offer) -> Farewell | None:
        """Why the offer cannot be taken; None if it can."""
        name, before = offer.name, self.host.registry.get(offer.name)
        if self.draining:
            return Farewell("shutting_down", "the gateway shuts down")
        if isinstance(before, JoinedServer):
            mine = hmac.compare_digest(before.offer.resume.encode(), offer.resume.encode())
            if before.lost_at is None and not mine:
                return Farewell("name_taken", f"`{name}` is joined already, from {before.peer}")
        elif before is not None:
            return Farewell("name_taken", f"the gateway has a server `{name}` of its own", final=True)
        elif len(self.servers()) >= self.host.config.join.max_joined:
            return Farewell("too_many", f"no more than {self.host.config.join.max_joined} may be joined at a time")
        return None

    def take(self, server: JoinedServer) -> bool:
        """Put `server` into service, in the place of its earlier link if there is one; whether there was."""
        before = self.host.registry.get(server.id)
        if isinstance(before, JoinedServer):
            before.link.cut("its joiner has opened another")
        else:
            server.mode = self._mode(server.id)
        self.host.standings.follow(server)
        self.host.adopt(server)
        resumed = isinstance(before, JoinedServer)
        self.host.journal.note(
            "server.link_back" if resumed else "server.joined",
            server.id,
            actor=server.peer,
            url=server.config.url,
            software=server.offer.software,
            models=list(server.models),
        )
        return resumed

    def changed(self, server: JoinedServer, *, paused: bool) -> None:
        """Its owner has paused or resumed it."""
        if server.paused != paused:
            server.paused = paused
            self.host.journal.note(
                "server.paused" if paused else "server.resumed", server.id, actor=f"owner at {server.peer}"
            )
            self.host.registry.refresh()

    def lost(self, server: JoinedServer, reason: str) -> None:
        """A link has ended."""
        if server.departure is not None:
            self._remove(server, server.departure.message)
        elif self.host.registry.get(server.id) is server:
            server.lose(reason, _time_of_day(self.host.world.wall_clock()))
            self.host.journal.note("server.link_lost", server.id, reason=reason)
            self.host.registry.refresh()
            if self._nursery is not None and not self.draining:
                self._nursery.start_soon(self._wait_return, server)

    def _mode(self, id: str) -> Mode:
        """What an operator made of the server before it left, or before the gateway was started again."""
        if id in self._modes:
            return self._modes[id]
        saved = self.host.store.saved.states.get(id)
        return "serving" if saved is None or saved.mode == "serving" else "paused"

    async def _wait_return(self, server: JoinedServer) -> None:
        grace = self.host.config.join.grace
        await trio.sleep(grace)
        self._remove(server, f"its link did not come back within {grace:g} s")

    def _remove(self, server: JoinedServer, reason: str) -> None:
        if self.host.registry.get(server.id) is server:
            self._modes.pop(server.id, None)
            if server.mode != "serving" and len(self._modes) < MAX_REMEMBERED:
                self._modes[server.id] = "paused"
            self.host.deregister(server.id)
            self.host.journal.note("server.left", server.id, reason=reason)


class _Visit:
    """One link from its first frame to its end."""

    def __init__(self, joins: Joins, socket: WebSocket, peer: str) -> None:
        self._joins, self._peer = joins, peer
        self._multiplexer = Multiplexer(opens=True)
        self._link = Link(socket, self._multiplexer, peer, self._hear)
        self._server: JoinedServer | None = None
        self._offered = trio.Event()
        self._turns = per_minute(TURNS_A_MINUTE, trio.current_time())

    async def serve(self) -> None:
        reason = "the gateway shuts down"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wait_for_offer)
                try:
                    await self._link.run(self._joins.host.config.join.heartbeat)
                except LinkLost as lost:
                    reason = str(lost)
                nursery.cancel_scope.cancel()
        finally:
            if self._server is not None:
                self._joins.lost(self._server, reason)

    async def _wait_for_offer(self) -> None:
        with trio.move_on_after(OFFER_TIME):
            await self._offered.wait()
        if self._server is None:
            if not self._offered.is_set():
                self._refuse("bad_offer", f"no offer within {OFFER_TIME:g} s")
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_tally, self._server)
            nursery.start_soon(self._see_off, self._server)

    async def _tell_tally(self, server: JoinedServer) -> None:
        told = None
        while True:
            tally = server.tally()
            if tally != told:
                self._link.say(Kind.TALLY, encode(tally))
                told = tally
            await trio.sleep(TALLY_INTERVAL)

    async def _see_off(self, server: JoinedServer) -> None:
        """End the link of a server that leaves, once its calls are over."""
        await server.departs.wait()
        self._joins.host.registry.refresh()
        while server.load.in_flight:  # noqa: ASYNC110 - a load has no event
            await trio.sleep(IDLE_INTERVAL)
        assert server.departure is not None
        _say_farewell(self._link, server.departure)

    def _hear(self, event: Event) -> None:
        if not isinstance(event, Said):
            raise ProtocolError("a joiner cannot open streams")
        server = self._server
        match event.kind:
            case Kind.OFFER if not self._offered.is_set():
                self._offered.set()
                self._consider(event.payload)
            case Kind.PAUSE | Kind.RESUME if server is not None:
                if not self._turns.take(1, trio.current_time()):
                    raise ProtocolError("it pauses and resumes without end")
                self._joins.changed(server, paused=event.kind is Kind.PAUSE)
            case Kind.GOODBYE if server is not None:
                server.depart(_farewell(event.payload))
            case Kind.GOODBYE:
                self._link.close()
            case _:
                raise ProtocolError(f"a {event.kind.name} frame where none belongs")

    def _consider(self, payload: bytes) -> None:
        try:
            if msgspec.json.decode(payload, type=_Version).protocol != PROTOCOL:
                message = f"the gateway speaks version {PROTOCOL} of the tunnel; use the same Quiver at both ends"
                self._refuse("unknown_version", message, final=True)
                return
            offer = _decode_offer(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._refuse("bad_offer", f"the offer cannot be read: {error}", final=True)
            return
        objection = self._joins.objection(offer)
        if objection is not None:
            self._refuse(objection.code, objection.message, final=objection.final)
            return
        config, world = self._joins.host.config, self._joins.host.world
        try:
            server = JoinedServer(offer, self._link, self._peer, config.limits, config.health, world)
        except ValueError as error:
            self._refuse("bad_offer", f"`{offer.url}`: {error}", final=True)
            return
        self._server = server
        self._multiplexer.establish()
        resumed = self._joins.take(server)
        welcome = Welcome(
            protocol=PROTOCOL, software=quiver.__version__, heartbeat=config.join.heartbeat, resumed=resumed
        )
        self._link.say(Kind.WELCOME, encode(welcome))

    def _refuse(self, code: FarewellCode | str, message: str, *, final: bool = False) -> None:
        structlog.get_logger(component="join").warning("join refused", peer=self._peer, code=code, reason=message)
        _say_farewell(self._link, Farewell(code, message, final))


def _time_of_day(at: float) -> str:
    minutes, second = divmod(int(at) % 86_400, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02} UTC"


def _say_farewell(link: Link, farewell: Farewell) -> None:
    link.say(Kind.GOODBYE, encode(farewell))
    link.close()


def _farewell(payload: bytes) -> Farewell:
    """What a joiner says when it leaves. Raises `ProtocolError`."""
    try:
        return _decode_farewell(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"a GOODBYE frame that cannot be read: {error}") from None
