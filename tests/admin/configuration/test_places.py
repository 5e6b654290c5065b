"""Where a setting stands: lines of TOML, lines and columns of YAML, variables of `.env`; and what YAML must not do."""

from pathlib import Path
from typing import Any

import pytest
from quiver.admin.configuration import toml_file
from quiver.admin.configuration.complaint import SettingsError
from quiver.admin.configuration.settings import Loaded, Sources, load

TOML = '''\
# a comment with [brackets] and "quotes
title = """a text
[server]
port = 1
"""
[server]
host = "#[x]"  # comment
allow = [
  "a = 1", # ]
  'b',
]
server."odd.name" = { port = 1 }

[[backends]]
url = "u"
[backends.capabilities]
streaming = true
[[backends]]
  url   =  'v'
[routing.aliases]
"gpt-4o" = 'm'
a = """x"""
b = 1
'''
LINES = {
    "title": 2,
    "server": 6,
    "server.host": 7,
    "server.allow": 8,
    "backends[0]": 14,
    "backends[0].url": 15,
    "backends[0].capabilities": 16,
    "backends[0].capabilities.streaming": 17,
    "backends[1]": 18,
    "backends[1].url": 19,
    "routing.aliases": 20,
    "routing.aliases.gpt-4o": 21,
    "routing.aliases.a": 22,
    "routing.aliases.b": 23,
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_lines_of_toml_are_found() -> None:
    found = {path: place.line for path, place in toml_file.places(TOML).items()}
    assert {path: found.get(path) for path in LINES} == LINES
    assert not any(path == "x" or (path.startswith("b") and not path.startswith("backends")) for path in found)


@pytest.mark.parametrize("text", ["", "\n\n", "#", "a = 1", "a = '''\n'''", "\ufeff", "a = [\n[1],\n]\r\nb = 2\r\n"])
def test_any_toml_has_places(text: str) -> None:
    toml_file.places(text)


def errors(**how: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(**{"environ": {}, **how})
    return [error.message for error in caught.value.all]


ALL = """\
[server]
prot = 1
port = "x"
[[backends]]
url = "nothing"
[[keys]]
nam = "ada"
"""


def test_all_errors_are_told_at_once() -> None:
    Path("quiver.toml").write_text(ALL)
    Path(".env").write_text("\nQUIVER_LIMITS__REQUEST=soon\n")
    address = "expected an address such as `http://127.0.0.1:11434`, without user, query or fragment"
    assert errors(environ={"QUIVER_LOG__LEVEL": "loud"}, flags={"--port": {"server": {"port": 70_000}}}) == [
        "quiver.toml, line 2: `server.prot` is not a setting",
        "quiver.toml, line 3: `server.port`: expected a whole number, got text",
        f"quiver.toml, line 5: `backends[0].url`: {address}",
        "quiver.toml, line 7: `keys[0].nam` is not a setting",
        ".env, line 2, QUIVER_LIMITS__REQUEST: `limits.request`: expected a number, got text",
        "environment variable QUIVER_LOG__LEVEL: `log.level`: expected one of critical, debug, error, info, trace, warning",
        "--port: `server.port`: expected a whole number <= 65535",
    ]


def test_yaml_says_the_same_as_toml() -> None:
    Path("quiver.yml").write_text(
        "server:\n  port: 9000\n  host: localhost\nrouting:\n  aliases: {gpt-4o: qwen3}\n"
        "backends:\n  - url: http://h:1\n    capabilities:\n      streaming: false\nlog:\n"
    )
    config = load(environ={})
    assert (config.server.port, config.server.host, config.routing.aliases) == (9000, "localhost", {"gpt-4o": "qwen3"})
    assert not config.backends[0].capabilities.streaming


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(letter)}: &{chr(letter)} [{','.join(['*' + chr(letter - 1)] * 9)}]\n" for letter in range(98, 107)
)
# What stands in quiver.yaml, and what is said of it.
WRONG_YAML: list[tuple[str, str]] = [
    ("server:\n  prot: 1", "line 2, column 9: `server.prot` is not a setting"),
    ("server:\n  port: x", "line 2, column 9: `server.port`: expected a whole number, got text"),
    ("server:\n  port: 010", "line 2, column 9: `server.port`: expected a whole number, got text"),
    ("server:\n  port: 1:30", "line 2, column 9: `server.port`: expected a whole number, got text"),
    ("server:\n  port: 0x1F", "line 2, column 9: `server.port`: expected a whole number, got text"),
    ("server:\n  port: 1_000", "line 2, column 9: `server.port`: expected a whole number, got text"),
    ("engine:\n  bolt: no", "line 2, column 9: `engine.bolt`: expected true or false, got text"),
    ("engine:\n  bolt: on", "line 2, column 9: `engine.bolt`: expected true or false, got text"),
    ("limits:\n  request: .nan", "line 2, column 12: `limits.request`: expected a number, got text"),
    ("server:\n  port: 1\n  port: 2", "line 3, column 3: `server.port` stands here a second time"),
    ("log:\n  level: info\nlog:\n  format: json", "line 3, column 1: `log` stands here a second time"),
    ("log:\n  level: !!python/name:os.system x", "line 2, column 10: tags are not used here"),
    ("log: !!python/object/apply:os.system ['true']", "line 1, column 6: tags are not used here"),
    ("log:\n  level: !mine x", "line 2, column 10: tags are not used here"),
    (
        "server: &s {port: 1}\nlog:\n  <<: *s",
        "line 3, column 3: merging with `<<` is not supported; write the settings out",
    ),
    (BOMB, "column "),
    ("a: &a [*a]", "too many values, or nested too deeply; are there anchors that unfold?"),
    ("[" * 3000, "nested too deeply"),
    ("- a", "line 1, column 1: expected sections, such as `server:` with `port: 8080` indented below it"),
    ("server: [", "line 1, column 10: not valid YAML: expected the node content, but found '<stream end>'"),
    ("a: 1\n---\nb: 2", "line 2, column 1: not valid YAML: but found another document"),
    ("server:\n\tport: 1", "line 2, column 1: not valid YAML: found character '\\t' that cannot start any token"),
    ("log: {level: info, null: 1}", "line 1, column 20: expected a name"),
    ("log: {level: !!int x}", "line 1, column 14: the value does not fit its tag"),
]


