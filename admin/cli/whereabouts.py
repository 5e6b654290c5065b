"""Where the gateway of this machine and folder is, for commands that are not told which one is meant.

The configuration's loader is imported when somebody has to know, as it takes longer to load than a command to run.
"""

import socket

from quiver.schemas.config import Config

from ..configuration.complaint import SettingsError
from .address import DEFAULT_URL

# Somebody who listens on a socket of this machine takes the connection at once.
PATIENCE = 0.5
# An address to listen on is not always one to connect to.
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


class Nearest:
    """`nearest_gateway` as an option's default: looked for only by a command that has the option and is not told."""

    def __call__(self) -> str:
        return nearest_gateway()

    def __str__(self) -> str:
        return DEFAULT_URL


def nearest_gateway() -> str:
    """The socket in the data folder, where a gateway listens on it; else the address that the configuration here says."""
    from quiver.proxy.store.folder import data_folder

    from ..configuration.settings import load

    try:
        config = load()
    except SettingsError:  # whoever only asks a gateway need not have its configuration right
        return DEFAULT_URL
    path = data_folder(config.store.data_dir).absolute() / "quiver.sock"
    return f"unix:{path}" if _listens(str(path)) else _configured(config)


def _configured(config: Config) -> str:
    host = _WILDCARDS.get(config.server.host, config.server.host)
    port = config.server.port or 8080  # 0 says nothing of where it is
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _listens(path: str) -> bool:
    family = getattr(socket, "AF_UNIX", None)  # Windows has none
    if family is None:
        return False
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(PATIENCE)
        try:
            attempt.connect(path)
        except OSError:
            return False
        return True
