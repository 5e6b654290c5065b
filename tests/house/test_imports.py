"""The layer rules, proved by walking every import in the tree."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "proxy", "admin")

# Which packages of ours each may import.
ALLOWED = {"schemas": set(), "proxy": {"schemas"}, "admin": {"schemas", "proxy"}}

# Modules whose use belongs to one file, because a simulation replaces what they do.
SEAMS = {
    "time": {"proxy/seams.py"},
    "datetime": set(),
    # The simulated network speaks of sockets in constants and errors only, as the test below sees to.
    "socket": {"proxy/network.py", "proxy/testing/network.py"},
    "secrets": {"proxy/access/keys.py", "proxy/access/minting.py", "proxy/store/registry.py"},
    "uuid": set(),
    "threading": set(),
    "asyncio": set(),
}

# Trio's own ways around those modules.
TRIO_SEAMS = {
    "to_thread": {"proxy/seams.py"},
    "from_thread": set(),
    "socket": {"proxy/network.py"},
    "SocketStream": set(),
    "SocketListener": {"proxy/network.py"},
    "open_tcp_stream": set(),
    "open_ssl_over_tcp_stream": set(),
    "open_tcp_listeners": {"proxy/network.py"},
    "serve_tcp": set(),
    "open_unix_socket": set(),
    "run_process": set(),
}


def files(package: str) -> Iterator[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package}/ has no Python files"
    yield from found


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything a file imports; relative ones are resolved against its package."""
    package = ["quiver", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield prefix
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def test_layers_point_downwards() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package in PACKAGES
        for path in files(package)
        for name in imports(path)
        for other in PACKAGES
        if name.startswith(f"quiver.{other}") and other != package and other not in ALLOWED[package]
    ]
    assert not wrong


def test_one_file_imports_the_extension() -> None:
    importers = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in files(package)
        if any(name.startswith("quiver._engine") for name in imports(path))
    }
    assert importers == {"proxy/native.py"}


def test_outside_world_enters_by_seams() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files("proxy")
        for name in imports(path)
        if name in SEAMS and str(path.relative_to(ROOT)) not in SEAMS[name]
    ]
    assert not wrong


def uses(path: Path, module: str) -> Iterator[str]:
    """The names of `module` that a file uses, as attributes or imported one by one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module:
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == module and not node.level:
            yield from (alias.name for alias in node.names)


def test_threads_and_sockets_enter_by_seams() -> None:
    wrong = [
        f"{where} uses trio.{name}"
        for path in files("proxy")
        for where in [str(path.relative_to(ROOT))]
        for name in uses(path, "trio")
        if where not in TRIO_SEAMS.get(name, {where})
    ]
    assert not wrong
    simulated = set(uses(ROOT / "proxy" / "testing" / "network.py", "socket"))
    assert simulated <= {"AF_INET", "SHUT_WR", "SHUT_RDWR", "gaierror", "EAI_NONAME"}


def test_randomness_is_handed_in() -> None:
    """Generators are passed everywhere, but made at the seam and in the testing parts only. The random module's functions
    share one that nobody seeds; whoever does not import the module cannot call them.
    """
    wrong = [
        f"{path.relative_to(ROOT)} imports random{f'.{name}' if name else ''}"
        for path in files("proxy")
        for name in _random_imports(path)
        if name != "Random"
    ]
    makers = {
        str(path.relative_to(ROOT))
        for path in files("proxy")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Random"
    }
    assert not wrong
    assert {maker for maker in makers if not maker.startswith("proxy/testing/")} == {"proxy/seams.py"}


def _random_imports(path: Path) -> Iterator[str]:
    """What a file imports from the random module; "" for the module itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ("" for alias in node.names if alias.name == "random")
        elif isinstance(node, ast.ImportFrom) and node.module == "random":
            yield from (alias.name for alias in node.names)


def test_rust_core_knows_no_python() -> None:
    crates = [ROOT / "engine-rs" / crate for crate in ("core", "kernels", "http")]
    sources = [path for crate in crates for path in [crate / "Cargo.toml", *crate.rglob("*.rs")]]
    assert len(sources) > 10
    assert [str(path) for path in sources if "pyo3" in path.read_text()] == []


def test_codec_does_no_io() -> None:
    banned = ("TcpStream", "UdpSocket", "std::thread", "std::time", "std::fs", "std::io", "extern crate rand")
    sources = list((ROOT / "engine-rs" / "http" / "src").rglob("*.rs"))
    assert sources
    assert [(str(path), word) for path in sources for word in banned if word in path.read_text()] == []
