"""A remote model server as a backend: the client's body goes out untouched, the reply comes back as it arrives.

What it does wrong goes into its circuit; a client's mistake is the client's.
"""

import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from math import inf

import msgspec
import trio
from quiver.schemas import errors
from quiver.schemas.config import Health as HealthConfig
from quiver.schemas.config import Limits
from quiver.schemas.config import RemoteBackend as RemoteConfig
from quiver.schemas.errors import ApiError
from quiver.schemas.openai import ModelName, RemoteModelList
from quiver.schemas.saved import Mode
from quiver.schemas.servers import Entry

from ..native import encode_request
from ..registry import BackendStatus, Call, Health
from ..reply import JSON_TYPE, Reply
from ..routing.load import Load
from ..routing.reports import reported_load
from ..seams import World
from ..watch import Watch
from .circuit import Circuit, classify
from .connections import OpenWire, Origin, Response, Upstream, UpstreamStatistics, forwardable
from .health import Bell
from .refusal import UpstreamRefusal, read_refusal
from .relay import relay_events, usage_of_reply

# A whole reply is held in memory before it is passed on, so that a cut one can be retried elsewhere.
MAX_REPLY = 64 * 1024 * 1024
# Checks read these on the event loop, and whoever joins may send them.
MAX_LIST = 4 * 1024 * 1024
MAX_METRICS = 1024 * 1024
# A reply that the kernel takes whole, unless its client has stopped reading; so it need not be cancellable.
AT_ONCE = 65_536
# What a page of figures may take: it is not what a check is about, and must not make it fail.
LOAD_TIME = 1.0
# How long the end of a stream is waited for after its last event, to keep the connection for the next request.
TAIL = 0.25
# The pause of a server that answers 429 without saying how long.
DEFAULT_PAUSE = 1.0
# What a host may hold and a server's name may not.
OF_NO_NAME = re.compile(r"[^A-Za-z0-9._-]")
UUID_FORM = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_decode_models = msgspec.json.Decoder(RemoteModelList).decode


def id_of(config: RemoteConfig) -> str:
    """What the server is called. Raises `ValueError` when its address cannot be used."""
    origin = Origin.parse(config.url)
    return config.name or OF_NO_NAME.sub(".", f"{origin.host}-{origin.port}")[:64]


