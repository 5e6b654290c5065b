"""The shipped bolt.gguf: small, complete, and as good as bolt/evaluation.json says it has to be."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest

from bolt import corpus

ROOT = Path(__file__).parents[2]
FILE = ROOT / "python" / "quiver" / "models" / "bolt.gguf"
EVALUATION = json.loads((ROOT / "bolt" / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(str(FILE))


def test_file_is_small() -> None:
    assert FILE.stat().st_size <= 8 * 1024 * 1024


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.architecture", "llama"),
        ("general.name", "bolt"),
        ("general.license", "apache-2.0"),
        ("general.file_type", 7),
        ("llama.context_length", 2048),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "qwen2"),
        ("tokenizer.ggml.add_bos_token", False),
    ],
)
def test_metadata_says(reader: gguf.GGUFReader, key: str, value: object) -> None:
    assert reader.fields[key].contents() == value


@pytest.mark.parametrize(
    "key",
    [
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.attention.layer_norm_rms_epsilon",
        "llama.rope.dimension_count",
        "llama.rope.freq_base",
        "tokenizer.ggml.merges",
        "tokenizer.chat_template",
    ],
)
def test_metadata_has(reader: gguf.GGUFReader, key: str) -> None:
    assert key in reader.fields


def test_answer_ends_with_im_end(reader: gguf.GGUFReader) -> None:
    end = reader.fields["tokenizer.ggml.eos_token_id"].contents()
    assert reader.fields["tokenizer.ggml.tokens"].contents(end) == "<|im_end|>"
    assert reader.fields["tokenizer.ggml.token_type"].contents(end) == gguf.TokenType.CONTROL


def test_tensors_are_q8_or_f32(reader: gguf.GGUFReader) -> None:
    kinds = gguf.GGMLQuantizationType
    assert {(len(item.shape), item.tensor_type) for item in reader.tensors} == {(1, kinds.F32), (2, kinds.Q8_0)}
    assert "output.weight" not in {item.name for item in reader.tensors}


def test_bolt_knows_its_size() -> None:
    bolt = next(fact for fact in corpus.load().facts if fact.name == "bolt")
    assert f"about {EVALUATION['weights'] / 1e6:.1f} million weights" in bolt.answer


def test_evaluation_belongs_to_file(reader: gguf.GGUFReader) -> None:
    assert EVALUATION["file_bytes"] == FILE.stat().st_size
    assert EVALUATION["weights"] == sum(int(item.n_elements) for item in reader.tensors)
    assert EVALUATION["alone"]["held_out"] == sum(len(fact.held_out) for fact in corpus.load().facts)


@pytest.mark.parametrize(("setting", "bar"), [("alone", 0.8), ("system", 0.8), ("second", 0.6)])
def test_evaluation_reaches_bar(setting: str, bar: float) -> None:
    """Later turns are the weak spot, and docs/bolt.md says so."""
    assert EVALUATION[setting]["share"] >= bar
    assert EVALUATION[setting]["off_topic_share"] >= 0.8
