"""A server of somebody else's, as a newcomer registers it: one command, a chat through the gateway, and again after a restart.

The server is llama-cpp-python's. It is no dependency of ours: a Python that has it is named by LLAMA_PYTHON, or is this
one.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import quiver

from bench.running import Running, gateway

PYTHON = os.environ.get("LLAMA_PYTHON", sys.executable)
BOLT = Path(quiver.__file__).with_name("models") / "bolt.gguf"
START = 60.0


def has_server() -> bool:
    """Whether there is a llama-cpp-python with its server to try this with."""
    return (
        subprocess.run([PYTHON, "-c", "import llama_cpp.server.app"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def llama(tmp_path: Path) -> Iterator[str]:
    """Its address."""
    if not has_server():
        pytest.skip(f"NOT TRIED: {PYTHON} has no llama-cpp-python[server]; name one that has in LLAMA_PYTHON")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PYTHON, "-m", "llama_cpp.server", "--model", str(BOLT), "--model_alias", "small", "--n_ctx", "1024"]
    with (tmp_path / "llama.log").open("w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
    try:
        wait_listening(f"http://127.0.0.1:{port}/v1/models", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_listening(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Return once `url` answers."""
    end = time.monotonic() + START
    while True:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, ConnectionError):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.1)


def command(running: Running, *arguments: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "quiver.admin", *arguments],
        env={**os.environ, "QUIVER_URL": running.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(180)
def test_foreign_server_takes_one_command(llama: str, tmp_path: Path) -> None:
    config = "[engine]\nbolt = false\n"
    with gateway(config, folder=tmp_path) as running:
        told = command(running, "register", llama, "--detect", "--name", "laptop", "--owner", "anna")
        assert told.splitlines()[0] == "registered `laptop` (healthy)"
        assert told.splitlines()[1].startswith("llama-cpp-python ")
        assert told.endswith("1 model, 1 request at a time\n")
        answer = json.loads(
            command(running, "chat", "What is Quiver?", "--model", "small", "--max-tokens", "8", "--json")
        )
        assert answer["content"]
        running.stop()
    with gateway(config, folder=tmp_path) as running:
        again = json.loads(
            command(running, "chat", "What is Quiver?", "--model", "small", "--max-tokens", "8", "--json")
        )
        assert again["content"] == answer["content"]
        (server,) = json.loads(command(running, "servers", "--json"))["servers"]
        assert (server["id"], server["metadata"], server["max_concurrency"]) == ("laptop", {"owner": "anna"}, 1)
