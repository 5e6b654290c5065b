"""The description of the API, `/openapi.json`, holds: schemathesis sends what it allows and what it forbids to a gateway that
runs, and every reply must be one that it names.

By hand, for longer: `python -m tests.e2e.test_description 200`.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen

import pytest

from bench.running import Running, gateway

SETTINGS = Path(__file__).with_name("schemathesis.toml")
# Everything but inference: what comes back there is the models' own.
CONTROL = "^/(?!v1/)"
CONFIG = """
[health]
timeout = 1
interval = 300
[[backends]]
name = "configured"
url = "{url}"
"""


def register(front: Running, name: str, url: str) -> None:
    body = json.dumps({"endpoint_url": url, "name": name}).encode()
    with urlopen(Request(f"{front.url}/admin/register", body, {"Content-Type": "application/json"})) as reply:
        assert reply.status == 201


def try_description(behind: Running, examples: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run schemathesis over the control plane of a gateway with servers behind it."""
    with gateway(CONFIG.format(url=behind.url)) as front:
        register(front, "lab", behind.url)
        register(front, "attic", f"{behind.url}/v1")
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            f"--config-file={SETTINGS}",
            "run",
            f"{front.url}/openapi.json",
            f"--include-path-regex={CONTROL}",
            "--checks=all",
            f"--max-examples={examples}",
            "--seed=20261121",
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert front.process.poll() is None, front.log.read_text()
        return done


@pytest.mark.timeout(600)
def test_description_holds(served: Running, tmp_path: Path) -> None:
    done = try_description(served, 2, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    with gateway() as other, TemporaryDirectory() as cache:
        found = try_description(other, int(sys.argv[1]), Path(cache))
    print(found.stdout, found.stderr)
    sys.exit(found.returncode)
