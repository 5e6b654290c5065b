"""What the shell offers for an unfinished word that names something of a running gateway: servers, models.

Whoever presses Tab waits, so the gateway gets half a second, and nothing is ever said of an error: there is just no offer.
"""

from collections.abc import Callable, Iterable

import msgspec
import typer

from ..configuration.complaint import SettingsError
from .client import Client, ClientError, RequestFailed
from .dotenv import client_settings

PATIENCE = 0.5
# Nobody picks from more.
MOST = 200


class _Named(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: list[_Named] = []


class _Servers(msgspec.Struct, frozen=True):
    servers: list[_Named] = []


class _Key(msgspec.Struct, frozen=True):
    name: str
    state: str


class _Keys(msgspec.Struct, frozen=True):
    keys: list[_Key] = []


class _LocalModels(msgspec.Struct, frozen=True):
    models: list[_Named] = []


def model_names(context: typer.Context, incomplete: str) -> list[str]:
    """Models on offer."""
    return _offer(incomplete, lambda: _models(_client(context, "api_key")))


def server_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Registered servers."""
    return _offer(incomplete, lambda: _servers(_client(context, "admin_key")))


def engine_models(context: typer.Context, incomplete: str) -> list[str]:
    """The built-in engine's models, loaded or not."""
    return _offer(incomplete, lambda: _engine_models(_client(context, "admin_key")))


def key_names(context: typer.Context, incomplete: str) -> list[str]:
    """Client keys in use."""
    return _offer(incomplete, lambda: _keys(_client(context, "admin_key")))


def _models(client: Client) -> Iterable[_Named]:
    return msgspec.json.decode(client.get("/v1/models"), type=_Models).data


def _servers(client: Client) -> Iterable[_Named]:
    return msgspec.json.decode(client.get("/admin/servers"), type=_Servers).servers


def _keys(client: Client) -> Iterable[_Named]:
    found = msgspec.json.decode(client.get("/admin/keys?limit=1000"), type=_Keys).keys
    return [_Named(key.name) for key in found if key.state != "revoked"]


def _engine_models(client: Client) -> Iterable[_Named]:
    return msgspec.json.decode(client.get("/admin/models"), type=_LocalModels).models


def _offer(incomplete: str, ask: Callable[[], Iterable[_Named]]) -> list[str]:
    try:
        found = ask()
    except (ClientError, RequestFailed, SettingsError, msgspec.DecodeError):
        return []
    return [named.id for named in found if named.id.startswith(incomplete)][:MOST]


def _client(context: typer.Context, key: str) -> Client:
    """The client that the words typed so far, the environment and `.env` describe."""
    settings = client_settings() | {name: value for name, value in context.params.items() if _typed(context, name)}
    return Client(settings["url"], settings.get(key), PATIENCE)


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
