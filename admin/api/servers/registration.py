"""Registering servers while the gateway runs: what a request asks for, and which server it means. `changes` does it."""

from typing import Any

import msgspec
import trio
from msgspec import UNSET
from quiver.proxy.gateway import Gateway
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.remote.connections import Origin
from quiver.schemas import errors
from quiver.schemas.config import RemoteBackend
from quiver.schemas.errors import ApiError
from quiver.schemas.servers import Detection, Registration, ServerPatch, Trial

from ...logs.redactor import REDACTOR
from ..bodies import explained_body
from .changes import Change, Guard, refuse_configured, refuse_joined, taken
from .trials import completed, detected

# What a field's pattern and length ask for, in words.
_FORMS = {
    "endpoint_url": "an address such as `http://192.168.1.20:8000`, without user, query or fragment, 2048 characters at most",
    "name": "1 to 64 letters, digits, dots, hyphens or underscores",
    "model_name": "printable characters without blanks, 255 at most",
    "models": "printable characters without blanks, 255 at most",
    "api_key": "printable ASCII characters without blanks, 4096 at most",
}

_decode = msgspec.json.Decoder(Registration).decode
_decode_trial = msgspec.json.Decoder(Trial).decode
_decode_patch = msgspec.json.Decoder(ServerPatch).decode


def decoded(body: bytes) -> Registration:
    """What a request asks for. Raises `ApiError` (400) with the field at fault; what stands in it is not repeated."""
    return explained_body(body, _decode, _FORMS)


def decoded_trial(body: bytes) -> Trial:
    """What is to be tried. Raises `ApiError` (400) like `decoded`."""
    return explained_body(body, _decode_trial, _FORMS)


def decoded_patch(body: bytes) -> ServerPatch:
    """What is to change. Raises `ApiError` (400) like `decoded`."""
    return explained_body(body, _decode_patch, _FORMS)


async def register(gateway: Gateway, wanted: Registration, actor: str) -> tuple[RemoteServer, bool, Detection | None]:
    """Register a server, or change the one with its URL and name; whether it is new, and what it is if that was asked for.

    Raises `ApiError`: 400 with the field at fault, 409 when it is the configuration's, 503 with the reason when the first
    check fails. Nothing is kept then.
    """
    backend = backend_of(wanted)
    before = _same_server(gateway, backend)
    if before is not None:
        refuse_configured(before)
    found = await detected(gateway, backend) if wanted.detect else None
    if found is not None:
        backend = completed(backend, found)
    asked = Change(gateway, before, named(backend, before), wanted.metadata, actor)
    return await asked.make(check=True), asked.new, found


async def change(gateway: Gateway, id: str, wanted: Registration, actor: str, guard: Guard) -> RemoteServer:
    """Put what is wanted in the place of the server `id`. Raises `ApiError`: 404, and what `register` raises."""
    before = changeable(gateway, id, guard)
    backend = backend_of(wanted)
    _refuse_rename(id, wanted.name)
    if wanted.detect:
        backend = completed(backend, await detected(gateway, backend))
    return await Change(gateway, before, named(backend, before), wanted.metadata, actor, guard).make(check=True)


async def patch(gateway: Gateway, id: str, wanted: ServerPatch, actor: str, guard: Guard) -> RemoteServer:
    """Change of the server `id` what is wanted; it is checked when that is its address or key. Raises like `change`."""
    before = changeable(gateway, id, guard)
    merged = _merged(before, wanted)
    _refuse_rename(id, merged.name)
    asked = Change(gateway, before, named(backend_of(merged), before), merged.metadata, actor, guard)
    return await asked.make(check=False)


async def deregister(gateway: Gateway, id: str, actor: str, guard: Guard) -> None:
    """Give the server no more requests, and forget it. Raises `ApiError` (404, 409, 412, 503)."""
    async with gateway.changes:
        server = removable(gateway, id, guard)
        with trio.CancelScope(shield=True):  # see `Change`
            await gateway.store.remove_server(id)
        gateway.deregister(id)
    gateway.journal.note("server.deregistered", id, actor=actor, url=server.config.url, version=server.entry.version)


