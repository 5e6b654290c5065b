"""`quiver register`, `update` and `deregister`: which servers a running gateway has, over its admin API."""

from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer
from quiver.schemas.servers import Deregistered, Registered, ServerDetails

from ...configuration.complaint import SettingsError
from ...configuration.credentials import key_in
from ..client import DEFAULT_URL, decoded
from ..console import harmless, print_json
from ..failures import failures_explained
from ..options import OPERATOR, AdminKey, AdminKeyFile, Json, ServerId, Url, operator
from .server_views import in_words

# A first check may take a minute, by `health.timeout`.
TIMEOUT = 75.0

# `--url` is the server's address here, so the gateway's has another name.
Gateway = Annotated[
    str,
    typer.Option(
        "--gateway", envvar="QUIVER_URL", help="The gateway to talk to: an address, or unix:PATH.", metavar="URL"
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A model it offers; may be repeated. Asked from it if unset.", metavar="NAME"),
]
KeyFile = Annotated[
    str | None, typer.Option("--api-key-file", help="A file that holds the key it wants.", metavar="FILE")
]
Weight = Annotated[float | None, typer.Option("--weight", help="Its share, under the policy `weighted`.")]
MaxConcurrency = Annotated[
    int | None, typer.Option("--max-concurrency", min=1, help="Requests it gets at a time; more wait.")
]
ContextLength = Annotated[
    int | None, typer.Option("--context-length", min=1, help="Tokens of prompt and answer it takes.", metavar="TOKENS")
]
Owner = Annotated[str | None, typer.Option("--owner", help="Whose it is.", metavar="TEXT")]
Description = Annotated[str | None, typer.Option("--description", help="What people should know.", metavar="TEXT")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A word to find it by; may be repeated.", metavar="WORD")]

# What `update --unset` can take back, and where it stands.
_UNSET: dict[str, tuple[str, ...]] = {
    "model": ("models",),
    "api-key": ("api_key",),
    "weight": ("weight",),
    "max-concurrency": ("max_concurrency",),
    "context-length": ("capabilities", "context_length"),
    "owner": ("metadata", "owner"),
    "description": ("metadata", "description"),
    "tag": ("metadata", "tags"),
}


def register(
    server: Annotated[
        str | None, typer.Argument(help="The server's address, with or without /v1.", metavar="URL", show_default=False)
    ] = None,
    server_url: Annotated[
        str | None, typer.Option("--url", help="The same, as an option.", metavar="URL", show_default=False)
    ] = None,
    detect: Annotated[
        bool, typer.Option("--detect", help="Find out what it is and what it can take, and use that.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it; host and port if unset.", metavar="NAME")
    ] = None,
    model: Models = None,
    api_key_file: KeyFile = None,
    weight: Weight = None,
    max_concurrency: MaxConcurrency = None,
    context_length: ContextLength = None,
    owner: Owner = None,
    description: Description = None,
    tag: Tags = None,
    url: Gateway = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Register a server, once it has passed a check. Registering it again changes it.

    \b
    Example:
      quiver register http://192.168.1.20:8000 --detect --name lab --owner anna
    """
    with failures_explained(OPERATOR):
        fields = _fields(model, api_key_file, weight, max_concurrency, context_length, owner, description, tag)
        wanted = _given(endpoint_url=_address(_one(server, server_url)), name=name, detect=detect or None, **fields)
        client = operator(url, admin_key, admin_key_file, TIMEOUT)
        reply = decoded(client.send("POST", "/admin/register", msgspec.json.encode(wanted)), Registered)
    if as_json:
        print_json(reply)
        return
    typer.echo(f"registered `{reply.registration_id}` ({reply.health_status})")
    if reply.detected is not None:
        typer.echo(harmless(in_words(reply.detected)))


def update(
    id: ServerId,
    server_url: Annotated[str | None, typer.Option("--url", help="Its new address.", metavar="URL")] = None,
    model: Models = None,
    api_key_file: KeyFile = None,
    weight: Weight = None,
    max_concurrency: MaxConcurrency = None,
    context_length: ContextLength = None,
    owner: Owner = None,
    description: Description = None,
    tag: Tags = None,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", help=f"Take back: {', '.join(_UNSET)}; may be repeated.", metavar="OPTION"),
    ] = None,
    url: Gateway = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Change what is given of a registered server; the rest stays. A new address or key is checked first.

    \b
    Example:
      quiver update lab --url https://new-name.trycloudflare.example
    """
    with failures_explained(OPERATOR):
        fields = _fields(model, api_key_file, weight, max_concurrency, context_length, owner, description, tag)
        patch = _given(endpoint_url=None if server_url is None else _address(server_url), **fields)
        for option in unset or ():
            _take_back(patch, option)
        if not patch:
            raise SettingsError("nothing is to be changed", "say what, like `--url URL`; `--help` lists the options")
        client = operator(url, admin_key, admin_key_file, TIMEOUT)
        body = client.send("PATCH", f"/admin/servers/{quote(id, safe='')}", msgspec.json.encode(patch))
        server = decoded(body, ServerDetails)
    if as_json:
        print_json(server)
    else:
        typer.echo(f"`{id}` is at version {server.version} ({server.health})")


def deregister(
    id: ServerId,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = None,
    admin_key_file: AdminKeyFile = None,
    as_json: Json = False,
) -> None:
    """Forget a server. It gets no more requests; those on it go on.

    \b
    Example:
      quiver deregister lab
    """
    with failures_explained(OPERATOR):
        client = operator(url, admin_key, admin_key_file)
        reply = decoded(client.send("DELETE", f"/admin/register/{quote(id, safe='')}"), Deregistered)
    if as_json:
        print_json(reply)
    else:
        typer.echo(f"deregistered `{reply.registration_id}`")


def _one(argument: str | None, option: str | None) -> str:
    """The server's address, given in one way. Raises `SettingsError`."""
    if argument is not None and option is not None:
        raise SettingsError("the server's address is given twice", "the gateway's goes with `--gateway`")
    given = argument if argument is not None else option
    if given is None:
        raise SettingsError("the server's address is missing", "write it as `quiver register http://192.168.1.20:8000`")
    return given


def _address(text: str) -> str:
    return text if "://" in text else f"http://{text}"


def _fields(
    model: list[str] | None,
    api_key_file: str | None,
    weight: float | None,
    max_concurrency: int | None,
    context_length: int | None,
    owner: str | None,
    description: str | None,
    tag: list[str] | None,
) -> dict[str, Any]:
    """What was said of a server, as a registration and a change of one have it. Raises `SettingsError`."""
    return _given(
        models=model,
        api_key=None if api_key_file is None else key_in("--api-key-file", api_key_file),
        weight=weight,
        max_concurrency=max_concurrency,
        capabilities=_given(context_length=context_length),
        metadata=_given(owner=owner, description=description, tags=tag),
    )


def _given(**fields: Any) -> dict[str, Any]:
    """What was said."""
    return {name: value for name, value in fields.items() if value is not None and value not in ({}, [])}


def _take_back(patch: dict[str, Any], option: str) -> None:
    """Put null where `option` stands. Raises `SettingsError`."""
    path = _UNSET.get(option.removeprefix("--"))
    if path is None:
        raise SettingsError(f"`--unset {option}`: there is no such option", f"known are {', '.join(_UNSET)}")
    *above, last = path
    for name in above:
        patch = patch.setdefault(name, {})
    if last in patch:
        raise SettingsError(f"`{option}` is set and unset at once")
    patch[last] = None
