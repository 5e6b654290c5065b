"""Our logits beside llama.cpp's, for every decoder family and block type. The goldens come from `regenerate_goldens`.

Both round activations to 8 bits before they multiply them with quantized weights, but not always in the same blocks, and
llama.cpp rounds them to the weights' type for F16 and BF16 where we do not: that is the distance in those rows.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from quiver._engine import evaluate

from .families import FAMILIES, BlockType, Family
from .fixtures import tokens, write_model

GOLDENS: Final = Path(__file__).parent / "goldens"

BOUNDS: Final = {BlockType.F32: 1e-10, BlockType.F16: 1e-5, BlockType.BF16: 1e-4}
QUANTIZED: Final = 1e-3
GELU: Final = 1e-6
"""F32 bound where llama.cpp looks GELU up in a table of half-precision numbers."""
HALF_PRECISION_CACHE: Final = 1e-5
"""What rounding keys and values to f16 may add, measured against our own f32 cache. With quantized weights the next
rounding of activations turns some of it into whole steps, so it may add as much as that."""

MODELS = pytest.mark.parametrize(
    ("family", "kind"),
    [pytest.param(family, kind, id=f"{family.name}-{kind.name}") for family in FAMILIES for kind in family.types],
)


@cache
def golden(family: str) -> dict[str, Any]:
    with np.load(GOLDENS / f"{family}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(name="model")
def written_model(tmp_path: Path, family: Family, kind: BlockType) -> Path:
    path = tmp_path / "model.gguf"
    write_model(path, family, kind)
    return path


def logits(model: Path, family: Family, kv_type: str = "f32") -> npt.NDArray[np.float32]:
    rows = evaluate(str(model), tokens(family), kv_type=kv_type)
    return np.frombuffer(rows, dtype=np.float32).reshape(family.positions, family.vocabulary)


def nmse(got: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Mean squared error as a share of the expected values' own variance."""
    error = np.square(got.astype(np.float64) - expected)
    return float(error.sum() / np.square(expected - expected.mean(dtype=np.float64)).sum())


@MODELS
def test_logits_match_llama_cpp(model: Path, family: Family, kind: BlockType) -> None:
    recorded = golden(family.name)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert digest == str(recorded[f"{kind.name}.sha256"]), "the fixture changed: run regenerate_goldens"
    expected = recorded[f"{kind.name}.logits"]
    got = logits(model, family)[family.kept]
    distance, agreement = nmse(got, expected), float((got.argmax(axis=1) == expected.argmax(axis=1)).mean())
    print(f"{family.name} {kind.name}: NMSE {distance:.1e}, top-1 agreement {agreement:.0%}")  # shown by -rP
    exact = GELU if family.architecture.startswith("gemma") else BOUNDS[BlockType.F32]
    assert distance <= max(exact, BOUNDS.get(kind, QUANTIZED))


@MODELS
def test_half_precision_cache_stays_close(model: Path, family: Family, kind: BlockType) -> None:
    exact = logits(model, family)
    rounded = logits(model, family, "f16")
    bound = HALF_PRECISION_CACHE if kind in BOUNDS else QUANTIZED
    assert 0 < nmse(rounded, exact) <= bound


def test_what_cannot_be_computed_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, FAMILIES[0], BlockType.F32)
    table: list[tuple[Path, list[int], str, str]] = [
        (tmp_path / "absent.gguf", [1], "f32", "absent.gguf: cannot open the model file"),
        (tmp_path, [1], "f32", "not a regular file"),
        (path, [97], "f32", "token 97 is not in the vocabulary of 97"),
        (path, [0] * 513, "f32", "exceed the context of 512 tokens"),
        (path, [1], "q4_0", "`kv_type` should be f16, f32 or q8_0, is q4_0"),
    ]
    for model, sequence, kv_type, message in table:
        with pytest.raises(ValueError, match=message):
            evaluate(str(model), sequence, kv_type=kv_type)
