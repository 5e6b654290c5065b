"""wrk as a load generator: one thread, the echo request, and what it measured."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import traffic
from bench.processes import wait_idle
from bench.targets import BenchmarkError, Target, tool

MAX_SECONDS = 32


@dataclass(frozen=True)
class Load:
    """One round: latencies in milliseconds, how many requests were answered, and how many in a second."""

    p50: float
    p99: float
    requests: int
    rate: float


def load(target: Target, connections: int, seconds: int) -> Load:
    """`connections` that each send the next request when the last was answered.

    A round too short for an answer on each connection is made again, twice as long.
    Raises `BenchmarkError` when any answer was not a 200 or any connection failed: an error is quicker than an answer.
    """
    with TemporaryDirectory(prefix="quiver-wrk-") as folder:
        script = Path(folder) / "request.lua"
        script.write_text(_SCRIPT)
        options = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--timeout", "30s"]
        url = f"http://127.0.0.1:{target.echo_port}/v1/chat/completions"
        ended = subprocess.run([tool("wrk"), *options, "--script", script, url], capture_output=True, text=True)
    if ended.returncode:
        raise BenchmarkError(f"wrk failed: {ended.stderr or ended.stdout}")
    measured = json.loads(ended.stdout.rpartition("measured ")[2])
    if failures := {kind: count for kind, count in measured["errors"].items() if count}:
        raise BenchmarkError(f"{target.name} at {connections} connections: {failures} of {measured['requests']} failed")
    wait_idle(target.pid)
    if measured["requests"] < connections and seconds < MAX_SECONDS:
        return load(target, connections, 2 * seconds)
    rate = measured["requests"] / measured["microseconds"] * 1e6
    return Load(measured["p50"] / 1000, measured["p99"] / 1000, measured["requests"], rate)


_SCRIPT = f"""
wrk.method = "POST"
wrk.body = [==[{traffic.ECHO_BODY.decode()}]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {traffic.KEY}"
function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        'measured {{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "errors": ' ..
        '{{"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}}}',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
"""
