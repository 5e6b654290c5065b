"""When a client hangs up, how soon does the model server know? Until then it computes for nobody."""

import time
from dataclasses import dataclass
from itertools import count

from bench import traffic
from bench.client import TIMEOUT, connect
from bench.figures import Cell, Table, quantile
from bench.mock import GOLDEN_RATIO, RunningMock
from bench.peers import Lineup
from bench.targets import BenchmarkError, Target

TRIALS, QUICK_TRIALS = 120, 20
# LiteLLM may not tell the server at all, so that each trial takes the whole patience.
LITELLM_TRIALS, QUICK_LITELLM_TRIALS = 5, 1
PATIENCE_SECONDS = 2.0
# The proxy must be back in its wait when the client leaves. The stay varies evenly, by multiples of the golden ratio: one that
# looks for leavers now and then must not be met at the same moment each time.
SHORTEST_STAY, LONGEST_STAY = 0.005, 0.045
COLUMNS = ("target", "client leaves", "p50 ms", "p99 ms", "seen", "of")


@dataclass(frozen=True)
class Phase:
    """When the client leaves. `command` is what the mock is asked to do meanwhile."""

    name: str
    command: str
    stream: bool
    reads: bool


PHASES = (
    Phase("before the answer", "wait", stream=False, reads=False),
    Phase("before the first event", "wait", stream=True, reads=False),
    Phase("between two events", "endless", stream=True, reads=True),
)


def measure(lineup: Lineup, *, quick: bool) -> Table:
    rows: list[tuple[Cell, ...]] = []
    identities = count()
    for phase in PHASES:
        for target in lineup.targets:
            slow = target.name == "LiteLLM"
            trials = (
                (QUICK_LITELLM_TRIALS if quick else LITELLM_TRIALS) if slow else (QUICK_TRIALS if quick else TRIALS)
            )
            delays = [leave(target, lineup.mock, phase, next(identities)) for _ in range(trials)]
            seen = [delay for delay in delays if delay is not None]
            quantiles = (quantile(seen, 0.5), quantile(seen, 0.99)) if seen else (None, None)
            rows.append((target.name, phase.name, *quantiles, len(seen), trials))
    return Table("Disconnect: from the client's close to the model server's", COLUMNS, rows)


def leave(target: Target, mock: RunningMock, phase: Phase, identity: int) -> float | None:
    """Milliseconds until the mock saw the client go; None if it had not after 2 s. Raises `BenchmarkError`."""
    body = traffic.body(f"{phase.command} {identity}", model=traffic.STREAM_MODEL, stream=phase.stream)
    with connect(target.stream_port) as client:
        client.sendall(traffic.request(body))
        if mock.wait_report("asked", identity, TIMEOUT) is None:
            raise BenchmarkError(f"{target.name} did not pass a request on")
        received = b""
        while phase.reads and not traffic.STAMP.search(received):
            data = client.recv(65536)
            if not data:
                raise BenchmarkError(f"{target.name} ended a stream early: {received[-300:]!r}")
            received += data
        time.sleep(SHORTEST_STAY + identity * GOLDEN_RATIO % 1 * (LONGEST_STAY - SHORTEST_STAY))
        left = time.monotonic_ns()
    seen = mock.wait_report("left", identity, PATIENCE_SECONDS)
    return None if seen is None else (seen - left) / 1e6
