"""What the kernel tells of a running process, and ports for those that cannot choose one themselves."""

import os
import socket
import subprocess
import time
from pathlib import Path

ATTEMPT_PAUSE = 0.05
IDLE_WINDOW, IDLE_PATIENCE = 0.1, 5.0


def free_port() -> int:
    """A port of this machine that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on at the moment."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return sorted(found)


def wait_accepting(process: subprocess.Popen[bytes], port: int, seconds: float) -> bool:
    """Whether `port` accepts connections within `seconds`, and before the process ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(ATTEMPT_PAUSE)
        else:
            return True
    return False


def family(pid: int) -> list[int]:
    """The process and all it started that still run."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def resident(pid: int) -> float:
    """Megabytes (2**20 bytes) of memory that the process and all it started hold."""
    pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors(pid: int) -> int:
    """Open file descriptors of the process and all it started."""
    return sum(len(os.listdir(f"/proc/{member}/fd")) for member in family(pid))


def cpu_seconds(pid: int) -> float:
    """Processor time that the process and all it started have used, of those that still run."""
    ticks = 0
    for member in family(pid):
        # The program's name may hold blanks; after its closing bracket, fields 14 and 15 of proc(5) are the 12th and 13th.
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_idle(pid: int) -> None:
    """Return once the process works on nothing any more, or after 5 s.

    One that goes on with requests whose clients have left would slow down whatever is measured next.
    """
    deadline = time.monotonic() + IDLE_PATIENCE
    used = cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(IDLE_WINDOW)
        before, used = used, cpu_seconds(pid)
        if used - before < IDLE_WINDOW / 5:
            return