class RemoteServer:
    """One server. `circuit` says how it is, `load` how busy, `mode` whether it gets new calls, `entry` where it comes from.
    `found` is called when it offers other models than before. Close with `close`.
    """

    def __init__(
        self,
        config: RemoteConfig,
        limits: Limits,
        health: HealthConfig,
        world: World,
        open_wire: OpenWire,
        entry: Entry = Entry(),  # noqa: B008 - frozen
    ) -> None:
        self.config, self.entry = config, entry
        self.mode: Mode = "serving"
        origin = Origin.parse(config.url)
        self.id = id_of(config)
        self.load = Load(config.weight, config.max_concurrency or 0)
        self._longest = config.capabilities.context_length or inf
        self._longest_reply = config.capabilities.max_tokens or inf
        self.bell = Bell()
        self.circuit = Circuit(health, world.random)
        self.circuit.on_change = self._circuit_changed
        self.found: Callable[[], None] = lambda: None
        self._found_models: tuple[str, ...] = ()
        self._reports_load = True
        self._upstream = Upstream(origin, limits, open_wire)
        authority = origin.authority.encode()
        self._own_headers = [(b"host", authority)]
        if config.api_key:
            self._own_headers.append((b"authorization", b"Bearer " + config.api_key.encode()))

    def __repr__(self) -> str:
        return f"<RemoteServer {self.id}: {self.circuit.state}, {len(self.models)} models, {self.load.in_flight} in flight>"

    @property
    def models(self) -> tuple[str, ...]:
        return self.config.models or self._found_models

    @property
    def health(self) -> Health:
        return self.circuit.health

    @property
    def serving(self) -> bool:
        return self.mode == "serving"

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        return str(self._upstream.origin)

    @property
    def origin(self) -> Origin:
        """Where it listens. Two servers with the same one are the same, however their addresses are written."""
        return self._upstream.origin

    @property
    def endpoints(self) -> Sequence[str]:
        return self.config.capabilities.endpoints

    def takes(self, call: Call) -> bool:
        able = self.config.capabilities
        return call.endpoint in able.endpoints and (able.streaming or not call.stream)

    def fits(self, call: Call) -> bool:
        return call.tokens <= self._longest and call.reply_tokens <= self._longest_reply

    def ready(self, call: Call, now: float) -> bool:
        circuit, able = self.circuit, self.config.capabilities
        return (
            circuit.state == "healthy"
            and self.mode == "serving"
            and not self.load.full
            and call.endpoint in able.endpoints
            and (able.streaming or not call.stream)
            and circuit.paused_until(call.model) <= now
            and self.fits(call)
        )

    def tier(self, now: float) -> int:
        return self.circuit.tier(now)

    def paused_until(self, model: str) -> float:
        return self.circuit.paused_until(model)

    def status(self) -> BackendStatus:
        address, circuit = self.address, self.circuit
        return BackendStatus(
            self.id, "remote", address, self.models, circuit.health, circuit.reason, self.load.in_flight
        )

    def statistics(self) -> UpstreamStatistics:
        """Its connections."""
        return self._upstream.statistics()

    def succeed(self, before: "RemoteServer") -> None:
        """Take the place of `before`, in its mode. At the same address the calls that still run there count as this one's, and
        with the same key what is known of its health holds.
        """
        self.mode = before.mode
        if self.origin != before.origin:
            return
        self.load = before.load
        self.load.weight, self.load.limit = self.config.weight, self.config.max_concurrency or 0
        if self.reached_like(before):
            self._found_models, self._reports_load = before._found_models, before._reports_load
            self.circuit = before.circuit
            self.circuit.on_change = self._circuit_changed

    def configure(self, limits: Limits, health: HealthConfig) -> None:
        """From now on other limits hold. An attempt that is on its way keeps its own."""
        self.circuit.configure(health)
        self._upstream.configure(limits)

    def recall(self, models: tuple[str, ...]) -> None:
        """These are what it offered before the gateway was started."""
        self._found_models = models

    def reached_like(self, other: "RemoteServer") -> bool:
        """Whether a check of `other` tells of this one too: they have the same address and key."""
        return self.origin == other.origin and self.config.api_key == other.config.api_key

    def close(self) -> None:
        """Close its idle connections now, the busy ones after their replies."""
        self._upstream.close()

    async def forward(self, call: Call, reply: Reply, watch: Watch) -> None:
        """See `Backend.forward`. What the server does wrong goes into its circuit; a client's mistake is the client's."""
        circuit, began = self.circuit, trio.current_time()
        trial = circuit.begin_trial(began)
        response: Response | None = None
        try:
            if call.stream:
                with watch:
                    response = await self._ask(call, watch)
                    await self._pass_on(response, call, reply, began, watch)
            else:
                watch.check()
                response = await self._ask(call, watch)
                await self._pass_on(response, call, reply, began, watch)
            if not response.ended:
                await response.wait_end(TAIL)
        except UpstreamRefusal as refusal:
            self._blame(refusal, refusal.status, call, began)
            if refusal.kind.fault == "upstream":
                raise
            await reply.complete(refusal.status, refusal.body)
        except ApiError as error:
            if error is not watch.cause:
                self._blame(error, None, call, began)
            raise
        else:
            if circuit.state != "healthy":
                circuit.passed(trio.current_time(), began=began)
        finally:
            watch.waits_for(None)
            if response is not None:
                response.finish()
            if trial:
                circuit.end_trial(began)

    async def probe(self) -> None:
        """Ask for the server's models, and for its load where it tells. Raises `ApiError`, or `msgspec.DecodeError`."""
        status, body = await self._get(self._upstream.origin.base + "/models", MAX_LIST)
        if status != 200:
            kind = errors.UPSTREAM_UNAUTHORIZED if status in (401, 403) else errors.UPSTREAM_ERROR
            raise ApiError(kind, f"`/v1/models` answered {status}")
        before, self._found_models = self.models, _listed(body)
        if self.models != before:
            self.found()
        await self._ask_for_load()

    async def _ask_for_load(self) -> None:
        """What the server itself says that it has to do. One that once did not tell, or not in time, is not asked again; an
        older report does not stand.
        """
        if not self._reports_load:
            return
        report = None
        with trio.move_on_after(LOAD_TIME), contextlib.suppress(ApiError):  # it has just listed its models: it is well
            status, body = await self._get("/metrics", MAX_METRICS)
            report = reported_load(body) if status == 200 else None
        self._reports_load = report is not None
        self.load.report(report, trio.current_time())

    async def _get(self, target: str, limit: int) -> tuple[int, bytes]:
        request = encode_request("GET", target, [*self._own_headers, (b"accept", b"*/*")], None)
        response = await self._upstream.request(request, "GET", _unwatched())
        try:
            return response.head.status, await response.read(limit)
        finally:
            response.finish()

    def _ask(self, call: Call, watch: Watch) -> Awaitable[Response]:
        headers = [*self._own_headers, *forwardable(call.headers), *_request_id(call)]
        request = encode_request("POST", f"{self._upstream.origin.base}/{call.endpoint}", headers, call.body)
        return self._upstream.request(request, "POST", watch)

    async def _pass_on(self, response: Response, call: Call, reply: Reply, began: float, watch: Watch) -> None:
        head = response.head
        if head.status >= 400:
            raise await read_refusal(response, self.config.api_key)
        content_type = head.header(b"content-type")
        if content_type is not None and content_type.startswith(b"text/event-stream"):
            await relay_events(response, call, reply, self.load, began)
            return
        body = await response.read(MAX_REPLY)
        self.load.first_token.observe(trio.current_time() - began, began)
        if content_type is None or content_type.startswith(b"application/json"):
            reply.usage = usage_of_reply(body)
        headers = (JSON_TYPE if content_type is None else (b"content-type", content_type),)
        if watch.guarded or len(body) > AT_ONCE:
            with watch:
                await reply.complete(head.status, body, headers)
        else:
            await reply.complete(head.status, body, headers)

    def _blame(self, error: ApiError, status: int | None, call: Call, began: float) -> None:
        now = trio.current_time()
        match classify(error, status):
            case "failure":
                self.circuit.failed(error.words, now, began=began)
            case "credential":
                self.circuit.refused_credential(error.words, now, began=began)
            case "pause":
                self.circuit.pause(call.model, error.retry_after or DEFAULT_PAUSE, now)
            case "none":
                if status is not None:  # it answered, and the fault was the client's
                    self.circuit.passed(now, began=began)

    def _circuit_changed(self) -> None:
        self.bell.ring()
        self.found()


def _unwatched() -> Watch:
    """For requests of the gateway's own, which have a time limit around them."""
    return Watch(trio.current_time(), inf)


def _request_id(call: Call) -> list[tuple[bytes, bytes]]:
    """The request's id for the server's log. Only a UUID is told: some servers answer 400 to any other."""
    if not call.id_is_ours and not UUID_FORM.fullmatch(call.request_id):
        return []
    return [(b"x-request-id", call.request_id.encode())]


def _listed(body: bytes) -> tuple[str, ...]:
    """The model ids of a server's list that are valid names, without repeats."""
    names = []
    for model in _decode_models(body).data:
        try:
            names.append(msgspec.convert(model.id, ModelName))
        except msgspec.ValidationError:
            continue
    return tuple(dict.fromkeys(names))
