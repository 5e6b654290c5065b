"""The metrics page of a real gateway that has had some of everything: a stream after a retry, a kept answer, a client that
left, the built-in model, an unknown one, a server that joined, and the control plane.
"""

import re
from functools import cache
from random import Random

import trio
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from quiver.admin.api.app import create_app
from quiver.proxy.local.gpu import READINGS
from quiver.proxy.network import Address, Wire
from quiver.proxy.seams import World
from quiver.proxy.server import run
from quiver.proxy.testing import SimulatedNetwork
from quiver.proxy.tunnel.joiner import Joiner
from quiver.schemas.config import Auth, Config, RemoteBackend, Server

from ..proxy.servers import Asked, Farm, Said, events, response
from ..proxy.tunnel.joining import offer
from ..proxy.wires import post, read_until_close, receive_reply

KEY = "a-client-key"
GATEWAY = Address("127.0.0.1", 8080)
WORDS = [b'data: {"choices": [{"delta": {"content": "word"}}]}\n\n'] * 3
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}}\n\n'
STREAM = b'{"model": "%s", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
REPEATABLE = b'{"model": "n", "seed": 1, "messages": [{"role": "user", "content": "Hi"}]}'
# Its client leaves: the engine has to stop.
LONG = b'{"model": "bolt", "stream": true, "max_tokens": 400, "messages": [{"role": "user", "content": "What is Quiver?"}]}'

# The figures of a client that left, once all of them are there.
LEFT = (
    r'quiver_engine_cancelled_total\{model="bolt"\} [1-9]',
    r'quiver_engine_cancel_seconds_count\{model="bolt"\} [1-9]',
    r'quiver_cancel_latency_seconds_count\{server="engine:bolt"\} [1-9]',
    r"quiver_wasted_tokens_total [1-9]",
)


@cache
def families() -> dict[str, Metric]:
    """The page's families, by name as it is queried."""
    return trio.run(_families)


def table() -> str:
    """The page's families as Markdown. Graphics cards have theirs where there are any."""
    rows = [
        f"| `{name}` | {_kind(name, family)} | {_labels(family)} | {family.documentation} |"
        for name, family in sorted(families().items())
    ]
    rows += [
        f"| `quiver_gpu_{name}` | gauge | `gpu` | {meaning}, of a graphics card |" for name, meaning, _ in READINGS
    ]
    return "\n".join(["| Metric | Type | Labels | Meaning |", "|---|---|---|---|", *rows])


def labels(family: Metric) -> set[str]:
    """The names of its labels."""
    return {label for sample in family.samples for label in sample.labels}


def _kind(name: str, family: Metric) -> str:
    return "counter" if family.type == "unknown" and name.endswith("_total") else family.type


def _labels(family: Metric) -> str:
    return ", ".join(f"`{label}`" for label in sorted(labels(family) - {"le"}))


async def _families() -> dict[str, Metric]:
    async with trio.open_nursery() as nursery:
        farm = Farm(nursery)
        backends = (
            await _server(farm, Said(response(b"500 Oops", b"")), "m"),
            await _server(farm, _a_chunk_a_time(events(*WORDS, USAGE, b"data: [DONE]\n\n")), "m"),
            await _server(farm, Said(response(b"200 OK", b'{"choices": []}')), "n"),
        )
        config = Config(server=Server(port=GATEWAY.port), auth=Auth(keys=(KEY,)), backends=backends)
        send, signals = trio.open_memory_channel[int](1)
        world = World(random=Random(1), network=farm.network)
        listening = trio.Event()

        async def serve() -> None:
            await run(
                config,
                control=create_app,
                sink=lambda batch: None,
                announce=lambda _: listening.set(),
                world=world,
                signals=signals,
            )

        nursery.start_soon(serve)
        await listening.wait()
        laptop = await _server(farm, Said(response(b"200 OK", b'{"choices": []}')), "l")
        joiner = Joiner(
            f"http://{GATEWAY}", offer(laptop.url, models=("l",)), World(random=Random(2), network=farm.network)
        )
        nursery.start_soon(joiner.run)
        page = await _use(farm.network)
        send.send_nowait(2)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    found: dict[str, Metric] = {}
    for family in text_string_to_metric_families(page):
        found[f"{family.name}_total" if family.type == "counter" else family.name] = family
    return found


async def _server(farm: Farm, said: Said, model: str) -> RemoteBackend:
    def answer(asked: Asked) -> Said:
        if asked.path == b"/v1/models":
            return Said(response(b"200 OK", b'{"data": []}'))
        return said if asked.path.startswith(b"/v1/") else Said(response(b"404 Not Found", b""))

    config, _ = await farm.configure(answer, models=(model,), max_concurrency=1)
    return config


def _a_chunk_a_time(whole: bytes) -> Said:
    head, _, body = whole.partition(b"\r\n\r\n")
    *chunks, last = body.split(b"\n\n\r\n")
    return Said([head + b"\r\n\r\n", *(chunk + b"\n\n\r\n" for chunk in chunks), last], after=0.01)


async def _use(network: SimulatedNetwork) -> str:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_chat, network, STREAM % b"m")
    await _chat(network, STREAM % b"m", b"not-a-key")
    for body in (STREAM % b"m", STREAM % b"m", REPEATABLE, REPEATABLE, STREAM % b"nobody", STREAM % b"bolt"):
        await _chat(network, body)
    control = await _connect(network)
    await _get(control, "/health")
    page = ""
    with trio.fail_after(15):
        # On a busy machine an answer may be whole before its client is seen to leave.
        while not all(re.search(figure, page) for figure in LEFT):
            await _leave(network)
            await trio.sleep(0.5)
            page = await _get(control, "/metrics")
    control.close()
    return page


async def _get(control: Wire, path: str) -> str:
    await control.send_all(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n".encode())
    return (await receive_reply(control)).decode()


async def _leave(network: SimulatedNetwork) -> None:
    """Ask the engine for much, and do not wait for it."""
    leaving = await _connect(network)
    await leaving.send_all(post(LONG, b"Authorization: Bearer " + KEY.encode()))
    await leaving.receive_some()
    leaving.close()


async def _chat(network: SimulatedNetwork, body: bytes, key: bytes = KEY.encode()) -> None:
    client = await _connect(network)
    await client.send_all(post(body, b"Connection: close", b"Authorization: Bearer " + key))
    await read_until_close(client)


async def _connect(network: SimulatedNetwork) -> Wire:
    return await network.connect(GATEWAY, "127.0.0.1")
