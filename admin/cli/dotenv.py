"""What commands that talk to a gateway are not told by their flags: where it is, and the key for it.

Both may stand in the environment and in `.env` in the working directory; a gateway that runs here is found by itself. The
values become defaults of the options of the same name, below the environment's; they are never put into this process's
environment, where every child would get them.
"""

import os
from collections.abc import Mapping
from typing import Any

import typer

from ..configuration.dotenv import read_dotenv
from .whereabouts import Nearest, nearest_gateway

# The options' names, and the variables that set them.
VARIABLES = {
    "url": "QUIVER_URL",
    "api_key": "QUIVER_API_KEY",
    "api_key_file": "QUIVER_API_KEY_FILE",
    "admin_key": "QUIVER_ADMIN_KEY",
    "admin_key_file": "QUIVER_ADMIN_KEY_FILE",
}


def client_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The options that the environment or `.env` sets, and the gateway in any case. Raises `SettingsError` when `.env` cannot
    be read.
    """
    below = read_dotenv().values
    found = {name: environ.get(variable) or below.get(variable) for name, variable in VARIABLES.items()}
    found["url"] = found["url"] or nearest_gateway()
    return {name: value for name, value in found.items() if value}


def lay_under(context: typer.Context) -> None:
    """Make what `.env` says the default of every command below `context`, and the gateway that is here, where neither `.env`
    nor the environment names one. Raises `SettingsError`.
    """
    below = read_dotenv().values
    values: dict[str, object] = {name: below[variable] for name, variable in VARIABLES.items() if below.get(variable)}
    if "url" not in values and not os.environ.get(VARIABLES["url"]):
        values["url"] = Nearest()
    context.default_map = _defaults(context.command, values)


def _defaults(command: Any, values: Mapping[str, object]) -> dict[str, Any]:
    """`values` for the options that `command` has, and the same for each command below it."""
    own = {parameter.name for parameter in command.params}
    below = {name: _defaults(child, values) for name, child in getattr(command, "commands", {}).items()}
    return below | {name: value for name, value in values.items() if name in own}
