"""The registry: who answers to which name, while servers come, change and go."""

import pytest
import trio
from quiver.proxy.registry import Call, Registry
from quiver.proxy.reply import Reply
from quiver.proxy.testing import ScriptedBackend
from quiver.schemas.config import Config, Routing
from trio.testing import MockClock

from .conftest import Start, records
from .scripts import BODY, ask, lasting, whole


async def silent(call: Call, reply: Reply) -> None:
    """The script of a backend that is never asked."""


def backend(id: str, *models: str) -> ScriptedBackend:
    return ScriptedBackend(id, models, silent)


def chain_of(registry: Registry, name: str) -> list[tuple[str, list[str]]]:
    return [(target.model, [backend.id for backend in target.backends]) for target in registry.chain(name)]


ROUTING = Routing(
    aliases={"gpt": "m", "both": "m", "loop": "gpt", "ghost": "absent"},
    fallbacks={"m": ("n", "absent", "o"), "absent": ("gpt",), "n": ("n", "m")},
)


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("m", [("m", ["b1", "b2"]), ("n", ["b2"]), ("o", ["b3"])]),
        ("gpt", [("m", ["b1", "b2"]), ("n", ["b2"]), ("o", ["b3"])]),
        ("n", [("n", ["b2"]), ("m", ["b1", "b2"])]),
        ("o", [("o", ["b3"])]),
        ("absent", [("m", ["b1", "b2"])]),
        ("ghost", [("m", ["b1", "b2"])]),
        ("loop", []),
        ("both", [("both", ["b3"])]),
        ("unheard-of", []),
    ],
    ids=[
        "fallbacks that exist",
        "an alias has its model's fallbacks",
        "no model twice",
        "alone",
        "a fallback may be an alias",
        "an alias of what is absent",
        "aliases lead to no aliases",
        "a model goes before an alias",
        "nobody's",
    ],
)
def test_chain_follows_the_routing(name: str, chain: list[tuple[str, list[str]]]) -> None:
    registry = Registry([backend("b1", "m"), backend("b2", "m", "n"), backend("b3", "o", "both")], ROUTING)
    for _ in range(2):
        assert chain_of(registry, name) == chain


def test_changes_are_seen_at_once() -> None:
    registry, changes = Registry(), list[str]()
    registry.changed = lambda: changes.append(", ".join(backend.id for backend in registry))
    assert chain_of(registry, "m") == []
    first = backend("b1", "m")
    registry.add(first)
    assert chain_of(registry, "m") == [("m", ["b1"])]
    registry.add(backend("b2", "m"))
    assert chain_of(registry, "m") == [("m", ["b1", "b2"])]
    first.models = ("other",)
    registry.refresh()
    assert (chain_of(registry, "m"), chain_of(registry, "other")) == ([("m", ["b2"])], [("other", ["b1"])])
    assert registry.remove("b2") is not None
    assert chain_of(registry, "m") == []
    assert registry.remove("b2") is None
    assert changes == ["b1", "b1, b2", "b1, b2", "b1", "b1"]


def test_names_are_unique() -> None:
    registry = Registry([backend("b1", "m")])
    with pytest.raises(ValueError, match="two backends are called `b1`"):
        registry.add(backend("b1", "n"))
    assert chain_of(registry, "n") == []


def test_replacement_keeps_its_place() -> None:
    before, after = backend("b1", "m"), backend("b1", "m", "n")
    registry = Registry([before, backend("b2", "m")])
    assert registry.replace(after) is before
    assert registry.get("b1") is after
    assert chain_of(registry, "m") == [("m", ["b1", "b2"])]
    assert registry.replace(backend("b3", "m")) is None
    assert chain_of(registry, "m") == [("m", ["b1", "b2", "b3"])]


def test_models_have_their_first_owner() -> None:
    registry = Registry([backend("b1", "m"), backend("b2", "n", "m"), backend("b3", "both")], ROUTING)
    assert registry.models() == {"m": "b1", "n": "b2", "both": "b3", "gpt": "b1"}
    assert list(registry.models()) == ["m", "n", "both", "gpt"]


def test_endpoints_are_those_of_any() -> None:
    first, second = backend("b1", "m"), backend("b2", "m")
    first.endpoints, second.endpoints = ("chat/completions",), ("rerank", "audio/speech")
    registry = Registry([first, second])
    assert [registry.serves(path) for path in ("rerank", "audio/speech", "embeddings")] == [True, True, False]
    registry.remove("b2")
    assert not registry.serves("rerank")


def test_unknown_names_are_not_kept() -> None:
    registry = Registry([backend("b1", "m")])
    for number in range(1000):
        registry.chain(f"made-up-{number}")
    assert len(registry._chains) == 0
    registry.chain("m")
    assert list(registry._chains) == ["m"]


async def test_running_calls_outlive_removal(start: Start, autojump_clock: MockClock) -> None:
    old, new = ScriptedBackend("b1", ["m"], lasting(10)), ScriptedBackend("b1", ["m"], whole)
    handler = await start([old])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, handler)
        await trio.sleep(1)
        handler.registry.replace(new)
        assert (await ask(handler)).status == 200
        handler.registry.remove("b1")
        assert (await ask(handler)).status == 404
    assert (len(old.calls), len(new.calls)) == (1, 1)
    assert [(record.status, record.duration) for record in records(handler)] == [(200, 0), (404, 0), (200, 10)]


async def test_declared_paths_pass_through(start: Start) -> None:
    special = ScriptedBackend("b1", ["m"], whole)
    special.endpoints = ("rerank",)
    handler = await start([special, ScriptedBackend("b2", ["m"], silent)], Config())
    downstream = await ask(handler, b'{"model": "m", "query": "x"}', path="/v1/rerank")
    assert (downstream.status, downstream.headers[b"x-gateway-server-id"]) == (200, b"b1")
    assert special.calls[0].endpoint == "rerank"
    assert (await ask(handler, BODY, path="/v1/speech")).status == 404
