"""A remote model server as a backend: the client's body goes out untouched, the reply comes back as it arrives.

What is read on the way is only what accounting and the commit point need. The server's errors are passed on in OpenAI's
envelope: its own when it sent one, ours around its text otherwise.
"""

import re
from dataclasses import dataclass

import msgspec
from quiver.schemas import errors
from quiver.schemas.config import Limits
from quiver.schemas.config import RemoteBackend as RemoteConfig
from quiver.schemas.errors import ApiError, ErrorEnvelope, ErrorKind
from quiver.schemas.openai import ModelName, RemoteModelList, Usage, UsageOnly

from ..native import SseScanner, encode_request
from ..registry import BackendStatus, Call, Health
from ..reply import Reply
from .connections import Origin, Response, Upstream, forwardable

# A whole reply is held in memory before it is passed on, so that a cut one can be retried elsewhere.
MAX_REPLY = 64 * 1024 * 1024
MAX_ERROR = 64 * 1024
UUID_FORM = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_decode_usage = msgspec.json.Decoder(UsageOnly).decode
_decode_models = msgspec.json.Decoder(RemoteModelList).decode
_decode_envelope = msgspec.json.Decoder(ErrorEnvelope).decode


class UpstreamRefusal(ApiError):
    """The server answered with an error status. `body` is what the client gets to see."""

    def __init__(self, kind: ErrorKind, status: int, body: bytes, message: str) -> None:
        super().__init__(kind, message)
        self.status, self.body = status, body


@dataclass
class Standing:
    """What is known of the server's health; probes and traffic both write it."""

    health: Health = "unknown"
    reason: str | None = None

    def passed(self) -> None:
        self.health, self.reason = "healthy", None

    def failed(self, reason: str) -> None:
        self.health, self.reason = "unhealthy", reason


class RemoteServer:
    """One `[[backends]]` entry. Close with `aclose`."""

    def __init__(self, config: RemoteConfig, api_key: str | None, limits: Limits) -> None:
        origin = Origin.parse(config.url)
        self.id = config.name or f"{origin.host}-{origin.port}".replace(":", ".")
        self.standing = Standing()
        self._fixed_models = config.models
        self._found_models: tuple[str, ...] = ()
        self._upstream = Upstream(origin, limits)
        self._credential = [(b"authorization", b"Bearer " + api_key.encode())] if api_key else []
        self._in_flight = 0

    def __repr__(self) -> str:
        return f"<RemoteServer {self.id}: {self.health}, {len(self.models)} models, {self._in_flight} in flight>"

    @property
    def models(self) -> tuple[str, ...]:
        return self._fixed_models or self._found_models

    @property
    def health(self) -> Health:
        return self.standing.health

    def status(self) -> BackendStatus:
        standing = self.standing
        address = str(self._upstream.origin)
        return BackendStatus(self.id, "remote", address, self.models, standing.health, standing.reason, self._in_flight)

    async def aclose(self) -> None:
        await self._upstream.aclose()

    async def forward(self, call: Call, reply: Reply) -> None:
        """Answer `call`. A server that cannot be reached or fails is marked; a client's mistake is the client's."""
        self._in_flight += 1
        try:
            await self._forward(call, reply)
        except UpstreamRefusal as refusal:
            if refusal.kind.fault == "upstream":
                self.standing.failed(refusal.message)
                raise
            await reply.complete(refusal.status, refusal.body)
            return
        except ApiError as error:
            self.standing.failed(error.message)
            raise
        finally:
            self._in_flight -= 1
        self.standing.passed()

    async def probe(self) -> None:
        """Ask for the server's models and remember its health. Never raises for what the server does."""
        try:
            request = self._encode("GET", "/models", [(b"accept", b"application/json")], None)
            async with self._upstream.request(request, "GET") as response:
                body = await response.read(MAX_REPLY)
                if response.head.status != 200:
                    raise ApiError(errors.UPSTREAM_ERROR, f"`/v1/models` answered {response.head.status}")
            self._found_models = _listed(body)
        except ApiError as error:
            self.standing.failed(error.message)
        except msgspec.DecodeError as error:
            self.standing.failed(f"`/v1/models` is not a model list: {error}")
        else:
            self.standing.passed()

    async def _forward(self, call: Call, reply: Reply) -> None:
        headers = [*forwardable(call.headers), *_request_id(call)]
        request = self._encode("POST", f"/{call.endpoint}", headers, call.body)
        async with self._upstream.request(request, "POST") as response:
            if response.head.status >= 400:
                raise await _refusal(response)
            if (response.head.header(b"content-type") or b"").startswith(b"text/event-stream"):
                await _relay_events(response, reply)
                return
            body = await response.read(MAX_REPLY)
        reply.usage = _usage(body)
        content_type = response.head.header(b"content-type") or b"application/json"
        await reply.complete(response.head.status, body, [(b"content-type", content_type)])

    def _encode(self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes | None) -> bytes:
        origin = self._upstream.origin
        everything = [(b"host", origin.authority.encode()), *headers, *self._credential]
        return encode_request(method, origin.base + path, everything, body)


def _request_id(call: Call) -> list[tuple[bytes, bytes]]:
    """The request's id for the server's log. Only a UUID is told: some servers answer 400 to any other."""
    return [(b"x-request-id", call.request_id.encode())] if UUID_FORM.fullmatch(call.request_id) else []


async def _relay_events(response: Response, reply: Reply) -> None:
    """Pass whole events on as they arrive, so that an error can still be told between two of them."""
    scanner = SseScanner()
    while data := await response.receive():
        events = scanner.feed(data)
        if scanner.usage is not None:
            reply.usage = _usage(scanner.usage)
        if scanner.done and not reply.finished:
            await reply.end_stream(events)  # the client may leave now; what the server still sends is only read
        elif events and not reply.finished:
            await reply.send_events(events)
    if reply.finished:
        return
    if scanner.rest().strip():
        raise ApiError(errors.UPSTREAM_TRUNCATED, "The server ended its stream inside an event")
    await reply.end_stream()


def _usage(body: bytes) -> Usage | None:
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
    """The server's error, in OpenAI's envelope. 5xx is the server's fault, the rest is passed on as the client's."""
    status = response.head.status
    body = await response.read(MAX_ERROR)
    kind = errors.UPSTREAM_ERROR if status >= 500 else errors.UPSTREAM_REFUSED
    try:
        message = _decode_envelope(body).error.message
    except msgspec.DecodeError:
        text = body[:500].decode("utf-8", "replace").strip() or response.head.reason.decode("latin-1")
        message = f"The model's server answered {status}: {text}"
        body = msgspec.json.encode(ApiError(kind, message).envelope())
    return UpstreamRefusal(kind, status, body, message)