@pytest.mark.parametrize(("text", "said"), WRONG_YAML)
def test_yaml_holds_no_surprise(text: str, said: str) -> None:
    Path("quiver.yaml").write_text(text)
    first = errors()[0]
    assert first.startswith("quiver.yaml")
    assert said in first


RIGHT_YAML: list[tuple[str, dict[str, str]]] = [
    ("{no: on, on: off}", {"no": "on", "on": "off"}),
    ("{1: 2026-01-01, 3: x}", {"1": "2026-01-01", "3": "x"}),
    ("{a: '10', b: \"true\"}", {"a": "10", "b": "true"}),
]


@pytest.mark.parametrize(("text", "aliases"), RIGHT_YAML)
def test_yaml_text_stays_text(text: str, aliases: dict[str, str]) -> None:
    Path("quiver.yaml").write_text(f"routing:\n  aliases: {text}")
    assert load(environ={}).routing.aliases == aliases


def test_two_files_are_one_too_many() -> None:
    Path("quiver.toml").write_text("")
    Path("quiver.yaml").write_text("")
    assert errors() == ["there are `quiver.toml` and `quiver.yaml`"]


def sources(**how: Any) -> Loaded:
    return Sources(**{"environ": {}, **how}).read()


def test_every_value_knows_its_source() -> None:
    Path("quiver.toml").write_text(
        "[server]\nport = 1\nkeep_alive = 9.0\n[limits]\nidle = 7.0\n[[backends]]\nurl = 'http://h:1'\n"
        "[auth]\nadmin_key_file = 'key'\n"
    )
    Path("key").write_text("the-operators-key\n")
    Path(".env").write_text("# ours\nQUIVER_SERVER__PORT=2\nQUIVER_LIMITS__REQUEST=5\nQUIVER_LIMITS__CONNECT=4\n")
    found = sources(
        environ={"QUIVER_LIMITS__REQUEST": "6", "QUIVER_SERVER__PORT": "3"},
        flags={"--port": {"server": {"port": 4}}},
        models=["m.gguf"],
    )
    expected = {
        "server.port": (4, "--port"),
        "limits.request": (6.0, "QUIVER_LIMITS__REQUEST"),
        "limits.connect": (4.0, ".env:4"),
        "limits.idle": (7.0, "quiver.toml:5"),
        "server.keep_alive": (9.0, "quiver.toml:3"),
        "limits.first_byte": (300.0, "default"),
        "auth.admin_key": ("the-operators-key", "key"),
    }
    for path, (value, source) in expected.items():
        section, _, field = path.partition(".")
        assert (getattr(getattr(found.config, section), field), str(found.origin(path))) == (value, source)
    assert str(found.origin("backends[0].url")) == "quiver.toml:7"
    assert str(found.origin("models[0].path")) == "--model"
    assert found.files == (Path("quiver.toml"), Path(".env"), Path("key"))


def test_dotenv_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    Path(".env").write_text("QUIVER_SERVER__PORT=2\nOTHER=1\n")
    assert load(environ=os.environ).server.port == 2
    assert "QUIVER_SERVER__PORT" not in os.environ


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_open_secret_is_warned_of(mode: int, warned: bool) -> None:
    Path("key").write_text("the-operators-key\n")
    Path("key").chmod(mode)
    found = sources(environ={"QUIVER_AUTH__ADMIN_KEY_FILE": "key"})
    assert found.warnings == (
        ("`key` holds a secret, and everyone on this machine may read it; `chmod o-r` it",) if warned else ()
    )


def test_error_of_the_whole_names_the_source() -> None:
    Path("quiver.toml").write_text("[log]\nlevel = 'info'\n[server]\nport = 1\n")
    assert errors(environ={"QUIVER_SERVER__HOST": "0.0.0.0"})[0].startswith(
        "environment variable QUIVER_SERVER__HOST: `server.host` is"
    )
