"""Registering servers while the gateway runs: what a request asks for, the check ahead of it, and storing it."""

import msgspec
from quiver.proxy.decoding import decode_body
from quiver.proxy.registry import Backend
from quiver.proxy.remote import health
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.remote.connections import Origin
from quiver.proxy.server import Gateway
from quiver.schemas import errors
from quiver.schemas.admin import Registered, Registration
from quiver.schemas.config import RemoteBackend
from quiver.schemas.errors import ApiError

# What a field's pattern asks for, in words.
_FORMS = {
    "endpoint_url": "an address such as `http://192.168.1.20:8000`, without user, query or fragment",
    "name": "1 to 64 letters, digits, dots, hyphens or underscores",
    "model_name": "printable characters without blanks",
    "models": "printable characters without blanks",
    "api_key": "printable ASCII characters without blanks",
}

_decode = msgspec.json.Decoder(Registration).decode


def decoded(body: bytes) -> Registration:
    """What a request asks for. Raises `ApiError` (400) with the field at fault; what stands in it is not repeated."""
    try:
        return decode_body(body, _decode)
    except ApiError as error:
        form = _FORMS.get((error.param or "").partition("[")[0])
        if form is None or "matching regex" not in error.message:
            raise
        raise ApiError(error.kind, f"`{error.param}`: expected {form}", param=error.param) from None


async def register(gateway: Gateway, wanted: Registration) -> tuple[Registered, bool]:
    """Register a server, or change the one with its URL and name; and whether it is new.

    Raises `ApiError`: 400 with the field at fault, 503 with the reason when the first check fails. Nothing is stored then.
    """
    server = _candidate(gateway, backend_of(wanted))
    _refuse_taken_name(gateway, server)
    await _check_first(gateway, server)
    _refuse_taken_name(gateway, server)  # by a registration that was checked meanwhile
    new = gateway.registry.get(server.id) is None
    gateway.adopt(server)
    return _told(server), new


async def change(gateway: Gateway, id: str, wanted: Registration) -> Registered:
    """Put what is wanted in the place of the server `id`. Raises `ApiError`: 404, and what `register` raises."""
    registered(gateway, id)
    if wanted.name not in (None, id):
        raise ApiError(errors.INVALID_REQUEST, f"The server is `{id}`; its name stays as it is", param="name")
    server = _candidate(gateway, msgspec.structs.replace(backend_of(wanted), name=id))
    await _check_first(gateway, server)
    try:
        registered(gateway, id)
    except ApiError:
        server.close()
        raise
    gateway.adopt(server)
    return _told(server)


def registered(gateway: Gateway, id: str) -> RemoteServer:
    """The server with this id. Raises `ApiError` (404)."""
    server = gateway.registry.get(id)
    if not isinstance(server, RemoteServer):
        raise ApiError(errors.NOT_FOUND, f"No server is registered as `{id[:64]}`; `GET /admin/servers` lists them")
    return server


def backend_of(wanted: Registration) -> RemoteBackend:
    """The `[[backends]]` entry that asks for the same. Raises `ApiError` (400)."""
    models = wanted.models
    if wanted.model_name is not None:
        if models:
            raise ApiError(errors.INVALID_REQUEST, "Give `model_name` or `models`, not both", param="model_name")
        models = (wanted.model_name,)
    return RemoteBackend(
        url=wanted.endpoint_url,
        name=wanted.name,
        models=models,
        api_key=wanted.api_key,
        weight=wanted.weight,
        max_concurrency=wanted.max_concurrency,
        capabilities=wanted.capabilities,
    )


def _candidate(gateway: Gateway, backend: RemoteBackend) -> RemoteServer:
    try:
        return gateway.candidate(backend)
    except ValueError as error:
        raise ApiError(errors.INVALID_REQUEST, f"`endpoint_url`: {error}", param="endpoint_url") from None


async def _check_first(gateway: Gateway, server: RemoteServer) -> None:
    passed = False
    try:
        passed = await health.check(server, gateway.config.health)
    finally:
        if not passed:
            server.close()
    if not passed:
        raise ApiError(errors.CHECK_FAILED, f"The server failed its first check: {server.circuit.reason}")


def _refuse_taken_name(gateway: Gateway, server: RemoteServer) -> None:
    """The same URL and name are the same server; the same name for another URL is a mistake."""
    other = gateway.registry.get(server.id)
    if other is None or _same_origin(other, server):
        return
    server.close()
    raise ApiError(
        errors.INVALID_REQUEST,
        f"`{server.id}` is already the server at {other.status().address}; give this one another `name`",
        param="name",
    )


def _same_origin(one: Backend, other: RemoteServer) -> bool:
    return isinstance(one, RemoteServer) and Origin.parse(one.config.url) == Origin.parse(other.config.url)


def _told(server: RemoteServer) -> Registered:
    return Registered(server.id, "registered", server.health)