def registered(gateway: Gateway, id: str) -> RemoteServer:
    """The server with this id. Raises `ApiError` (404)."""
    return gateway.modes.find(id)


def removable(gateway: Gateway, id: str, guard: Guard) -> RemoteServer:
    """The server with this id, if it may be taken out here. Raises `ApiError` (404, 409, 412)."""
    server = registered(gateway, id)
    guard(server)
    refuse_configured(server)
    return server


def changeable(gateway: Gateway, id: str, guard: Guard) -> RemoteServer:
    """The server with this id, if it may be changed here. Raises `ApiError` (404, 409, 412)."""
    server = removable(gateway, id, guard)
    refuse_joined(server)
    return server


def backend_of(wanted: Registration) -> RemoteBackend:
    """The `[[backends]]` entry that asks for the same. Raises `ApiError` (400)."""
    models = wanted.models
    if wanted.model_name is not None:
        if models:
            raise ApiError(errors.INVALID_REQUEST, "Give `model_name` or `models`, not both", param="model_name")
        models = (wanted.model_name,)
    REDACTOR.learn(wanted.api_key)
    return RemoteBackend(
        url=wanted.endpoint_url,
        name=wanted.name,
        models=models,
        api_key=wanted.api_key,
        weight=wanted.weight,
        max_concurrency=wanted.max_concurrency,
        capabilities=wanted.capabilities,
    )


def named(backend: RemoteBackend, before: RemoteServer | None) -> RemoteBackend:
    """`backend` under the name of the server it takes the place of."""
    return backend if before is None else msgspec.structs.replace(backend, name=before.id)


def _same_server(gateway: Gateway, backend: RemoteBackend) -> RemoteServer | None:
    """The server that `backend` means: the one of its name, and without a name the one at its address, however that is
    spelled. Raises `ApiError` (400) when the name is another server's, or several have the address.
    """
    try:
        origin = Origin.parse(backend.url)
    except ValueError as error:
        raise ApiError(errors.INVALID_REQUEST, f"`endpoint_url`: {error}", param="endpoint_url") from None
    here = [each for each in gateway.registry if isinstance(each, RemoteServer) and each.origin == origin]
    if backend.name is not None:
        other = gateway.registry.get(backend.name)
        if other is not None and other not in here:
            raise taken(backend.name, other.status().address)
        here = [each for each in here if each.id == backend.name]
    if len(here) > 1:
        names = ", ".join(f"`{each.id}`" for each in here)
        raise ApiError(errors.INVALID_REQUEST, f"Several servers have this address: {names}; give `name`", param="name")
    return here[0] if here else None


def _refuse_rename(id: str, name: str | None) -> None:
    if name not in (None, id):
        raise ApiError(errors.INVALID_REQUEST, f"The server is `{id}`; its name stays as it is", param="name")


def _merged(server: RemoteServer, wanted: ServerPatch) -> Registration:
    """What would register `server` as it is to be. Raises `ApiError` (400)."""
    if wanted.model_name is not UNSET and wanted.models is not UNSET:
        raise ApiError(errors.INVALID_REQUEST, "Give `model_name` or `models`, not both", param="model_name")
    changes = msgspec.to_builtins(wanted)
    if "model_name" in changes:
        changes["models"] = [changes.pop("model_name")]
    return msgspec.convert(_merge(msgspec.to_builtins(_registration_of(server)), changes), Registration)


def _registration_of(server: RemoteServer) -> Registration:
    config = server.config
    return Registration(
        endpoint_url=config.url,
        models=config.models,
        name=config.name,
        api_key=config.api_key,
        weight=config.weight,
        max_concurrency=config.max_concurrency,
        capabilities=config.capabilities,
        metadata=server.entry.metadata,
    )


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7396."""
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name, {}), value) if isinstance(value, dict) else value
    return merged
