"""A remote model server as a backend: the client's body goes out untouched, the reply comes back as it arrives.

What is read on the way is only what accounting and the commit point need. The server's errors are passed on in OpenAI's
envelope: its own when it sent one, ours around its text otherwise.
"""

import re
from collections.abc import Callable, Sequence
from math import ceil, inf

import msgspec
import trio
from quiver.schemas import errors
from quiver.schemas.config import Health as HealthConfig
from quiver.schemas.config import Limits
from quiver.schemas.config import RemoteBackend as RemoteConfig
from quiver.schemas.errors import ApiError, ErrorEnvelope, ErrorKind
from quiver.schemas.openai import ModelName, RemoteModelList, Usage, UsageOnly

from ..native import SseScanner, encode_request
from ..registry import BYTES_A_TOKEN, BackendStatus, Call, Health
from ..reply import JSON_TYPE, Reply
from ..routing.load import Load
from ..routing.reports import reported_load
from ..seams import World
from ..watch import Watch
from .circuit import Circuit, classify
from .connections import OpenWire, Origin, Response, Upstream, UpstreamStatistics, forwardable
from .health import Bell

# A whole reply is held in memory before it is passed on, so that a cut one can be retried elsewhere.
MAX_REPLY = 64 * 1024 * 1024
MAX_ERROR = 64 * 1024
MAX_METRICS = 1024 * 1024
# A reply that the kernel takes whole, unless its client has stopped reading; so it need not be cancellable.
AT_ONCE = 65_536
# How long the end of a stream is waited for after its last event, to keep the connection for the next request.
TAIL = 0.25
# The pause of a server that answers 429 without saying how long.
DEFAULT_PAUSE = 1.0
UUID_FORM = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_decode_usage = msgspec.json.Decoder(UsageOnly).decode
_decode_models = msgspec.json.Decoder(RemoteModelList).decode
_decode_envelope = msgspec.json.Decoder(ErrorEnvelope).decode


class UpstreamRefusal(ApiError):
    """The server answered with an error status. `body` is what the client gets to see."""

    def __init__(self, kind: ErrorKind, status: int, body: bytes, message: str, retry_after: int | None = None) -> None:
        super().__init__(kind, message, retry_after=retry_after)
        self.status, self.body = status, body


class RemoteServer:
    """One `[[backends]]` entry. `circuit` says how it is, `load` how busy. `found` is called when it offers other models than
    before. Close with `close`.
    """

    def __init__(
        self, config: RemoteConfig, limits: Limits, health: HealthConfig, world: World, open_wire: OpenWire
    ) -> None:
        self.config = config
        origin = Origin.parse(config.url)
        self.id = config.name or f"{origin.host}-{origin.port}".replace(":", ".")
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
        address, circuit = str(self._upstream.origin), self.circuit
        return BackendStatus(
            self.id, "remote", address, self.models, circuit.health, circuit.reason, self.load.in_flight
        )

    def statistics(self) -> UpstreamStatistics:
        """Its connections."""
        return self._upstream.statistics()

    def succeed(self, before: "RemoteServer") -> None:
        """Take the place of `before`. At the same address the calls that still run there count as this one's."""
        if self._upstream.origin == before._upstream.origin:
            self.load = before.load
            self.load.weight, self.load.limit = self.config.weight, self.config.max_concurrency or 0

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
        status, body = await self._get(self._upstream.origin.base + "/models", MAX_REPLY)
        if status != 200:
            kind = errors.UPSTREAM_UNAUTHORIZED if status in (401, 403) else errors.UPSTREAM_ERROR
            raise ApiError(kind, f"`/v1/models` answered {status}")
        before, self._found_models = self.models, _listed(body)
        if self.models != before:
            self.found()
        await self._ask_for_load()

    async def _ask_for_load(self) -> None:
        """What the server itself says that it has to do. One that once did not tell is not asked again."""
        if not self._reports_load:
            return
        try:
            status, body = await self._get("/metrics", MAX_METRICS)
        except ApiError:
            return  # it has just listed its models; a page of figures that fails is no failure of the server
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

    async def _ask(self, call: Call, watch: Watch) -> Response:
        headers = [*self._own_headers, *forwardable(call.headers), *_request_id(call)]
        request = encode_request("POST", f"{self._upstream.origin.base}/{call.endpoint}", headers, call.body)
        return await self._upstream.request(request, "POST", watch)

    async def _pass_on(self, response: Response, call: Call, reply: Reply, began: float, watch: Watch) -> None:
        head = response.head
        if head.status >= 400:
            raise await _refusal(response)
        content_type = head.header(b"content-type")
        if content_type is not None and content_type.startswith(b"text/event-stream"):
            await _relay_events(response, call, reply, self.load, began)
            return
        body = await response.read(MAX_REPLY)
        self.load.first_token.observe(trio.current_time() - began, began)
        if content_type is None or content_type.startswith(b"application/json"):
            reply.usage = _usage_of_reply(body)
        await reply.complete(
            head.status, body, (JSON_TYPE if content_type is None else (b"content-type", content_type),)
        )

    def _blame(self, error: ApiError, status: int | None, call: Call, began: float) -> None:
        now = trio.current_time()
        match classify(error, status):
            case "failure":
                self.circuit.failed(error.message, now, began=began)
            case "credential":
                self.circuit.refused_credential(error.message, now, began=began)
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


