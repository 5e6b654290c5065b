"""The configuration: one struct, constraints in its types, so that decoding is validating.

Times are seconds, sizes bytes. Where values come from (file, environment, flags) is `admin.settings`' business.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .openai import ModelName

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", max_length=2048)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sections refuse fields they do not know: a misspelt setting must not be silently the default."""


class Server(_Section, frozen=True):
    """Where the gateway listens, and what it takes from a connection."""

    host: str = "127.0.0.1"
    port: Port = 8080  # 0: any free port, printed at start
    max_body: Annotated[int, Meta(ge=1024, le=2**31)] = 16 * 1024 * 1024
    max_head: Annotated[int, Meta(ge=1024, le=2**20)] = 32 * 1024
    # A head that drips in is cut off after 10 s in all, not after 10 s of silence.
    head_timeout: Seconds = 10.0
    body_timeout: Seconds = 60.0
    keep_alive: Seconds = 75.0
    write_timeout: Seconds = 30.0
    max_connections: Annotated[int, Meta(ge=1)] = 4096


class Limits(_Section, frozen=True):
    """How long a request and its parts may take."""

    request: Seconds = 300.0
    connect: Seconds = 10.0
    first_byte: Seconds = 300.0
    idle: Seconds = 120.0
    heartbeat: Seconds = 15.0
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3


class Drain(_Section, frozen=True):
    """How shutdown gives way to work in flight.

    `delay`: how long `/readyz` says 503 on SIGTERM while new work is still accepted. `timeout`: what open requests then
    get; `interrupt_timeout` is the same for Ctrl-C, where a person waits.
    """

    delay: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    timeout: Annotated[float, Meta(ge=0, le=3600)] = 30.0
    interrupt_timeout: Annotated[float, Meta(ge=0, le=3600)] = 2.0


class Auth(_Section, frozen=True):
    """Client keys. Without any, only loopback addresses may be served, unless `open` says otherwise."""

    keys: tuple[Annotated[str, Meta(min_length=8, max_length=256)], ...] = ()
    keys_file: str | None = None
    open: bool = False


class Engine(_Section, frozen=True):
    """The built-in engine. `threads` 0: all cores."""

    bolt: bool = True
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    max_sequences: Annotated[int, Meta(ge=1, le=1024)] = 16
    context_length: Annotated[int, Meta(ge=16)] | None = None
    kv: Literal["f16", "f32"] = "f16"


class LocalModel(_Section, frozen=True):
    """A GGUF file served by the built-in engine; without `id` it is called after the file."""

    path: Annotated[str, Meta(min_length=1)]
    id: ModelName | None = None


class RemoteBackend(_Section, frozen=True):
    """A model server. Without `models` it is asked for its `/v1/models`."""

    url: HttpUrl
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    models: tuple[ModelName, ...] = ()
    api_key: str | None = None
    api_key_file: str | None = None


class Log(_Section, frozen=True):
    """What is logged to stderr, and how. `auto`: readable on a terminal, JSON lines elsewhere."""

    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(_Section, frozen=True):
    """Everything `quiver serve` can be told."""

    server: Server = Server()
    limits: Limits = Limits()
    drain: Drain = Drain()
    auth: Auth = Auth()
    engine: Engine = Engine()
    log: Log = Log()
    models: tuple[LocalModel, ...] = ()
    backends: tuple[RemoteBackend, ...] = ()
