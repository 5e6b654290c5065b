"""A port with nothing but the metrics page, for a scraper that shall reach nothing else. One request a connection."""

import contextlib
from collections.abc import Sequence
from ipaddress import ip_address

import msgspec
import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.errors import ApiError

from ..access.keys import KeyRing
from ..native import HttpError, RequestHead, RequestParser, encode_response
from ..network import Acceptor, Wire
from ..request import usable_id
from ..seams import World
from .exposition import Page

PATH = "/metrics"
MAX_HEAD = 16 * 1024
# What a scraper gets to send its request in, and to take the page in. Prometheus' own limit is ten seconds.
PATIENCE = 10.0
# Scrapers there are few of; a flood of connections must not take the descriptors that clients need.
CONNECTIONS = 32


class MetricsPort:
    """Serves `page`. On an address that others can reach it takes a client's key, where there are keys."""

    def __init__(self, page: Page, keys: KeyRing, world: World) -> None:
        self._page, self._keys, self._world = page, keys, world
        self._free = trio.CapacityLimiter(CONNECTIONS)
        self._log = structlog.get_logger(component="metrics")

    def __repr__(self) -> str:
        return f"<MetricsPort: {self._free.borrowed_tokens} connections>"

    async def serve(self, acceptors: Sequence[Acceptor]) -> None:
        """Answer until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                for acceptor in acceptors:
                    nursery.start_soon(self._accept, acceptor, nursery)
        finally:
            for acceptor in acceptors:
                acceptor.close()

    async def _accept(self, acceptor: Acceptor, nursery: trio.Nursery) -> None:
        local = ip_address(acceptor.address.host.partition("%")[0]).is_loopback
        while True:
            for wire in await acceptor.accept():
                nursery.start_soon(self._answer, wire, local)

    async def _answer(self, wire: Wire, local: bool) -> None:
        wire.write_timeout = PATIENCE
        try:
            with trio.move_on_after(PATIENCE), contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async with self._free:
                    await wire.send_all(await self._reply(wire, local))
                    await wire.send_eof()
        except Exception:  # a fault of ours costs a scrape, not the gateway
            self._log.exception("a scrape broke")
        finally:
            wire.close()

    async def _reply(self, wire: Wire, local: bool) -> bytes:
        head: RequestHead | None = None
        try:
            head = await _head(wire)
            page, content_type = await self._told(head, wire.peer.host, local)
            status, headers = 200, [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
        except HttpError as error:
            status, headers, page = _refusal(ApiError(errors.MALFORMED_REQUEST, error.message))
        except ApiError as error:
            status, headers, page = _refusal(error)
        given = head.header(b"x-request-id") if head is not None else None
        headers.append((b"x-request-id", (usable_id(given) or self._world.request_id()).encode()))
        return encode_response(status, headers, page, close=True, head_only=head is not None and head.method == "HEAD")

    async def _told(self, head: RequestHead, peer: str, local: bool) -> tuple[bytes, str]:
        if head.path != PATH:
            raise ApiError(errors.NOT_FOUND, f"This port serves `{PATH}` only")
        if head.method not in ("GET", "HEAD"):
            raise ApiError(errors.METHOD_NOT_ALLOWED, f"`{PATH}` takes GET", extra=((b"allow", b"GET, HEAD"),))
        if not local:
            self._keys.authenticate(head.header, peer, trio.current_time())
        return await self._page.write((head.header(b"accept") or b"").decode("latin-1"))


async def _head(wire: Wire) -> RequestHead:
    """Raises `HttpError`, or `trio.BrokenResourceError` when the client leaves first."""
    parser = RequestParser(max_head=MAX_HEAD, max_body=0)
    while (head := parser.head()) is None:
        if not (data := await wire.receive_some()):
            raise trio.BrokenResourceError
        parser.receive(bytes(data))
    return head


def _refusal(error: ApiError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    headers = [(b"content-type", b"application/json"), *error.headers()]
    return error.kind.status, headers, msgspec.json.encode(error.envelope())
