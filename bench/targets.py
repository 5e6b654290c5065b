"""What is measured, and the programs and errors that all cases share."""

import os
import shutil
from dataclasses import dataclass

# Debian keeps nginx where only administrators look.
TOOL_PATH = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"


class BenchmarkError(Exception):
    """The measurement cannot be made. `hint` says what the user can do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Target:
    """Something that answers requests on this machine. `pid` is the process whose memory counts."""

    name: str
    echo_port: int
    stream_port: int
    pid: int


def tool(name: str) -> str:
    """Where a program is. Raises `BenchmarkError` naming its Debian package when it is not installed."""
    found = shutil.which(name, path=TOOL_PATH)
    if found is None:
        raise BenchmarkError(f"`{name}` is not installed", f"apt-get install {name}")
    return found
