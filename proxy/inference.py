"""Answering an inference request: what it asks for, whether its client may have that, and at what cost.

How it is answered is for others: `sharing` when an identical request may have the same answer, `attempts` in any case.
"""

from random import Random

import msgspec
import trio
from quiver.schemas import errors
from quiver.schemas.config import Config, Limits, Priority
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ModelName, Peek

from .access.client import Client
from .admission.admission import Admission
from .admission.ticket import LEVELS, PRIORITIES
from .attempts import Attempts, Job
from .decoding import decode_body, with_model
from .registry import BYTES_A_TOKEN, Backend, Call, Registry, Target
from .reply import DownstreamGone, Reply
from .request import Request
from .reuse.identity import repeatable
from .reuse.store import ReuseStore
from .routing import affinity, names
from .sharing import Sharing
from .telemetry.metrics import Metrics
from .telemetry.record import Progress
from .watch import Watch

# Models that an error names at most.
TOLD_MODELS = 10
# What a reply is taken to cost when its client did not bound it, in tokens.
GUESSED_REPLY = 256
REQUIRED = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}


class Inference:
    """Carries inference requests to the registry's backends. `run` has to run beside it."""

    def __init__(
        self,
        registry: Registry,
        admission: Admission[Backend],
        store: ReuseStore,
        config: Config,
        random: Random,
        metrics: Metrics,
    ) -> None:
        self._registry, self._admission, self._store = registry, admission, store
        self._random, self._metrics = random, metrics
        self._background: trio.Nursery | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """How requests are answered that come from now on."""
        self.limits: Limits = config.limits
        self._policy = config.routing.policy
        self._attempts = Attempts(self._registry, self._admission, config, self._random, self._metrics)
        self._attempts.background = self._background
        self._sharing = Sharing(self._store, self._attempts, config.limits, self._metrics)

    async def run(self) -> None:
        """Give a place to live to what must outlive the request that began it, such as answers that several share."""
        async with trio.open_nursery() as nursery:
            self._background = self._attempts.background = nursery
            await trio.sleep_forever()

    async def answer(self, client: Client, request: Request, reply: Reply, progress: Progress, watch: Watch) -> None:
        """Answer through `reply`. Raises `ApiError` for what the client is to be told, `DownstreamGone` when it left."""
        endpoint = request.path.removeprefix("/v1/")
        peek = _peek(endpoint, request.body)
        chain = self._chain(peek.model, client)
        progress.model, progress.stream = peek.model, bool(peek.stream)
        if peek.stream:
            reply.beats(self.limits.heartbeat, stream=True)
        elif self.limits.json_heartbeat:
            reply.beats(self.limits.json_heartbeat, stream=False)
        # Of a name that stands twice the last counts here; a server that takes the first must not see it.
        body = with_model(request.body, peek.model) if client.models else request.body
        longest = max(0, peek.max_completion_tokens or peek.max_tokens or 0)
        tokens = len(body) // BYTES_A_TOKEN + (longest or GUESSED_REPLY) * max(1, peek.n or 1)
        priority = _priority(request, client)
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
            priority,
        )
        job = Job(call, chain, client, priority, self._affinity(request, peek), progress.trace)
        reservation = client.reserve(call.tokens, watch.began)
        refused = gone = False
        try:
            if repeatable(peek.temperature, peek.seed, peek.n) and self._background is not None:
                await self._sharing.answer(job, request, reply, progress, watch, self._background)
            else:
                await self._attempts.carry_out(job, reply, progress, watch)
        except ApiError:
            refused = True
            raise
        except DownstreamGone:
            gone = True
            raise
        finally:
            spent = _spent(call, reply, progress, refused or reply.refused, gone)
            progress.charged = tokens if spent is None else max(0, spent)
            if reservation is not None:
                reservation.settle(spent, trio.current_time())

    def _chain(self, model: str, client: Client) -> tuple[Target, ...]:
        chain = self._registry.chain(model)
        if client.models:
            if not client.allows(model):
                raise ApiError(errors.MODEL_NOT_ALLOWED, f"The key may not use the model `{model}`", param="model")
            chain = (*chain[:1], *(target for target in chain[1:] if client.allows(target.model)))
        if not chain:
            _check_name(model)
            raise unknown_model(model, self._registry, client)
        return chain

    def _affinity(self, request: Request, peek: Peek) -> int:
        if self._policy == "session_affinity":
            return affinity.session_hash(request.header(b"x-session-id") or b"")
        if self._policy == "prefix_affinity":
            prompt = peek.messages if peek.messages is not msgspec.UNSET else peek.prompt
            return affinity.prefix_hash(prompt) if isinstance(prompt, msgspec.Raw) else 0
        return 0


def unknown_model(model: str, registry: Registry, client: Client) -> ApiError:
    """404, with the name that was probably meant and others that the client may use."""
    known = [name for name in registry.models() if client.allows(name)]
    guess = names.nearest(model, known)
    hint = f"; did you mean `{guess}`?" if guess else "."
    message = f"No server offers the model `{model[:255]}`{hint} {_on_offer(known)}"
    return ApiError(errors.MODEL_NOT_FOUND, message, param="model")


def _on_offer(known: list[str]) -> str:
    if not known:
        return "There is none"
    told = ", ".join(f"`{name}`" for name in known[:TOLD_MODELS])
    more = len(known) - TOLD_MODELS
    return f"There is {told}" + (f" and {more} more, which `GET /v1/models` lists" if more > 0 else "")


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
