"""The state of a gateway, as `/status` tells it and `quiver status` shows it: no secrets, no folders of the machine."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import quiver

if TYPE_CHECKING:  # the command line reads reports without loading the gateway
    from quiver.proxy.gateway import Gateway
    from quiver.proxy.registry import BackendStatus


class HealthReport(msgspec.Struct, frozen=True):
    """`status`: `ok`, `starting` or `draining`."""

    status: str
    version: str


class VersionReport(msgspec.Struct, frozen=True):
    version: str


class BackendReport(msgspec.Struct, frozen=True):
    """One backend. `kind`: `engine` or `remote`; `address`: a URL, or a file's name without its folder; `health`: `healthy`,
    `unhealthy` or `unknown`, with the reason.
    """

    id: str
    kind: str
    address: str
    models: list[str]
    health: str
    reason: str | None
    in_flight: int


class StatusReport(msgspec.Struct, frozen=True):
    """The whole gateway. `state`: `starting`, `ready` or `draining`; `uptime` in seconds."""

    state: str
    version: str
    uptime: float
    keys_required: bool
    in_flight: int
    backends: list[BackendReport]


def report_on(gateway: "Gateway", uptime: float) -> StatusReport:
    """What `gateway` looks like now."""
    return StatusReport(
        state=gateway.state,
        version=quiver.__version__,
        uptime=round(uptime, 3),
        keys_required=gateway.keys.required,
        in_flight=gateway.exchanges.in_flight,
        backends=[backend_report(status) for status in gateway.backends()],
    )


def backend_report(status: "BackendStatus") -> BackendReport:
    """`status` without what strangers need not know."""
    reason = status.reason
    if reason is not None and status.kind == "engine":
        reason = without_folder(reason, status.address)
    return BackendReport(
        status.id, status.kind, status.address, list(status.models), status.health, reason, status.in_flight
    )


def without_folder(text: str, file: str) -> str:
    """`text` in which an absolute path of `file` is cut down to its name."""
    return re.sub(rf"(/|[A-Za-z]:\\)[^`'\"]*[/\\](?={re.escape(file)})", "", text)


COLUMNS = ("BACKEND", "HEALTH", "IN FLIGHT", "ADDRESS", "MODELS", "REASON")


def row(backend: BackendReport) -> tuple[str, ...]:
    """`backend` as a row under `COLUMNS`."""
    models = ", ".join(backend.models) or "-"
    return backend.id, backend.health, str(backend.in_flight), backend.address, models, backend.reason or ""


def summary(report: StatusReport) -> str:
    """The gateway in one line."""
    keys = "keys required" if report.keys_required else "no keys required"
    return (
        f"{report.state}, {report.in_flight} in flight, up {duration(report.uptime)}, {keys}, version {report.version}"
    )


def by_need(backends: Sequence[BackendReport]) -> list[BackendReport]:
    """Those first that somebody has to look at."""
    return sorted(backends, key=lambda backend: URGENCY.index(backend.health))


URGENCY = ("unhealthy", "unknown", "healthy")


def totals(report: StatusReport) -> str:
    """The backends in one line."""
    healthy = sum(backend.health == "healthy" for backend in report.backends)
    models = {model for backend in report.backends for model in backend.models}
    offer = "1 model" if len(models) == 1 else f"{len(models)} models"
    return f"{healthy} of {len(report.backends)} backends healthy, {offer} on offer"


def duration(seconds: float) -> str:
    """The two largest units: `2d 3h`, `3h 5m`, `5m 7s` or `7s`."""
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    units = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((index for index, (count, _) in enumerate(units) if count), 3)
    return " ".join(f"{count}{unit}" for count, unit in units[first : first + 2])
