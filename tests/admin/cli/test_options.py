"""Where a command finds its gateway and its key: flags, the environment, `.env`, files, a person; and what Tab offers."""

import json
import re
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from quiver.admin.cli.app import app
from quiver.admin.cli.client import Client, RequestFailed
from quiver.admin.cli.whereabouts import nearest_gateway
from typer.testing import CliRunner, Result

from ..conftest import Speak, events, reply

SERVERS = json.dumps({"servers": [], "total": 0, "next_cursor": None}).encode()
REFUSAL = b'{"error": {"message": "No API key was sent", "type": "t", "param": null, "code": "invalid_api_key"}}'
UNSET = dict.fromkeys(
    ("QUIVER_URL", "QUIVER_API_KEY", "QUIVER_API_KEY_FILE", "QUIVER_ADMIN_KEY", "QUIVER_ADMIN_KEY_FILE")
)


def quiver_command(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={**UNSET, **environ}, prog_name="quiver")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sent_key(request: bytes) -> str | None:
    found = re.search(rb"Authorization: Bearer (\S+)", request)
    return found and found[1].decode()


# What is given, and the key that reaches the gateway.
KEYS: list[tuple[list[str], dict[str, str], str, str]] = [
    (["--admin-key", "from-flag"], {"QUIVER_ADMIN_KEY": "from-variable"}, "QUIVER_ADMIN_KEY=from-dotenv", "from-flag"),
    ([], {"QUIVER_ADMIN_KEY": "from-variable"}, "QUIVER_ADMIN_KEY=from-dotenv", "from-variable"),
    ([], {}, "# ours\n\nexport QUIVER_ADMIN_KEY='from-dotenv'\nOTHER=1\n", "from-dotenv"),
    (["--admin-key-file", "key"], {}, "", "from-file"),
    ([], {"QUIVER_ADMIN_KEY_FILE": "key"}, "", "from-file"),
    ([], {}, "QUIVER_ADMIN_KEY_FILE=key", "from-file"),
]


@pytest.mark.parametrize(("flags", "environ", "dotenv", "key"), KEYS)
def test_key_is_found(speak: Speak, flags: list[str], environ: dict[str, str], dotenv: str, key: str) -> None:
    Path("key").write_text("from-file\n")
    speaker = speak(reply("200 OK", SERVERS))
    Path(".env").write_text(f"{dotenv}\nQUIVER_URL={speaker.url}\n")
    assert quiver_command("servers", *flags, **environ).exit_code == 0
    assert sent_key(speaker.requests[0]) == key


def test_help_shows_no_key_of_dotenv() -> None:
    Path(".env").write_text("QUIVER_ADMIN_KEY=hidden-key\nQUIVER_API_KEY=hidden-key\n")
    for command in ("servers", "chat", "models"):
        assert "hidden" not in quiver_command(command, "--help").output


def test_two_keys_are_refused() -> None:
    result = quiver_command("servers", "--admin-key", "one-key-1", "--admin-key-file", "key")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: both `--admin-key` and `--admin-key-file` are given\nhint: keep one of them\n",
    )


def test_broken_dotenv_is_located() -> None:
    Path(".env").write_text("QUIVER_URL=http://h\n\nnot a 'setting\n")
    result = quiver_command("servers")
    assert (result.exit_code, result.stderr) == (2, "error: .env, line 3: expected `NAME=value`\n")


def test_missing_key_is_asked_for_once(speak: Speak) -> None:
    speaker = speak(reply("401 Unauthorized", REFUSAL))
    asked: list[str] = []

    def ask(url: str) -> str:
        asked.append(url)
        return "typed-key"

    with pytest.raises(RequestFailed):
        Client(speaker.url, ask=ask).get("/admin/servers")
    assert asked == [speaker.url]
    assert [sent_key(request) for request in speaker.requests] == [None, "typed-key"]


def test_given_key_is_not_asked_for(speak: Speak) -> None:
    speaker = speak(reply("401 Unauthorized", REFUSAL))
    with pytest.raises(RequestFailed):
        Client(speaker.url, "wrong-key", ask=lambda url: pytest.fail("asked")).get("/admin/servers")
    assert len(speaker.requests) == 1


def test_refusal_inside_a_stream_asks_nobody(speak: Speak) -> None:
    speaker = speak(events(b'{"n": 1}', REFUSAL))
    stream = Client(speaker.url, ask=lambda url: pytest.fail("asked")).stream("/v1/chat/completions", b"{}")
    assert next(stream) == b'{"n": 1}'
    with pytest.raises(RequestFailed):
        next(stream)


