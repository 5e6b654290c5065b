"""`quiver keys`: the client keys of a running gateway, over its admin API. A new key is printed once and never again."""

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import typer
from quiver.schemas.config import Priority
from quiver.schemas.keys import KeyIssued, KeyList, KeyReport, KeyState, LimitReport

from ...configuration.credentials import key_in
from ..amounts import NONE, allowance, amount, shown
from ..client import DEFAULT_URL, Client, decoded
from ..completion import key_names, model_names
from ..console import print_json, print_table
from ..failures import failures_explained
from ..options import OPERATOR, AdminKey, AdminKeyFile, Json, Url, operator
from ..times import day_and_clock, seconds_in

T = TypeVar("T")
COLUMNS = ("KEY", "STATE", "ENDS IN", "BUDGET LEFT", "LIMITS A MINUTE", "MODELS", "LAST USED", "ID")

keys = typer.Typer(
    name="keys",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Make, show, change, replace and revoke client keys.",
)

Name = Annotated[str, typer.Argument(help="The key, by its name or id.", metavar="NAME", autocompletion=key_names)]
Requests = Annotated[str | None, typer.Option("--requests", help="Requests a minute.", metavar="N")]
Tokens = Annotated[
    str | None, typer.Option("--tokens", help="Tokens a minute, prompt and reply together.", metavar="N")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--models", help="The models it may use, with commas.", metavar="NAMES", autocompletion=model_names),
]
PriorityOption = Annotated[Priority | None, typer.Option("--priority", help="The highest it may ask for.")]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="Tokens in a day, week, month or total, such as 1M/month.", metavar="N/PERIOD"),
]
For = Annotated[str | None, typer.Option("--for", help="How long it opens, such as 30d.", metavar="TIME")]
KeepContent = Annotated[
    bool | None,
    typer.Option("--keep-content/--no-keep-content", help="Whether its prompts and answers may be kept."),
]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; told in logs.", metavar="NAME")],
    requests: Requests = None,
    tokens: Tokens = None,
    models: Models = None,
    priority: PriorityOption = None,
    budget: Budget = None,
    expires: For = None,
    keep_content: KeepContent = None,
    key_file: Annotated[
        str | None, typer.Option("--key-file", help="Take the key in this file, not a new one.", metavar="FILE")
    ] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Make a client key and print it, this once.

    \b
    Example:
      quiver keys create alice --requests 60 --budget 1M/month --for 30d
    """
    with failures_explained(OPERATOR):
        wanted = {"name": name, **_terms(requests, tokens, models, priority, budget, expires, keep_content)}
        if key_file is not None:
            wanted["key"] = key_in("--key-file", key_file, range(24, 257))
        client = operator(url, admin_key, admin_key_file)
        made = decoded(client.send("POST", "/admin/keys", msgspec.json.encode(wanted)), KeyIssued)
    _tell(made, as_json=as_json)


@keys.command("list")
def list_keys(
    state: Annotated[KeyState | None, typer.Option("--state", help="Only those in this state.")] = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """List the client keys, what they may do and what is left of it.

    \b
    Example:
      quiver keys list --state exhausted
    """
    with failures_explained(OPERATOR):
        found = _all(operator(url, admin_key, admin_key_file), {} if state is None else {"state": state})
    if as_json:
        print_json(found)
    elif found.keys:
        print_table(COLUMNS, [_row(key) for key in found.keys])
    else:
        typer.echo("there are no keys\nhint: make one with `quiver keys create NAME`", err=True)


@keys.command()
def show(
    name: Name,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Show one client key with what is left of its limits.

    \b
    Example:
      quiver keys show alice
    """
    with failures_explained(OPERATOR):
        found = decoded(operator(url, admin_key, admin_key_file).get(_path(name)), KeyReport)
    if as_json:
        print_json(found)
    else:
        print_table(("KEY", found.name), _details(found))


