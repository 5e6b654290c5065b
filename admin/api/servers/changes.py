"""One change of the registry: a server is checked, then kept by the store, then in effect, then told; and the journal says who
changed what. When a step fails nothing has changed.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import trio
from quiver.proxy.gateway import Gateway
from quiver.proxy.remote import health
from quiver.proxy.remote.backend import RemoteServer
from quiver.schemas import errors
from quiver.schemas.config import RemoteBackend
from quiver.schemas.errors import ApiError
from quiver.schemas.saved import Metadata, SavedServer
from quiver.schemas.servers import Entry

# Raises `ApiError` when a change of the server that stands there now is not wanted any more.
Guard = Callable[[RemoteServer], None]


class Change:
    """A server that is to stand in the registry, new or in the place of `before`: of that one as `guard` wants it and no other,
    or without a guard of whatever has its name and address by then. `new`: whether nothing had.
    """

    def __init__(
        self,
        gateway: Gateway,
        before: RemoteServer | None,
        backend: RemoteBackend,
        metadata: Metadata,
        actor: str,
        guard: Guard | None = None,
    ) -> None:
        self._gateway, self._before = gateway, before
        self._backend, self._metadata = backend, metadata
        self._actor, self._guard = actor, guard
        self.new = False

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
                self.new, in_effect = current is None, True
        finally:
            if not in_effect:
                server.close()
        self._note(current, server)
        return server

    def _current(self, server: RemoteServer) -> RemoteServer | None:
        """What stands in the registry after the check. Raises `ApiError` when that is not what was to be changed."""
        current = self._gateway.registry.get(server.id)
        if current is None:
            if self._guard is not None:
                self._gateway.modes.find(server.id)
            return None
        if not isinstance(current, RemoteServer) or (self._guard is None and current.origin != server.origin):
            raise taken(server.id, current.status().address)
        refuse_configured(current)
        refuse_joined(current)
        if self._guard is not None:
            self._guard(current)
            if current is not self._before:
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


def refuse_configured(server: RemoteServer) -> None:
    """Raise `ApiError` (409) for a server that the configuration file owns."""
    if server.entry.origin == "configuration":
        raise ApiError(
            errors.CONFIGURED_SERVER,
            f"`{server.id}` is written in the configuration file; change it there. It can be paused and drained here",
        )


def refuse_joined(server: RemoteServer) -> None:
    """Raise `ApiError` (409) for a server that says itself what it is."""
    if server.entry.origin == "joined":
        message = f"`{server.id}` has joined by itself; change it where it runs. It can be paused and taken out here"
        raise ApiError(errors.JOINED_SERVER, message)


def taken(id: str, address: str) -> ApiError:
    """For a name that another server has."""
    return ApiError(
        errors.INVALID_REQUEST, f"`{id}` is already the server at {address}; give this one another `name`", param="name"
    )


async def _check(gateway: Gateway, server: RemoteServer) -> None:
    if not await health.check(server, gateway.config.health):
        raise ApiError(errors.CHECK_FAILED, f"The server failed its first check: {server.circuit.reason}")


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
