"""The configuration: one struct, constraints in its types, so that decoding is validating.

Times are seconds, sizes bytes. Where values come from (file, environment, flags) is `admin.settings`' business.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .openai import ModelName

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Patience = Annotated[float, Meta(ge=0, le=3600)]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", max_length=2048)]


def said(meaning: str) -> Meta:
    """What the documentation says of a field."""
    return Meta(description=meaning)


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sections refuse fields they do not know: a misspelt setting must not be silently the default."""


class Server(_Section, frozen=True):
    """Where the gateway listens, and what it takes from a connection."""

    host: Annotated[str, said("the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535), said("0 takes any free port, printed at start")] = 8080
    max_body: Annotated[int, Meta(ge=1024, le=2**31), said("the largest request body")] = 16 * 1024 * 1024
    max_head: Annotated[int, Meta(ge=1024, le=2**20), said("the largest request head")] = 32 * 1024
    # A head that drips in is cut off after 10 s in all, not after 10 s of silence.
    head_timeout: Annotated[Seconds, said("for a request's head to arrive, in all")] = 10.0
    body_timeout: Annotated[Seconds, said("for a request's body to arrive, in all")] = 60.0
    keep_alive: Annotated[Seconds, said("an idle connection is closed after this long")] = 75.0
    write_timeout: Annotated[Seconds, said("a client that reads nothing for this long is dropped")] = 30.0
    max_connections: Annotated[int, Meta(ge=1), said("open client connections; more are closed at once")] = 4096


class Limits(_Section, frozen=True):
    """How long a request and its parts may take."""

    request: Annotated[Seconds, said("a request in all, every attempt included")] = 300.0
    connect: Annotated[Seconds, said("to connect to a server")] = 10.0
    first_byte: Annotated[Seconds, said("for a server to begin its reply")] = 300.0
    idle: Annotated[Seconds, said("silence inside a server's reply")] = 120.0
    heartbeat: Annotated[Seconds, said("a comment is sent into a stream after this much silence")] = 15.0
    attempts: Annotated[int, Meta(ge=1, le=10), said("servers tried for one request before its first content")] = 3


class Drain(_Section, frozen=True):
    """How shutdown gives way to work in flight."""

    delay: Annotated[Patience, said("on SIGTERM, how long `/readyz` says 503 while work is still accepted")] = 0.0
    timeout: Annotated[Patience, said("what open requests then get")] = 30.0
    interrupt_timeout: Annotated[Patience, said("the same after Ctrl-C, where a person waits")] = 2.0


class Auth(_Section, frozen=True):
    """Client keys. Without any, only loopback addresses may be served, unless `open` says otherwise."""

    keys: Annotated[tuple[Annotated[str, Meta(min_length=8, max_length=256)], ...], said("keys that are let in")] = ()
    keys_file: Annotated[str | None, said("a file with one key a line; `#` begins a comment")] = None
    open: Annotated[bool, said("let everyone in, on any address")] = False

    def __repr__(self) -> str:
        return f"Auth({len(self.keys)} keys, open={self.open})"


class Engine(_Section, frozen=True):
    """The built-in engine."""

    bolt: Annotated[bool, said("serve the built-in model")] = True
    threads: Annotated[int, Meta(ge=0, le=1024), said("compute threads of a model; 0 for all cores")] = 0
    max_sequences: Annotated[int, Meta(ge=1, le=1024), said("answers written at the same time; more wait")] = 16
    context_length: Annotated[
        Annotated[int, Meta(ge=16)] | None, said("tokens of prompt and answer; the model's own if unset")
    ] = None
    kv: Annotated[Literal["f16", "f32"], said("how keys and values are kept")] = "f16"


class LocalModel(_Section, frozen=True):
    """A GGUF file served by the built-in engine."""

    path: Annotated[str, Meta(min_length=1), said("the file; relative to this configuration file")]
    id: Annotated[ModelName | None, said("the model's name; the file's without its ending if unset")] = None


class RemoteBackend(_Section, frozen=True):
    """A model server: Ollama, llama.cpp, vLLM, LM Studio, another Quiver."""

    url: Annotated[HttpUrl, said("its address, with or without `/v1`")]
    name: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None,
        said("told in `X-Gateway-Server-ID`; host and port if unset"),
    ] = None
    models: Annotated[tuple[ModelName, ...], said("what it offers; asked from its `/v1/models` if unset")] = ()
    api_key: Annotated[str | None, said("the key it wants")] = None
    api_key_file: Annotated[str | None, said("a file that holds that key")] = None

    def __repr__(self) -> str:
        return f"RemoteBackend({self.url}, name={self.name}, models={self.models})"


class Log(_Section, frozen=True):
    """What is logged to stderr, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error", "critical"], said("the least that is logged")] = (
        "info"
    )
    format: Annotated[
        Literal["auto", "console", "json"], said("`auto`: readable on a terminal, JSON lines elsewhere")
    ] = "auto"


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
