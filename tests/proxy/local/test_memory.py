"""What the machine and its control groups leave for a model, and what is said when that is too little."""

from pathlib import Path

import pytest
from quiver.proxy.local.budget import Budget, Claim
from quiver.proxy.local.memory import available_memory
from quiver.schemas.errors import ApiError
from quiver.schemas.models import MemoryReport
from quiver.schemas.sizes import bytes_of, size

MEMINFO = "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n"
FREE = 8_000_000 * 1024
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"

# What is in the files below the root, and what is left then.
MACHINES: list[tuple[str, dict[str, str], int | None]] = [
    ("nothing is told", {}, None),
    ("no groups", {"proc/meminfo": MEMINFO}, FREE),
    (
        "version 2",
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/a/b\n",
            f"{V2}/a/b/memory.max": "1000\n",
            f"{V2}/a/b/memory.current": "700\n",
            f"{V2}/a/b/memory.stat": "anon 5\ninactive_file 200\n",
        },
        500,
    ),
    (
        "a stricter group around it",
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/a/b\n",
            f"{V2}/a/b/memory.max": "max\n",
            f"{V2}/a/b/memory.current": "700\n",
            f"{V2}/a/memory.max": "800\n",
            f"{V2}/a/memory.current": "750\n",
        },
        50,
    ),
    (
        "in a container",
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/../../outside\n",
            f"{V2}/memory.max": "300\n",
            f"{V2}/memory.current": "100\n",
        },
        200,
    ),
    (
        "version 1",
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/1\n",
            f"{V1}/docker/1/memory.limit_in_bytes": "900\n",
            f"{V1}/docker/1/memory.usage_in_bytes": "950\n",
            f"{V1}/docker/1/memory.stat": "inactive_file 1\ntotal_inactive_file 60\n",
        },
        10,
    ),
    (
        "used up",
        {"proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "100\n", f"{V2}/memory.current": "140\n"},
        0,
    ),
    (
        "a machine with less than its group allows",
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/\n",
            f"{V2}/memory.max": str(2**62),
            f"{V2}/memory.current": "0",
        },
        FREE,
    ),
]


@pytest.mark.parametrize(("files", "left"), [case[1:] for case in MACHINES], ids=[case[0] for case in MACHINES])
def test_strictest_limit_counts(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_memory(tmp_path) == left


def test_this_machine_says_something() -> None:
    left = available_memory()
    assert left is not None
    assert left > 0


@pytest.mark.parametrize(
    ("limit", "available", "left"),
    [(None, None, None), (None, 1000, 970), (None, 20, 0), (500, None, 200), (500, 10_000, 200), (200, 10_000, 0)],
)
def test_claims_are_kept_free(limit: int | None, available: int | None, left: int | None) -> None:
    assert Budget(limit, lambda: [Claim(100, 10), Claim(200, 20)]).left(available) == left


def test_refusal_says_what_to_change() -> None:
    memory = MemoryReport(weights=4 * 1024**3, kv=1024**3, kv_tokens=8192, scratch=1024**2, total=5 * 1024**3 + 1024**2)
    budget = Budget(None, list)
    budget.admit(memory, memory.total, beside=False)
    budget.admit(memory, None, beside=False)
    with pytest.raises(ApiError) as refused:
        budget.admit(memory, 3 * 1024**3, beside=True)
    assert refused.value.kind.code == "insufficient_memory"
    for words in ("needs 5.0 GiB", "4.0 GiB weights", "1.0 GiB keys and values of 8192 tokens", "3.0 GiB are left"):
        assert words in refused.value.message
    for remedy in ("unload_first", "context_length", "max_sequences", "engine.memory_limit", "force"):
        assert remedy in refused.value.message


@pytest.mark.parametrize(
    ("text", "count", "shown"),
    [
        ("8GiB", 8 * 1024**3, "8.0 GiB"),
        ("1.5 GB", 1_500_000_000, "1.4 GiB"),
        ("512MiB", 512 * 1024**2, "512.0 MiB"),
        ("100B", 100, "100 B"),
        ("2KB", 2000, "2.0 KiB"),
    ],
)
def test_sizes_are_read_and_written(text: str, count: int, shown: str) -> None:
    assert (bytes_of(text), size(count)) == (count, shown)
