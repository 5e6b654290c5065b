"""Servers, their figures and what was found out about one, as tables and sentences."""

from collections.abc import Sequence

from quiver.schemas.saved import CheckResult
from quiver.schemas.servers import CheckReport, Detection, ModeReport, ServerDetails, ServerReport, TrialReport

from ..amounts import counted
from ..times import clock, day_and_clock

COLUMNS = ("SERVER", "STATE", "IN FLIGHT", "ADDRESS", "MODELS", "REASON")
RESULTS = ("AT", "OF", "RESULT", "SECONDS", "REASON")
MODELS = ("MODEL", "CONTEXT", "MAKES")
NAMES = {
    "ollama": "Ollama",
    "vllm": "vLLM",
    "lm-studio": "LM Studio",
    "quiver": "Quiver",
    "openai": "OpenAI-compatible",
}


def row(server: ServerReport) -> tuple[str, ...]:
    """`server` as a row under `COLUMNS`."""
    limit = "" if server.max_concurrency is None else f" of {server.max_concurrency}"
    in_flight, models = f"{server.in_flight}{limit}", ", ".join(server.models) or "-"
    state = server.state if server.mode == "serving" else f"{server.state}, {server.mode}"
    if server.joined is not None and server.joined.paused:
        state += ", paused by its owner"
    return server.id, state, in_flight, server.url, models, server.reason or ""


def figures(server: ServerDetails) -> list[tuple[str, str]]:
    """What else there is to know of a server."""
    metadata, able = server.metadata, server.capabilities
    found = {
        "owner": metadata.owner or "-",
        "description": metadata.description or "-",
        "tags": ", ".join(metadata.tags) or "-",
        "came by": server.origin,
        "version": f"{server.version}, of {day_and_clock(server.changed)}",
        "out of service until": clock(server.until),
        "failures in a row": str(server.failures),
        "uptime": _share(server.uptime),
        "checks passed": _share(server.success_rate),
        "a check takes": "-" if server.mean_seconds is None else f"{server.mean_seconds:.3f} s",
        "connections": f"{server.connections.busy} busy, {server.connections.idle} idle",
        "weight": f"{server.weight:g}",
        "context": "-" if able.context_length is None else f"{able.context_length} tokens",
        "has a key": "yes" if server.has_key else "no",
    }
    if (joined := server.joined) is not None:
        far = "" if joined.round_trip is None else f", {joined.round_trip * 1000:.0f} ms away"
        found["link"] = f"{joined.link} since {clock(joined.since)}, from {joined.peer}{far}"
        found["came back"] = counted(joined.reconnects, "time")
        found["served since"] = f"{counted(joined.served, 'request')}, {counted(joined.tokens, 'token')}"
    return list(found.items())


def result(of: CheckResult) -> tuple[str, ...]:
    """One result as a row under `RESULTS`."""
    return clock(of.at), of.source, "ok" if of.ok else "failed", f"{of.seconds:.3f}", of.reason or ""


def mode_in_words(report: ModeReport) -> str:
    """What a server is in now."""
    left = f"; {report.in_flight} in flight" if report.in_flight else ""
    return f"`{report.registration_id}` is {report.mode}{left}"


def check_in_words(report: CheckReport) -> str:
    """How a check ended."""
    ended = "passed" if report.passed else f"failed: {report.reason}"
    return f"`{report.registration_id}` {ended} ({report.state}, {report.seconds:.3f} s)"


def trial_in_words(report: TrialReport) -> str:
    """How a trial ended."""
    ended = "passes" if report.passed else f"fails: {report.reason}"
    return f"{report.url} {ended} ({report.seconds:.3f} s)"


def in_words(found: Detection) -> str:
    """What a server was found to be."""
    if found.software is None:
        return "it does not say what it is"
    name = NAMES.get(found.software, found.software)
    words = [f"{name} {found.version}" if found.version else name, counted(len(found.models), "model")]
    if found.slots is not None:
        words.append(f"{counted(found.slots, 'request')} at a time")
    if found.needs_key:
        words.append("needs a key")
    return ", ".join(words)


def models(found: Detection) -> Sequence[tuple[str, ...]]:
    """Its models as rows under `MODELS`."""
    return [
        (model.id, str(model.context_length or "-"), "embeddings" if model.embeds else "text") for model in found.models
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
