"""Trying servers until one has answered: a place on one, perhaps after a wait, the attempt, and whether another may follow.

The first content byte is the commit point. Before it a failure moves on to the next server or to the model's fallback,
within the retry budget; after it never.
"""

from collections.abc import Sequence
from math import ceil
from random import Random

import msgspec
import structlog
import trio
from quiver.schemas import errors
from quiver.schemas.config import Config, Priority
from quiver.schemas.errors import ApiError

from .access.client import Client
from .admission.admission import Admission
from .admission.ticket import Ticket
from .choosing import Chooser, worth_trying
from .decoding import with_model
from .registry import Backend, Call, Registry, Target
from .reply import Reply
from .retries import RetryBudget
from .telemetry.levels import DEBUG, LEVELS
from .telemetry.metrics import Metrics
from .telemetry.record import FailedAttempt, Progress
from .telemetry.tracing import Trace
from .watch import Watch

# How often a waiting client is told its place in the queue.
PLACE_INTERVAL = 5.0
# What is kept of a server's words, in characters.
MESSAGE = 500
# What keeps a model's servers from taking a request, though another model's may.
ELSEWHERE = (errors.UPSTREAM_BUSY, errors.QUEUE_FULL, errors.NO_HEALTHY_BACKEND, errors.SERVERS_PAUSED)
# When a client may ask again for a model whose servers people have paused: nobody knows when they resume them.
RESUME_SECONDS = 30


class Job(msgspec.Struct, frozen=True):
    """A call with everything that says how it is to be carried out."""

    call: Call
    chain: tuple[Target, ...]
    client: Client
    priority: Priority
    affinity: int
    trace: Trace | None = None


class Attempts:
    """Carries out jobs. `background`: a nursery for what has to happen later, while there is one."""

    def __init__(
        self, registry: Registry, admission: Admission[Backend], config: Config, random: Random, metrics: Metrics
    ) -> None:
        self._registry, self._admission = registry, admission
        self._most = config.retries.attempts
        self._budget = RetryBudget(config.retries)
        self._chooser = Chooser(config.routing.policy, random)
        self._metrics = metrics
        self._log = structlog.get_logger(component="attempts")
        self._routing = structlog.get_logger(component="routing", policy=config.routing.policy)
        self.background: trio.Nursery | None = None

    async def carry_out(self, job: Job, reply: Reply, progress: Progress, watch: Watch) -> None:
        """Try the models of the chain in turn, and each one's servers, until one has answered. Raises `ApiError`."""
        self._budget.deposit(watch.began)
        failures: list[ApiError] = []
        for target in job.chain:
            call = job.call
            if target.model != call.model:
                call = msgspec.structs.replace(call, model=target.model, body=with_model(call.body, target.model))
            tried: list[Backend] = []
            while True:
                ticket = Ticket(job.client.scope, call.model, job.priority, float(call.tokens), watch.deadline)
                try:
                    backend = self._enter(job, call, target, tried, ticket)
                    if backend is None:
                        backend = await self._queue(job, call, tried, ticket, reply, progress, watch)
                except _NobodyLeft:
                    break
                except ApiError as error:
                    if error.kind not in ELSEWHERE:
                        raise
                    if not (failures and error.kind is errors.NO_HEALTHY_BACKEND):  # what it failed of says more
                        failures.append(error)
                    break
                tried.append(backend)
                progress.attempts += 1
                reply.server_id = backend.id
                if LEVELS.least <= DEBUG:
                    self._tell(call, target, tried)
                if call.stream:
                    reply.gaps = self._metrics.gaps_of(call.model, backend.id)
                try:
                    if job.trace is None:
                        await backend.forward(call, reply, watch)
                    else:
                        await _traced(job.trace, backend, call, reply, watch)
                    return
                except ApiError as error:
                    if watch.cause is None:
                        failed = FailedAttempt(backend.id, error.kind.code, error.words[:MESSAGE])
                        progress.failures = (*progress.failures, failed)
                    if reply.committed or watch.cause is not None or error.kind.fault == "client":
                        raise
                    failures.append(error)
                    if error.kind is errors.UPSTREAM_BUSY and self.background is not None:
                        self.background.start_soon(self._wake_queue, backend.paused_until(call.model))
                    # A server's failure has the next server; one of our own wants somebody to look at it.
                    log = self._log.error if error.kind is errors.ENGINE_ERROR else self._log.warning
                    log("attempt failed", request_id=call.request_id, server=backend.id, error=error.words[:MESSAGE])
                finally:
                    if (noticed := watch.left_at or reply.left_at) is not None:
                        self._metrics.torn_down(backend.id, trio.current_time() - noticed)
                    backend.load.returned()
                    self._admission.leave(ticket, reply.usage.total_tokens if reply.usage else 0)
                if progress.attempts >= self._most or not self._budget.withdraw(trio.current_time()):
                    raise _verdict(job, failures)
        raise _verdict(job, failures)

    def _tell(self, call: Call, target: Target, tried: Sequence[Backend]) -> None:
        """Why a call goes where it goes."""
        *before, chosen = tried
        if before:
            reason = f"`{before[-1].id}` failed"
        else:
            reason = "chosen by the policy" if len(target.backends) > 1 else "the only server of the model"
        among = [backend.id for backend in target.backends]
        self._routing.debug(
            "routed", request_id=call.request_id, model=call.model, server=chosen.id, among=among, reason=reason
        )

    def _enter(self, job: Job, call: Call, target: Target, tried: Sequence[Backend], ticket: Ticket) -> Backend | None:
        """A server with a place taken on it for this call; None when the call has to wait. Raises `ApiError` when waiting
        would not help, as all servers want a pause, or `_NobodyLeft`.
        """
        now = trio.current_time()
        if not tried and all([backend.ready(call, now) for backend in target.backends]):
            if not self._admission.has_room(call.model):
                return None
            self._admission.entered()
            return self._chooser.take(target.backends, call.model, job.affinity, now)
        candidates = worth_trying(target.backends, call, tried, now)
        if not candidates:
            raise _NobodyLeft
        if len(candidates) < len(target.backends):
            # Who can use only some of the servers must not keep those waiting who can use the others.
            ticket.model = f"{call.model} on {', '.join(backend.id for backend in candidates)}"
        backend = self._admission.try_enter(
            ticket.model, lambda: self._chooser.choose(candidates, call.model, job.affinity, now)
        )
        if backend is None and all(backend.paused_until(call.model) > now for backend in candidates):
            raise _paused(call.model, min(backend.paused_until(call.model) for backend in candidates) - now)
        return backend

    async def _queue(
        self,
        job: Job,
        call: Call,
        tried: Sequence[Backend],
        ticket: Ticket,
        reply: Reply,
        progress: Progress,
        watch: Watch,
    ) -> Backend:
        """A server with a place taken on it for this call, once it is its turn. The client is told its place meanwhile."""

        def choose() -> Backend | None:
            """Servers may have come and gone since."""
            now = trio.current_time()
            offering = self._registry.offering(call.model)
            candidates = worth_trying(offering, call, tried, now)
            if not candidates:
                if offering and not any(backend.serving for backend in offering):
                    raise _all_paused(call.model)
                raise ApiError(errors.NO_HEALTHY_BACKEND, f"No server offers `{call.model}` any more", retry_after=5)
            return self._chooser.choose(candidates, call.model, job.affinity, now)

        admission, began = self._admission, trio.current_time()
        reply.say_meanwhile(lambda: _told(admission, ticket), PLACE_INTERVAL)
        watch.nudge()
        try:
            with watch:
                backend = await admission.enter(ticket, choose)
        finally:
            reply.say_meanwhile(None)
            ended = trio.current_time()
            progress.queued += ended - began
            if job.trace is not None:
                job.trace.queued.append((began, ended))
        return backend

    async def _wake_queue(self, at: float) -> None:
        """A server's pause ends without anybody leaving or coming."""
        await trio.sleep_until(at)
        self._admission.poke()


