"""The laptop's end: it dials out to the gateway, offers its one server, and does so again whenever the link is lost."""

import ssl
from collections.abc import Callable
from typing import NoReturn, TypeVar

import msgspec
import trio
from quiver.schemas.errors import ErrorEnvelope
from quiver.schemas.join import Farewell, JoinState, JoinStatus, Offer, Tally, Welcome

from ..network import Wire
from ..remote.connections import Origin
from ..seams import World
from .frames import JOIN_PATH, Kind, ProtocolError
from .link import SILENCE, Link, LinkLost
from .local import BROKEN, LocalServer, connect, reason_of
from .multiplexer import Event, Multiplexer, Opened, Said
from .websocket import Refused, WebSocket, WebSocketBroken

# For a connection, the handshakes and the welcome.
CONNECT_TIME = 15.0
# Waits between attempts: the first, and the longest. Each doubles and is jittered, so that all joiners of a gateway that was
# restarted do not come at once.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
# A link that held for so long was no accident: the next attempt comes soon.
STEADY = 10.0
# Statuses that another attempt would get too. Others come from what is in between.
FINAL_STATUSES = (400, 401, 403, 404, 405, 426)

T = TypeVar("T")
encode = msgspec.json.encode


class JoinRefused(Exception):
    """The gateway does not take the offer, and would not the next time. `code` says why, for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class _Failed(Exception):
    """One attempt failed, or one link ended; why. `final`: it would again."""

    def __init__(self, message: str, code: str = "", *, final: bool = False) -> None:
        super().__init__(message)
        self.message, self.code, self.final = message, code, final


class Joiner:
    """Keeps one server joined. Run with `run`. `told` is called at every turn, with the joiner, and must not wait.

    `key` opens the gateway; `drain`: what open requests get when it leaves.
    """

    def __init__(
        self,
        gateway: str,
        offer: Offer,
        world: World,
        *,
        key: str | None = None,
        drain: float = 30.0,
        tls: ssl.SSLContext | None = None,
        told: Callable[["Joiner"], None] = lambda joiner: None,
    ) -> None:
        self.gateway = gateway_origin(gateway)
        self.offer, self.paused = offer, offer.paused
        self.told, self._drain, self._key, self._world = told, drain, key, world
        self._tls = (tls or ssl.create_default_context()) if self.gateway.scheme == "https" else None
        self._server = LocalServer(offer.url, world)
        self._leaving = trio.Event()
        self._link: Link | None = None
        self._streams: trio.Nursery | None = None
        self._farewell: Farewell | None = None
        self._tally: Tally | None = None
        self._links = 0
        self._since = world.wall_clock()
        self.state: JoinState = "connecting"
        self.reason: str | None = None
        self.retry_at: float | None = None

    def __repr__(self) -> str:
        return f"<Joiner of {self.offer.name}: {self.state}{', paused' if self.paused else ''}>"

    def status(self) -> JoinStatus:
        """How it stands. Call it inside `trio.run`."""
        link, gateway = self._link, self.gateway
        return JoinStatus(
            name=self.offer.name,
            gateway=f"{gateway.scheme}://{gateway.authority}",
            server=self.offer.url,
            state=self.state,
            paused=self.paused,
            since=round(self._since, 3),
            reason=self.reason,
            retry_at=self.retry_at,
            reconnects=max(self._links - 1, 0),
            round_trip=None if link is None else link.round_trip,
            streams=0 if link is None else link.statistics().streams,
            tally=self._tally,
        )

    def pause(self, paused: bool = True) -> None:
        """Ask for no new requests, or for requests again. Those under way go on."""
        if paused != self.paused:
            self.paused = paused
            if self._link is not None:
                self._link.say(Kind.PAUSE if paused else Kind.RESUME)
            self.told(self)

    def leave(self) -> None:
        """Leave for good once the requests under way are over, after `drain` at the latest."""
        self._leaving.set()

    async def run(self) -> None:
        """Stay joined until `leave`. Raises `JoinRefused`."""
        refusal: JoinRefused | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._see_off, nursery.cancel_scope)
            refusal = await self._stay()
            nursery.cancel_scope.cancel()
        self._turn("left", None)
        if refusal is not None:
            raise refusal

    async def _see_off(self, staying: trio.CancelScope) -> None:
        """Once told to leave: the gateway ends the link when the requests on it are over."""
        await self._leaving.wait()
        if self._link is not None:
            self._turn("leaving", None)
            self._link.say(Kind.GOODBYE, encode(Farewell("leaving", "its owner has taken it out")))
            await trio.sleep(self._drain)
        staying.cancel()

    async def _stay(self) -> JoinRefused | None:
        """Join again and again, until leaving or refused."""
        failures = 0
        while not self._leaving.is_set():
            self._turn("connecting", self.reason)
            began = trio.current_time()
            try:
                await self._join()
            except _Failed as failed:
                if self._leaving.is_set():
                    break
                if failed.final and (not self._links or failed.code == "dismissed"):
                    return JoinRefused(failed.code, failed.message)
                failures = 0 if trio.current_time() - began >= STEADY else failures + 1
                await self._wait(failed.message, failures)
        return None

    async def _wait(self, reason: str, failures: int) -> None:
        longest = min(FIRST_WAIT * 2.0**failures, LONGEST_WAIT)
        seconds = longest * self._world.random.uniform(0.5, 1)
        self.retry_at = self._world.wall_clock() + seconds
        self._turn("waiting", reason)
        await trio.sleep(seconds)
        self.retry_at = None

    async def _join(self) -> NoReturn:
        """One link, from the connection to its end. Raises `_Failed`."""
        wire: Wire | None = None
        try:
            try:
                with trio.fail_after(CONNECT_TIME):
                    stream, wire = await connect(self._world, self.gateway, self._tls)
                    socket = await self._handshake(stream)
                    multiplexer, welcome, early = await self._introduce(socket)
            except trio.TooSlowError:
                raise _Failed(f"no answer from the gateway within {CONNECT_TIME:g} s") from None
            except (WebSocketBroken, ProtocolError) as error:
                raise _Failed(f"what answers is no gateway that can be joined: {error}") from None
            except (OSError, ssl.SSLError, *BROKEN) as error:
                raise _Failed(f"the gateway cannot be reached: {reason_of(error)}") from None
            wire.write_timeout = SILENCE * welcome.heartbeat
            await self._serve(Link(socket, multiplexer, "gateway", self._hear), welcome, early)
        finally:
            if wire is not None:
                wire.close()

    async def _handshake(self, stream: trio.abc.Stream) -> WebSocket:
        headers = [(b"user-agent", self.offer.software.encode())]
        if self._key is not None:
            headers.append((b"authorization", b"Bearer " + self._key.encode()))
        target = self.gateway.base.removesuffix("/v1") + JOIN_PATH
        try:
            return await WebSocket.connect(stream, self.gateway.authority, target, headers)
        except Refused as refused:
            final = refused.status in FINAL_STATUSES
            code, message = _said(refused)
            raise _Failed(message, code, final=final) from None

    async def _introduce(self, socket: WebSocket) -> tuple[Multiplexer, Welcome, list[Event]]:
        """Make the offer; what the gateway says to it, and what came with that."""
        multiplexer = Multiplexer(opens=False)
        multiplexer.say(Kind.OFFER, encode(msgspec.structs.replace(self.offer, paused=self.paused)))
        await socket.send(multiplexer.outgoing())
        while data := await socket.receive():
            events = multiplexer.receive(data)
            if not events:
                continue
            match events[0]:
                case Said(Kind.WELCOME, payload):
                    return multiplexer, _decoded(payload, Welcome), events[1:]
                case Said(Kind.GOODBYE, payload):
                    farewell = _decoded(payload, Farewell)
                    raise _Failed(farewell.message, farewell.code, final=farewell.final)
                case Said(Kind.PONG, _):
                    continue
                case _:
                    raise ProtocolError("neither a welcome nor a farewell")
        raise _Failed("the gateway closed the connection instead of a welcome")

    async def _serve(self, link: Link, welcome: Welcome, early: list[Event]) -> NoReturn:
        """Carry streams until the link ends. Raises `_Failed`."""
        self._farewell = None
        reason = ""
        async with trio.open_nursery() as self._streams:
            self._link = link
            self._links += 1
            self._turn("joined", None)
            try:
                await link.run(welcome.heartbeat, early)
            except LinkLost as lost:
                reason = str(lost)
            finally:
                self._link = None
            self._streams.cancel_scope.cancel()
        farewell = self._farewell
        if farewell is not None:
            raise _Failed(farewell.message, farewell.code, final=farewell.final)
        raise _Failed(f"the link to the gateway is lost: {reason}")

    def _hear(self, event: Event) -> None:
        link = self._link
        assert link is not None
        assert self._streams is not None
        match event:
            case Opened(stream):
                self._streams.start_soon(self._server.serve, link, link.end_of(stream))
            case Said(Kind.TALLY, payload):
                self._tally = _decoded(payload, Tally)
                self.told(self)
            case Said(Kind.GOODBYE, payload):
                self._farewell = _decoded(payload, Farewell)
            case Said(kind, _):
                raise ProtocolError(f"a {kind.name} frame where none belongs")

    def _turn(self, state: JoinState, reason: str | None) -> None:
        if state != self.state:
            self._since = self._world.wall_clock()
        self.state, self.reason = state, reason
        self.told(self)


def gateway_origin(url: str) -> Origin:
    """Where a gateway listens, given its URL with or without `/v1`; `ws` and `wss` will do. Raises `ValueError`."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "http", url
    known = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
    if scheme.lower() not in known:
        raise ValueError(f"`{url}` is no address of a gateway")
    if "@" in rest or "?" in rest or "#" in rest:
        raise ValueError("a gateway's address has no user, query or fragment")
    return Origin.parse(f"{known[scheme.lower()]}://{rest}")


def _said(refused: Refused) -> tuple[str, str]:
    """The code and the words of a refusal: the gateway's own, or those of whatever stands before it."""
    try:
        error = msgspec.json.decode(refused.body, type=ErrorEnvelope).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", f"the gateway, or what stands before it, answered {refused.status} to a WebSocket"
    return error.code or "", error.message


def _decoded(payload: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"what cannot be read: {error}") from None
