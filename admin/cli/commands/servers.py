"""`quiver servers`: how the servers of a running gateway are, and pausing, draining, checking and trying them."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
import typer
from quiver.schemas.servers import CheckReport, ModeReport, ServerDetails, ServerList, ServerReport, Trial, TrialReport
from rich.console import Console
from typer.core import TyperGroup

from ...configuration.credentials import key_in
from ..client import DEFAULT_URL, Client, decoded
from ..console import harmless, print_json, print_table
from ..failures import failures_explained
from ..options import OPERATOR, AdminKey, AdminKeyFile, Json, ServerId, Url, operator
from . import server_views as views

# A check may take a minute, by `health.timeout`.
TIMEOUT = 75.0
# Beyond what a drain is waited for.
GRACE = 30.0
PAGE = 1000
# Results shown of the hundred that are kept; `--json` has them all.
SHOWN = 10
EVERY = 2.0


class Servers(TyperGroup):
    """`quiver servers lab` is short for `quiver servers show lab`. Options ahead of the command's name count as after it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])
        theirs = {parameter.name for parameter in command.params} if command is not None else set()
        ahead = [words for option in self.params if option.name in theirs for words in _typed(ctx, option)]
        return name, command, [*ahead, *rest]

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        (id,) = (parameter for parameter in self.commands["show"].params if parameter.name == "id")
        return [*id.shell_complete(ctx, incomplete), *super().shell_complete(ctx, incomplete)]


servers = typer.Typer(name="servers", cls=Servers, rich_markup_mode=None, subcommand_metavar="[ID | COMMAND ...]")

KeyFile = Annotated[
    str | None, typer.Option("--api-key-file", help="A file that holds the key it wants.", metavar="FILE")
]


@servers.callback(invoke_without_command=True)
def list_servers(
    context: typer.Context,
    model: Annotated[str | None, typer.Option("--model", help="Those that offer it.", metavar="NAME")] = None,
    health: Annotated[
        str | None, typer.Option("--health", help="healthy, unhealthy or unknown.", metavar="HEALTH")
    ] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="serving, paused or draining.", metavar="MODE")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Whose they are.", metavar="TEXT")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="Those with it; may be repeated.", metavar="WORD")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="Those with it in name, address, models, ...", metavar="TEXT")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort", help="created, id, model, health, checked, latency or in_flight; -id: downwards.", metavar="BY"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, max=PAGE, help="So many at most.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show them again every 2 s, until Ctrl-C.")] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """List the servers; show, check, pause, drain or try one.

    \b
    Example:
      quiver servers --health unhealthy --sort -checked
    """
    if context.invoked_subcommand is not None:
        return
    asked = {"model": model, "health": health, "mode": mode, "owner": owner, "tag": tag, "text": text}
    if sort is not None:
        asked |= {"sort": sort.removeprefix("-"), "order": "desc" if sort.startswith("-") else "asc"}
    query = {name: value for name, value in asked.items() if value}
    with failures_explained(OPERATOR):
        client = operator(url, admin_key, admin_key_file)
        for found in _rounds(client, query, limit, again=watch):
            if watch and sys.stdout.isatty() and not as_json:
                Console().clear()
            _list(found, filtered=bool(query), as_json=as_json)


