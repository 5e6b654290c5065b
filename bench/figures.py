"""Figures and how they are printed: latencies before throughput, with the versions they hold for."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

Cell = str | int | float | None


@dataclass(frozen=True)
class Row:
    """One measured case. Latencies in milliseconds; `rate` is in `unit`."""

    case: str
    p50: float
    p99: float
    rate: float
    unit: str


@dataclass(frozen=True)
class Table:
    """The answer to one question. A column's name says its unit; an unknown or meaningless cell is None."""

    question: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(case: str, seconds: list[float], rate: float, unit: str) -> Row:
    """A row from latencies in seconds."""
    return Row(case, quantile(seconds, 0.5) * 1000, quantile(seconds, 0.99) * 1000, rate, unit)


def environment() -> dict[str, str]:
    """What the figures hold for."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    commit = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "quiver": version("quiver-gateway"),
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "trio": version("trio"),
        "machine": platform.machine(),
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def report(rows: list[Row], *, as_json: bool) -> None:
    """Print the figures."""
    if as_json:
        print(json.dumps({"environment": environment(), "rows": [asdict(row) for row in rows]}))
        return
    print("  ".join(f"{key} {value}" for key, value in environment().items()))
    for item in rows:
        print(f"{item.case:<34} p50 {item.p50:8.2f} ms   p99 {item.p99:8.2f} ms   {item.rate:10.0f} {item.unit}")


def shown(cell: Cell) -> str:
    """A cell as people read it: three digits that matter, thousands apart."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.{1 if abs(cell) >= 10 else 2 if abs(cell) >= 1 else 3}f}"


def as_text(table: Table) -> str:
    """The table for a terminal: words to the left, numbers to the right."""
    lines = [table.columns, *(tuple(shown(cell) for cell in row) for row in table.rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    words = [any(isinstance(row[index], str) for row in table.rows) for index in range(len(table.columns))]
    aligned = [
        "  ".join(
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(line, widths, words, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.question, *aligned])


def as_markdown(table: Table) -> str:
    """The table for the documentation."""
    rule = "|".join("---" for _ in table.columns)
    rows = ["| " + " | ".join(shown(cell) for cell in row) + " |" for row in table.rows]
    return "\n".join([f"### {table.question}", "", "| " + " | ".join(table.columns) + " |", f"|{rule}|", *rows])


def as_data(table: Table) -> dict[str, object]:
    """The table for programs: each row by its columns' names, as `p50_ms` or `requests_per_second`."""
    names = [column.lower().replace("/s", " per second").replace(" ", "_") for column in table.columns]
    rows = [dict(zip(names, row, strict=True)) for row in table.rows]
    return {"question": table.question, "rows": rows}
