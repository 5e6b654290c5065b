"""Settings from every source: what they mean, who wins, and what is said when they are wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
from quiver.admin.configuration.complaint import SettingsError
from quiver.admin.configuration.settings import Tree, load
from quiver.schemas.config import Capabilities, Key

SECRET = "s3cr3t-value-1234"

# What stands in quiver.toml, and the error's message and hint.
WRONG_FILES: list[tuple[str, str, str | None]] = [
    ("[server]\nprot = 1", "quiver.toml: `server.prot` is not a setting", "did you mean `server.port`?"),
    ("[serverr]", "quiver.toml: `serverr` is not a setting", "did you mean `server`?"),
    (
        "[log]\nzzz = 1",
        "quiver.toml: `log.zzz` is not a setting",
        "known here: level, levels, format, file, max_bytes, rotate, keep, prompts",
    ),
    ("[[backends]]\nurls = 'x'", "quiver.toml: `backends[0].urls` is not a setting", "did you mean `backends[0].url`?"),
    ("[server]\nport = 'x'", "quiver.toml: `server.port`: expected a whole number, got text", None),
    ("[server]\nport = 70000", "quiver.toml: `server.port`: expected a whole number <= 65535", None),
    ("[server]\nhost = 1", "quiver.toml: `server.host`: expected text, got a whole number", None),
    ("[drain]\ntimeout = -1", "quiver.toml: `drain.timeout`: expected a number >= 0.0", None),
    ("[engine]\nbolt = 'no'", "quiver.toml: `engine.bolt`: expected true or false, got text", None),
    ("[engine]\nkv = 'f8'", "quiver.toml: `engine.kv`: expected one of f16, f32, q8_0", None),
    ("server = 1", "quiver.toml: `server`: expected a section, got a whole number", None),
    ("[[models]]\nid = 'm'", "quiver.toml: `models[0].path` is required", None),
    (
        "[[models]]\npath = 'm.gguf'\n[[models]]\npath = ''",
        "quiver.toml: `models[1].path`: expected text of at least 1 characters",
        None,
    ),
    (
        "[[backends]]\nurl = 'h:1'",
        "quiver.toml: `backends[0].url`: expected an address such as `http://127.0.0.1:11434`, "
        "without user, query or fragment",
        None,
    ),
    (
        f"[[backends]]\nurl = 'http://me:{SECRET}@h:1'",
        "quiver.toml: `backends[0].url`: expected an address such as `http://127.0.0.1:11434`, "
        "without user, query or fragment",
        None,
    ),
    (
        "[[backends]]\nurl = 'http://h:1'\nmodels = ['a b']",
        "quiver.toml: `backends[0].models[0]`: expected a model name of printable characters without blanks",
        None,
    ),
    (f"[auth]\nkeys = '{SECRET}'", "quiver.toml: `auth.keys`: expected a list, got text", None),
    ("[auth]\nkeys = ['short']", "quiver.toml: `auth.keys[0]`: expected text of at least 8 characters", None),
    (
        f"[auth]\nkeys = ['{SECRET} x']",
        "`auth.keys[0]`: expected printable ASCII characters without blanks",
        None,
    ),
    (
        "[server]\nport = ",
        "quiver.toml: not valid TOML: Invalid value (at line 2, column 7)",
        "text needs quotes, sections are `[name]`",
    ),
    (
        "[server]\n\nport 1\n",
        "quiver.toml: not valid TOML: Expected '=' after a key in a key/value pair (at line 3, column 6)",
        "text needs quotes, sections are `[name]`",
    ),
    (
        "[server]\ntrusted_proxies = ['999.0.0.0/8']",
        "`server.trusted_proxies`: '999.0.0.0/8' does not appear to be an IPv4 or IPv6 network",
        'write it as `"10.0.0.0/8"`',
    ),
    (
        "[cors]\norigins = ['https://chat.lab/']",
        "quiver.toml: `cors.origins[0]`: expected an origin such as `https://chat.lab`, as browsers send it: no path, "
        "lower case",
        None,
    ),
    (
        "[cors]\norigins = ['*']\ncredentials = true",
        "`cors.credentials` is for listed origins, not for `*`",
        "list them, or leave credentials out",
    ),
    (
        "[server]\nhost = '0.0.0.0'",
        "`server.host` is `0.0.0.0`, which other machines can reach, and no client keys are set",
        "set `auth.admin_key` and make keys with `quiver keys create`, set `auth.keys` or `[[keys]]`, listen on 127.0.0.1, "
        "or let everyone in with `auth.open = true`",
    ),
    (
        "[telemetry]\nmetrics_port = 9100\nmetrics_host = '0.0.0.0'",
        "`telemetry.metrics_host` is `0.0.0.0`, which others can reach, and no client keys are set",
        "set `auth.keys` or `[[keys]]`, leave `telemetry.metrics_host` at 127.0.0.1, or set `auth.open = true`",
    ),
    (
        f"[auth]\nopen = true\nkeys = ['{SECRET}']",
        "`auth.open` lets everyone in, yet client keys are set",
        "remove `auth.open`, or the keys",
    ),
    ("[auth]\nkeys_file = 'none'", "`auth.keys_file`: `none` cannot be read: No such file or directory", None),
    (
        "[[backends]]\nurl = 'http://h:1'\n[[backends]]\nurl = 'http://h:1/v1/'",
        "`backends[0]` and `backends[1]` have the same url and name",
        "remove one of them",
    ),
    (
        f"[[backends]]\nurl = 'http://h:1'\napi_key = '{SECRET}'\napi_key_file = 'k'",
        "`backends[0]` has both `api_key` and `api_key_file`",
        "keep one of them",
    ),
    (
        f"[[backends]]\nurl = 'http://h:1'\napi_key = '{SECRET} x'",
        "`backends[0].api_key`: expected one key of printable ASCII characters without blanks",
        None,
    ),
    (
        "[[keys]]\nname = 'a b'",
        "quiver.toml: `keys[0].name`: expected a name of 1 to 64 letters, digits, or `._@-`",
        None,
    ),
    ("[[keys]]\nname = 'ada'", "`keys[0]` has no key", "set `key` or `key_file`"),
    (
        f"[[keys]]\nname = 'ada'\nkey = '{SECRET}'\nkey_file = 'k'",
        "`keys[0]` has both `key` and `key_file`",
        "keep one of them",
    ),
    (
        f"[[keys]]\nname = 'ada'\nkey = '{SECRET} x'",
        "`keys[0].key`: expected one key of 8 to 256 printable ASCII characters without blanks",
        None,
    ),
    (
        f"[[keys]]\nname = 'ada'\nkey = '{SECRET}'\npriority = 'top'",
        "quiver.toml: `keys[0].priority`: expected one of critical, high, low, normal",
        None,
    ),
    (
        f"[[keys]]\nname = 'ada'\nkey = '{SECRET}'\n[[keys]]\nname = 'ada'\nkey = '{SECRET}-2'",
        "`keys[0]` and `keys[1]` are both named `ada`",
        "give each client its own name",
    ),
    (
        f"[[keys]]\nname = 'ada'\nkey = '{SECRET}'\n[[keys]]\nname = 'bob'\nkey = '{SECRET}'",
        "`keys[0]` and `keys[1]` have the same key",
        "give each client its own key",
    ),
    (
        f"[auth]\nkeys = ['{SECRET}']\n[[keys]]\nname = 'ada'\nkey = '{SECRET}'",
        "`auth.keys` and `keys[0]` have the same key",
        "give each client its own key",
    ),
    (
        f"[auth]\nkeys = ['{SECRET}']\n[[keys]]\nname = 'key-1'\nkey = '{SECRET}-2'",
        "`auth.keys` and `keys[0]` are both named `key-1`",
        "give each client its own name",
    ),
    (
        f"[auth]\nopen = true\n[[keys]]\nname = 'ada'\nkey = '{SECRET}'",
        "`auth.open` lets everyone in, yet client keys are set",
        "remove `auth.open`, or the keys",
    ),
    (
        f"[auth]\nkeys = ['{SECRET}']\nadmin_key = '{SECRET}'",
        "`auth.admin_key` is also a client's key",
        "the admin API needs a key of its own",
    ),
    (
        f"[auth]\nadmin_key = '{SECRET}'\n[[keys]]\nname = 'ada'\nkey = '{SECRET}'",
        "`auth.admin_key` and `keys[0]` have the same key",
        "give each client its own key",
    ),
    (
        f"[auth]\nadmin_key = '{SECRET}'\nadmin_key_file = 'k'",
        "`auth` has both `admin_key` and `admin_key_file`",
        "keep one of them",
    ),
    (
        "[routing.aliases]\ngpt = 'gpt'",
        "`routing.aliases`: `gpt` stands for itself",
        "name the model it stands for",
    ),
    (
        "[routing.aliases]\n'a b' = 'm'",
        "quiver.toml: `routing.aliases`: expected a model name of printable characters without blanks",
        None,
    ),
    (
        "[routing.aliases]\ngpt = 1",
        "quiver.toml: `routing.aliases[...]`: expected text, got a whole number",
        None,
    ),
    (
        "[routing.fallbacks]\nm = ['n', 'm']",
        "`routing.fallbacks`: `m` falls back on itself",
        "name other models",
    ),
    (
        "[routing.fallbacks]\nm = 'n'",
        "quiver.toml: `routing.fallbacks[...]`: expected a list, got text",
        None,
    ),
    (
        "[routing]\npolicy = 'fastest'",
        "quiver.toml: `routing.policy`: expected one of least_in_flight, peak_ewma, prefix_affinity, round_robin, "
        "session_affinity, weighted",
        None,
    ),
    (
        "[egress]\nallow = ['10.1.0.0/16', 'http://gpu:8000']",
        "`http://gpu:8000` in `egress.allow` is not a network, an address or `host:port`",
        'write it as `"10.1.0.0/16"` or `"gpu.lab:8000"`',
    ),
    ("[[backends]]\nurl = 'http://h:99999'", "`backends[0].url`: Port out of range 0-65535", None),
    (
        "[[backends]]\nurl = 'http://h:1'\n[backends.capabilities]\nendpoints = ['/v1/chat']",
        "quiver.toml: `backends[0].capabilities.endpoints[0]`: expected a path below `/v1/` such as `chat/completions`",
        None,
    ),
    (
        "[[backends]]\nurl = 'http://h:1'\n[backends.capabilities]\nstream = true",
        "quiver.toml: `backends[0].capabilities.stream` is not a setting",
        "did you mean `backends[0].capabilities.streaming`?",
    ),
    (
        "[[models]]\npath = 'm.gguf'\nid = 'bolt'",
        "`m.gguf` and the built-in model are both called `bolt`",
        "give it another `id` in quiver.toml",
    ),
    (
        "[[models]]\npath = 'm.gguf'\n[[models]]\npath = 'm.gguf'",
        "`m.gguf` and `m.gguf` are both called `m`",
        "give it another `id` in quiver.toml",
    ),
    (
        "[[models]]\npath = 'my model.gguf'",
        "`my model.gguf` makes no model name",
        "give it an `id` without blanks in quiver.toml",
    ),
]

WRONG_ENVIRONMENTS: list[tuple[dict[str, str], str, str | None]] = [
    (
        {"QUIVER_SERVER__PRT": "1"},
        "environment variable QUIVER_SERVER__PRT: no such setting",
        "did you mean `QUIVER_SERVER__PORT`?",
    ),
    (
        {"QUIVER_PORT": "9000"},
        "environment variable QUIVER_PORT: no such setting",
        "did you mean `QUIVER_SERVER__PORT`?",
    ),
    (
        {"QUIVER_QQQQQ": "1"},
        "environment variable QUIVER_QQQQQ: no such setting",
        "variables are called `QUIVER_SECTION__FIELD`",
    ),
    (
        {"QUIVER_SERVER__PORT": "x"},
        "environment variable QUIVER_SERVER__PORT: `server.port`: expected a whole number, got text",
        None,
    ),
    (
        {"QUIVER_AUTH__KEYS": SECRET},
        "environment variable QUIVER_AUTH__KEYS: expected a list as JSON",
        'write it as `["first", "second"]`',
    ),
    (
        {"QUIVER_ROUTING__ALIASES": "gpt=bolt"},
        "environment variable QUIVER_ROUTING__ALIASES: expected a table as JSON",
        'write it as `{"name": "value"}`',
    ),
    (
        {"QUIVER_KEYS": f'[{{"name": "ada", "kye": "{SECRET}"}}]'},
        "environment variable QUIVER_KEYS: `keys[0].kye` is not a setting",
        "did you mean `keys[0].key`?",
    ),
    (
        {"QUIVER_BACKENDS": '[{"ur": "http://h:1"}]'},
        "environment variable QUIVER_BACKENDS: `backends[0].ur` is not a setting",
        "did you mean `backends[0].url`?",
    ),
]

# Variables and the one value they set, as a path into the configuration.
RIGHT_ENVIRONMENTS: list[tuple[dict[str, str], str, Any]] = [
    ({"QUIVER_SERVER__PORT": "9000"}, "server.port", 9000),
    ({"QUIVER_SERVER__KEEP_ALIVE": "7.5"}, "server.keep_alive", 7.5),
    ({"QUIVER_ENGINE__BOLT": "false"}, "engine.bolt", False),
    ({"QUIVER_ENGINE__CONTEXT_LENGTH": "64"}, "engine.context_length", 64),
    ({"QUIVER_LOG__LEVEL": "debug"}, "log.level", "debug"),
    ({"QUIVER_AUTH__KEYS": f'["{SECRET}"]'}, "auth.keys", (SECRET,)),
    ({"QUIVER_SERVER__PORT": ""}, "server.port", 8080),
    ({"QUIVER_ROUTING__ALIASES": '{"gpt-4o": "bolt"}'}, "routing.aliases", {"gpt-4o": "bolt"}),
    ({"QUIVER_ROUTING__FALLBACKS": '{"m": ["n", "o"]}'}, "routing.fallbacks", {"m": ("n", "o")}),
    ({"QUIVER_EGRESS__ALLOW": '["10.1.0.0/16"]'}, "egress.allow", ("10.1.0.0/16",)),
    ({"QUIVER_KEYS": f'[{{"name": "ada", "key": "{SECRET}"}}]'}, "keys", (Key(name="ada", key=SECRET),)),
    ({"QUIVER_AUTH__ADMIN_KEY": SECRET}, "auth.admin_key", SECRET),
    # Other people's variables.
    (
        {"QUIVER_URL": "http://h", "QUIVER_API_KEY": "k", "QUIVER_ADMIN_KEY": "a", "QUIVER_DATA_DIR": "/d"},
        "server.port",
        8080,
    ),
    ({"QUIVER_SERVICE_HOST": "10.0.0.1", "QUIVER_SERVICE_PORT_HTTP": "80"}, "server.port", 8080),
    ({"QUIVER_PORT": "tcp://10.0.0.1:80", "QUIVER_PORT_80_TCP_ADDR": "10.0.0.1"}, "server.port", 8080),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def outcome(**how: Any) -> tuple[str, str | None]:
    with pytest.raises(SettingsError) as caught:
        load(**how)
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(("text", "message", "hint"), WRONG_FILES)
def test_wrong_file_is_explained(text: str, message: str, hint: str | None) -> None:
    """Where it stands is for `test_places`."""
    Path("quiver.toml").write_text(text)
    told, why = outcome(environ={})
    assert (re.sub(r"^quiver\.toml(, line \d+)?: ", "", told), why) == (message.removeprefix("quiver.toml: "), hint)


@pytest.mark.parametrize(("environ", "message", "hint"), WRONG_ENVIRONMENTS)
def test_wrong_variable_is_explained(environ: dict[str, str], message: str, hint: str | None) -> None:
    assert outcome(environ=environ) == (message, hint)


@pytest.mark.parametrize(("environ", "path", "value"), RIGHT_ENVIRONMENTS)
def test_variable_sets_field(environ: dict[str, str], path: str, value: object) -> None:
    found: Any = load(environ=environ)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_wrong_flag_is_named() -> None:
    flags = {"--port": {"server": {"port": 70_000}}}
    assert outcome(environ={}, flags=flags) == ("--port: `server.port`: expected a whole number <= 65535", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no configuration file `given.toml`"),
        (b"\xff\xfe", "`given.toml` is not text in UTF-8"),
    ],
)
def test_unreadable_file_is_named(content: bytes | None, message: str) -> None:
    if content is not None:
        Path("given.toml").write_bytes(content)
    assert outcome(file=Path("given.toml"), environ={}) == (message, None)


def test_folder_is_no_file(tmp_path: Path) -> None:
    message, _ = outcome(file=tmp_path, environ={})
    assert message == f"`{tmp_path}` cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("file", "environ", "flags", "port"),
    [
        ("", {}, {}, 8080),
        ("[server]\nport = 1", {}, {}, 1),
        ("[server]\nport = 1", {"QUIVER_SERVER__PORT": "2"}, {}, 2),
        ("[server]\nport = 1", {"QUIVER_SERVER__PORT": "2"}, {"--port": {"server": {"port": 3}}}, 3),
        ("", {}, {"--port": {"server": {"port": 3}}}, 3),
    ],
)
def test_last_source_wins(file: str, environ: dict[str, str], flags: dict[str, Tree], port: int) -> None:
    Path("quiver.toml").write_text(file + "\nkeep_alive = 9.0" if file else "")
    config = load(environ=environ, flags=flags)
    assert config.server.port == port
    # What the later sources do not mention stays as the earlier one has it.
    assert config.server.keep_alive == (9.0 if file else 75.0)


def test_given_file_replaces_default() -> None:
    Path("quiver.toml").write_text("[server]\nport = 1")
    Path("other.toml").write_text("[log]\nlevel = 'debug'")
    config = load(Path("other.toml"), environ={})
    assert (config.server.port, config.log.level) == (8080, "debug")


def test_flag_adds_models() -> None:
    Path("quiver.toml").write_text("[[models]]\npath = 'm.gguf'")
    config = load(environ={}, models=["n.gguf"])
    assert [model.path for model in config.models] == ["m.gguf", "n.gguf"]


def test_paths_start_at_file(tmp_path: Path) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "keys").write_text(SECRET)
    (folder / "upstream").write_text("upstream-key\n")
    (folder / "ada").write_text("the-key-of-ada\n")
    (folder / "operator").write_text("the-key-of-the-operator\n")
    (folder / "quiver.toml").write_text(
        "[auth]\nkeys_file = 'keys'\nadmin_key_file = 'operator'\n[store]\ndata_dir = 'kept'\n"
        "[[keys]]\nname = 'ada'\nkey_file = 'ada'\n[[models]]\npath = 'm.gguf'\n"
        "[[backends]]\nurl = 'http://h:1'\napi_key_file = 'upstream'"
    )
    config = load(folder / "quiver.toml", environ={})
    assert config.models[0].path == str(folder / "m.gguf")
    assert config.store.data_dir == str(folder / "kept")
    assert config.auth.keys == (SECRET,)
    assert config.backends[0].api_key == "upstream-key"
    assert config.keys[0].key == "the-key-of-ada"
    assert config.auth.admin_key == "the-key-of-the-operator"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert load(environ={"QUIVER_SERVER__HOST": host}).auth.keys == ()


@pytest.mark.parametrize(
    "auth",
    [
        {"QUIVER_AUTH__OPEN": "true"},
        {"QUIVER_AUTH__KEYS": f'["{SECRET}"]'},
        {"QUIVER_KEYS": f'[{{"name": "ada", "key": "{SECRET}"}}]'},
    ],
)
def test_public_host_needs_decision(auth: dict[str, str]) -> None:
    assert load(environ={"QUIVER_SERVER__HOST": "0.0.0.0", **auth}).server.host == "0.0.0.0"


def test_later_table_replaces_whole() -> None:
    Path("quiver.toml").write_text("[routing]\npolicy = 'weighted'\n[routing.aliases]\na = 'm'\nb = 'm'")
    routing = load(environ={"QUIVER_ROUTING__ALIASES": '{"b": "n"}'}).routing
    assert (routing.policy, routing.aliases) == ("weighted", {"b": "n"})


def test_capabilities_are_nested() -> None:
    Path("quiver.toml").write_text("[[backends]]\nurl = 'http://h'\n[backends.capabilities]\ncontext_length = 4096")
    assert load(environ={}).backends[0].capabilities == Capabilities(context_length=4096)


def test_same_url_under_two_names() -> None:
    Path("quiver.toml").write_text("".join(f"[[backends]]\nurl = 'http://h:1'\nname = '{name}'\n" for name in "ab"))
    assert [backend.name for backend in load(environ={}).backends] == ["a", "b"]
