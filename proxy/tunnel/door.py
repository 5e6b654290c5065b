"""The gateway's door for joiners: it takes their WebSockets off the connections that are not inference, and asks for a key.

In front of Hypercorn, so that a tunnel's writes have the wire's own deadlines, and all of it runs in a simulation.
"""

import contextlib
import hmac
import ipaddress

import msgspec
import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.config import Config
from quiver.schemas.errors import ApiError

from ..access.forwarding import Proxies, was_forwarded
from ..access.keys import HeaderLookup, KeyRing, presented_key
from ..native import HttpError, RequestHead, RequestParser, encode_response
from ..network import Wire
from ..reply import JSON_TYPE
from ..session import ControlPlane
from .frames import JOIN_PATH
from .joins import Joins
from .websocket import WebSocket, WebSocketBroken

_BEGINNING = b"GET /admin/join"
# Heartbeats in which a peer has to read something; the link's own heart stops sooner.
PATIENCE = 4


class JoinDoor:
    """Serves joiners; everybody else is handed on to `control`."""

    def __init__(
        self,
        joins: Joins,
        control: ControlPlane,
        keys: KeyRing,
        proxies: Proxies | None,
        *,
        on_loopback: bool,
    ) -> None:
        self._joins, self._control, self._keys = joins, control, keys
        self._proxies, self._on_loopback = proxies, on_loopback

    @property
    def _config(self) -> Config:
        """As it is now: a reload may change it."""
        return self._joins.host.config

    async def serve(self, wire: Wire, prefix: bytes) -> None:
        """See `ControlPlane.serve`."""
        head = self._upgrade(prefix)
        if head is None:
            await self._control.serve(wire, prefix)
            return
        peer = wire.peer.host if self._proxies is None else self._proxies.client(wire.peer.host, head.headers)
        try:
            admit_joiner(head.header, peer, self._config, self._keys, on_loopback=self._on_loopback)
            if self._joins.draining:
                raise ApiError(errors.SHUTTING_DOWN, "The gateway is shutting down", retry_after=5)
        except ApiError as error:
            log = structlog.get_logger(component="join")
            log.warning("joiner refused", peer=peer, code=error.kind.code, reason=error.message)
            await _refuse(wire, error)
            return
        wire.write_timeout = PATIENCE * self._config.join.heartbeat
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                socket = await WebSocket.accept(wire, prefix)
            except WebSocketBroken as error:
                await _refuse(wire, ApiError(errors.MALFORMED_REQUEST, f"Not a WebSocket handshake: {error}"))
                return
            await self._joins.serve(socket, str(wire.peer) if peer == wire.peer.host else peer)

    def _upgrade(self, prefix: bytes) -> RequestHead | None:
        """The head of a request for a WebSocket at our path; None for any other."""
        if not prefix.startswith(_BEGINNING):
            return None
        parser = RequestParser(max_head=self._config.server.max_head, max_body=0)
        try:
            parser.receive(prefix)
            head = parser.head()
        except HttpError:
            return None
        return head if head is not None and head.path == JOIN_PATH and head.upgrade else None


def admit_joiner(header: HeaderLookup, peer: str, config: Config, keys: KeyRing, *, on_loopback: bool) -> None:
    """Raise `ApiError` unless whoever sent this may join: 401 without a known key, 403 for strangers and for pages, 429 when
    too many wrong keys came from the address `peer`.
    """
    if not config.join.enabled:
        raise ApiError(errors.JOIN_FORBIDDEN, "This gateway lets no servers join; its operator can set `join.enabled`")
    if header(b"origin") is not None:
        raise ApiError(errors.JOIN_FORBIDDEN, "Web pages cannot join")
    known = [key.encode() for key in (config.join.key, config.auth.admin_key) if key is not None]
    if not known:
        if was_forwarded(header) or not (on_loopback and _is_loopback(peer)):
            message = "Without a key only the gateway's own machine may join, on a loopback address; set `join.key`"
            raise ApiError(errors.JOIN_FORBIDDEN, message)
        return
    now = trio.current_time()
    shown = list(dict.fromkeys(key for key in (header(b"x-api-key"), presented_key(header)) if key is not None))
    for key in shown:
        keys.refuse_guesses(peer, key, now)
    # Every pair is compared, so that the time tells nothing.
    if any([hmac.compare_digest(one, other) for one in shown for other in known]):
        return
    for key in shown:
        keys.recognise(key, peer, now)  # raises for a key that nobody knows
    if shown:
        raise ApiError(errors.JOIN_FORBIDDEN, "A client's key does not let a server join; it takes `join.key`")
    raise ApiError(errors.INVALID_API_KEY, "Joining takes the gateway's `join.key` or its admin key")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _refuse(wire: Wire, error: ApiError) -> None:
    body = msgspec.json.encode(error.envelope())
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await wire.send_all(encode_response(error.kind.status, [JSON_TYPE, *error.headers()], body, close=True))
        await wire.send_eof()
