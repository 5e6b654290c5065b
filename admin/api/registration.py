"""Registering servers while the gateway runs: what a request asks for, the check ahead of it, and keeping it.

A change is checked first, then kept by the store, then in effect, then told; and noted with what it changed and who made it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import trio
from quiver.proxy.decoding import decode_body
from quiver.proxy.remote import health
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.remote.connections import Origin
from quiver.proxy.server import Gateway
from quiver.schemas import errors
from quiver.schemas.admin import Registration
from quiver.schemas.config import RemoteBackend
from quiver.schemas.errors import ApiError
from quiver.schemas.saved import Metadata, SavedServer
from quiver.schemas.servers import Entry, ServerPatch

S = TypeVar("S")

# What a field's pattern asks for, in words.
_FORMS = {
    "endpoint_url": "an address such as `http://192.168.1.20:8000`, without user, query or fragment",
    "name": "1 to 64 letters, digits, dots, hyphens or underscores",
    "model_name": "printable characters without blanks",
    "models": "printable characters without blanks",
    "api_key": "printable ASCII characters without blanks",
}

_decode = msgspec.json.Decoder(Registration).decode
_decode_patch = msgspec.json.Decoder(ServerPatch).decode
# Raises `ApiError` when a change of the server that stands there now is not wanted any more.
Guard = Callable[[RemoteServer], None]


def decoded(body: bytes) -> Registration:
    """What a request asks for. Raises `ApiError` (400) with the field at fault; what stands in it is not repeated."""
    return _explained(body, _decode)


def decoded_patch(body: bytes) -> ServerPatch:
    """What is to change. Raises `ApiError` (400) like `decoded`."""
    return _explained(body, _decode_patch)


async def register(gateway: Gateway, wanted: Registration, actor: str) -> tuple[RemoteServer, bool]:
    """Register a server, or change the one with its URL and name; and whether it is new.

    Raises `ApiError`: 400 with the field at fault, 409 when it is the configuration's, 503 with the reason when the first
    check fails. Nothing is kept then.
    """
    backend = backend_of(wanted)
    before = _same_server(gateway, backend)
    if before is not None:
        _refuse_configured(before)
    new = Change(gateway, before, named(backend, before), wanted.metadata, actor)
    return await new.make(check=True), before is None


async def change(gateway: Gateway, id: str, wanted: Registration, actor: str, guard: Guard) -> RemoteServer:
    """Put what is wanted in the place of the server `id`. Raises `ApiError`: 404, and what `register` raises."""
    before = changeable(gateway, id, guard)
    backend = backend_of(wanted)
    _refuse_rename(id, wanted.name)
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
    _refuse_configured(server)
    return server


def changeable(gateway: Gateway, id: str, guard: Guard) -> RemoteServer:
    """The server with this id, if it may be changed here. Raises `ApiError` (404, 409, 412)."""
    server = removable(gateway, id, guard)
    _refuse_joined(server)
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


def named(backend: RemoteBackend, before: RemoteServer | None) -> RemoteBackend:
    """`backend` under the name of the server it takes the place of."""
    return backend if before is None else msgspec.structs.replace(backend, name=before.id)


class Change:
    """A server that is to stand in the registry, new or in the place of `before`."""

    def __init__(
        self,
        gateway: Gateway,
        before: RemoteServer | None,
        backend: RemoteBackend,
        metadata: Metadata,
        actor: str,
        guard: Guard = lambda server: None,
    ) -> None:
        self._gateway, self._before = gateway, before
        self._backend, self._metadata = backend, metadata
        self._actor, self._guard = actor, guard

    async def make(self, *, check: bool) -> RemoteServer:
        """The server as it stands then; `check`: also where its address and key stay. Raises `ApiError`, and then nothing has
        changed.
        """
        before, gateway = self._before, self._gateway
        server = candidate(gateway, self._backend, Entry(metadata=self._metadata))
        in_effect = False
        try:
            known = before if before is not None and server.reached_like(before) else None
            if check or known is None:
                await _check(gateway, known or server)
            async with gateway.changes:
                current = self._current(server)
                if current is not None and not _differences(current, server):
                    return current
                server.entry = self._entry(current)
                # A client that leaves now must not leave the store and the registry apart. The store has time limits.
                with trio.CancelScope(shield=True):
                    await gateway.store.save_server(_saved(server))
                gateway.adopt(server)
                in_effect = True
        finally:
            if not in_effect:
                server.close()
        self._note(current, server)
        return server

    def _current(self, server: RemoteServer) -> RemoteServer | None:
        """What stands in the registry after the check. Raises `ApiError` when that is not what was to be changed."""
        current = self._gateway.registry.get(server.id)
        if current is None:
            if self._before is not None:
                registered(self._gateway, server.id)
            return None
        if not isinstance(current, RemoteServer) or (self._before is None and current.origin != server.origin):
            raise _taken(server.id, current.status().address)
        _refuse_configured(current)
        _refuse_joined(current)
        self._guard(current)
        if self._before is not None and current is not self._before:
            raise ApiError(errors.VERSION_MISMATCH, "The server was changed meanwhile; read it again")
        return current

    def _entry(self, current: RemoteServer | None) -> Entry:
        now = self._gateway.world.wall_clock()
        if current is None:
            return Entry(origin="registered", metadata=self._metadata, created=now, changed=now)
        entry = current.entry
        return msgspec.structs.replace(entry, metadata=self._metadata, changed=now, version=entry.version + 1)

    def _note(self, current: RemoteServer | None, server: RemoteServer) -> None:
        journal, version = self._gateway.journal, server.entry.version
        if current is None:
            url, models = server.config.url, server.config.models
            journal.note("server.registered", server.id, actor=self._actor, url=url, models=models, version=version)
        else:
            changes = _differences(current, server)
            journal.note("server.changed", server.id, actor=self._actor, changes=changes, version=version)


def candidate(gateway: Gateway, backend: RemoteBackend, entry: Entry) -> RemoteServer:
    """A server to look at. Raises `ApiError` (400) when its URL cannot be used."""
    try:
        return gateway.candidate(backend, entry)
    except ValueError as error:
        raise ApiError(errors.INVALID_REQUEST, f"`endpoint_url`: {error}", param="endpoint_url") from None


async def _check(gateway: Gateway, server: RemoteServer) -> None:
    if not await health.check(server, gateway.config.health):
        raise ApiError(errors.CHECK_FAILED, f"The server failed its first check: {server.circuit.reason}")


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
            raise _taken(backend.name, other.status().address)
        here = [each for each in here if each.id == backend.name]
    if len(here) > 1:
        names = ", ".join(f"`{each.id}`" for each in here)
        raise ApiError(errors.INVALID_REQUEST, f"Several servers have this address: {names}; give `name`", param="name")
    return here[0] if here else None


def _refuse_configured(server: RemoteServer) -> None:
    if server.entry.origin == "configuration":
        raise ApiError(
            errors.CONFIGURED_SERVER,
            f"`{server.id}` is written in the configuration file; change it there. It can be paused and drained here",
        )


def _refuse_joined(server: RemoteServer) -> None:
    if server.entry.origin == "joined":
        message = f"`{server.id}` has joined by itself; change it where it runs. It can be paused and taken out here"
        raise ApiError(errors.JOINED_SERVER, message)


def _refuse_rename(id: str, name: str | None) -> None:
    if name not in (None, id):
        raise ApiError(errors.INVALID_REQUEST, f"The server is `{id}`; its name stays as it is", param="name")


def _taken(id: str, address: str) -> ApiError:
    return ApiError(
        errors.INVALID_REQUEST, f"`{id}` is already the server at {address}; give this one another `name`", param="name"
    )


def _saved(server: RemoteServer) -> SavedServer:
    entry = server.entry
    return SavedServer(
        id=server.id,
        backend=server.config,
        metadata=entry.metadata,
        created=entry.created,
        changed=entry.changed,
        version=entry.version,
    )


def _merged(server: RemoteServer, wanted: ServerPatch) -> Registration:
    """What would register `server` as it is to be. Raises `ApiError` (400)."""
    if wanted.model_name is not msgspec.UNSET and wanted.models is not msgspec.UNSET:
        raise ApiError(errors.INVALID_REQUEST, "Give `model_name` or `models`, not both", param="model_name")
    config = server.config
    fields = {"endpoint_url": config.url, **_builtins(config), "metadata": _builtins(server.entry.metadata)}
    del fields["url"]
    changes = _builtins(wanted)
    if "model_name" in changes:
        changes["models"] = [changes.pop("model_name")]
    return msgspec.convert(_merge(fields, changes), Registration)


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7396."""
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name, {}), value) if isinstance(value, dict) else value
    return merged


def _builtins(value: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def _differences(one: RemoteServer, other: RemoteServer) -> dict[str, Any]:
    """What differs between two servers, each with how it was and how it is. Of the key only that it does."""
    found: dict[str, Any] = {}
    for name in ("url", "models", "weight", "max_concurrency", "capabilities"):
        before, after = getattr(one.config, name), getattr(other.config, name)
        if before != after:
            found[name] = {"before": msgspec.to_builtins(before), "after": msgspec.to_builtins(after)}
    if one.config.api_key != other.config.api_key:
        found["api_key"] = "changed"
    if one.entry.metadata != other.entry.metadata:
        before, after = one.entry.metadata, other.entry.metadata
        found["metadata"] = {"before": msgspec.to_builtins(before), "after": msgspec.to_builtins(after)}
    return found


def _explained(body: bytes, decode: Callable[[bytes], S]) -> S:
    try:
        return decode_body(body, decode)
    except ApiError as error:
        form = _FORMS.get((error.param or "").partition("[")[0])
        if form is None or "matching regex" not in error.message:
            raise
        raise ApiError(error.kind, f"`{error.param}`: expected {form}", param=error.param) from None
