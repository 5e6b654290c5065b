"""Answering an inference request: who may answer it, waiting for a free server, the attempts, and when one is retried.

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
from quiver.schemas.config import Config, Limits, Priority
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ModelName, Peek

from .access.client import Client
from .admission.admission import Admission
from .admission.ticket import LEVELS, PRIORITIES, Ticket
from .decoding import decode_body, with_model
from .record import Progress
from .registry import BYTES_A_TOKEN, Backend, Call, Registry, Target
from .reply import DownstreamGone, Reply
from .request import Request
from .retries import RetryBudget
from .reuse.identity import Directives, directives, identity, repeatable
from .reuse.recording import Recording
from .reuse.store import ReuseStore
from .routing import affinity, names
from .routing.policies import POLICIES, Draw
from .watch import Watch

# What a reply is taken to cost when its client did not bound it, in tokens.
GUESSED_REPLY = 256
# How often a waiting client is told its place in the queue.
PLACE_INTERVAL = 5.0
OUT_OF_SERVICE = 3
# What keeps a model's servers from taking a request, though another model's may.
ELSEWHERE = (errors.UPSTREAM_BUSY, errors.QUEUE_FULL, errors.NO_HEALTHY_BACKEND)
REQUIRED = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}


class Inference:
    """Carries inference requests to the registry's backends. `run` has to run beside it."""

    def __init__(
        self, registry: Registry, admission: Admission[Backend], reuse: ReuseStore, config: Config, random: Random
    ) -> None:
        self.limits: Limits = config.limits
        self._registry, self._admission, self._reuse, self._random = registry, admission, reuse, random
        self._attempts = config.retries.attempts
        self._budget = RetryBudget(config.retries)
        self._policy_name = config.routing.policy
        self._policy = POLICIES[config.routing.policy]
        self._turns: dict[str, int] = {}
        self._productions: trio.Nursery | None = None
        self._log = structlog.get_logger(component="inference")

    async def run(self) -> None:
        """Give a place to live to answers that several requests share: they must outlive the one that asked first."""
        async with trio.open_nursery() as self._productions:
            await trio.sleep_forever()

    async def answer(self, client: Client, request: Request, reply: Reply, progress: Progress, watch: Watch) -> None:
        """Answer through `reply`. Raises `ApiError` for what the client is to be told, `DownstreamGone` when it left."""
        endpoint = request.path.removeprefix("/v1/")
        peek = _peek(endpoint, request.body)
        chain = self._chain(peek.model, client)
        progress.model, progress.stream = peek.model, bool(peek.stream)
        self._budget.deposit(watch.began)
        if peek.stream:
            reply.beats(self.limits.heartbeat, stream=True)
        elif self.limits.json_heartbeat:
            reply.beats(self.limits.json_heartbeat, stream=False)
        # Of a name that stands twice the last counts here; a server that takes the first must not see it.
        body = with_model(request.body, peek.model) if client.models else request.body
        longest = max(0, peek.max_completion_tokens or peek.max_tokens or 0)
        tokens = len(body) // BYTES_A_TOKEN + (longest or GUESSED_REPLY) * max(1, peek.n or 1)
        call = Call(
            endpoint,
            peek.model,
            progress.stream,
            body,
            request.headers,
            reply.request_id,
            client.scope,
            tokens,
            longest,
            request.header(b"x-request-id") is None,
        )
        job = _Job(call, chain, client, _priority(request, client), self._affinity(request, peek))
        reservation = client.tokens.reserve(call.tokens, watch.began) if client.tokens is not None else None
        refused = gone = False
        try:
            if repeatable(peek.temperature, peek.seed, peek.n) and self._productions is not None:
                await self._reused(job, request, reply, progress, watch)
            else:
                await self._carry_out(job, reply, progress, watch)
        except ApiError:
            refused = True
            raise
        except DownstreamGone:
            gone = True
            raise
        finally:
            if reservation is not None:
                spent = _spent(call, reply, progress, refused or reply.refused, gone)
                reservation.settle(spent, trio.current_time())

    def _chain(self, model: str, client: Client) -> tuple[Target, ...]:
        chain = self._registry.chain(model)
        if client.models:
            if not client.allows(model):
                raise ApiError(errors.MODEL_NOT_ALLOWED, f"The key may not use the model `{model}`", param="model")
            chain = (*chain[:1], *(target for target in chain[1:] if client.allows(target.model)))
        if not chain:
            _check_name(model)
            raise unknown_model(model, self._registry)
        return chain

    async def _reused(self, job: "_Job", request: Request, reply: Reply, progress: Progress, watch: Watch) -> None:
        """Play the answer that an identical request has or gets, or the one that is made now."""
        wanted = directives(request.header(b"cache-control"), request.header(b"x-quiver-share"))
        if not self._reuse.applies(wanted):
            await self._carry_out(job, reply, progress, watch)
            return
        key = identity(job.call.scope, job.call.endpoint, job.call.body)
        with watch:
            recording = self._recording(key, job, wanted, reply, progress)

            def begun() -> None:
                reply.server_id = recording.notes.server_id

            try:
                await recording.play(reply, begun)
            finally:
                notes = recording.notes
                reply.usage, reply.estimated, reply.server_id = notes.usage, notes.estimated, notes.server_id

    def _recording(self, key: bytes, job: "_Job", wanted: Directives, reply: Reply, progress: Progress) -> Recording:
        """The answer with this identity; one that is not there yet is being made from now on."""
        now = trio.current_time()
        recording = self._reuse.find(key, now, wanted)
        if recording is None:
            recording = self._reuse.begin(key, now, wanted)
            assert self._productions is not None
            self._productions.start_soon(self._produce, job, recording, reply.request_id, progress)
        else:
            progress.source = "cache" if recording.finished else "shared"
        reply.extra = [*reply.extra, (b"x-quiver-cache", _TOLD[progress.source])]
        return recording

    async def _produce(self, job: "_Job", recording: Recording, request_id: str, progress: Progress) -> None:
        """Make the answer of `recording`, for as long as anybody listens."""
        reply, watch = Reply(recording, request_id), Watch(trio.current_time(), self.limits.request)
        recording.notes = reply
        assert self._productions is not None
        watch.begin_guard(self._productions, _Nobody(), reply)
        try:
            with recording.production:
                await self._carry_out(job, reply, progress, watch)
        except ApiError as error:
            recording.fail(error)
        except Exception:
            self._log.exception("internal error", request_id=request_id)
            recording.fail(ApiError(errors.INTERNAL_ERROR, f"Internal error; the log has it under `{request_id}`"))
        finally:
            self._reuse.finish(recording, trio.current_time())
            await watch.close()

    async def _carry_out(self, job: "_Job", reply: Reply, progress: Progress, watch: Watch) -> None:
        """Try the models of the chain in turn, and each one's servers, until one has answered."""
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
                try:
                    await backend.forward(call, reply, watch)
                    return
                except ApiError as error:
                    if reply.committed or watch.cause is not None or error.kind.fault == "client":
                        raise
                    failures.append(error)
                    if error.kind is errors.UPSTREAM_BUSY and self._productions is not None:
                        self._productions.start_soon(self._wake_queue, backend.paused_until(call.model))
                    self._log.warning("attempt failed", request_id=call.request_id, server=backend.id, error=str(error))
                finally:
                    backend.load.returned()
                    self._admission.leave(ticket, reply.usage.total_tokens if reply.usage else 0)
                if progress.attempts >= self._attempts or not self._budget.withdraw(trio.current_time()):
                    raise _verdict(job.call.model, failures)
        raise _verdict(job.call.model, failures)

    def _enter(
        self, job: "_Job", call: Call, target: Target, tried: Sequence[Backend], ticket: Ticket
    ) -> Backend | None:
        """A server with a place taken on it for this call; None when the call has to wait. Raises `ApiError` when waiting
        would not help, as all servers want a pause, or `_NobodyLeft`.
        """
        now = trio.current_time()
        if not tried and all([backend.ready(call, now) for backend in target.backends]):
            if not self._admission.has_room(call.model):
                return None
            self._admission.entered()
            return self._take(target.backends, call.model, job.affinity, now)
        candidates = _worth_trying(target.backends, call, tried, now)
        if not candidates:
            raise _NobodyLeft
        if len(candidates) < len(target.backends):
            # Who can use only some of the servers must not keep those waiting who can use the others.
            ticket.model = f"{call.model} on {', '.join(backend.id for backend in candidates)}"
        backend = self._admission.try_enter(
            ticket.model, lambda: self._choose(candidates, call.model, job.affinity, now)
        )
        if backend is None and all(backend.paused_until(call.model) > now for backend in candidates):
            raise _paused(call.model, min(backend.paused_until(call.model) for backend in candidates) - now)
        return backend

    async def _queue(
        self,
        job: "_Job",
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
            candidates = _worth_trying(self._registry.offering(call.model), call, tried, now)
            if not candidates:
                raise ApiError(errors.NO_HEALTHY_BACKEND, f"No server offers `{call.model}` any more", retry_after=5)
            return self._choose(candidates, call.model, job.affinity, now)

        admission, began = self._admission, trio.current_time()
        reply.say_meanwhile(lambda: _told(admission, ticket), PLACE_INTERVAL)
        watch.nudge()
        try:
            with watch:
                backend = await admission.enter(ticket, choose)
        finally:
            reply.say_meanwhile(None)
            progress.queued += trio.current_time() - began
        return backend

    async def _wake_queue(self, at: float) -> None:
        """A server's pause ends without anybody leaving or coming."""
        await trio.sleep_until(at)
        self._admission.poke()

    def _choose(self, candidates: Sequence[Backend], model: str, affinity: int, now: float) -> Backend | None:
        """One of the most trusted that have a free place, which is then taken."""
        free: list[Backend] = []
        best = OUT_OF_SERVICE + 1
        for backend in candidates:
            if backend.load.full or backend.paused_until(model) > now:
                continue
            tier = backend.tier(now)
            if tier < best:
                best, free = tier, [backend]
            elif tier == best:
                free.append(backend)
        return self._take(free, model, affinity, now) if free else None

    def _take(self, free: Sequence[Backend], model: str, affinity: int, now: float) -> Backend:
        """A place on the one that the policy chooses."""
        chosen = free[0]
        if len(free) > 1:
            turn = self._turns.get(model, 0)
            self._turns[model] = turn + 1
            chosen = free[self._policy(free, Draw(turn, now, self._random, affinity))]
        chosen.load.taken()
        return chosen

    def _affinity(self, request: Request, peek: Peek) -> int:
        if self._policy_name == "session_affinity":
            return affinity.session_hash(request.header(b"x-session-id") or b"")
        if self._policy_name == "prefix_affinity":
            prompt = peek.messages if peek.messages is not msgspec.UNSET else peek.prompt
            return affinity.prefix_hash(prompt) if isinstance(prompt, msgspec.Raw) else 0
        return 0


class _Job(msgspec.Struct, frozen=True):
    """A call with everything that says how it is to be carried out."""

    call: Call
    chain: tuple[Target, ...]
    client: Client
    priority: Priority
    affinity: int


class _Nobody:
    """The client of an answer that is made for whoever listens: it does not leave."""

    async def wait_departure(self) -> None:
        await trio.sleep_forever()


class _NobodyLeft(Exception):
    """Every server that could take the call has been tried."""


_TOLD = {"cache": b"hit", "shared": b"shared", "server": b"miss"}


def unknown_model(model: str, registry: Registry) -> ApiError:
    """404, with the name that was probably meant."""
    guess = names.nearest(model, list(registry.models()))
    hint = f"; did you mean `{guess}`?" if guess else "; `GET /v1/models` lists what is on offer"
    return ApiError(errors.MODEL_NOT_FOUND, f"No server offers the model `{model[:255]}`{hint}", param="model")


def _check_name(model: str) -> None:
    """Raises `ApiError` if no model could ever be called so. Only names that nobody knows are worth the check."""
    try:
        msgspec.convert(model, ModelName)
    except msgspec.ValidationError as error:
        raise ApiError(errors.INVALID_REQUEST, f"{error} - at `$.model`", param="model") from None


_decode_peek = msgspec.json.Decoder(Peek).decode


def _peek(endpoint: str, body: bytes) -> Peek:
    """What routing needs of the body. Raises `ApiError` that says where the body is wrong."""
    peek = decode_body(body, _decode_peek)
    required = REQUIRED.get(endpoint)
    if required is not None and getattr(peek, required) is msgspec.UNSET:
        raise ApiError(errors.INVALID_REQUEST, f"The required field `{required}` is missing", param=required)
    return peek


def _spent(call: Call, reply: Reply, progress: Progress, refused: bool, gone: bool) -> int | None:
    """What a request is charged; None when it was answered and nobody said at what cost."""
    if progress.source != "server":
        return 0
    if reply.usage is not None:
        return reply.usage.total_tokens
    if reply.committed:
        return 0 if refused else None
    # Leaving early must not make the reading of prompts free.
    return len(call.body) // BYTES_A_TOKEN if gone and progress.attempts else 0


def _priority(request: Request, client: Client) -> Priority:
    """What the client asks for, up to what its key may have."""
    asked = request.header(b"x-quiver-priority")
    if asked is None:
        return client.priority
    wanted = asked.decode("latin-1").strip().lower()
    if wanted not in PRIORITIES:
        raise ApiError(errors.INVALID_REQUEST, f"`X-Quiver-Priority` is one of {', '.join(PRIORITIES)}")
    return PRIORITIES[max(LEVELS[wanted], LEVELS[client.priority])]


def _told(admission: Admission[Backend], ticket: Ticket) -> bytes:
    """The place in the queue, as a comment that event-stream parsers pass over."""
    place = admission.place(ticket)
    return b": queued position=%d estimated_wait=%ds\n\n" % (place.position, round(place.estimated_wait))


def _worth_trying(backends: Sequence[Backend], call: Call, tried: Sequence[Backend], now: float) -> Sequence[Backend]:
    """Servers that could answer: those in service, or when there is none all of them, as the last is never given up. The
    length of a call is only guessed, so one that seems to fit nowhere may be tried anywhere.
    """
    able = [backend for backend in backends if backend.takes(call) and backend not in tried]
    best = [backend for backend in able if backend.tier(now) < OUT_OF_SERVICE and backend.fits(call)]
    if not best:
        able = [backend for backend in able if backend.fits(call)] or able
        best = [backend for backend in able if backend.tier(now) < OUT_OF_SERVICE] or able
    return best


def _paused(model: str, seconds: float) -> ApiError:
    return ApiError(
        errors.UPSTREAM_BUSY, f"The servers of `{model}` ask for a pause", retry_after=max(1, ceil(seconds))
    )


def _verdict(model: str, failures: list[ApiError]) -> ApiError:
    """What the client is told when every attempt failed."""
    if not failures:
        return ApiError(errors.INVALID_REQUEST, f"No server that offers `{model}` can take a request like this one")
    if all(failure.kind is errors.UPSTREAM_UNREACHABLE for failure in failures):
        return ApiError(
            errors.NO_HEALTHY_BACKEND, f"No server that offers `{model}` can be reached right now", retry_after=5
        )
    return failures[-1]