class _OnSocket(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    requests: list[bytes]


class _Turn(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _OnSocket)
        self.server.requests.append(self.rfile.readline())
        while self.rfile.readline().strip():
            pass
        self.wfile.write(reply("200 OK", SERVERS))


@pytest.fixture
def on_socket(tmp_path: Path) -> Iterator[_OnSocket]:
    with _OnSocket(str(tmp_path / "quiver.sock"), _Turn) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_gateway_on_a_socket(on_socket: _OnSocket, form: str) -> None:
    result = quiver_command("servers", "--json", "--url", form.format(on_socket.server_address))
    assert json.loads(result.stdout) == json.loads(SERVERS)
    assert on_socket.requests == [b"GET /admin/servers?limit=1000 HTTP/1.1\r\n"]


def test_socket_in_the_data_folder_is_found(on_socket: _OnSocket) -> None:
    result = quiver_command("servers", "--json", QUIVER_DATA_DIR=str(Path.cwd()))
    assert json.loads(result.stdout) == json.loads(SERVERS)
    assert on_socket.requests[-1] == b"GET /admin/servers?limit=1000 HTTP/1.1\r\n"


# What stands in the configuration file, and where the gateway is looked for.
PLACES = [
    ("", "http://127.0.0.1:8080"),
    ("[server]\nport = 9000", "http://127.0.0.1:9000"),
    ('[server]\nhost = "::"\nport = 9000\n[auth]\nkeys = ["a-key-of-somebody"]', "http://[::1]:9000"),
    ('[server]\nhost = "0.0.0.0"\n[auth]\nkeys = ["a-key-of-somebody"]', "http://127.0.0.1:8080"),
    ("[server]\nprot = 9000", "http://127.0.0.1:8080"),
]


@pytest.mark.parametrize(("text", "url"), PLACES)
def test_configured_address_is_found(text: str, url: str) -> None:
    Path("quiver.toml").write_text(text)
    assert nearest_gateway() == url


def test_no_option_is_called_like_a_command_beside_it() -> None:
    """Both would have the same defaults: what `.env` says for the command would be taken for the option's value."""
    groups = [typer.main.get_command(app)]
    while groups:
        group = groups.pop()
        below = getattr(group, "commands", {})
        assert not below.keys() & {parameter.name for parameter in group.params}
        groups += below.values()


def test_missing_socket_is_explained() -> None:
    result = quiver_command("servers", "--url", "unix:gone.sock")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: no gateway runs at unix:gone.sock\n"
        "hint: start one with `quiver serve`, or say where it is with QUIVER_URL\n",
    )


# What has been typed, what the gateway says, and what the shell offers.
WORDS: list[tuple[str, str, list[str]]] = [
    ("quiver deregister ", '{"servers": [{"id": "lab"}, {"id": "attic"}]}', ["lab", "attic"]),
    ("quiver servers l", '{"servers": [{"id": "lab"}, {"id": "attic"}]}', ["lab"]),
    ("quiver models unload ", '{"models": [{"id": "bolt"}]}', ["bolt"]),
    ("quiver chat hello --model b", '{"data": [{"id": "bolt"}, {"id": "qwen"}]}', ["bolt"]),
    ("quiver deregister ", "<html>", []),
]


@pytest.mark.parametrize(("typed", "body", "offered"), WORDS)
def test_names_are_offered(speak: Speak, typed: str, body: str, offered: list[str]) -> None:
    speaker = speak(reply("200 OK", body.encode()))
    Path(".env").write_text(f"QUIVER_URL={speaker.url}\n")
    words = typed.split(" ")
    environ = {"_QUIVER_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    assert quiver_command(**environ).stdout.split() == offered


def test_nothing_is_offered_without_gateway() -> None:
    environ = {"_QUIVER_COMPLETE": "complete_bash", "COMP_WORDS": "quiver deregister ", "COMP_CWORD": "2"}
    result = quiver_command(QUIVER_URL="http://127.0.0.1:9", **environ)
    assert (result.exit_code, result.output.strip()) == (0, "")


def test_nearest_command_is_suggested() -> None:
    result = quiver_command("servrs")
    assert result.exit_code == 2
    assert "Did you mean 'servers'" in result.stderr
