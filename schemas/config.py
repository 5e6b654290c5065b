"""The configuration: one struct, constraints in its types, so that decoding is validating.

Times are seconds, sizes bytes. Where values come from (file, environment, flags) is `admin.settings`' business.
"""

from pathlib import PurePath
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .forms import whole
from .openai import ModelName

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Patience = Annotated[float, Meta(ge=0, le=3600)]
Days = Annotated[int, Meta(ge=1, le=3650)]
ByteSize = Annotated[str, Meta(pattern=whole(r"[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B"))]
Level = Literal["trace", "debug", "info", "warning", "error", "critical"]
KvType = Literal["f16", "q8_0", "f32"]
Priority = Literal["critical", "high", "normal", "low"]
Policy = Literal["round_robin", "weighted", "least_in_flight", "peak_ewma", "prefix_affinity", "session_affinity"]
ServerName = Annotated[str, Meta(pattern=whole(r"[A-Za-z0-9._-]{1,64}"))]
ServedEndpoint = Annotated[str, Meta(pattern=whole(r"[a-z0-9_-]+(/[a-z0-9_-]+)*"), max_length=64)]
Network = Annotated[str, Meta(pattern=whole(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?"))]
# What a browser sends as `Origin`; `*` stands for all of them.
WebOrigin = Annotated[str, Meta(pattern=whole(r"(\*|null|[a-z][a-z0-9+.-]*://[^\s/?#@A-Z]+)"), max_length=512)]
HttpMethod = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
HeaderName = Annotated[str, Meta(pattern=whole(r"[!#$%&'+.^_`|~0-9A-Za-z-]{1,128}"))]
HttpUrl = Annotated[str, Meta(pattern=whole(r"https?://[^\s/?#@]+(/[^\s?#]*)?"), max_length=2048)]


# Ollama's store is named with this in front; anything else is a file.
OLLAMA = "ollama:"


def said(meaning: str) -> Meta:
    """What the documentation says of a field."""
    return Meta(description=meaning)


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sections refuse fields they do not know: a misspelt setting must not be silently the default."""


class Server(_Section, frozen=True):
    """Where the gateway listens, and what it takes from a connection."""

    host: Annotated[str, said("the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535), said("0 takes any free port, printed at start")] = 8080
    local_socket: Annotated[
        bool, said("listen on `quiver.sock` in the data folder, too: the gateway's own user needs no admin key there")
    ] = True
    max_body: Annotated[int, Meta(ge=1024, le=2**31), said("the largest request body")] = 16 * 1024 * 1024
    max_head: Annotated[int, Meta(ge=1024, le=2**20), said("the largest request head")] = 32 * 1024
    # A head that drips in is cut off after 10 s in all, not after 10 s of silence.
    head_timeout: Annotated[Seconds, said("for a request's head to arrive, in all")] = 10.0
    body_timeout: Annotated[Seconds, said("for a request's body to arrive, in all")] = 60.0
    keep_alive: Annotated[Seconds, said("an idle connection is closed after this long")] = 75.0
    write_timeout: Annotated[Seconds, said("a client that reads nothing for this long is dropped")] = 30.0
    max_connections: Annotated[int, Meta(ge=1), said("open client connections; more are closed at once")] = 4096
    trusted_proxies: Annotated[
        tuple[Network, ...],
        said(
            'proxies in front, like `"10.0.0.0/8"`: of them only `X-Forwarded-For` and `X-Forwarded-Proto` are believed'
        ),
    ] = ()
    hsts: Annotated[
        int,
        Meta(ge=0, le=63_072_000),
        said("tell browsers that came by HTTPS to come so for this many seconds. 0: not told"),
    ] = 0


class Limits(_Section, frozen=True):
    """How long a request and its parts may take."""

    request: Annotated[Seconds, said("a request in all, every attempt included")] = 300.0
    connect: Annotated[Seconds, said("to connect to a server")] = 10.0
    first_byte: Annotated[Seconds, said("for a server to begin its reply")] = 300.0
    idle: Annotated[Seconds, said("silence inside a server's reply")] = 120.0
    heartbeat: Annotated[Seconds, said("a comment is sent into a stream after this much silence")] = 15.0
    json_heartbeat: Annotated[
        Patience,
        said(
            "blanks before an unstreamed reply after so much silence; its status is then 200, even of an error. 0: never"
        ),
    ] = 0.0


class Retries(_Section, frozen=True):
    """When a failed attempt is tried again on another server. After the first content byte it never is."""

    attempts: Annotated[int, Meta(ge=1, le=10), said("servers tried for one request before its first content")] = 3
    # Share and floor of Finagle's retry budget: a retry storm must not double the load of servers that are failing.
    budget: Annotated[
        Annotated[float, Meta(ge=0, le=1)], said("retries allowed as a share of recent requests, over all clients")
    ] = 0.2
    budget_floor: Annotated[int, Meta(ge=0, le=10_000), said("retries always allowed in ten seconds")] = 20


class Drain(_Section, frozen=True):
    """How shutdown gives way to work in flight."""

    delay: Annotated[Patience, said("on SIGTERM, how long `/readyz` says 503 while work is still accepted")] = 0.0
    timeout: Annotated[Patience, said("what open requests then get")] = 30.0
    interrupt_timeout: Annotated[Patience, said("the same after Ctrl-C, where a person waits")] = 2.0
    total: Annotated[Seconds, said("the whole shutdown; what still runs then is stopped by force")] = 60.0


class Auth(_Section, frozen=True):
    """Client keys, and the operator's. Without client keys only loopback is served, unless `open` says otherwise."""

    keys: Annotated[tuple[Annotated[str, Meta(min_length=8, max_length=256)], ...], said("keys that are let in")] = ()
    keys_file: Annotated[str | None, said("a file with one key a line; `#` begins a comment")] = None
    open: Annotated[bool, said("let everyone in, on any address")] = False
    admin_key: Annotated[
        Annotated[str, Meta(min_length=8, max_length=256)] | None,
        said("what the admin API asks for; without it only this machine may use that, on a loopback address"),
    ] = None
    admin_key_file: Annotated[str | None, said("a file that holds it instead")] = None
    failures_per_minute: Annotated[
        int, Meta(ge=0, le=1_000_000), said("wrong keys an address may show before it gets 429; 0 for no limit")
    ] = 20

    def __repr__(self) -> str:
        return f"Auth({len(self.keys)} keys, open={self.open})"


class Key(_Section, frozen=True):
    """One client's key and what it may do. `auth.keys` is the short form for keys without limits."""

    name: Annotated[
        Annotated[str, Meta(pattern=whole(r"[A-Za-z0-9._@-]{1,64}"))],
        said("whose key it is; told in logs, unlike the key"),
    ]
    key: Annotated[Annotated[str, Meta(min_length=8, max_length=256)] | None, said("the key itself")] = None
    key_file: Annotated[str | None, said("a file that holds it instead")] = None
    requests_per_minute: Annotated[Annotated[int, Meta(ge=1)] | None, said("no limit if unset")] = None
    tokens_per_minute: Annotated[
        Annotated[int, Meta(ge=1)] | None, said("prompt and reply together; no limit if unset")
    ] = None
    models: Annotated[tuple[ModelName, ...], said("the models it may use; all if unset")] = ()
    priority: Annotated[Priority, said("the highest it may ask for, and what it gets when it asks for none")] = "normal"
    keep_content: Annotated[bool, said("keep its prompts and answers, in the log and in the history")] = False

    def __repr__(self) -> str:
        return f"Key({self.name})"


class Rate(_Section, frozen=True):
    """What clients without a key may do. Keys have their own limits, in `[[keys]]`."""

    anonymous_requests_per_minute: Annotated[
        int, Meta(ge=0), said("for each address but this machine's own; 0 for no limit")
    ] = 60
    addresses: Annotated[int, Meta(ge=16, le=10_000_000), said("addresses remembered at a time")] = 10_000


class Admission(_Section, frozen=True):
    """What happens when every server of a model is busy: requests wait in a queue."""

    queue: Annotated[int, Meta(ge=0, le=1_000_000), said("requests that may wait, over all models; more get 429")] = 512
    max_wait: Annotated[Seconds, said("a request waits no longer; then it gets 503")] = 120.0
    aging: Annotated[Seconds, said("a waiting request rises by one priority after each such time")] = 15.0
    max_in_flight: Annotated[int, Meta(ge=1), said("requests being answered at a time, over all servers")] = 4096


class Reuse(_Section, frozen=True):
    """One answer for identical requests. Only repeatable ones: temperature 0, or a seed."""

    share: Annotated[bool, said("identical requests in flight share one answer")] = True
    cache: Annotated[bool, said("finished answers are kept in memory")] = True
    max_bytes: Annotated[int, Meta(ge=0), said("memory for kept answers")] = 64 * 1024 * 1024
    max_entry: Annotated[int, Meta(ge=0), said("the largest answer that is kept or shared")] = 1024 * 1024
    ttl: Annotated[Seconds, said("an answer is kept for this long")] = 300.0


class Routing(_Section, frozen=True):
    """How a server is chosen for a request."""

    policy: Annotated[Policy, said("how to choose among a model's healthy servers")] = "round_robin"
    aliases: Annotated[dict[ModelName, ModelName], said('other names of models: `name = "model"`')] = {}
    fallbacks: Annotated[
        dict[ModelName, tuple[ModelName, ...]], said("models to use instead when no server of one can answer")
    ] = {}


class Health(_Section, frozen=True):
    """How servers are watched. A check asks for `/v1/models` and never loads one."""

    interval: Annotated[Annotated[float, Meta(ge=1, le=300)], said("between checks of a healthy server")] = 60.0
    timeout: Annotated[Annotated[float, Meta(gt=0, le=60)], said("for the answer to a check")] = 10.0
    failures: Annotated[int, Meta(ge=1, le=100), said("failures in a row that take a server out of service")] = 3
    ejection: Annotated[Seconds, said("how long a server is out the first time; doubled each time after")] = 5.0
    max_ejection: Annotated[Seconds, said("the longest time between checks of a server that is out")] = 300.0


class Egress(_Section, frozen=True):
    """Which addresses the gateway may connect to. Checked on the resolved address, at the moment of connecting."""

    private: Annotated[
        Literal["auto", "allow", "refuse"],
        said("private and loopback addresses of configured servers; `auto`: allowed when we listen on loopback"),
    ] = "auto"
    allow: Annotated[
        tuple[str, ...], said('networks or `host:port`s that are allowed all the same, like `"10.1.0.0/16"`')
    ] = ()


class Engine(_Section, frozen=True):
    """The built-in engine."""

    bolt: Annotated[bool, said("serve the built-in model")] = True
    threads: Annotated[int, Meta(ge=0, le=1024), said("compute threads of a model; 0 for all cores")] = 0
    max_sequences: Annotated[int, Meta(ge=1, le=1024), said("answers written at the same time; more wait")] = 16
    context_length: Annotated[
        Annotated[int, Meta(ge=16)] | None, said("tokens of prompt and answer; the model's own if unset")
    ] = None
    kv: Annotated[KvType, said("how keys and values are kept: `q8_0` takes half the memory, `f32` twice")] = "f16"
    kv_memory: Annotated[
        ByteSize | None, said("what a model's keys and values may take; room for 4,096 tokens an answer if unset")
    ] = None
    speculate: Annotated[
        bool, said("guess tokens from the text before and check them in one step; the answer stays the same")
    ] = True
    idle_unload_s: Annotated[
        Annotated[float, Meta(ge=0)],
        said("a model is unloaded after so many seconds without a request, and loaded by the next. 0: never"),
    ] = 0.0
    memory_limit: Annotated[
        ByteSize | None, said('what models may take in all, like `"8GiB"`; what the machine has free if unset')
    ] = None
    models_dir: Annotated[str | None, said("a folder of GGUF files that can be loaded by name")] = None


class ModelOptions(_Section, frozen=True, kw_only=True):
    """How one model is run, where that differs from `[engine]`."""

    threads: Annotated[Annotated[int, Meta(ge=0, le=1024)] | None, said("as in `[engine]`")] = None
    max_sequences: Annotated[Annotated[int, Meta(ge=1, le=1024)] | None, said("as in `[engine]`")] = None
    context_length: Annotated[Annotated[int, Meta(ge=16)] | None, said("as in `[engine]`")] = None
    kv: Annotated[KvType | None, said("as in `[engine]`")] = None
    kv_memory: Annotated[ByteSize | None, said("as in `[engine]`")] = None
    speculate: Annotated[bool | None, said("as in `[engine]`")] = None
    idle_unload_s: Annotated[Annotated[float, Meta(ge=0)] | None, said("as in `[engine]`")] = None


class LocalModel(ModelOptions, frozen=True, kw_only=True):
    """A GGUF file served by the built-in engine. What is not set here is as in `[engine]`."""

    path: Annotated[
        str, Meta(min_length=1), said("the file, relative to this one; or `ollama:NAME` for one that Ollama has pulled")
    ]
    id: Annotated[ModelName | None, said("the model's name; the file's without its ending if unset")] = None
    force: Annotated[bool, said("load it even if memory seems too small")] = False

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.id or name_of(self.path)


def name_of(source: str) -> str:
    """What a model is called whose file or `ollama:NAME` this is, when nobody says otherwise."""
    return source.removeprefix(OLLAMA) if source.startswith(OLLAMA) else PurePath(source).stem


class Capabilities(_Section, frozen=True):
    """What a server can do, where that limits which requests it may get."""

    context_length: Annotated[Annotated[int, Meta(ge=1)] | None, said("tokens of prompt and reply")] = None
    max_tokens: Annotated[Annotated[int, Meta(ge=1)] | None, said("tokens of one reply")] = None
    streaming: Annotated[bool, said("whether it can stream")] = True
    endpoints: Annotated[tuple[ServedEndpoint, ...], said("the paths below `/v1/` it serves")] = (
        "chat/completions",
        "completions",
        "embeddings",
    )


class RemoteBackend(_Section, frozen=True):
    """A model server: Ollama, llama.cpp, vLLM, LM Studio, another Quiver."""

    url: Annotated[HttpUrl, said("its address, with or without `/v1`")]
    name: Annotated[ServerName | None, said("told in `X-Gateway-Server-ID`; host and port if unset")] = None
    models: Annotated[tuple[ModelName, ...], said("what it offers; asked from its `/v1/models` if unset")] = ()
    api_key: Annotated[str | None, said("the key it wants")] = None
    api_key_file: Annotated[str | None, said("a file that holds that key")] = None
    weight: Annotated[Annotated[float, Meta(gt=0, le=1000)], said("its share, under the policy `weighted`")] = 1.0
    max_concurrency: Annotated[
        Annotated[int, Meta(ge=1)] | None, said("requests it gets at a time; more wait. No limit if unset")
    ] = None
    capabilities: Annotated[Capabilities, said("what it can do")] = Capabilities()

    def __repr__(self) -> str:
        return f"RemoteBackend({self.url}, name={self.name}, models={self.models})"


class Log(_Section, frozen=True):
    """What is logged, how, and where. Lines go to stderr, and as JSON into a file."""

    level: Annotated[Level, said("the least that is logged")] = "info"
    levels: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=64)], Level],
        said('the same for single components: `health = "debug"`'),
    ] = {}
    format: Annotated[
        Literal["auto", "console", "json"], said("on stderr; `auto`: readable on a terminal, JSON lines elsewhere")
    ] = "auto"
    file: Annotated[
        str | bool | None, said("the file; `logs/quiver.jsonl` in the data folder if unset, none if `false` or empty")
    ] = None
    max_bytes: Annotated[ByteSize, said("a larger file is set aside, and another begun")] = "100MB"
    rotate: Annotated[Literal["hourly", "daily", "weekly", "never"], said("when that is done anyway, in UTC")] = "daily"
    keep: Annotated[int, Meta(ge=0, le=10_000), said("files set aside that are kept")] = 5
    prompts: Annotated[
        bool, said("log prompts and answers too, 1,000 characters of each; keys may ask for it with `keep_content`")
    ] = False


