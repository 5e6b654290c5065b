"""Embeddings through a real gateway with the `openai` package: from a model of its own, and through a second gateway."""

import base64
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from bench.running import Running, gateway
from tests.engine.encoders import CONTEXT, SHAPES, write_encoder

from .test_openai import ask

TEXTS = ["the model", "Hello, tokens!", "caf\u00e9", "", "\u4f60\u597d"]


@pytest.fixture(name="running", scope="module")
def running_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway with a chat model and an encoder."""
    path = write_encoder(tmp_path_factory.mktemp("models") / "tiny-bert.gguf", SHAPES[0])
    with gateway(f"[[models]]\npath = '{path}'\n") as running:
        yield running


@pytest.fixture(params=["engine", "remote"], scope="module")
def client(request: pytest.FixtureRequest, running: Running) -> Iterator[openai.OpenAI]:
    if request.param == "engine":
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
            yield client
        return
    backend = f'[engine]\nbolt = false\n[[backends]]\nurl = "{running.url}"\nmodels = ["tiny-bert", "bolt"]\n'
    with (
        gateway(backend) as front,
        openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def vectors(client: openai.OpenAI, texts: list[str], dimensions: int | openai.Omit = openai.omit) -> list[list[float]]:
    reply = client.embeddings.create(model="tiny-bert", input=texts, dimensions=dimensions)
    assert [entry.index for entry in reply.data] == list(range(len(texts)))
    return [entry.embedding for entry in reply.data]


def test_vectors_have_length_one(client: openai.OpenAI) -> None:
    found = vectors(client, TEXTS)
    assert {len(vector) for vector in found} == {64}
    assert [sum(x * x for x in vector) for vector in found] == pytest.approx([1.0] * len(TEXTS), abs=1e-5)


def test_a_text_alone_is_the_same(client: openai.OpenAI) -> None:
    assert [vectors(client, [text])[0] for text in TEXTS] == vectors(client, TEXTS)
    single = client.embeddings.create(model="tiny-bert", input=TEXTS[0])
    assert single.data[0].embedding == vectors(client, TEXTS)[0]


def test_formats_hold_the_same_numbers(client: openai.OpenAI) -> None:
    floats = client.embeddings.create(model="tiny-bert", input="the model", encoding_format="float").data[0].embedding
    body = {"model": "tiny-bert", "input": "the model", "encoding_format": "base64"}
    reply = client.post("/embeddings", body=body, cast_to=dict[str, object])
    data = reply["data"]
    assert isinstance(data, list)
    packed = base64.b64decode(data[0]["embedding"])
    assert list(struct.unpack(f"<{len(packed) // 4}f", packed)) == floats


def test_usage_counts_all_tokens(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="tiny-bert", input=[[2, 3]])
    assert (one.usage.prompt_tokens, one.usage.total_tokens) == (2, 2)
    two = client.embeddings.create(model="tiny-bert", input=[[2, 3], [2, 9, 3]])
    assert two.usage.prompt_tokens == 5
    assert client.embeddings.create(model="tiny-bert", input=[2, 9, 3]).data[0].embedding == two.data[1].embedding


def test_fewer_dimensions(client: openai.OpenAI) -> None:
    whole, short = vectors(client, ["the model"])[0], vectors(client, ["the model"], 8)[0]
    assert len(short) == 8
    assert sum(x * x for x in short) == pytest.approx(1.0, abs=1e-5)
    assert short[0] / short[1] == pytest.approx(whole[0] / whole[1], rel=1e-4)


def test_many_clients_get_their_own(client: openai.OpenAI) -> None:
    texts = [f"{word} {number}" for number in range(20) for word in ("the", "model")]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: vectors(client, [text])[0], texts))
    assert found == vectors(client, texts)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": ["a", []]}, "input[1]"),
        ({"input": ["a", [99_999]]}, "input[1]"),
        ({"dimensions": 65}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_bad_parameters_are_named(client: openai.OpenAI, change: dict[str, object], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/embeddings", body={"model": "tiny-bert", "input": "a", **change}, cast_to=object)
    assert caught.value.param == param


def test_context_overflow_says_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        vectors(client, ["the " * 500])
    assert caught.value.code == "context_length_exceeded"
    numbers = [int(word) for word in caught.value.message.replace(",", "").split() if word.isdigit()]
    assert numbers[-2] > numbers[-1] == CONTEXT


def test_each_model_keeps_to_its_paths(running: Running) -> None:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="`tiny-bert` does not serve `/v1/chat/completions`"):
            client.chat.completions.create(model="tiny-bert", messages=ask("hi"))
        with pytest.raises(openai.BadRequestError, match="`bolt` does not serve `/v1/embeddings`; it serves"):
            client.embeddings.create(model="bolt", input="hi")
