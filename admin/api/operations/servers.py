"""Registered servers."""

from quiver.schemas.admin import (
    CheckReport,
    Deregistered,
    Registered,
    Registration,
    ServerDetails,
    ServerList,
)

from .operation import ADMIN_FAILURES, Operation

_SERVER = {"endpoint_url": "http://192.168.1.20:8000", "name": "lab", "models": ["qwen3-8b"], "max_concurrency": 8}
SERVERS = (
    Operation(
        "registerServer",
        "post",
        "/admin/register",
        "Register a server, or change the one with the same URL and name",
        "administration",
        Registered,
        request=Registration,
        failures=(400, *ADMIN_FAILURES, 503),
        lock="operator",
        example=_SERVER,
        successes={201: "Registered", 200: "It was registered, and is changed"},
    ),
    Operation(
        "changeServer",
        "put",
        "/admin/register/{id}",
        "Replace what is known of a server, its key included",
        "administration",
        Registered,
        request=Registration,
        failures=(400, *ADMIN_FAILURES, 404, 503),
        lock="operator",
        example=_SERVER,
    ),
    Operation(
        "deregisterServer",
        "delete",
        "/admin/register/{id}",
        "Give a server no more requests",
        "administration",
        Deregistered,
        failures=(*ADMIN_FAILURES, 404),
        lock="operator",
    ),
    Operation(
        "listServers",
        "get",
        "/admin/servers",
        "List the servers and how they stand",
        "administration",
        ServerList,
        failures=ADMIN_FAILURES,
        lock="operator",
    ),
    Operation(
        "getServer",
        "get",
        "/admin/servers/{id}",
        "Show one server with its last results",
        "administration",
        ServerDetails,
        failures=(*ADMIN_FAILURES, 404),
        lock="operator",
    ),
    Operation(
        "checkServer",
        "post",
        "/admin/servers/{id}/health-check",
        "Check a server now",
        "administration",
        CheckReport,
        failures=(*ADMIN_FAILURES, 404),
        lock="operator",
    ),
)