class Cors(_Section, frozen=True):
    """Which web pages of other origins may use the API from a browser. None may, unless they are listed."""

    origins: Annotated[
        tuple[WebOrigin, ...], said('such as `"https://chat.lab"`, exactly as browsers send it; `"*"` for all pages')
    ] = ()
    methods: Annotated[tuple[HttpMethod, ...], said("what they may do")] = (
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
    )
    headers: Annotated[tuple[HeaderName, ...], said("what they may send; whatever they ask for if unset")] = ()
    credentials: Annotated[bool, said("whether browsers may send cookies along; not with `*`")] = False
    max_age: Annotated[int, Meta(ge=0, le=86_400), said("how long browsers need not ask again, in seconds")] = 600


class Store(_Section, frozen=True):
    """What is kept over restarts, and where."""

    data_dir: Annotated[
        str | None, said("the folder; `QUIVER_DATA_DIR` comes first, the platform's folder for a user's data last")
    ] = None
    flush_pause: Annotated[
        Annotated[float, Meta(gt=0, le=60)], said("records wait so long for others to be written with")
    ] = 0.5
    size_warning: Annotated[ByteSize, said("a database larger than this is warned of")] = "500MB"
    checks: Annotated[int, Meta(ge=1, le=10_000), said("results of checks that are kept of each server")] = 100
    request_days: Annotated[Days, said("how long single requests are kept")] = 30
    rollup_days: Annotated[Days, said("how long is kept what requests and errors add up to")] = 30
    event_days: Annotated[Days, said("how long changes of the gateway are kept")] = 90
    metric_days: Annotated[Days, said("how long figures, one a minute, are kept")] = 7
    content: Annotated[
        bool, said("keep everybody's prompts and answers in the history; keys may ask for it with `keep_content`")
    ] = False


