"""What figures hold for: versions, the model, the machine and how busy it was."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from quiver.proxy.native import ModelInfo


def conditions(model: str, info: ModelInfo, threads: int) -> dict[str, str]:
    """In the order they are printed."""
    return {
        "quiver": version("quiver-gateway"),
        "commit": commit(),
        "model": f"{Path(model).name} ({info.architecture}, {info.parameters:,} parameters, {info.file_type})",
        "threads": str(threads or os.cpu_count()),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": f"{os.cpu_count()} x {cpu_model()}",
        "load at start": f"{os.getloadavg()[0]:.2f}",
    }


def commit() -> str:
    """The commit of a checkout; an installed package knows none."""
    folder = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        if subprocess.run(tracked, cwd=folder, capture_output=True).returncode:  # noqa: S603
            return "unknown"
        told = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # noqa: S603
        return told.stdout.strip() or "unknown"
    except OSError:  # no git
        return "unknown"


def cpu_model() -> str:
    """As the processor calls itself, where the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
