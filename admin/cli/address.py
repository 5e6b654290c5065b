"""Where a gateway is: an HTTP address, or a socket of this machine (`unix:/run/quiver.sock`), as a user writes it."""

import http.client
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8080"
_UNIX = "unix:"


class BadAddress(ValueError):
    """What was written is no address of a gateway."""


@dataclass(frozen=True)
class Address:
    """A gateway's address. `url` is how it is told; `base` goes ahead of every path; `socket` is a socket's file, where
    that is the way.
    """

    url: str
    host: str
    port: int | None = None
    base: str = ""
    secure: bool = False
    socket: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`http://host:port`, `https://...`, `host:port`, or `unix:/path`; with or without `/v1`. Raises `BadAddress`."""
        if text.startswith(_UNIX):
            return cls._of_socket(text)
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadAddress(f"`{text}` is no HTTP address")
        try:
            port = parts.port
        except ValueError:
            raise BadAddress(f"`{text}` has no valid port") from None
        base = parts.path.rstrip("/").removesuffix("/v1")
        url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{base}"
        return cls(url, parts.hostname, port, base, parts.scheme == "https")

    @classmethod
    def _of_socket(cls, text: str) -> "Address":
        path = text.removeprefix(_UNIX)
        if path.startswith("//"):
            path = path.removeprefix("//")
        if not path:
            raise BadAddress(f"`{text}` names no socket")
        return cls(f"{_UNIX}{path}", "localhost", socket=path)

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """A connection that is not open yet; the caller closes it."""
        if self.socket is not None:
            return _SocketConnection(self.socket, timeout)
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=timeout)


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path, self._patience = path, timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._patience)
        self.sock.connect(self._path)
