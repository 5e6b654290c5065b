"""Options that several commands take, and the client they describe.

A command takes `url`, a key and the key's file, and makes its client with `operator` (the admin API) or `user` (everything
else). What a flag does not say comes from the environment, then from `.env` (see `dotenv`).
"""

from typing import Annotated

import typer

from ..configuration.complaint import SettingsError
from ..configuration.credentials import key_in
from .client import TIMEOUT, Client
from .completion import model_names, server_ids
from .console import ask_secretly

Url = Annotated[
    str,
    typer.Option("--url", envvar="QUIVER_URL", help="The gateway to talk to: an address, or unix:PATH.", metavar="URL"),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="QUIVER_API_KEY", help="Your key for the gateway.", metavar="KEY", show_default=False
    ),
]
ApiKeyFile = Annotated[
    str | None,
    typer.Option("--api-key-file", envvar="QUIVER_API_KEY_FILE", help="A file that holds it.", metavar="FILE"),
]
AdminKey = Annotated[
    str | None,
    typer.Option(
        "--admin-key", envvar="QUIVER_ADMIN_KEY", help="The gateway's admin key.", metavar="KEY", show_default=False
    ),
]
AdminKeyFile = Annotated[
    str | None,
    typer.Option("--admin-key-file", envvar="QUIVER_ADMIN_KEY_FILE", help="A file that holds it.", metavar="FILE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ServerId = Annotated[
    str,
    typer.Argument(help="The server, as `quiver servers` calls it.", metavar="ID", autocompletion=server_ids),
]
ModelName = Annotated[
    str,
    typer.Option("--model", help="The model to ask.", metavar="NAME", autocompletion=model_names),
]

# What opens the gateway to a command, and where it is given: for the hint after a refusal.
OPERATOR = "the admin key with --admin-key or QUIVER_ADMIN_KEY"


def operator(url: str, key: str | None, file: str | None = None, timeout: float = TIMEOUT) -> Client:
    """A client for the admin API. Raises `SettingsError` for a key file that holds no key, `ClientError`."""
    return Client(url, _key(key, file, "--admin-key"), timeout, ask_secretly("Admin key"))


def user(url: str, key: str | None, file: str | None = None, timeout: float = TIMEOUT) -> Client:
    """A client for what a client's key opens. Raises as `operator` does."""
    return Client(url, _key(key, file, "--api-key"), timeout, ask_secretly("API key"))


def _key(key: str | None, file: str | None, option: str) -> str | None:
    if key is not None and file is not None:
        raise SettingsError(f"both `{option}` and `{option}-file` are given", "keep one of them")
    return key if file is None else key_in(f"{option}-file", file)
