"""`quiver logs`: what a running gateway has logged and is logging, and how much it logs, over its admin API."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer
from quiver.schemas.logs import LevelsReport, LogLine, LogPage

from ..client import DEFAULT_URL, Client, decoded
from ..console import print_json, print_table
from ..failures import failures_explained
from ..options import OPERATOR, AdminKey, AdminKeyFile, Json, Url, operator
from ..times import moment, seconds_in

# What the gateway gives at a time.
PAGE = 500

logs = typer.Typer(name="logs", rich_markup_mode=None, add_completion=False)

LevelOption = Annotated[str | None, typer.Option("--level", help="The least level: debug, info, warning, ...")]


@logs.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines as they come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines, the newest.")] = 50,
    least: LevelOption = None,
    component: Annotated[str | None, typer.Option("--component", help="Only of this one, like health.")] = None,
    request: Annotated[str | None, typer.Option("--request", help="Only of this request.", metavar="ID")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="From then on: 10m, 2h, 2026-05-01T12:00.", metavar="TIME")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Up to then.", metavar="TIME")] = None,
    search: Annotated[str | None, typer.Option("--search", help="Only with this text in them.", metavar="TEXT")] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Show what the gateway has logged, or follow what it logs.

    \b
    Example:
      quiver logs -f --level warning
      quiver logs --request 4f1c2a7e-9d3a-4f6d-a44c-000000000001
    """
    if context.invoked_subcommand is not None:
        return
    with failures_explained(OPERATOR), contextlib.suppress(KeyboardInterrupt):
        client = operator(url, admin_key, admin_key_file)
        query = {"level": least and least.lower(), "component": component, "request_id": request, "search": search}
        shown = _Shown(as_json)
        times = {"since": since and _moment("--since", since), "until": until and _moment("--until", until)}
        asked = query | {name: at for name, at in times.items() if at}
        for line in reversed(list(_found(client, asked, lines))):
            shown.line(line)
        if follow:
            for data in client.stream(_path(query), accept="text/event-stream"):
                shown.line(decoded(data, LogLine))


@logs.command()
def levels(
    url: Url = DEFAULT_URL, admin_key: AdminKey = None, admin_key_file: AdminKeyFile = None, as_json: Json = False
) -> None:
    """Show how much each component logs.

    \b
    Example:
      quiver logs levels
    """
    with failures_explained(OPERATOR):
        client = operator(url, admin_key, admin_key_file)
        _print_levels(decoded(client.get("/admin/logs/levels"), LevelsReport), as_json)


@logs.command()
def level(
    component: Annotated[str, typer.Argument(help="Whose level, like health or request; all for the rest.")],
    level: Annotated[str, typer.Argument(help="The least that it logs; default to take its own back.")],
    duration: Annotated[
        str | None, typer.Option("--for", help="Go back after so long: 30s, 10m, 2h.", metavar="TIME")
    ] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Change how much a component logs, over restarts too, or for a while.

    \b
    Example:
      quiver logs level health debug --for 10m
    """
    with failures_explained(OPERATOR):
        client = operator(url, admin_key, admin_key_file)
        wanted: dict[str, Any] = {"component": component, "level": None if level == "default" else level.lower()}
        if duration is not None:
            wanted["seconds"] = seconds_in("--for", duration)
        reply = client.send("PUT", "/admin/logs/levels", msgspec.json.encode(wanted))
        _print_levels(decoded(reply, LevelsReport), as_json)


class _Shown:
    """Prints lines: as JSON, or in columns with colours on a terminal."""

    def __init__(self, as_json: bool) -> None:
        from ...logs.rendering import Columns

        self._columns = None if as_json else Columns(colors=sys.stdout.isatty())

    def line(self, line: LogLine) -> None:
        if self._columns is None:
            print_json(line)
            return
        fields = msgspec.structs.asdict(line)
        more = fields.pop("fields")
        told = {name: value for name, value in fields.items() if value is not None}
        typer.echo(self._columns.line({**told, **more}), nl=False)


def _found(client: Client, query: dict[str, str | None], most: int) -> Iterator[LogLine]:
    """The newest lines first, page by page."""
    cursor: str | None = None
    while most > 0:
        page = decoded(client.get(_path(query | {"limit": str(min(most, PAGE)), "cursor": cursor})), LogPage)
        yield from page.lines
        most, cursor = most - len(page.lines), page.next
        if cursor is None:
            return


def _moment(option: str, text: str) -> str:
    return datetime.fromtimestamp(moment(option, text), UTC).isoformat()


def _path(query: dict[str, str | None]) -> str:
    given = urlencode({name: value for name, value in query.items() if value is not None})
    return f"/admin/logs?{given}" if given else "/admin/logs"


def _print_levels(report: LevelsReport, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    rows = [
        (each.component, each.level, "" if each.seconds_left is None else f"{each.seconds_left:.0f} s")
        for each in report.levels
    ]
    print_table(("COMPONENT", "LEVEL", "GOES BACK IN"), rows)
