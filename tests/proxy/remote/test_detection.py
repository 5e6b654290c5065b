"""What a server is found to be, by what each kind says of itself; and that asking it ends in time."""

import json

import pytest
import trio
from quiver.proxy.network import Address, Wire
from quiver.proxy.remote.connections import Origin
from quiver.proxy.remote.detection import Answer, detection
from quiver.proxy.remote.questions import ask
from quiver.schemas.config import Limits
from quiver.schemas.servers import DetectedModel, Detection
from trio.testing import MockClock

from ..servers import Asked, Farm, Said, response


def says(body: object, status: int = 200, server: bytes = b"") -> Answer:
    return Answer(status, server, json.dumps(body).encode())


def cards(*models: dict[str, object]) -> Answer:
    return says({"object": "list", "data": models})


THERE, ABSENT, GUARDED = says({"error": "model"}, 400), says({"detail": "Not Found"}, 404), says({}, 401)
TEXT = ("chat/completions", "completions")
EVERYWHERE = {name: THERE for name in (*TEXT, "embeddings")}
MODEL = [DetectedModel(id="qwen3")]

FOUND: list[tuple[str, dict[str, Answer], Detection]] = [
    ("nothing", {}, Detection(software=None)),
    (
        "ollama",
        {
            "models": cards({"id": "qwen3:8b", "owned_by": "library"}, {"id": "other:1b", "owned_by": "library"}),
            "models without key": cards({"id": "qwen3:8b"}),
            "ollama": says({"version": "0.12.3"}),
            "ollama loaded": says({"models": [{"name": "qwen3:8b", "context_length": 8192}]}),
            "version": ABSENT,
            **EVERYWHERE,
        },
        Detection(
            software="ollama",
            version="0.12.3",
            models=[DetectedModel(id="qwen3:8b", context_length=8192), DetectedModel(id="other:1b")],
            endpoints=(*TEXT, "embeddings"),
            needs_key=False,
        ),
    ),
    (
        "llama.cpp, which answers on paths of Ollama's",
        {
            "models": cards({"id": "qwen3", "owned_by": "llamacpp", "meta": {"n_ctx": 4096}}),
            "ollama": says({"version": "0.0.0"}),
            "llama.cpp": says(
                {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 4, "build_info": "b8681-Debian"}
            ),
            **{name: THERE for name in TEXT},
            "embeddings": says({"error": {"message": "This server does not support embeddings"}}, 501),
        },
        Detection(
            software="llama.cpp",
            version="b8681-Debian",
            models=[DetectedModel(id="qwen3", context_length=4096)],
            endpoints=TEXT,
            slots=4,
            needs_key=False,
        ),
    ),
    (
        "llama.cpp that lists its models for everybody and wants a key for the rest",
        {
            "models": Answer(200, b"llama.cpp", b'{"data": [{"id": "qwen3"}]}'),
            "models without key": cards({"id": "qwen3"}),
            "llama.cpp": GUARDED,
            **{name: GUARDED for name in (*TEXT, "embeddings")},
            **{f"{name} with key": THERE for name in TEXT},
            "embeddings with key": ABSENT,
        },
        Detection(software="llama.cpp", models=MODEL, endpoints=TEXT, needs_key=True),
    ),
    (
        "llama-cpp-python",
        {
            "models": cards({"id": "qwen3", "owned_by": "me"}),
            "description": says(
                {"openapi": "3.1.0", "info": {"title": "🦙 llama.cpp Python API", "version": "0.3.36"}}
            ),
            **EVERYWHERE,
        },
        Detection(
            software="llama-cpp-python",
            version="0.3.36",
            models=MODEL,
            endpoints=(*TEXT, "embeddings"),
            slots=1,
            needs_key=False,
        ),
    ),
    (
        "vllm",
        {
            "models": cards({"id": "qwen3", "owned_by": "vllm", "max_model_len": 32768}),
            "models without key": GUARDED,
            "version": says({"version": "0.11.0"}),
            "health": Answer(200, b"uvicorn", b""),
            "metrics": Answer(200, b"uvicorn", b"vllm:num_requests_running 0.0\n"),
        },
        Detection(
            software="vllm",
            version="0.11.0",
            models=[DetectedModel(id="qwen3", context_length=32768)],
            needs_key=True,
        ),
    ),
    (
        "lm studio",
        {
            "models": cards({"id": "qwen3", "owned_by": "organization_owner"}, {"id": "nomic"}),
            "lm-studio": says(
                {
                    "data": [
                        {"id": "qwen3", "type": "llm", "state": "loaded", "loaded_context_length": 4096},
                        {"id": "nomic", "type": "embeddings", "state": "not-loaded", "max_context_length": 2048},
                    ]
                }
            ),
        },
        Detection(
            software="lm-studio",
            models=[DetectedModel(id="qwen3", context_length=4096), DetectedModel(id="nomic", embeds=True)],
        ),
    ),
    (
        "quiver",
        {
            "models": cards({"id": "qwen3", "owned_by": "engine:bolt"}),
            "version": says({"version": "0.1.0"}),
            "health": says({"status": "ok", "version": "0.1.0"}),
        },
        Detection(software="quiver", version="0.1.0", models=MODEL),
    ),
    (
        "anything else",
        {"models": cards({"id": "qwen3"}, {"id": "no name"}), "health": says("ok"), "version": says(["1"])},
        Detection(software="openai", models=MODEL),
    ),
    (
        "a page",
        {"models": Answer(200, b"nginx", b"<html>"), "version": Answer(200, b"", b"\xff\xfe"), "description": says(3)},
        Detection(software=None),
    ),
]


