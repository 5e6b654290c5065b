"""The wheel holds exactly what git holds: the three top-level packages under `quiver`, the extension, the model."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACE = "python/quiver/"
LINKED = ("proxy/", "admin/", "schemas/")


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\0"
    )


def expected_names() -> set[str]:
    names = set()
    for path in tracked():
        if path.startswith(FACE) and not (ROOT / path).is_symlink():
            names.add("quiver/" + path.removeprefix(FACE))
        elif path.startswith(LINKED):
            names.add("quiver/" + path)
    return names | {"quiver/_engine.abi3.so"}


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "maturin", "build", "--release", "--locked", "--quiet", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)
    (wheel,) = out.glob("*.whl")
    assert "abi3" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_wheel_names_equal_gits(wheel_names: list[str]) -> None:
    packed = {name for name in wheel_names if name.startswith("quiver/")}
    assert packed == expected_names()


@pytest.mark.timeout(900)
def test_wheel_runs_nothing_at_start(wheel_names: list[str]) -> None:
    """A `.pth` file would run at every start of Python: the way stolen packages hide."""
    assert [name for name in wheel_names if name.endswith(".pth")] == []


def test_links_are_relative() -> None:
    for name in LINKED:
        link = ROOT / FACE / name.rstrip("/")
        assert link.is_symlink()
        assert str(link.readlink()) == f"../../{name.rstrip('/')}"
