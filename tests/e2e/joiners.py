"""`quiver join` as a process of its own, and a network of namespaces in which it sits behind a router."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.mock import RunningMock

ROOT = Path(__file__).parents[2]
# What may pass until a process has done what it does at once.
PATIENCE = 20.0


class RunningJoiner:
    """A joiner that runs. `data`: its data folder, where other commands find it."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, log: Path) -> None:
        self.process, self.data, self.log = process, data, log
        self._received = b""

    def wait_for(self, seconds: float = PATIENCE, **wanted: Any) -> dict[str, Any]:
        """The first of its turns from now on in which it stands like this."""
        deadline = time.monotonic() + seconds
        while True:
            line, newline, rest = self._received.partition(b"\n")
            if newline:
                self._received = rest
                status: dict[str, Any] = json.loads(line)
                if all(status[name] == value for name, value in wanted.items()):
                    return status
                continue
            assert self.process.stdout is not None
            ready, _, _ = select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))
            data = os.read(self.process.stdout.fileno(), 65_536) if ready else b""
            assert data, f"not {wanted} within {seconds} s:\n{self.log.read_text()}"
            self._received += data

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal it, and wait for its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def joiner(
    gateway: str, server: str, name: str, folder: Path, options: Sequence[str] = (), inside: Sequence[str] = ()
) -> Iterator[RunningJoiner]:
    """`quiver join`, killed at the end if it still runs. `inside`: the command that leads into a namespace."""
    data, log = folder / f"{name}.data", folder / f"{name}.log"
    command = [
        *inside,
        sys.executable,
        "-m",
        "quiver.admin",
        "join",
        gateway,
        "--server",
        server,
        "--name",
        name,
        "--json",
    ]
    environ = {**os.environ, "QUIVER_DATA_DIR": str(data)}
    with log.open("wb") as stderr:
        process = subprocess.Popen([*command, *options], env=environ, stdout=subprocess.PIPE, stderr=stderr, bufsize=0)
    try:
        yield RunningJoiner(process, data, log)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


# A router as a home has one: who is behind it can connect out, and nobody can connect in. Kernels without packet filters
# cannot translate addresses, so this does.
ROUTER = """
import socket, sys, threading

def carry(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            end.close()

listener = socket.create_server((sys.argv[1], 9))
print("ready", flush=True)
while True:
    inner, _ = listener.accept()
    try:
        outer = socket.create_connection((sys.argv[2], int(sys.argv[3])))
    except OSError:
        inner.close()
        continue
    for ends in ((inner, outer), (outer, inner)):
        threading.Thread(target=carry, args=ends, daemon=True).start()
"""


class Home:
    """Two namespaces: `laptop`, and its `router`, whose outer address this machine reaches."""

    outside, router_outside = "10.213.77.1", "10.213.77.2"
    router_inside, laptop_address = "172.29.77.1", "172.29.77.2"

    def __init__(self, mark: str) -> None:
        self.router, self.laptop = f"qvr{mark}", f"qvl{mark}"
        self._mark = mark

    def inside(self, namespace: str) -> list[str]:
        return ["ip", "netns", "exec", namespace]

    def build(self) -> None:
        mark, router, laptop = self._mark, self.router, self.laptop
        for namespace in (router, laptop):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("link", "add", f"qvo{mark}", "type", "veth", "peer", "name", "out", "netns", router)
        _ip("-n", router, "link", "add", "in", "type", "veth", "peer", "name", "eth0", "netns", laptop)
        _ip("addr", "add", f"{self.outside}/30", "dev", f"qvo{mark}")
        _ip("link", "set", f"qvo{mark}", "up")
        for namespace, device, address in (
            (router, "out", f"{self.router_outside}/30"),
            (router, "in", f"{self.router_inside}/30"),
            (laptop, "eth0", f"{self.laptop_address}/30"),
        ):
            _ip("-n", namespace, "addr", "add", address, "dev", device)
            _ip("-n", namespace, "link", "set", device, "up")

    def tear_down(self) -> None:
        for namespace in (self.laptop, self.router):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", f"qvo{self._mark}"], check=False, capture_output=True)

    def link(self, state: str) -> None:
        """Pull the laptop's cable (`down`), or plug it in again (`up`)."""
        _ip("-n", self.laptop, "link", "set", "eth0", state)

    @contextmanager
    def routing_to(self, port: int) -> Iterator[str]:
        """The router carries connections to the gateway at `port`; its address for the laptop."""
        command = [*self.inside(self.router), sys.executable, "-c", ROUTER, self.router_inside, self.outside, str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield f"http://{self.router_inside}:9"
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    @contextmanager
    def model_server(self) -> Iterator[RunningMock]:
        """A model server on the laptop, on its loopback address."""
        command = [*self.inside(self.laptop), sys.executable, "-m", "bench.mock"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0)
        try:
            yield RunningMock(process)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def why_no_namespaces() -> str | None:
    """What keeps this machine from having network namespaces; None if it can."""
    mark = str(os.getpid() % 100_000)
    try:
        home = Home(mark)
        try:
            home.build()
        finally:
            home.tear_down()
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", b"") or error)
    return None


@contextmanager
def at_home() -> Iterator[Home]:
    home = Home(str(os.getpid() % 100_000))
    with ExitStack() as stack:
        stack.callback(home.tear_down)
        home.build()
        yield home


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
