"""The Unix socket beside the port: its file, who may open it, and what becomes of one that was left behind."""

import socket
import stat
from pathlib import Path

import pytest
from quiver.proxy.network import listen_locally


async def test_serves_and_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "quiver.sock"
    acceptor = listen_locally(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        (wire,) = await acceptor.accept()
        await wire.send_all(b"hello")
        assert client.recv(5) == b"hello"
        assert wire.peer.host == "127.0.0.1"
        wire.close()
    acceptor.close()
    assert not path.exists()


async def test_replaces_what_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "quiver.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    (listen_locally(path)).close()


async def test_leaves_a_living_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "quiver.sock"
    acceptor = listen_locally(path)
    with pytest.raises(OSError, match="in use"):
        listen_locally(path)
    acceptor.close()


async def test_leaves_other_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "quiver.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        listen_locally(path)
    assert path.read_text() == "precious"
