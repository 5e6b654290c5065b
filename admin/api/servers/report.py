"""What the admin API tells of one server: how it stands, what it carries, and its last results. Never its key."""

import msgspec
import trio
from quiver.proxy.remote.backend import RemoteServer
from quiver.proxy.seams import World
from quiver.proxy.tunnel.joined import JoinedServer
from quiver.schemas.join import JoinReport
from quiver.schemas.saved import CheckResult
from quiver.schemas.servers import Connections, ServerDetails, ServerReport


def report(server: RemoteServer, world: World) -> ServerReport:
    """`server` now. Call it inside `trio.run`."""
    now = trio.current_time()
    ahead = world.wall_clock() - now
    circuit, load = server.circuit.statistics(now), server.load
    return ServerReport(
        id=server.id,
        url=server.status().address,
        models=list(server.models),
        health=circuit.health,
        state=circuit.state,
        reason=circuit.reason,
        since=_moment(circuit.since, ahead),
        until=_moment(circuit.until, ahead) if circuit.until > now else None,
        failures=circuit.failures,
        checked_at=_moment(circuit.checked_at, ahead),
        success_rate=_rounded(circuit.success_rate),
        mean_seconds=_rounded(circuit.mean_seconds),
        uptime=_rounded(circuit.uptime),
        in_flight=load.in_flight,
        reported_load=load.reported,
        weight=load.weight,
        max_concurrency=load.limit or None,
        connections=msgspec.convert(server.statistics(), Connections, from_attributes=True),
        mode=server.mode,
        origin=server.entry.origin,
        metadata=server.entry.metadata,
        created=round(server.entry.created, 3),
        changed=round(server.entry.changed, 3),
        version=server.entry.version,
        joined=_link(server, ahead) if isinstance(server, JoinedServer) else None,
    )


def details(server: RemoteServer, world: World) -> ServerDetails:
    """`server` now, with its history. Call it inside `trio.run`."""
    ahead = world.wall_clock() - trio.current_time()
    history = [
        CheckResult(round(result.at + ahead, 3), result.ok, round(result.seconds, 4), result.reason, result.source)
        for result in server.circuit.history
    ]
    return ServerDetails(
        **msgspec.structs.asdict(report(server, world)),
        capabilities=server.config.capabilities,
        has_key=server.config.api_key is not None,
        history=history,
    )


def _link(server: JoinedServer, ahead: float) -> JoinReport:
    link = server.link
    figures = link.statistics()
    return JoinReport(
        link=server.standing,
        since=round((server.linked_at if server.lost_at is None else server.lost_at) + ahead, 3),
        peer=server.peer,
        software=server.offer.software,
        paused=server.paused,
        reconnects=server.reconnects,
        round_trip=_rounded(link.round_trip),
        streams=figures.streams,
        bytes_sent=figures.sent,
        bytes_received=figures.received,
        served=server.served,
        failed=server.failed,
        tokens=server.tokens,
    )


def _moment(at: float | None, ahead: float) -> float | None:
    """A time on Trio's clock as Unix time; `ahead` is how much that is more."""
    return None if at is None else round(at + ahead, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
