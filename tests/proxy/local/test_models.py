"""Models that come and go while a gateway serves: a whole gateway in memory, engines that answer with their file's name."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from quiver.proxy.testing.models import GIB, ScriptedFile, ScriptedLoader
from quiver.schemas.config import Engine, LocalModel, Rate
from quiver.schemas.errors import ApiError
from quiver.schemas.models import ModelLoad
from trio.testing import MockClock

from ..gateways import Running, code_in, running, unchunked
from ..servers import Farm
from ..wires import post

CLOSE = b"Connection: close"


def chat(model: str = "a", *, stream: bool = True) -> bytes:
    return b'{"model": "%s", "messages": [{"role": "user", "content": "hi"}], "stream": %s}' % (
        model.encode(),
        b"true" if stream else b"false",
    )


def load(path: str, **fields: Any) -> ModelLoad:
    return ModelLoad(path=path, **fields)


class Serving:
    """A running gateway with a scripted loader."""

    def __init__(self, gateway: Running, loader: ScriptedLoader) -> None:
        self.running, self.loader = gateway, loader
        self.models = gateway.gateway.models

    async def ask(self, model: str = "a") -> bytes:
        """A whole streamed reply."""
        return await self.running.ask(chat(model), CLOSE)

    async def answer(self, model: str = "a") -> str:
        """Which file answered."""
        received = await self.running.ask(chat(model, stream=False), CLOSE)
        assert received[9:12] == b"200", received
        return received.partition(b'"content":"')[2].partition(b" ")[0].decode()

    async def refusal(self, model: str = "a") -> object:
        """The code of the error a request gets."""
        return code_in(await self.running.ask(chat(model, stream=False), CLOSE))

    async def loaded(self, asked: ModelLoad) -> str | None:
        """Load and wait; the code of the error, if there was one."""
        _, loading = await self.models.load(asked)
        await loading.ended.wait()
        return None if loading.error is None else loading.error.kind.code

    def state(self, id: str = "a") -> str:
        return self.models.state(id)


@asynccontextmanager
async def serving(
    farm: Farm, files: dict[str, ScriptedFile], *, models: tuple[str, ...] = ("a",), memory: int = 64, **engine: Any
) -> AsyncIterator[Serving]:
    loader = ScriptedLoader(files, memory * GIB)
    configured = tuple(LocalModel(path=path) for path in models)
    config = Engine(bolt=False, **engine)
    rate = Rate(anonymous_requests_per_minute=0)
    async with running(farm, [], loader=loader, models=configured, engine=config, rate=rate) as gateway:
        await trio.sleep(5)
        yield Serving(gateway, loader)
        gateway.signal(signal.SIGINT)
    assert loader.used == 0, "memory was not given back"
    assert sorted(loader.opened) == sorted(loader.closed)


def files(*names: str, **fields: Any) -> dict[str, ScriptedFile]:
    return {name: ScriptedFile(**fields) for name in names}


async def test_models_come_and_go(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, files("a", "b")) as gateway:
        assert await gateway.refusal("b") == "model_not_found"
        assert await gateway.loaded(load("b")) is None
        assert (await gateway.answer("a"), await gateway.answer("b")) == ("a", "b")
        await gateway.models.unload("b")
        assert (gateway.state("b"), gateway.loader.closed) == ("unloaded", ["b"])
        assert await gateway.refusal("b") == "model_not_loaded"
        assert await gateway.loaded(load("b")) is None
        assert await gateway.answer("b") == "b"
        await gateway.models.remove("b")
        assert await gateway.refusal("b") == "model_not_found"
        assert await gateway.answer("a") == "a"
        with pytest.raises(ApiError, match="no model `b`"):
            await gateway.models.remove("b")


async def test_unloading_lets_requests_finish(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, files("a", tokens=100)) as gateway:
        replies: list[bytes] = []

        async def ask() -> None:
            replies.append(await gateway.ask())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            nursery.start_soon(gateway.models.unload, "a")
            await trio.sleep(1)
            assert gateway.state() == "unloading"
            assert await gateway.refusal() == "model_not_loaded"
        assert unchunked(replies[0]).endswith(b"data: [DONE]\n\n")
        assert (gateway.state(), gateway.loader.cut) == ("unloaded", 0)


async def test_unloading_does_not_wait_for_ever(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, files("a", tokens=1000)) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(gateway.ask)
        await trio.sleep(1)
        began = trio.current_time()
        await gateway.models.unload("a")
        assert trio.current_time() - began == pytest.approx(30, abs=0.5)  # `drain.timeout`
        nursery.cancel_scope.cancel()


async def test_swap_drops_no_request(farm: Farm, autojump_clock: MockClock) -> None:
    """Streams begin all the time while the file behind their model changes; each is answered whole, by one file."""
    script = {"a": ScriptedFile(tokens=20), "b": ScriptedFile(seconds=3, tokens=20), "c": ScriptedFile(tokens=20)}
    async with serving(farm, script, max_sequences=64) as gateway:
        bodies: list[bytes] = []

        async def ask() -> None:
            received = await gateway.ask()
            assert received[9:12] == b"200", received
            bodies.append(unchunked(received))

        async with trio.open_nursery() as nursery:

            async def keep_asking() -> None:
                for _ in range(100):
                    nursery.start_soon(ask)
                    await trio.sleep(0.1)

            nursery.start_soon(keep_asking)
            await trio.sleep(2)
            assert await gateway.loaded(load("b", id="a")) is None
            assert await gateway.loaded(load("c", id="a")) is None
        assert len(bodies) == 100
        assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
        by_file = [[body.count(b'"content":"%s "' % name) for name in (b"a", b"b", b"c")] for body in bodies]
        assert {tuple(counts) for counts in by_file} == {(20, 0, 0), (0, 20, 0), (0, 0, 20)}
        assert gateway.loader.cut == 0
        assert gateway.loader.closed == ["a", "b"]


async def test_failed_swap_changes_nothing(farm: Farm, autojump_clock: MockClock) -> None:
    script = {"a": ScriptedFile(), "bad": ScriptedFile(error="not a GGUF file"), "large": ScriptedFile(bytes=100 * GIB)}
    async with serving(farm, script) as gateway:
        for path, code in [("bad", "model_unusable"), ("large", "insufficient_memory"), ("gone", "model_unusable")]:
            assert await gateway.loaded(load(path, id="a")) == code
            assert (gateway.state(), await gateway.answer()) == ("ready", "a")
            assert await gateway.loaded(load(path)) == code
            await trio.sleep(1)
            assert await gateway.refusal(path) == "model_not_found"


async def test_unload_first_needs_room_for_one(farm: Farm, autojump_clock: MockClock) -> None:
    script = files("a", "b", "bad", bytes=40 * GIB, tokens=50)
    script["bad"].error = "not a GGUF file"
    async with serving(farm, script) as gateway, trio.open_nursery() as nursery:
        replies: list[bytes] = []

        async def ask() -> None:
            replies.append(await gateway.ask())

        assert await gateway.loaded(load("b", id="a")) == "insufficient_memory"
        nursery.start_soon(ask)
        await trio.sleep(1)
        _, loading = await gateway.models.load(load("b", id="a", replace="unload_first"))
        await trio.sleep(1)
        nursery.start_soon(ask)  # waits for the new file
        await loading.ended.wait()
        assert loading.error is None
        await trio.sleep(10)
        assert [b'"content":"b ' in reply for reply in replies] == [False, True]
        assert all(unchunked(reply).endswith(b"data: [DONE]\n\n") for reply in replies)
        assert gateway.loader.most_used == 40 * GIB
        # What cannot be loaded gives way to what was there before.
        assert await gateway.loaded(load("bad", id="a", replace="unload_first")) == "model_unusable"
        assert await gateway.answer() == "b"


async def test_idle_model_is_loaded_by_a_request(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, files("a", seconds=20), idle_unload_s=60.0) as gateway:
        assert await gateway.answer() == "a"
        await trio.sleep(59)
        assert gateway.state() == "ready"
        await trio.sleep(2)
        assert (gateway.state(), gateway.loader.closed) == ("idle", ["a"])
        replies: list[bytes] = []

        async def ask() -> None:
            replies.append(await gateway.ask())

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert trio.current_time() - began == pytest.approx(20.3, abs=0.2)
        assert gateway.loader.opened == ["a", "a"]
        for reply in replies:
            body = unchunked(reply)
            assert b": loading stage=weights progress=" in body
            assert body.endswith(b"data: [DONE]\n\n")


async def test_used_model_is_not_idle(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, files("a", tokens=200), idle_unload_s=5.0) as gateway:
        assert unchunked(await gateway.ask()).endswith(b"data: [DONE]\n\n")  # 20 s
        assert gateway.state() == "ready"
        await trio.sleep(6)
        assert gateway.state() == "idle"


async def test_idle_model_that_cannot_be_loaded(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, files("a"), idle_unload_s=10.0) as gateway:
        await trio.sleep(20)
        gateway.loader.files["a"].error = "not a GGUF file"
        assert await gateway.refusal() == "model_not_loaded"
        assert gateway.state() == "idle"
        gateway.loader.files["a"].error = None
        assert await gateway.refusal() == "model_not_loaded"  # not tried again at once
        await trio.sleep(5)
        assert await gateway.answer() == "a"


async def test_client_that_waits_may_leave(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, files("a", seconds=20), idle_unload_s=10.0) as gateway:
        await trio.sleep(30)
        client = await gateway.running.connect()
        await client.send_all(post(chat()))
        await trio.sleep(2)
        client.close()
        await trio.sleep(1)
        model = gateway.models.get("a")
        assert (gateway.state(), model.load.in_flight) == ("loading", 0)
        await trio.sleep(20)
        assert gateway.state() == "ready"


async def test_load_can_be_cancelled(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, {**files("a"), "slow": ScriptedFile(seconds=100)}) as gateway:
        _, loading = await gateway.models.load(load("slow"))
        with pytest.raises(ApiError) as refused:
            await gateway.models.load(load("a", id="slow"))
        assert refused.value.kind.code == "model_loading"
        await trio.sleep(40)
        report = loading.report()
        assert report.stage == "weights"
        assert report.fraction == pytest.approx(0.4, abs=0.11)
        await gateway.models.unload("slow")
        assert loading.error is not None
        assert loading.error.kind.code == "load_cancelled"
        assert (gateway.loader.opened, gateway.loader.used) == (["a"], GIB)


async def test_loads_share_memory(farm: Farm, autojump_clock: MockClock) -> None:
    """Two loads at once may not both count on what is free."""
    async with serving(farm, files("a", "b", "c", bytes=30 * GIB)) as gateway:
        codes: list[str | None] = []

        async def begin(path: str) -> None:
            codes.append(await gateway.loaded(load(path)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin, "b")
            nursery.start_soon(begin, "c")
        assert sorted(codes, key=str) == [None, "insufficient_memory"]
        assert await gateway.loaded(load("c" if gateway.loader.opened[-1] == "b" else "b", force=True)) is None
        assert gateway.loader.most_used == 90 * GIB


async def test_limit_counts_instead_of_the_machine(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, files("a", "b", bytes=4 * GIB), memory=1, memory_limit="6GiB") as gateway:
        assert gateway.state("a") == "ready"
        assert await gateway.loaded(load("b")) == "insufficient_memory"


async def test_stop_ends_loads(farm: Farm, autojump_clock: MockClock) -> None:
    async with serving(farm, {**files("a"), "slow": ScriptedFile(seconds=10_000)}) as gateway:
        await gateway.models.load(load("slow"))
        await trio.sleep(5)
