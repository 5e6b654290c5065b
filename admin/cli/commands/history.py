"""`quiver history`, `errors` and `events`: what happened on a running gateway, over its admin API."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
import typer
from quiver.schemas.history import (
    Aggregate,
    AggregateReport,
    ErrorReport,
    EventEntry,
    EventPage,
    HistoryPage,
    RequestDetails,
    RequestEntry,
)

from ..amounts import many
from ..client import DEFAULT_URL, decoded
from ..completion import model_names, server_ids
from ..console import print_json, print_table
from ..failures import failures_explained
from ..options import OPERATOR, AdminKey, AdminKeyFile, Json, Url, operator
from ..times import clock, moment, step, took

history = typer.Typer(name="history", help="Show what was asked, and what became of it.", invoke_without_command=True)

REQUESTS = ("AT", "REQUEST", "CLIENT", "MODEL", "SERVER", "STATUS", "OUTCOME", "TOOK", "FIRST", "TOKENS")
SUMS = ("REQUESTS", "FAILED", "PROMPT", "REPLY", "MEAN", "P50", "P95", "P99", "FIRST P50", "TOKENS/S")
ERRORS = ("ERROR", "COUNT", "CATEGORY", "FIRST", "LAST", "LAST REQUEST")
ATTEMPTS = ("FAILED ON", "ERROR", "MESSAGE")
EVENTS = ("AT", "EVENT", "SUBJECT", "ACTOR", "DETAILS")

Model = Annotated[
    str | None,
    typer.Option("--model", help="Only this model.", metavar="NAME", autocompletion=model_names),
]
Key = Annotated[str | None, typer.Option("--key", help="Only this key's name, or address.", metavar="NAME")]
Server = Annotated[
    str | None, typer.Option("--server", help="Only this server.", metavar="ID", autocompletion=server_ids)
]
Since = Annotated[str | None, typer.Option("--since", help="From this time on: 2h (ago), 7d, 2026-01-31.")]
Until = Annotated[str | None, typer.Option("--until", help="Before this time.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Rows to show.")]


@history.callback()
def requests(
    context: typer.Context,
    model: Model = None,
    key: Key = None,
    server: Server = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Only this path below /v1/.", metavar="PATH")
    ] = None,
    outcome: Annotated[
        str | None, typer.Option("--outcome", help="completed, failed, client_gone or cancelled.", metavar="OUTCOME")
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only what did not go as it should.")] = False,
    since: Since = None,
    until: Until = None,
    sort: Annotated[str, typer.Option("--sort", help="time, duration or tokens; largest first.")] = "time",
    limit: Limit = 30,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all of them as CSV, not only --limit.")] = False,
) -> None:
    """Show finished requests, the last first.

    \b
    Example:
      quiver history --model qwen3-8b --since 2h --errors
      quiver history summary --by model,hour
    """
    if context.invoked_subcommand is not None:
        return
    with failures_explained(OPERATOR):
        query = _query(
            model=model,
            client=key,
            server=server,
            endpoint=endpoint,
            outcome=outcome,
            troubled="true" if errors else None,
            since=_moment("--since", since),
            until=_moment("--until", until),
            sort=sort,
        )
        client = operator(url, admin_key, admin_key_file)
        if as_csv:
            for piece in client.pieces(f"/admin/history?format=csv&{query}"):
                sys.stdout.buffer.write(piece)
            return
        page = decoded(client.get(f"/admin/history?limit={limit}&{query}"), HistoryPage)
    if as_json:
        print_json(page)
    elif page.requests:
        print_table(REQUESTS, [_request_row(entry) for entry in page.requests])
        if page.next is not None:
            typer.echo("there are more; see --limit, --since and --csv", err=True)
    else:
        typer.echo("no such requests", err=True)


@history.command()
def show(
    id: Annotated[str, typer.Argument(help="The request, as its reply's X-Request-ID names it.", metavar="ID")],
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Show one request with everything that is known of it.

    \b
    Example:
      quiver history show 0d9c1f6e-2b1a-4c3d-a5e6-000000000017
    """
    with failures_explained(OPERATOR):
        reply = operator(url, admin_key, admin_key_file).get(f"/admin/history/{quote(id, safe='')}")
        found = decoded(reply, RequestDetails)
    if as_json:
        print_json(found)
        return
    print_table(("FIELD", "VALUE"), [(name, _said(name, value)) for name, value in _fields(found).items()])
    if found.failures:
        typer.echo()
        print_table(ATTEMPTS, [(each.server_id, each.code, each.message) for each in found.failures])
    if found.events:
        typer.echo()
        print_table(EVENTS, [_event_row(event) for event in found.events])
    for title, text in (("prompt", found.prompt), ("answer", found.answer)):
        if text is not None:
            typer.echo(f"\n{title}:\n{text}")


