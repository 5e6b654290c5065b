"""Another configuration for a running gateway: looked at first, then put in place in one go, or not at all.

Everything that can fail comes first and can be undone; between the first change and the last nothing waits, so no request sees
half of either. Requests in flight go on as they began. Servers that were registered, and models that were loaded, while the
gateway ran are not the configuration's and stay as they are.
"""

from collections.abc import Callable

import msgspec
import structlog
import trio
from quiver.schemas.config import Config, RemoteBackend
from quiver.schemas.servers import Entry
from quiver.schemas.settings import Change, changes, running

from .access.cors import cross_origin
from .egress import EgressPolicy, operator_policy
from .gateway import Gateway
from .registry import Registry
from .remote import health
from .remote.backend import RemoteServer, id_of


class Refused(Exception):
    """The configuration does not suit the running gateway, which goes on as before. Says why."""


class Plan(msgspec.Struct, frozen=True):
    """What is about to change. `config`: what will be in force, without what waits for a restart."""

    config: Config
    egress: EgressPolicy
    servers: tuple[RemoteServer, ...]
    removed: tuple[RemoteServer, ...]


async def reconfigure(gateway: Gateway, wanted: Config) -> list[Change]:
    """Put `wanted` in force, as far as that goes without a restart; what differs from what was there.

    Raises `Refused`, or whatever an applier raises; everything is then as it was.
    """
    async with gateway.changes:
        before = gateway.config
        found = changes(before, wanted)
        config = running(before, wanted)
        if config == before:
            return found
        _refuse_loading(gateway, config)
        plan = _plan(gateway, config)
        try:
            await _look_at(gateway, plan)
            _apply(gateway, plan)
        except BaseException:
            for server in plan.servers:
                server.close()
            raise
        return found


def _plan(gateway: Gateway, config: Config) -> Plan:
    """What has to be done for `config`. Raises `Refused`."""
    try:
        policy = operator_policy(config.egress, gateway.on_loopback)
        ids = [id_of(backend) for backend in config.backends]
        for id in ids:
            if ids.count(id) > 1:
                raise ValueError(f"two backends are called `{id}`; give one of them a `name`")
        servers = [server for backend in config.backends if (server := _server(gateway, config, backend)) is not None]
        _refuse_operators_twin(gateway, config)
    except ValueError as error:
        raise Refused(str(error)) from None
    removed = [server for server in _configured(gateway.registry) if server.id not in ids]
    return Plan(config, policy, tuple(servers), tuple(removed))


def _refuse_loading(gateway: Gateway, config: Config) -> None:
    try:
        gateway.models.look_at(config.models)
    except ValueError as error:
        raise Refused(str(error)) from None


def _server(gateway: Gateway, config: Config, backend: RemoteBackend) -> RemoteServer | None:
    """The server that a configured backend asks for; None when it is there. Raises `ValueError`."""
    before, now = gateway.registry.get(id_of(backend)), gateway.world.wall_clock()
    entry = Entry(created=now, changed=now)
    if isinstance(before, RemoteServer):
        if before.entry.origin != "configuration":
            raise ValueError(f"`{before.id}` was registered while the gateway ran; give the backend another `name`")
        if before.config == backend:
            return None
        entry = msgspec.structs.replace(before.entry, changed=now, version=before.entry.version + 1)
    return gateway.candidate(backend, entry, config)


def _refuse_operators_twin(gateway: Gateway, config: Config) -> None:
    if config.auth.admin_key is None:
        return
    digest = gateway.keys.digest_of(config.auth.admin_key)
    for issued in gateway.keys:
        if digest in (issued.key.digest, issued.key.previous):
            raise ValueError(f"`auth.admin_key` is also the client key of `{issued.key.name}`")


def _configured(registry: Registry) -> list[RemoteServer]:
    servers = (backend for backend in registry if isinstance(backend, RemoteServer))
    return [server for server in servers if server.entry.origin == "configuration"]


async def _look_at(gateway: Gateway, plan: Plan) -> None:
    """Ask new servers, and those that move to another address, what they offer, before old ones go: no model must be missing
    meanwhile. One that does not answer is taken all the same, as it would be at start.
    """
    async with trio.open_nursery() as nursery:
        for server in plan.servers:
            before = gateway.registry.get(server.id)
            known = isinstance(before, RemoteServer) and server.reached_like(before)
            if not (known or server.config.models):
                nursery.start_soon(health.check, server, plan.config.health)


def _apply(gateway: Gateway, plan: Plan) -> None:
    """Change everything, without a wait."""
    before, after, egress, openness = gateway.config, plan.config, gateway.egress, gateway.keys.openness
    _refuse_loading(gateway, after)  # again, as time has passed
    undo: list[Callable[[], None]] = []

    def step(do: Callable[[Config], None]) -> None:
        # A step that fails halfway is undone as well.
        undo.append(lambda: do(before))
        do(after)

    def set_egress(config: Config) -> None:
        gateway.egress = plan.egress if config is after else egress

    def set_keys(config: Config) -> None:
        try:
            gateway.keys.reload(config.keys, config.auth.keys, config.rate, trio.current_time())
        except ValueError as error:
            raise Refused(str(error)) from None
        if config is before:
            gateway.keys.restore(openness)

    def set_cors(config: Config) -> None:
        gateway.cors = gateway.exchanges.cors = cross_origin(config.cors)

    def set_config(config: Config) -> None:
        gateway.config = config

    try:
        step(set_config)
        step(set_egress)
        step(set_keys)
        step(set_cors)
        step(lambda config: gateway.admission.configure(config.admission))
        step(lambda config: gateway.reuse.configure(config.reuse, trio.current_time()))
        step(lambda config: gateway.registry.configure(config.routing))
        if any(getattr(before, name) != getattr(after, name) for name in ("limits", "retries", "routing")):
            step(gateway.exchanges.inference.configure)
        step(lambda config: _set_servers(gateway, config))
        step(lambda config: gateway.models.configure(config.drain))
        for applier in gateway.appliers:
            step(applier)
    except Exception:
        for back in reversed(undo):
            try:
                back()
            except Exception:  # the others are taken back all the same
                structlog.get_logger(component="configuration").exception("a change could not be taken back")
        raise
    # From here on nothing fails.
    gateway.exchange_servers(plan.servers, plan.removed)
    gateway.models.exchange(before.models, after.models)
    if before.health != after.health:
        gateway.checks.begin_anew()


def _set_servers(gateway: Gateway, config: Config) -> None:
    for backend in gateway.registry:
        if isinstance(backend, RemoteServer):
            backend.configure(config.limits, config.health)