async def _traced(trace: Trace, backend: Backend, call: Call, reply: Reply, watch: Watch) -> None:
    attempt = trace.attempt(backend, call)
    try:
        await backend.forward(attempt.call, reply, watch)
    except BaseException as error:
        attempt.end(error)
        raise
    attempt.end(None)


class _NobodyLeft(Exception):
    """Every server that could take the call has been tried."""


def _told(admission: Admission[Backend], ticket: Ticket) -> bytes:
    """The place in the queue, as a comment that event-stream parsers pass over."""
    place = admission.place(ticket)
    return b": queued position=%d estimated_wait=%ds\n\n" % (place.position, round(place.estimated_wait))


def _paused(model: str, seconds: float) -> ApiError:
    return ApiError(
        errors.UPSTREAM_BUSY, f"The servers of `{model}` ask for a pause", retry_after=max(1, ceil(seconds))
    )


def _all_paused(model: str) -> ApiError:
    return ApiError(errors.SERVERS_PAUSED, f"All servers that offer `{model}` are paused", retry_after=RESUME_SECONDS)


def _verdict(job: Job, failures: list[ApiError]) -> ApiError:
    """What the client is told when every attempt failed."""
    model = job.call.model
    if not failures:
        if not any(backend.serving for target in job.chain for backend in target.backends):
            return _all_paused(model)
        served = {path: None for target in job.chain for backend in target.backends for path in backend.endpoints}
        if served and job.call.endpoint not in served:
            paths = " and ".join(f"`/v1/{path}`" for path in served)
            message = f"The model `{model}` does not serve `/v1/{job.call.endpoint}`; it serves {paths}"
            return ApiError(errors.INVALID_REQUEST, message, param="model")
        return ApiError(errors.INVALID_REQUEST, f"No server that offers `{model}` can take a request like this one")
    if all(failure.kind is errors.UPSTREAM_UNREACHABLE for failure in failures):
        return ApiError(
            errors.NO_HEALTHY_BACKEND, f"No server that offers `{model}` can be reached right now", retry_after=5
        )
    return failures[-1]
