"""Models of the real engine that come and go in a real process: swapped under streams, unloaded, refused for memory."""

import hashlib
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from quiver.admin.cli.app import app
from quiver.proxy.local.backend import BOLT
from typer.testing import CliRunner

from bench.running import Running, gateway
from tests.engine.chat_model import LETTERS, write_chat_model

from .test_process import chat, code_of, post

BIAS = dict.fromkeys(map(str, LETTERS), 20.0)
STREAMS, TOKENS = 6, 40


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models, and a store of Ollama's with one."""
    folder = tmp_path_factory.mktemp("models")
    write_chat_model(folder / "one.gguf", layers=1, feed_forward=256)
    write_chat_model(folder / "two.gguf", layers=2, feed_forward=256)
    (folder / "damaged.gguf").write_bytes((folder / "one.gguf").read_bytes()[:5000])
    store, content = folder / "ollama", (folder / "two.gguf").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    blob = store / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    manifest = store / "manifests/registry.ollama.ai/library/two/1b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": len(content)}
    manifest.write_text(json.dumps({"layers": [layer]}))
    return folder


@pytest.fixture
def running(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setenv("OLLAMA_MODELS", str(models / "ollama"))
    config = f"[engine]\nbolt = false\nmodels_dir = '{models}'\n[[models]]\npath = '{models}/one.gguf'\nid = 'm'\n"
    with gateway(config) as started:
        yield started
        assert started.stop() == 130
        assert "Traceback" not in started.log.read_text()


def command(running: Running, *arguments: str) -> tuple[int, str, str]:
    environ = {"QUIVER_ADMIN_KEY": ""}
    result = CliRunner().invoke(app, ["models", *arguments, "--url", running.url], env=environ)
    return result.exit_code, result.stdout, result.stderr


def state(running: Running, id: str) -> str:
    listed = json.loads(command(running, "list", "--json")[1])["models"]
    return {model["id"]: str(model["state"]) for model in listed}[id]


def stream(running: Running, bodies: list[str], temperature: float = 1.0) -> None:
    body = chat("m", stream=True, max_tokens=TOKENS, temperature=temperature, logit_bias=BIAS)
    request = urllib.request.Request(f"{running.url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        bodies.append(reply.read().decode())


def test_swap_under_streams_drops_none(running: Running, models: Path) -> None:
    """Streams run all the time on several connections, while the file behind their model changes four times."""
    assert post(running, chat("m", max_tokens=2))[0] == 200
    stopped = threading.Event()
    bodies: list[str] = []
    failed: list[Exception] = []

    def keep_asking() -> None:
        while not stopped.is_set():
            try:
                stream(running, bodies)
            except Exception as error:
                failed.append(error)
                return

    threads = [threading.Thread(target=keep_asking) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    try:
        for name in ("two", "one", "ollama:two:1b", "one"):
            code, out, err = command(running, "load", name, "--id", "m")
            assert (code, out[:10]) == (0, "loaded `m`"), err
            time.sleep(0.2)
        # What cannot be loaded leaves what runs.
        assert command(running, "load", str(models / "damaged.gguf"), "--id", "m")[0] == 1
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert len(bodies) >= STREAMS
    for body in bodies:
        assert body.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"length"' in body
        assert '"error"' not in body
    assert post(running, chat("m", max_tokens=2))[0] == 200


def test_models_come_and_go(running: Running, models: Path) -> None:
    code, out, _ = command(running, "available")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["damaged", "one", "two", "ollama:two:1b"]
    assert command(running, "load", "ollama:two:1b")[0] == 0
    assert post(running, chat("two:1b", max_tokens=2))[0] == 200
    assert command(running, "unload", "two:1b")[1] == "unloaded `two:1b`\n"
    status, reply = post(running, chat("two:1b", max_tokens=2))
    assert (status, code_of(reply)) == (503, "model_not_loaded")
    assert command(running, "remove", "two:1b")[0] == 0
    status, reply = post(running, chat("two:1b", max_tokens=2))
    assert (status, code_of(reply)) == (404, "model_not_found")
    code, _, err = command(running, "load", str(models / "damaged.gguf"))
    assert (code, "gguf" in err and "model_unusable" in err) == (1, True)
    assert "damaged" not in command(running, "list")[1]
    assert post(running, chat("m", max_tokens=2))[0] == 200


def test_idle_model_comes_back() -> None:
    with gateway("[engine]\nidle_unload_s = 0.3\n") as running:
        assert post(running, chat(max_tokens=2))[0] == 200
        deadline = time.monotonic() + 20
        while state(running, "bolt") != "idle":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert post(running, chat(max_tokens=2))[0] == 200
        assert running.stop() == 130


def test_too_large_is_refused_with_figures(models: Path) -> None:
    config = "[engine]\nbolt = false\nmemory_limit = '64MiB'\n"
    with gateway(config) as running:
        path = str(models / "one.gguf")
        code, out, _ = command(running, "estimate", path, "--json")
        estimate = json.loads(out)
        assert (code, estimate["fits"], estimate["available"]) == (0, True, 64 * 1024**2)
        assert estimate["memory"]["weights"] == pytest.approx(Path(path).stat().st_size, rel=0.05)
        code, out, _ = command(running, "estimate", path, "--context", "4096", "--max-sequences", "512")
        assert (code, out.splitlines()[-1].split()) == (0, ["fits", "no"])
        code, _, err = command(running, "load", path, "--context", "4096", "--max-sequences", "512")
        assert (code, "insufficient_memory" in err and "64.0 MiB are left" in err) == (1, True)
        assert command(running, "load", path, "--context", "4096", "--max-sequences", "512", "--force")[0] == 0
        assert command(running, "load", BOLT.path, "--id", "bolt")[0] == 1
        assert post(running, chat("one", max_tokens=2))[0] == 200
        assert running.stop() == 130
