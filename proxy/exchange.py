"""One request and its reply, from the parsed bytes to the record.

`ExchangeHandler.handle` is the only way in, for the native session and for the control plane's adapter alike. It never
raises for what went wrong with a request: that becomes a reply and a record. Only cancellation and `DownstreamGone` leave it.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ModelCard, ModelList

from .access.client import Client
from .access.cors import CrossOrigin
from .access.forwarding import Proxies
from .access.keys import KeyRing
from .access.limits import admit_request
from .content import Content
from .inference import Inference, unknown_model
from .registry import OUT_OF_SERVICE, Registry
from .reply import Downstream, DownstreamGone, Reply
from .request import REQUEST_ID, Request, usable_id
from .seams import World
from .telemetry.accounting import Ledger
from .telemetry.metrics import Metrics
from .telemetry.record import Outcome, Progress, Record
from .telemetry.tracing import Tracing
from .watch import TICK, Departure, Watch

# What is served by the exchange handler, whichever way the connection came.
INFERENCE_PREFIX = "/v1/"


class Peer(Downstream, Departure, Protocol):
    """The client's side of one exchange: the way to it, and whether it is still there."""


class ExchangeHandler:
    """Answers requests. `run` has to run beside it. `draining`: new requests are turned away. `keep_content`: everybody's
    prompts and answers go into the records, not only those of clients whose key asks for it. `cors` and `proxies`: when pages
    of other origins, or proxies, have a say.
    """

    def __init__(
        self,
        registry: Registry,
        inference: Inference,
        keys: KeyRing,
        ledger: Ledger,
        metrics: Metrics,
        world: World,
        *,
        cors: CrossOrigin | None = None,
        proxies: Proxies | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.registry, self.inference, self.keys = registry, inference, keys
        self.ledger, self.metrics, self.world = ledger, metrics, world
        self.cors, self.proxies = cors, proxies
        self._tracing = tracing or Tracing(world.random)
        self.draining = False
        self.keep_content = False
        self._running: dict[Watch, tuple[Reply, Progress]] = {}
        self._young: dict[Watch, tuple[Departure, Reply]] = {}
        self._born, self._idle = trio.Event(), trio.Event()
        self._log = structlog.get_logger(component="exchange")

    def __repr__(self) -> str:
        return f"<ExchangeHandler: {self.in_flight} in flight{', draining' if self.draining else ''}>"

    @property
    def in_flight(self) -> int:
        """Exchanges that are being worked on."""
        return len(self._running)

    def in_flight_by_model(self) -> dict[str, int]:
        """The same for each model, of requests that have got so far as to have one."""
        counted: dict[str, int] = {}
        for _, progress in self._running.values():
            if progress.model is not None:
                counted[progress.model] = counted.get(progress.model, 0) + 1
        return counted

    async def run(self) -> None:
        """Give every exchange that outlives a tick its guard, and answers that are shared a place to live in."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.inference.run)
            while True:
                if not self._young:
                    self._born = trio.Event()
                    await self._born.wait()
                await trio.sleep(TICK)
                self._guard_older_than(trio.current_time() - TICK, nursery)

    def _guard_older_than(self, born: float, nursery: trio.Nursery) -> None:
        """Exchanges stand in the order they were born."""
        for watch, (peer, reply) in list(self._young.items()):
            if watch.began > born:
                return
            del self._young[watch]
            watch.begin_guard(nursery, peer, reply)

    async def handle(self, request: Request, peer: Peer) -> None:
        """Answer one request. Raises `DownstreamGone` when there is nobody left to answer."""
        now = trio.current_time()
        if self.proxies is not None:
            request = msgspec.structs.replace(request, peer=self.proxies.client(request.peer, request.headers))
        progress = Progress(_ENDPOINTS.get(request.path) or _endpoint_label(request.path), now)
        progress.trace_id, progress.trace = self._tracing.begin(request)
        reply = Reply(peer, self._request_id(request))
        if self.cors is not None:
            reply.cors = self.cors.headers(request.header(b"origin"))
        if progress.trace is not None:
            reply.answer = progress.trace.answer
        watch = Watch(now, self.inference.limits.request)
        self._began(watch, peer, reply, progress)
        REQUEST_ID.set(reply.request_id)
        try:
            await self._answer(request, reply, progress, watch)
        except DownstreamGone:
            progress.outcome = "client_gone"
            raise
        finally:
            self._young.pop(watch, None)
            if watch.guarded:
                await watch.close()
            REQUEST_ID.set(None)
            self._ended(watch, progress, reply, request.peer)

    async def refuse(
        self,
        error: ApiError,
        downstream: Downstream,
        address: str,
        origin: bytes | None = None,
        given_id: bytes | None = None,
    ) -> None:
        """Answer a request that never became one: its bytes broke a rule. `origin`: of the page that sent it, if known;
        `given_id`: what its client called it.
        """
        watch = Watch(trio.current_time(), self.inference.limits.request)
        progress = Progress("none", watch.began)
        progress.error, progress.outcome = error.kind.code, "failed"
        reply = Reply(downstream, usable_id(given_id) or self.world.request_id())
        if self.cors is not None:
            reply.cors = self.cors.headers(origin)
        self._running[watch] = (reply, progress)
        try:
            await reply.fail(error)
        finally:
            self._ended(watch, progress, reply, address)

    async def wait_idle(self) -> None:
        """Return once no exchange is running."""
        while self._running:
            self._idle = trio.Event()
            await self._idle.wait()

    def request_ids(self) -> list[str]:
        """The ids of the requests that are being worked on."""
        return [reply.request_id for reply, _ in self._running.values()]

    def stop_all(self) -> None:
        """End every running exchange; each client is told that the gateway is shutting down."""
        for watch in list(self._running):
            watch.end(_shutting_down())

    async def _answer(self, request: Request, reply: Reply, progress: Progress, watch: Watch) -> None:
        error: ApiError
        try:
            await self._dispatch(request, reply, progress, watch)
            progress.outcome = "failed" if reply.refused else "completed"
            return
        except ApiError as caught:
            error = caught
        except (DownstreamGone, trio.Cancelled):
            raise
        except Exception:
            self._log.exception("internal error", request_id=reply.request_id)
            error = ApiError(errors.INTERNAL_ERROR, f"Internal error; the log has it under `{reply.request_id}`")
        progress.error, progress.outcome = error.kind.code, "failed"
        await reply.fail(error)

    def _dispatch(self, request: Request, reply: Reply, progress: Progress, watch: Watch) -> Awaitable[None]:
        """The answer to a request that may be answered. Raises `ApiError`."""
        path = request.path
        answer: Callable[[Client, Request, Reply, Progress, Watch], Awaitable[None]]
        if self.cors is not None and request.method == "OPTIONS":
            said = self.cors.preflight(request.header)
            if said is not None:
                progress.endpoint, reply.cors = "preflight", ()
                return reply.complete(200, b"", said)
        if path in _ENDPOINTS and path != "/v1/models":
            method, answer = "POST", self.inference.answer
        elif path == "/v1/models":
            method, answer = "GET", self._list_models
        elif path.startswith("/v1/models/"):
            method, answer = "GET", self._show_model
        elif self.registry.serves(path.removeprefix(INFERENCE_PREFIX)):
            method, answer = "POST", self.inference.answer
        else:
            raise ApiError(errors.NOT_FOUND, f"No such path: `{path[:200]}`; see `/docs`")
        if request.method != method:
            raise ApiError(errors.METHOD_NOT_ALLOWED, f"`{path}` takes {method}, not {request.method}")
        client = self.keys.authenticate(request.header, request.peer, watch.began)
        progress.client = client.name
        if self.draining:
            raise _shutting_down()
        admit_request(client, watch.began)
        if client.limited:
            reply.limits = client
        if (client.keep_content or self.keep_content) and method == "POST":
            reply.content = Content(request.body, own=client.keep_content)
        return answer(client, request, reply, progress, watch)

    async def _list_models(
        self, client: Client, request: Request, reply: Reply, progress: Progress, watch: Watch
    ) -> None:
        cards = [self._card(model, owner) for model, owner in self.registry.models().items() if client.allows(model)]
        await reply.complete(200, msgspec.json.encode(ModelList(cards)))

    async def _show_model(
        self, client: Client, request: Request, reply: Reply, progress: Progress, watch: Watch
    ) -> None:
        model = request.path.removeprefix("/v1/models/")
        owner = self.registry.models().get(model)
        if owner is None or not client.allows(model):
            raise unknown_model(model, self.registry, client)
        await reply.complete(200, msgspec.json.encode(self._card(model, owner)))

    def _card(self, model: str, owner: str) -> ModelCard:
        now, (target, *_) = trio.current_time(), self.registry.chain(model)
        available = sum(backend.serving and backend.tier(now) < OUT_OF_SERVICE for backend in target.backends)
        return ModelCard(id=model, created=0, owned_by=owner, available_servers=available)

    def _request_id(self, request: Request) -> str:
        return usable_id(request.header(b"x-request-id")) or self.world.request_id()

    def _began(self, watch: Watch, peer: Departure, reply: Reply, progress: Progress) -> None:
        self._running[watch] = (reply, progress)
        if not self._young:
            self._born.set()
        self._young[watch] = (peer, reply)
        self.metrics.in_flight += 1

    def _ended(self, watch: Watch, progress: Progress, reply: Reply, address: str) -> None:
        del self._running[watch]
        self.metrics.in_flight = len(self._running)
        if not self._running:
            self._idle.set()
        first = None if reply.committed_at is None else reply.committed_at - progress.began
        ended = trio.current_time()
        record = Record(
            request_id=reply.request_id,
            at=self.world.wall_clock(),
            client=progress.client or address,
            endpoint=progress.endpoint,
            model=progress.model,
            server_id=reply.server_id,
            stream=progress.stream,
            status=reply.status,
            outcome=_outcome(progress, reply),
            error=progress.error,
            source=progress.source,
            attempts=progress.attempts,
            queued=progress.queued,
            duration=ended - progress.began,
            first_byte=first,
            usage=reply.usage,
            estimated=reply.estimated,
            engine=reply.engine if progress.source == "server" else None,
            failures=progress.failures,
            trace_id=progress.trace_id,
            charged=progress.charged,
        )
        self.ledger.record(record, reply.content)
        if progress.trace is not None:
            self._tracing.end(progress.trace, record, ended)


def _shutting_down() -> ApiError:
    return ApiError(errors.SHUTTING_DOWN, "The gateway is shutting down", retry_after=5)


def _outcome(progress: Progress, reply: Reply) -> Outcome:
    """A client may close the moment it has the last byte: a reply that was finished is completed all the same."""
    if progress.error is None and reply.finished and not reply.gone and not reply.refused:
        return "completed"
    return "failed" if progress.error else progress.outcome


_ENDPOINTS = {f"/v1/{endpoint}": endpoint for endpoint in ("chat/completions", "completions", "embeddings", "models")}


def _endpoint_label(path: str) -> str:
    """A bounded label for metrics and records."""
    return "models" if path.startswith("/v1/models/") else "other"