async def _relay_events(response: Response, call: Call, reply: Reply, load: Load, began: float) -> None:
    """Pass whole events on as they arrive, so that an error can still be told between two of them."""
    scanner = SseScanner()
    try:
        while data := await response.receive():
            events = scanner.feed(data)
            if events:
                if not reply.committed:
                    load.first_token.observe(trio.current_time() - began, began)
                if scanner.done:
                    reply.usage = _usage(scanner.usage)
                    await reply.end_stream(events)
                    return
                await reply.send_events(events)
        reply.usage = _usage(scanner.usage)
        if scanner.rest().strip():
            raise ApiError(errors.UPSTREAM_TRUNCATED, "The server ended its stream inside an event")
        if not response.delimited:
            raise ApiError(errors.UPSTREAM_TRUNCATED, "The server's stream broke off before `[DONE]`")
        await reply.end_stream()
    finally:
        if reply.usage is None and scanner.events:
            _estimate(reply, call, scanner)


def _estimate(reply: Reply, call: Call, scanner: SseScanner) -> None:
    """What a stream has cost whose server did not say, or was not heard to its end: servers send about a token an event."""
    reply.usage = _usage(scanner.usage)
    if reply.usage is None:
        prompt = len(call.body) // BYTES_A_TOKEN
        reply.usage, reply.estimated = Usage(prompt, scanner.events, prompt + scanner.events), True


def _usage_of_reply(body: bytes) -> Usage | None:
    """Raises `ApiError` when the reply is not JSON: another server may do better."""
    try:
        return _decode_usage(body).usage
    except msgspec.ValidationError:
        return None  # JSON all the same, with figures in a form of its own
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(errors.UPSTREAM_MALFORMED, f"The server's reply is not JSON: {error}") from error


def _usage(body: bytes | None) -> Usage | None:
    if body is None:
        return None
    try:
        return _decode_usage(body).usage
    except msgspec.DecodeError:
        return None


def _listed(body: bytes) -> tuple[str, ...]:
    """The model ids of a server's list that are valid names, without repeats."""
    names = []
    for model in _decode_models(body).data:
        try:
            names.append(msgspec.convert(model.id, ModelName))
        except msgspec.ValidationError:
            continue
    return tuple(dict.fromkeys(names))


async def _refusal(response: Response) -> UpstreamRefusal:
    """The server's error, in OpenAI's envelope. A 5xx, a 429 and a refused key of ours are not the client's fault."""
    head = response.head
    body = await response.read(MAX_ERROR)
    kind = KINDS_BY_STATUS.get(head.status, errors.UPSTREAM_ERROR if head.status >= 500 else errors.UPSTREAM_REFUSED)
    try:
        message = _decode_envelope(body).error.message
    except msgspec.DecodeError:
        text = body[:500].decode("utf-8", "replace").strip() or head.reason.decode("latin-1")
        message = f"The model's server answered {head.status}: {text}"
        body = msgspec.json.encode(ApiError(kind, message).envelope())
    if kind is errors.UPSTREAM_UNAUTHORIZED:
        message = f"The model's server refused the gateway's key ({head.status})"
    return UpstreamRefusal(kind, head.status, body, message, _retry_after(head.header(b"retry-after")))


KINDS_BY_STATUS: dict[int, ErrorKind] = {
    401: errors.UPSTREAM_UNAUTHORIZED,
    403: errors.UPSTREAM_UNAUTHORIZED,
    429: errors.UPSTREAM_BUSY,
}


def _retry_after(value: bytes | None) -> int | None:
    """Whole seconds. A date is not read: the server's clock is not ours."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return ceil(seconds) if 0 <= seconds < 86_400 else None
