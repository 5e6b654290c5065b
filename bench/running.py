"""Starting a gateway as its own process, the way a user does, and stopping it: shared by the demo, benchmarks and tests."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT = 10


class NotStarted(RuntimeError):
    """The gateway ended before it listened. Carries its log."""


@dataclass(frozen=True)
class Running:
    """A gateway that accepts connections at `url`. `log` is where its stderr goes, `data` the folder where it keeps what
    lasts.
    """

    process: subprocess.Popen[str]
    url: str
    log: Path
    data: Path

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        """Signal it and wait; its exit code. Raises `subprocess.TimeoutExpired` after 10 s."""
        self.process.send_signal(with_signal)
        return self.process.wait(STOP_TIMEOUT)


@contextmanager
def gateway(
    config: str = "",
    options: Sequence[str] = (),
    folder: Path | None = None,
    program: Sequence[str] = ("-m", "quiver.admin"),
) -> Iterator[Running]:
    """`quiver serve` on a free port with `config` as its file; killed at the end if it still runs. It lives in `folder`,
    where one before it may have left its data; else in one of its own that goes with it. `program`: another way to start it.

    Raises `NotStarted` with its log when it does not come up.
    """
    if folder is None:
        with (
            tempfile.TemporaryDirectory(prefix="quiver-") as passing,
            gateway(config, options, Path(passing), program) as running,
        ):
            yield running
        return
    (folder / "quiver.toml").write_text(config)
    log, data = folder / "log", folder / "data"
    command = [sys.executable, *program, "serve", "--port", "0", "--json", *options]
    environ = {**os.environ, "QUIVER_DATA_DIR": str(data)}
    with log.open("w") as stderr:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            code = process.wait(STOP_TIMEOUT)
            raise NotStarted(f"the gateway did not start, and ended with {code}:\n{log.read_text()}")
        yield Running(process, json.loads(line)["url"], log, data)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