@history.command()
def summary(
    by: Annotated[
        str, typer.Option("--by", help="One or two of model, key, server, endpoint, outcome, hour, day.")
    ] = "model",
    model: Model = None,
    key: Key = None,
    server: Server = None,
    since: Since = "24h",
    until: Until = None,
    limit: Limit = 100,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Add requests up. How many, how many failed, tokens, how long they took; hours and days are UTC.

    \b
    Example:
      quiver history summary --by model,hour --since 24h
    """
    wanted = ["client" if name.strip() == "key" else name.strip() for name in by.split(",")]
    groups = "&".join(f"by={quote(name)}" for name in wanted)
    with failures_explained(OPERATOR):
        times = {"since": _moment("--since", since), "until": _moment("--until", until)}
        query = _query(model=model, client=key, server=server, **times, limit=limit)
        client = operator(url, admin_key, admin_key_file)
        report = decoded(client.get(f"/admin/history/aggregate?{groups}&{query}"), AggregateReport)
    if as_json:
        print_json(report)
    elif report.groups:
        columns = ["KEY" if name == "client" else name.upper() for name in wanted]
        print_table([*columns, *SUMS], [_sum_row(group) for group in report.groups])
        if report.cut:
            typer.echo("there are more; see --limit and --since", err=True)
    else:
        typer.echo("no requests in that time", err=True)


def error_counts(
    since: Since = "24h",
    model: Model = None,
    server: Server = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Count errors by their code, the most common first.

    \b
    Example:
      quiver errors --since 7d
    """
    with failures_explained(OPERATOR):
        query = _query(since=_moment("--since", since), model=model, server=server)
        report = decoded(operator(url, admin_key, admin_key_file).get(f"/admin/errors?{query}"), ErrorReport)
    if as_json:
        print_json(report)
    elif report.errors:
        rows = [
            (
                each.code,
                many(each.count),
                each.category,
                clock(each.first_at),
                clock(each.last_at),
                each.last_request_id,
            )
            for each in report.errors
        ]
        print_table(ERRORS, rows)
    else:
        typer.echo("no errors in that time", err=True)


def events(
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Only these, like server.paused; server means all of that kind.", metavar="KIND"),
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Only of this server, key or model.")] = None,
    since: Since = None,
    limit: Limit = 30,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Show who changed what, the last first. Also what the gateway did by itself.

    \b
    Example:
      quiver events --kind server --since 1d
    """
    with failures_explained(OPERATOR):
        query = _query(kind=kind or None, subject=subject, since=_moment("--since", since), limit=limit)
        page = decoded(operator(url, admin_key, admin_key_file).get(f"/admin/events?{query}"), EventPage)
    if as_json:
        print_json(page)
    elif page.events:
        print_table(EVENTS, [_event_row(event) for event in page.events])
    else:
        typer.echo("no such events", err=True)


def _moment(option: str, text: str | None) -> float | None:
    return None if text is None else moment(option, text)


def _query(**given: Any) -> str:
    return urlencode({name: value for name, value in given.items() if value is not None}, doseq=True)


def _request_row(entry: RequestEntry) -> tuple[str, ...]:
    tokens = "-"
    if entry.completion_tokens is not None:
        tokens = f"{many(entry.prompt_tokens)} + {many(entry.completion_tokens)}"
    return (
        clock(entry.at),
        entry.request_id,
        entry.client,
        entry.model or "-",
        entry.server or "-",
        str(entry.status),
        entry.error or entry.outcome,
        took(entry.duration),
        took(entry.first_byte),
        tokens,
    )


def _sum_row(group: Aggregate) -> list[str]:
    first, speed, duration = group.first_byte, group.tokens_per_second, group.duration
    return [
        *(_group(name, value) for name, value in group.group.items()),
        many(group.requests),
        f"{group.error_share:.1%}",
        many(group.prompt_tokens),
        many(group.completion_tokens),
        took(duration.mean),
        *(took(value) for value in (duration.p50, duration.p95, duration.p99)),
        took(None if first is None else first.p50),
        "-" if speed is None else f"{speed.p50:.3g}",
    ]


def _group(name: str, value: str | float | None) -> str:
    if isinstance(value, float):
        return step(value, day=name == "day")
    return value or "-"


def _event_row(event: EventEntry) -> tuple[str, ...]:
    details = ", ".join(f"{name}={_plain(value)}" for name, value in event.details.items())
    return clock(event.at), event.kind, event.subject, event.actor or "-", details


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _fields(found: RequestDetails) -> Mapping[str, Any]:
    """What is known, without what is unset or shown elsewhere."""
    fields = msgspec.structs.asdict(found)
    for name in ("events", "failures", "prompt", "answer", "engine", "meaning"):
        fields.pop(name)
    if found.meaning is not None:
        fields["meaning"] = f"{found.meaning.meaning} ({found.meaning.category})"
    if found.engine is not None:
        fields |= {f"engine {name}": value for name, value in msgspec.structs.asdict(found.engine).items()}
    return {name: value for name, value in fields.items() if value is not None}


def _said(name: str, value: Any) -> str:
    if name == "at":
        return clock(value)
    if isinstance(value, float):
        return took(value)
    return "yes" if value is True else "no" if value is False else str(value)
