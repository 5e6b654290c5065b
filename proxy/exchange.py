"""One request and its reply, from the parsed bytes to the record.

`ExchangeHandler.handle` is the only way in, for the native session and for the control plane's adapter alike. It never
raises for what went wrong with a request: that becomes a reply and a record. Only cancellation and `DownstreamGone` leave it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.config import Limits
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ModelCard, ModelList

from .accounting import Ledger
from .auth import KeyRing
from .inference import Inference, unknown_model
from .metrics import Metrics
from .record import Outcome, Progress, Record
from .registry import Registry
from .reply import Downstream, DownstreamGone, Reply
from .request import Request
from .seams import World

# What is served by the exchange handler, whichever way the connection came.
INFERENCE_PREFIX = "/v1/"
# A client may name its request; anything longer or unprintable is replaced.
MAX_REQUEST_ID = 128


@dataclass
class ExchangeHandler:
    """Everything an exchange needs, and the draining flag that turns new ones away."""

    registry: Registry
    keys: KeyRing
    limits: Limits
    ledger: Ledger
    metrics: Metrics
    world: World
    draining: bool = False
    in_flight: int = 0
    _running: set[trio.CancelScope] = field(default_factory=set)
    _idle: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._inference = Inference(self.registry, self.limits)
        self._log = structlog.get_logger(component="exchange")

    def __repr__(self) -> str:
        return f"<ExchangeHandler: {self.in_flight} in flight{', draining' if self.draining else ''}>"

    async def handle(self, request: Request, downstream: Downstream) -> None:
        """Answer one request. Raises `DownstreamGone` when there is nobody left to answer."""
        request_id = self._request_id(request)
        progress = Progress(request_id, _endpoint_label(request.path), trio.current_time())
        reply = Reply(downstream, request_id)
        self._began()
        try:
            await self._answer(request, reply, progress)
        except DownstreamGone:
            progress.outcome = "client_gone"
            raise
        finally:
            self._ended(progress, reply)

    async def wait_idle(self) -> None:
        """Return once no exchange is running."""
        while self.in_flight:
            self._idle = trio.Event()
            await self._idle.wait()

    def stop_all(self) -> None:
        """End every running exchange; each client is told that the gateway is shutting down."""
        for scope in list(self._running):
            scope.cancel()

    async def refuse(self, error: ApiError, downstream: Downstream) -> None:
        """Answer a request that never became one: its bytes broke a rule."""
        reply = Reply(downstream, self.world.request_id())
        progress = Progress(reply.request_id, "malformed", trio.current_time(), error=error.kind.code, outcome="failed")
        self._began()
        try:
            await reply.fail(error)
        finally:
            self._ended(progress, reply)

    async def _answer(self, request: Request, reply: Reply, progress: Progress) -> None:
        error: ApiError
        stop = trio.CancelScope()
        self._running.add(stop)
        try:
            with stop, trio.fail_after(self.limits.request):
                await self._dispatch(request, reply, progress)
                progress.outcome = "completed" if reply.status < 400 else "failed"
                return
            error = ApiError(errors.SHUTTING_DOWN, "The gateway is shutting down", retry_after=5)
        except ApiError as caught:
            error = caught
        except trio.TooSlowError:
            error = ApiError(errors.DEADLINE_EXCEEDED, f"The request took longer than {self.limits.request:g} s")
        except (DownstreamGone, trio.Cancelled):
            raise
        except Exception:
            self._log.exception("internal error", request_id=reply.request_id)
            error = ApiError(errors.INTERNAL_ERROR, f"Internal error; the log has it under `{reply.request_id}`")
        finally:
            self._running.discard(stop)
        progress.error, progress.outcome = error.kind.code, "failed"
        await reply.fail(error)

    async def _dispatch(self, request: Request, reply: Reply, progress: Progress) -> None:
        method, run = self._route(request, reply, progress)
        if request.method != method:
            raise ApiError(errors.METHOD_NOT_ALLOWED, f"`{request.path}` takes {method}, not {request.method}")
        scope = self.keys.authenticate(request.header)
        if self.draining:
            raise ApiError(errors.SHUTTING_DOWN, "The gateway is shutting down", retry_after=5)
        await run(scope)

    def _route(
        self, request: Request, reply: Reply, progress: Progress
    ) -> tuple[str, Callable[[str], Awaitable[None]]]:
        """The method a path takes, and what answers it for the owner of a scope."""
        path = request.path
        if path == "/v1/chat/completions":
            return "POST", lambda scope: self._inference.answer("chat/completions", scope, request, reply, progress)
        if path == "/v1/completions":
            return "POST", lambda scope: self._inference.answer("completions", scope, request, reply, progress)
        if path == "/v1/models":
            return "GET", lambda _: self._list_models(reply)
        if path.startswith("/v1/models/"):
            return "GET", lambda _: self._show_model(path.removeprefix("/v1/models/"), reply)
        raise ApiError(errors.NOT_FOUND, f"No such path: `{path[:200]}`; see `/docs`")

    async def _list_models(self, reply: Reply) -> None:
        cards = [_card(model, owner) for model, owner in self.registry.models().items()]
        await reply.complete(200, msgspec.json.encode(ModelList(cards)))

    async def _show_model(self, model: str, reply: Reply) -> None:
        owner = self.registry.models().get(model)
        if owner is None:
            raise unknown_model(model, self.registry)
        await reply.complete(200, msgspec.json.encode(_card(model, owner)))

    def _request_id(self, request: Request) -> str:
        given = request.header(b"x-request-id")
        if given is not None and len(given) <= MAX_REQUEST_ID and all(0x21 <= byte <= 0x7E for byte in given):
            return given.decode("ascii")
        return self.world.request_id()

    def _began(self) -> None:
        self.in_flight += 1
        self.metrics.in_flight.inc()

    def _ended(self, progress: Progress, reply: Reply) -> None:
        self.in_flight -= 1
        self.metrics.in_flight.dec()
        if not self.in_flight:
            self._idle.set()
        first = None if reply.committed_at is None else reply.committed_at - progress.began
        self.ledger.record(
            Record(
                request_id=progress.request_id,
                endpoint=progress.endpoint,
                model=progress.model,
                server_id=reply.server_id,
                stream=progress.stream,
                status=reply.status,
                outcome=_outcome(progress, reply),
                error=progress.error,
                attempts=progress.attempts,
                duration=trio.current_time() - progress.began,
                first_byte=first,
                usage=reply.usage,
            )
        )


def _outcome(progress: Progress, reply: Reply) -> Outcome:
    """A client may close the moment it has the last byte: a reply that was finished is completed all the same."""
    if progress.error is None and reply.finished and not reply.gone and reply.status < 400:
        return "completed"
    return "failed" if progress.error else progress.outcome


def _endpoint_label(path: str) -> str:
    """A bounded label for metrics and records."""
    if path in ("/v1/chat/completions", "/v1/completions", "/v1/models"):
        return path.removeprefix("/v1/")
    return "models" if path.startswith("/v1/models/") else "other"


def _card(model: str, owner: str) -> ModelCard:
    return ModelCard(id=model, created=0, owned_by=owner)
