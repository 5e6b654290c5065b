"""Health, metrics, figures: what tells how the gateway itself is."""

from quiver.schemas.figures import StatsReport

from ..status import HealthReport, StatusReport, VersionReport
from .operation import ADMIN_FAILURES, Operation

SERVICE = (
    Operation("getHealth", "get", "/health", "Status and version", "operation", HealthReport),
    Operation("isAlive", "get", "/healthz", "Whether the process answers", "operation", HealthReport),
    Operation("isReady", "get", "/readyz", "Whether it takes requests", "operation", HealthReport, failures=(500, 503)),
    Operation("getVersion", "get", "/version", "The gateway's version", "operation", VersionReport),
    Operation(
        "getStatus",
        "get",
        "/status",
        "The backends, their health, and what is in flight",
        "operation",
        StatusReport,
        failures=(401, 500),
        lock="outsider",
    ),
    Operation(
        "getMetrics",
        "get",
        "/metrics",
        "Metrics in Prometheus' text format",
        "operation",
        "text/plain",
        failures=(401, 500),
        lock="outsider",
    ),
    Operation(
        "getStats",
        "get",
        "/admin/stats",
        "Figures since the start: requests, queue, shared answers, connections",
        "administration",
        StatsReport,
        failures=ADMIN_FAILURES,
        lock="operator",
    ),
)