class Telemetry(_Section, frozen=True):
    """What the gateway tells of itself, beside its log. `/metrics` is on the main port in any case."""

    metrics_port: Annotated[
        Annotated[int, Meta(ge=0, le=65_535)] | None,
        said("a port with nothing but `/metrics`; none if unset, 0 for any"),
    ] = None
    metrics_host: Annotated[str, said("the address of that port; one that others can reach takes a client's key")] = (
        "127.0.0.1"
    )
    tracing: Annotated[
        bool, said("send OpenTelemetry spans to a collector, by OTLP over HTTP; needs the extra `otel`")
    ] = False
    endpoint: Annotated[
        HttpUrl | None, said("the collector; `OTEL_EXPORTER_OTLP_ENDPOINT` or `http://localhost:4318` if unset")
    ] = None
    sampling: Annotated[
        Annotated[float, Meta(ge=0, le=1)], said("the share of traces that are kept, of those that begin here")
    ] = 1.0
    propagate: Annotated[
        bool, said("give requests that come without a `traceparent` one of ours, also without `tracing`")
    ] = False
    content: Annotated[bool, said("put prompts and answers into spans")] = False


class Join(_Section, frozen=True):
    """Servers that dial in with `quiver join`, from behind NAT, and are served through a tunnel. Each end pings the other; a
    link that was silent for three heartbeats is dead.
    """

    enabled: Annotated[bool, said("let servers join")] = True
    key: Annotated[
        Annotated[str, Meta(min_length=8, max_length=256)] | None,
        said(
            "what a joiner has to show, or else `auth.admin_key`; without either only this machine may join, on loopback"
        ),
    ] = None
    key_file: Annotated[str | None, said("a file that holds it instead")] = None
    heartbeat: Annotated[Annotated[float, Meta(ge=0.05, le=600)], said("between the pings of a link")] = 15.0
    grace: Annotated[Patience, said("a server whose link is down is kept for so long, for it to come back")] = 60.0
    max_joined: Annotated[int, Meta(ge=1, le=10_000), said("servers that may be joined at a time")] = 64

    def __repr__(self) -> str:
        return f"Join(enabled={self.enabled})"


class Config(_Section, frozen=True):
    """Everything `quiver serve` can be told."""

    server: Server = Server()
    limits: Limits = Limits()
    retries: Retries = Retries()
    drain: Drain = Drain()
    auth: Auth = Auth()
    rate: Rate = Rate()
    admission: Admission = Admission()
    routing: Routing = Routing()
    health: Health = Health()
    reuse: Reuse = Reuse()
    egress: Egress = Egress()
    engine: Engine = Engine()
    log: Log = Log()
    cors: Cors = Cors()
    store: Store = Store()
    telemetry: Telemetry = Telemetry()
    join: Join = Join()
    keys: tuple[Key, ...] = ()
    models: tuple[LocalModel, ...] = ()
    backends: tuple[RemoteBackend, ...] = ()
