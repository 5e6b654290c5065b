"""`quiver register`, `deregister` and `servers`: the servers of a running gateway, over its admin API."""

from datetime import datetime
from typing import Annotated
from urllib.parse import quote

import msgspec
import typer
from quiver.schemas.admin import (
    CheckResult,
    Deregistered,
    Registered,
    Registration,
    ServerDetails,
    ServerList,
    ServerReport,
)

from ..configuration.credentials import key_in
from .client import DEFAULT_URL, decoded
from .completion import server_ids
from .console import print_json, print_table
from .failures import failures_explained
from .options import OPERATOR, AdminKey, AdminKeyFile, Json, ServerId, Url, operator

# A first check may take a minute, by `health.timeout`.
TIMEOUT = 75.0

COLUMNS = ("SERVER", "STATE", "IN FLIGHT", "ADDRESS", "MODELS", "REASON")
RESULTS = ("AT", "OF", "RESULT", "SECONDS", "REASON")
# Results shown of the hundred that are kept; `--json` has them all.
SHOWN = 10


def register(
    server: Annotated[str, typer.Argument(help="The server's address, with or without /v1.", metavar="URL")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model it offers; may be repeated. Asked from it if unset.", metavar="NAME"),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it; host and port if unset.", metavar="NAME")
    ] = None,
    api_key_file: Annotated[
        str | None, typer.Option("--api-key-file", help="A file that holds the key it wants.", metavar="FILE")
    ] = None,
    weight: Annotated[float, typer.Option("--weight", help="Its share, under the policy `weighted`.")] = 1.0,
    max_concurrency: Annotated[
        int | None, typer.Option("--max-concurrency", min=1, help="Requests it gets at a time; more wait.")
    ] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Register a server with a running gateway, once it has passed a check. Registering it again changes it.

    \b
    Example:
      quiver register http://192.168.1.20:8000 --name lab --model qwen3-8b
    """
    with failures_explained(OPERATOR):
        wanted = Registration(
            endpoint_url=server if "://" in server else f"http://{server}",
            models=tuple(model or ()),
            name=name,
            api_key=None if api_key_file is None else key_in("--api-key-file", api_key_file),
            weight=weight,
            max_concurrency=max_concurrency,
        )
        client = operator(url, admin_key, admin_key_file, TIMEOUT)
        reply = decoded(client.send("POST", "/admin/register", msgspec.json.encode(wanted)), Registered)
    if as_json:
        print_json(reply)
    else:
        typer.echo(f"registered `{reply.registration_id}` ({reply.health_status})")


def deregister(
    id: ServerId,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Give a server no more requests; those on it go on.

    \b
    Example:
      quiver deregister lab
    """
    with failures_explained(OPERATOR):
        reply = decoded(
            operator(url, admin_key, admin_key_file).send("DELETE", f"/admin/register/{quote(id, safe='')}"),
            Deregistered,
        )
    if as_json:
        print_json(reply)
    else:
        typer.echo(f"deregistered `{reply.registration_id}`")


def servers(
    id: Annotated[
        str | None,
        typer.Argument(help="Show only this one, with its last results.", metavar="ID", autocompletion=server_ids),
    ] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """List the servers and how they stand, or show one.

    \b
    Example:
      quiver servers lab
    """
    with failures_explained(OPERATOR):
        client = operator(url, admin_key, admin_key_file)
        if id is None:
            _list(decoded(client.get("/admin/servers"), ServerList), as_json=as_json)
        else:
            _show(decoded(client.get(f"/admin/servers/{quote(id, safe='')}"), ServerDetails), as_json=as_json)


def _list(found: ServerList, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found.servers:
        print_table(COLUMNS, [_row(server) for server in found.servers])
    else:
        typer.echo("no servers are registered\nhint: add one with `quiver register URL`", err=True)


def _show(server: ServerDetails, *, as_json: bool) -> None:
    if as_json:
        print_json(server)
        return
    print_table(COLUMNS, [_row(server)])
    typer.echo()
    print_table(("FIGURE", "VALUE"), _figures(server))
    if server.history:
        typer.echo()
        print_table(RESULTS, [_result(result) for result in reversed(server.history[-SHOWN:])])


def _row(server: ServerReport) -> tuple[str, ...]:
    limit = "" if server.max_concurrency is None else f" of {server.max_concurrency}"
    in_flight, models = f"{server.in_flight}{limit}", ", ".join(server.models) or "-"
    return server.id, server.state, in_flight, server.url, models, server.reason or ""


def _figures(server: ServerDetails) -> list[tuple[str, str]]:
    figures = {
        "out of service until": _clock(server.until),
        "failures in a row": str(server.failures),
        "uptime": _share(server.uptime),
        "checks passed": _share(server.success_rate),
        "a check takes": "-" if server.mean_seconds is None else f"{server.mean_seconds:.3f} s",
        "connections": f"{server.connections.busy} busy, {server.connections.idle} idle",
        "weight": f"{server.weight:g}",
        "has a key": "yes" if server.has_key else "no",
    }
    return list(figures.items())


def _result(result: CheckResult) -> tuple[str, ...]:
    return (
        _clock(result.at),
        result.source,
        "ok" if result.ok else "failed",
        f"{result.seconds:.3f}",
        result.reason or "",
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _clock(at: float | None) -> str:
    """The time of day on this machine."""
    return "-" if at is None else f"{datetime.fromtimestamp(at):%H:%M:%S}"
