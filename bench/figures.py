"""Figures and how they are printed: latencies before throughput, with the versions they hold for."""

import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import version


@dataclass(frozen=True)
class Row:
    """One measured case. Latencies in milliseconds; `rate` is in `unit`."""

    case: str
    p50: float
    p99: float
    rate: float
    unit: str


def quantile(values: list[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(case: str, seconds: list[float], rate: float, unit: str) -> Row:
    """A row from latencies in seconds."""
    return Row(case, quantile(seconds, 0.5) * 1000, quantile(seconds, 0.99) * 1000, rate, unit)


def environment() -> dict[str, str]:
    """What the figures hold for."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "quiver": version("quiver-gateway"),
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "trio": version("trio"),
        "machine": platform.machine(),
    }


def report(rows: list[Row], *, as_json: bool) -> None:
    """Print the figures."""
    if as_json:
        print(json.dumps({"environment": environment(), "rows": [asdict(row) for row in rows]}))
        return
    print("  ".join(f"{key} {value}" for key, value in environment().items()))
    for item in rows:
        print(f"{item.case:<34} p50 {item.p50:8.2f} ms   p99 {item.p99:8.2f} ms   {item.rate:10.0f} {item.unit}")
