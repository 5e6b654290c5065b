"""How much memory a model may take here: what the machine has free, or what its control group leaves, whichever is less.

Nothing here asks the kernel to do anything; it reads files, below a root that tests replace.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

# Version 2 of control groups, then version 1: the folder they are mounted in, the limit, what is used, and what of that the
# kernel would give back at once.
VERSIONS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be taken without swapping; None where the system does not say."""
    found = [*_free(root), *_left_by_groups(root)]
    return max(0, min(found)) if found else None


def _free(root: Path) -> Iterator[int]:
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    if match is not None:
        yield int(match[1]) * 1024
    elif root == Path("/") and "SC_PHYS_PAGES" in os.sysconf_names:  # other systems tell at least how much there is
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _left_by_groups(root: Path) -> Iterator[int]:
    """What each control group of this process leaves, from its own up to the root: the strictest one counts."""
    for mounted, limit, used, cache in VERSIONS:
        for group in _groups(root, mounted):
            allowed, taken = _text(group / limit).strip(), _text(group / used).strip()
            if allowed.isdigit() and taken.isdigit():  # `max`: no limit
                match = re.search(rf"^{cache} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
                yield int(allowed) - int(taken) + (int(match[1]) if match is not None else 0)


def _groups(root: Path, mounted: str) -> Iterator[Path]:
    """The folders of this process' group and those around it. In a container its path may be one of the machine outside;
    then only the root is there.
    """
    match = re.search(
        r"^\d+:[^:]*\bmemory\b[^:]*:/(.*)$" if mounted.endswith("/memory") else r"^0::/(.*)$",
        _text(root / "proc/self/cgroup"),
        re.MULTILINE,
    )
    inner = Path(match[1]) if match is not None else Path()
    if ".." in inner.parts:
        inner = Path()
    yield from (root / mounted / path for path in dict.fromkeys([inner, *inner.parents]))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
