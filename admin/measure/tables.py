"""Results for people, spreadsheets and programs: latencies before rates."""

import csv
import io
from collections.abc import Sequence

import msgspec

from .parity import Parity
from .rounds import Figures, Result

Cell = str | float | None

ALONE = ("case", "p50 ms", "p99 ms", "worst ms", "tokens/s")
COMPARED = ("llama.cpp p50 ms", "p99 ms", "worst ms", "tokens/s", "setting", "ratio", "bar")


class Report(msgspec.Struct, frozen=True):
    """A run. `parity`: None without a peer; `left_out`: cases the model's context has no room for."""

    conditions: dict[str, str]
    results: Sequence[Result]
    parity: Parity | None = None
    left_out: Sequence[str] = ()


def _figures(figures: Figures) -> tuple[Cell, ...]:
    return figures.p50_ms, figures.p99_ms, figures.worst_ms, figures.rate


def columns(report: Report) -> tuple[str, ...]:
    return ALONE + COMPARED if report.parity else ALONE


def row(result: Result) -> tuple[Cell, ...]:
    """A result as cells under `columns`."""
    cells: tuple[Cell, ...] = (result.case.name, *_figures(result.quiver))
    if result.llama is None:
        return cells
    return (*cells, *_figures(result.llama), result.llama.setting, result.ratio, result.case.bar)


def shown(cell: Cell) -> str:
    """Three digits that matter."""
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.{1 if abs(cell) >= 10 else 2}f}"


def heading(report: Report) -> list[str]:
    """What comes before the table: what the figures hold for, and that the answers are right."""
    lines = [", ".join(f"{name} {value}" for name, value in report.conditions.items())]
    if report.parity is not None:
        parity = report.parity
        lines.append(
            f"same answers: NMSE {parity.nmse:.1e} (llama.cpp with and without flash attention: {parity.own:.1e}), "
            f"{parity.top:.0%} equal choices over {parity.positions} positions; "
            f"{parity.same:.0%} of {parity.tokens} generated tokens are llama.cpp's choice, "
            f"the others at most {parity.shortfall:.3f} standard deviations behind it"
        )
    if report.left_out:
        lines.append(f"left out, longer than the model's context: {', '.join(report.left_out)}")
    return lines


def notes(report: Report) -> list[str]:
    """What the columns do not tell."""
    lines = []
    for result in report.results:
        if result.case.kind == "pause" and result.quiver.first_ms is not None:
            theirs = f", with llama.cpp after {shown(result.llama.first_ms)} ms" if result.llama else ""
            lines.append(
                f"{result.case.name}: the rate is the newcomer's, whose first token came after "
                f"{shown(result.quiver.first_ms)} ms{theirs}"
            )
    return lines


def as_csv(report: Report) -> str:
    """One line per case; plain numbers, and names that are each used once."""
    names = ["case", "p50_ms", "p99_ms", "worst_ms", "tokens_per_second"]
    if report.parity:
        names += [f"llama_{name}" for name in (*names[1:], "setting")] + ["ratio", "bar"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for result in report.results:
        writer.writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row(result))
    return out.getvalue()


def as_data(report: Report) -> dict[str, object]:
    """The report for programs."""
    rows = [
        {
            "case": result.case.name,
            **msgspec.to_builtins(result.case),
            "quiver": msgspec.to_builtins(result.quiver),
            "llama": msgspec.to_builtins(result.llama),
            "ratio": result.ratio,
            "bar": result.case.bar,
        }
        for result in report.results
    ]
    return {
        "environment": report.conditions,
        "parity": msgspec.to_builtins(report.parity),
        "left_out": list(report.left_out),
        "rows": rows,
    }