@servers.command()
def show(
    id: ServerId,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Show one server with its last results. `quiver servers ID` is short for it.

    \b
    Example:
      quiver servers show lab
    """
    with failures_explained(OPERATOR):
        server = decoded(operator(url, admin_key, admin_key_file).get(_path(id)), ServerDetails)
    if as_json:
        print_json(server)
        return
    print_table(views.COLUMNS, [views.row(server)])
    typer.echo()
    print_table(("FIGURE", "VALUE"), views.figures(server))
    if server.history:
        typer.echo()
        print_table(views.RESULTS, [views.result(each) for each in reversed(server.history[-SHOWN:])])


@servers.command()
def check(
    id: ServerId,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Check a server now. Exits with 1 when it fails.

    \b
    Example:
      quiver servers check lab
    """
    with failures_explained(OPERATOR):
        client = operator(url, admin_key, admin_key_file, TIMEOUT)
        report = decoded(client.send("POST", _path(id, "health-check")), CheckReport)
    if as_json:
        print_json(report)
    else:
        typer.echo(harmless(views.check_in_words(report)))
    raise typer.Exit(0 if report.passed else 1)


@servers.command()
def pause(
    id: ServerId,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Give a server no new requests until `resume`; those on it go on. It stays paused over restarts.

    \b
    Example:
      quiver servers pause lab
    """
    _change_mode(url, admin_key, admin_key_file, id, "pause", as_json=as_json)


@servers.command()
def resume(
    id: ServerId,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Give a server requests again.

    \b
    Example:
      quiver servers resume lab
    """
    _change_mode(url, admin_key, admin_key_file, id, "resume", as_json=as_json)


@servers.command()
def drain(
    id: ServerId,
    wait: Annotated[
        float, typer.Option("--wait", min=0, max=3600, help="Seconds to wait until no request is on it.")
    ] = 0.0,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Give a server no new requests, and pause it once none is on it. With --wait, exits with 1 if some are left then.

    \b
    Example:
      quiver servers drain lab --wait 120
    """
    with failures_explained(OPERATOR):
        client = operator(url, admin_key, admin_key_file, wait + GRACE)
        path = f"{_path(id, 'drain')}?wait={wait:g}"
        report = ModeReport(registration_id=id, mode="draining", in_flight=0)
        with _progress() as told:
            for data in client.stream(path, b"", "text/event-stream"):
                report = decoded(data, ModeReport)
                told(views.mode_in_words(report))
    if as_json:
        print_json(report)
    else:
        typer.echo(views.mode_in_words(report))
    raise typer.Exit(1 if wait and report.mode == "draining" else 0)


@servers.command("test")
def try_out(
    server: Annotated[str, typer.Argument(help="The server's address, with or without /v1.", metavar="URL")],
    api_key_file: KeyFile = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Say whether a server could be registered, and what it is. Nothing is registered. Exits with 1 when it could not.

    \b
    Example:
      quiver servers test http://192.168.1.20:8000
    """
    with failures_explained(OPERATOR):
        key = None if api_key_file is None else key_in("--api-key-file", api_key_file)
        wanted = Trial(endpoint_url=server if "://" in server else f"http://{server}", api_key=key)
        client = operator(url, admin_key, admin_key_file, TIMEOUT)
        report = decoded(client.send("POST", "/admin/servers/test", msgspec.json.encode(wanted)), TrialReport)
    if as_json:
        print_json(report)
    else:
        typer.echo(harmless(views.trial_in_words(report)))
        typer.echo(harmless(views.in_words(report.detected)))
        if report.detected.models:
            typer.echo()
            print_table(views.MODELS, views.models(report.detected))
    raise typer.Exit(0 if report.passed else 1)


def _change_mode(url: str, key: str | None, key_file: str | None, id: str, change: str, *, as_json: bool) -> None:
    with failures_explained(OPERATOR):
        report = decoded(operator(url, key, key_file).send("POST", _path(id, change)), ModeReport)
    if as_json:
        print_json(report)
    else:
        typer.echo(views.mode_in_words(report))


def _rounds(client: Client, query: dict[str, Any], limit: int | None, *, again: bool) -> Iterator[ServerList]:
    """The servers, once; or again and again until Ctrl-C."""
    yield _pages(client, query, limit)
    while again:
        try:
            time.sleep(EVERY)
        except KeyboardInterrupt:
            return
        yield _pages(client, query, limit)


def _pages(client: Client, query: dict[str, Any], limit: int | None) -> ServerList:
    """One page of `limit`, or all pages as one."""
    found: list[ServerReport] = []
    asked = {**query, "limit": limit or PAGE}
    while True:
        page = decoded(client.get(f"/admin/servers?{urlencode(asked, doseq=True)}"), ServerList)
        found += page.servers
        if limit is not None or page.next_cursor is None:
            return ServerList(found, page.total, page.next_cursor)
        asked["cursor"] = page.next_cursor


def _list(found: ServerList, *, filtered: bool, as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found.servers:
        print_table(views.COLUMNS, [views.row(server) for server in found.servers])
        if len(found.servers) < found.total:
            typer.echo(f"{found.total - len(found.servers)} more; `--limit` shows others", err=True)
    elif filtered:
        typer.echo("no server is like that", err=True)
    else:
        typer.echo("no servers are registered\nhint: add one with `quiver register URL`", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on stderr that changes, where that is a terminal."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with console.status("asking") as status:
        yield status.update


def _path(id: str, action: str | None = None) -> str:
    path = f"/admin/servers/{quote(id, safe='')}"
    return path if action is None else f"{path}/{action}"


def _typed(context: Any, option: Any) -> list[str]:
    """The words that give `option` its value, if somebody typed it."""
    source = context.get_parameter_source(option.name)
    if source is None or source.name != "COMMANDLINE":
        return []
    value, flag = context.params[option.name], option.opts[0]
    if isinstance(value, bool):
        return [flag]
    return [word for each in (value if isinstance(value, list | tuple) else [value]) for word in (flag, str(each))]