@keys.command()
def update(
    name: Name,
    requests: Requests = None,
    tokens: Tokens = None,
    models: Models = None,
    priority: PriorityOption = None,
    budget: Budget = None,
    expires: For = None,
    keep_content: KeepContent = None,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Change what a client key may do; `none` takes a limit away.

    \b
    Example:
      quiver keys update alice --budget 2M/month --for none
    """
    with failures_explained(OPERATOR):
        wanted = _terms(requests, tokens, models, priority, budget, expires, keep_content)
        if not wanted:
            raise typer.BadParameter("say what to change, such as --budget 2M/month")
        client = operator(url, admin_key, admin_key_file)
        changed = decoded(client.send("PATCH", _path(name), msgspec.json.encode(wanted)), KeyReport)
    if as_json:
        print_json(changed)
    else:
        typer.echo(f"changed `{changed.name}` (version {changed.version})")


@keys.command()
def rotate(
    name: Name,
    grace: Annotated[
        str, typer.Option("--grace", help="How long the old key opens too; 0: not any more.", metavar="TIME")
    ] = "1h",
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Replace a client key by a new one and print that, this once.

    \b
    Example:
      quiver keys rotate alice --grace 1d
    """
    with failures_explained(OPERATOR):
        wanted = msgspec.json.encode({"grace": seconds_in("--grace", grace)})
        client = operator(url, admin_key, admin_key_file)
        made = decoded(client.send("POST", f"{_path(name)}/rotate", wanted), KeyIssued)
    _tell(made, as_json=as_json)


@keys.command()
def revoke(
    name: Name,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Let a client key in no more, for good.

    \b
    Example:
      quiver keys revoke alice
    """
    with failures_explained(OPERATOR):
        gone = decoded(operator(url, admin_key, admin_key_file).send("DELETE", _path(name)), KeyReport)
    if as_json:
        print_json(gone)
    else:
        typer.echo(f"revoked `{gone.name}`")


def _terms(
    requests: str | None,
    tokens: str | None,
    models: list[str] | None,
    priority: Priority | None,
    budget: str | None,
    expires: str | None,
    keep_content: bool | None,
) -> dict[str, Any]:
    """What was said of a key, as the admin API wants it; null where that was `none`. Raises `SettingsError`."""
    wanted: dict[str, Any] = {
        "requests_per_minute": _given(requests, partial(amount, "--requests")),
        "tokens_per_minute": _given(tokens, partial(amount, "--tokens")),
        "models": msgspec.UNSET if models is None else _names(models),
        "priority": priority or msgspec.UNSET,
        "budget_tokens": _given(budget, lambda text: allowance("--budget", text).tokens),
        "budget_period": msgspec.UNSET if budget in (None, NONE) else allowance("--budget", budget).period,
        "expires": _given(expires, lambda text: time.time() + seconds_in("--for", text)),
        "keep_content": msgspec.UNSET if keep_content is None else keep_content,
    }
    return {name: value for name, value in wanted.items() if value is not msgspec.UNSET}


def _given(text: str | None, read: Callable[[str], T]) -> T | msgspec.UnsetType | None:
    if text is None:
        return msgspec.UNSET
    return None if text == NONE else read(text)


def _names(models: list[str]) -> list[str]:
    names = [name.strip() for text in models for name in text.split(",")]
    return [] if names == [NONE] else [name for name in names if name]


def _path(name: str) -> str:
    return f"/admin/keys/{quote(name, safe='')}"


def _all(client: Client, query: dict[str, str]) -> KeyList:
    """Every page."""
    found: list[KeyReport] = []
    while True:
        page = decoded(client.get(f"/admin/keys?{urlencode(query)}"), KeyList)
        found += page.keys
        if page.next_cursor is None:
            return KeyList(found, page.total)
        query = query | {"cursor": page.next_cursor}


def _tell(made: KeyIssued, *, as_json: bool) -> None:
    if as_json:
        print_json(made)
    elif made.key is not None:
        typer.echo(made.key)
    if made.closes:
        typer.echo("warning: until now everybody was let in; from now on every client needs a key", err=True)
    if made.key is None:
        typer.echo(f"`{made.name}` may use its key from now on", err=True)
        return
    typer.echo(f"warning: this is the only time that the key of `{made.name}` is shown; keep it safe", err=True)
    if made.previous_until is not None:
        typer.echo(f"the old key opens until {day_and_clock(made.previous_until)}", err=True)


def _row(key: KeyReport) -> tuple[str, ...]:
    return (
        key.name,
        key.state,
        _ending(key),
        "-" if key.budget is None else f"{shown(key.budget.left)} of {shown(key.budget.tokens)}/{key.budget.period}",
        ", ".join(_limits(key)) or "-",
        ", ".join(key.models) or "all",
        day_and_clock(key.last_used),
        key.id if key.origin == "issued" else "configuration",
    )


def _details(key: KeyReport) -> list[tuple[str, str]]:
    rows = [
        ("id", key.id),
        ("comes from", "the configuration file" if key.origin == "configuration" else "the admin API"),
        ("state", key.state),
        ("ends with", key.hint or "-"),
        ("models", ", ".join(key.models) or "all"),
        ("priority", key.priority),
        ("requests a minute", _left(key.requests)),
        ("tokens a minute", _left(key.tokens)),
    ]
    if key.budget is not None:
        rows.append(("budget", f"{key.budget.spent} of {key.budget.tokens} tokens spent"))
        rows.append(("begins anew", day_and_clock(key.budget.ends) if key.budget.ends else "never"))
    rows += [
        ("may be kept", "prompts and answers" if key.keep_content else "no prompts or answers"),
        ("made", day_and_clock(key.created)),
        ("changed", day_and_clock(key.changed)),
        ("expires", day_and_clock(key.expires)),
        ("revoked", day_and_clock(key.revoked)),
        ("old key opens until", day_and_clock(key.previous_until)),
        ("last used", day_and_clock(key.last_used)),
    ]
    return rows


def _limits(key: KeyReport) -> list[str]:
    limits = ((key.requests, "requests"), (key.tokens, "tokens"))
    return [f"{shown(limit.limit)} {unit}" for limit, unit in limits if limit is not None]


def _left(limit: LimitReport | None) -> str:
    return "no limit" if limit is None else f"{limit.remaining} of {limit.limit} left"


def _ending(key: KeyReport) -> str:
    if key.expires is None or key.state in ("expired", "revoked"):
        return "-"
    seconds = max(0, round(key.expires - time.time()))
    return f"{seconds // 86_400} d" if seconds >= 86_400 else f"{seconds // 3600} h {seconds % 3600 // 60} min"
