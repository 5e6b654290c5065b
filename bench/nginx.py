"""nginx twice: as a model server that returns one fixed reply, and as the proxy to compare with."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import traffic
from bench.processes import wait_accepting
from bench.targets import BenchmarkError, tool

START_SECONDS = 10


@contextmanager
def nginx(servers: str, port: int) -> Iterator[int]:
    """nginx with one worker and these `server` blocks; yields its process id. `port` is one that it listens on."""
    with TemporaryDirectory(prefix="quiver-nginx-") as folder:
        (Path(folder) / "nginx.conf").write_text(_NGINX % (folder, servers))
        log = Path(folder) / "error.log"
        command = [tool("nginx"), "-p", folder, "-c", "nginx.conf", "-e", str(log)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            if not wait_accepting(process, port, START_SECONDS):
                raise BenchmarkError(f"nginx did not start: {log.read_text()}")
            yield process.pid
        finally:
            process.terminate()
            process.wait()


# A connection is kept for longer than any run, on both sides: nginx's default closes it after 1,000 requests.
_NGINX = """
daemon off;
worker_processes 1;
pid %s/nginx.pid;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    default_type application/json;
    %s
}
"""


def echo_server(ports: Sequence[int]) -> str:
    """The model server of `echo`, on all these ports."""
    listens = "".join(f"listen 127.0.0.1:{port} backlog=2048;" for port in ports)
    return f"""
    server {{
        {listens}
        location = /v1/models {{ return 200 '{traffic.MODELS}'; }}
        location / {{ return 200 '{traffic.COMPLETION}'; }}
    }}
    """


def proxy_server(name: str, port: int, upstream_ports: Sequence[int]) -> str:
    """A proxy that keeps its connections and passes on what it gets at once, as its manual says to do for streams."""
    upstreams = "".join(f"server 127.0.0.1:{upstream};" for upstream in upstream_ports)
    return f"""
    upstream {name} {{ {upstreams} keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            proxy_pass http://{name};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
    """


def version() -> str:
    """Such as `1.22.1`."""
    told = subprocess.run([tool("nginx"), "-v"], capture_output=True, text=True).stderr
    return told.strip().rpartition("/")[2]
