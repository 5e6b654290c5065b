"""What `.env` in the working directory tells the commands that talk to a gateway: where it is, and the key for it.

The values become defaults of the options of the same name, below the environment's; they are never put into this process's
environment, where every child would get them.
"""

import os
from collections.abc import Mapping
from typing import Any

import typer

from ..configuration.dotenv import read_dotenv

# The options' names, and the variables that set them.
VARIABLES = {
    "url": "QUIVER_URL",
    "api_key": "QUIVER_API_KEY",
    "api_key_file": "QUIVER_API_KEY_FILE",
    "admin_key": "QUIVER_ADMIN_KEY",
    "admin_key_file": "QUIVER_ADMIN_KEY_FILE",
}


def client_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The options that the environment or `.env` sets. Raises `SettingsError` when `.env` cannot be read."""
    below = read_dotenv().values
    found = {name: environ.get(variable) or below.get(variable) for name, variable in VARIABLES.items()}
    return {name: value for name, value in found.items() if value}


def lay_under(context: typer.Context) -> None:
    """Make what `.env` says the default of every command below `context`. Raises `SettingsError`."""
    below = read_dotenv().values
    values = {name: below[variable] for name, variable in VARIABLES.items() if below.get(variable)}
    if values:
        context.default_map = _defaults(context.command, values)


def _defaults(command: Any, values: Mapping[str, str]) -> dict[str, Any]:
    """`values` for the options that `command` has, and the same for each command below it."""
    own = {parameter.name for parameter in command.params}
    below = {name: _defaults(child, values) for name, child in getattr(command, "commands", {}).items()}
    return below | {name: value for name, value in values.items() if name in own}
