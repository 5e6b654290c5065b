"""LiteLLM's proxy, the peer to compare with: in an environment of its own, because its dependencies are many."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import traffic
from bench.processes import free_port, wait_accepting
from bench.targets import TOOL_PATH, BenchmarkError, Target

HOME = Path.home() / ".cache" / "quiver" / "bench" / "litellm"
START_SECONDS = 120
HINT = "measure without it: `--without-litellm`"


def install() -> None:
    """LiteLLM in a virtual environment of its own, made on first use. Raises `BenchmarkError`."""
    if (HOME / "bin" / "litellm").exists():
        return
    print(f"installing LiteLLM into {HOME}, once; it takes 600 MB", file=sys.stderr)
    python = str(HOME / "bin" / "python")
    path = os.path.dirname(sys.executable) + os.pathsep + TOOL_PATH
    if uv := shutil.which("uv", path=path):
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(HOME)]
        install = [uv, "pip", "install", "--quiet", "--python", python, "litellm[proxy]"]
    else:
        make = [sys.executable, "-m", "venv", "--clear", str(HOME)]
        install = [python, "-m", "pip", "install", "--quiet", "litellm[proxy]"]
    try:
        subprocess.run(make, check=True)
        subprocess.run(install, check=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(HOME, ignore_errors=True)
        raise BenchmarkError("LiteLLM could not be installed", HINT) from error


@contextmanager
def litellm(servers: Sequence[tuple[str, int]]) -> Iterator[Target]:
    """LiteLLM's proxy with one worker, its master key on and these servers: a model and a port each."""
    config = {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {
                    "model": f"openai/{model}",
                    "api_base": f"http://127.0.0.1:{port}/v1",
                    "api_key": "none",
                },
            }
            for model, port in servers
        ],
        "general_settings": {"master_key": traffic.KEY},
    }
    port = free_port()
    with TemporaryDirectory(prefix="quiver-litellm-") as folder:
        # JSON is YAML, the format that LiteLLM reads.
        (Path(folder) / "config.yaml").write_text(json.dumps(config))
        log = Path(folder) / "log"
        command = [str(HOME / "bin" / "litellm"), "--config", "config.yaml", "--host", "127.0.0.1"]
        options = ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        # Without this it asks the network for a list of prices first.
        settings = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, *options], cwd=folder, env=settings, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            if not (wait_accepting(process, port, START_SECONDS) and _alive(port)):
                raise BenchmarkError(f"LiteLLM did not start:\n{log.read_text()[-2000:]}", HINT)
            yield Target("LiteLLM", port, port, process.pid)
        finally:
            process.kill()
            process.wait()


def _alive(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=START_SECONDS) as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError:
        return False


def version() -> str:
    """The installed version."""
    question = "from importlib.metadata import version; print(version('litellm'))"
    command = [str(HOME / "bin" / "python"), "-c", question]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