@pytest.mark.parametrize(("answers", "expected"), [row[1:] for row in FOUND], ids=[row[0] for row in FOUND])
def test_servers_are_told_apart(answers: dict[str, Answer], expected: Detection) -> None:
    assert detection(answers) == expected


async def test_questions_are_asked_at_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    farm = Farm(nursery)

    def answer(asked: Asked) -> Said:
        if asked.path == b"/base/v1/models":
            return Said(response(b"200 OK", b'{"data": [{"id": "qwen3"}]}'), after=1)
        if asked.path == b"/base/api/version":
            return Said(response(b"200 OK", b'{"version": "0.12.3"}'), after=1)
        return Said(response(b"404 Not Found", b"{}"), after=1)

    _, server = await farm.configure(answer)

    async def connect(host: str, port: int) -> Wire:
        return await farm.network.connect(Address(host, port))

    began = trio.current_time()
    origin = Origin.parse("http://10.0.0.1:9000/base")
    found = await ask(origin, "sk-planted", Limits(), connect, seconds=10)
    assert (found.software, found.version, found.models, found.endpoints) == ("ollama", "0.12.3", MODEL, None)
    assert trio.current_time() - began < 5  # one after the other they would take over ten
    keys = {asked.path: b"sk-planted" in asked.head for asked in server.asked if asked.path == b"/base/props"}
    assert keys == {b"/base/props": True}
    await farm.close()


async def test_silent_server_is_given_up(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    farm = Farm(nursery)
    await farm.configure(lambda asked: Said(response(b"200 OK", b"{}"), after=1000))

    async def connect(host: str, port: int) -> Wire:
        return await farm.network.connect(Address(host, port))

    began = trio.current_time()
    found = await ask(Origin.parse("http://10.0.0.1:9000"), None, Limits(), connect, seconds=7)
    assert found == Detection(software=None)
    assert trio.current_time() - began == pytest.approx(7)
    await farm.close()


SPELLINGS = [
    ["http://lab:80", "http://LAB/v1", "http://lab/v1/", "http://lab:80/"],
    ["https://lab", "https://lab:443/v1"],
    ["http://[::1]:8000", "http://[0:0:0:0:0:0:0:1]:8000/v1"],
    ["http://bücher.example", "http://xn--bcher-kva.example/v1"],
]


@pytest.mark.parametrize("spellings", SPELLINGS)
def test_spellings_are_one_origin(spellings: list[str]) -> None:
    assert len({Origin.parse(url) for url in spellings}) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://a\x18b",
        "http://" + "a" * 64 + ".example",
        "http://a..b",
        "http://h/\x01",
        "http://h/ä",
        'http://h"',
        *(f"http://h/a{sign}b" for sign in ' "<>\\^`{}'),
    ],
)
def test_impossible_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"host|path"):
        Origin.parse(url)
