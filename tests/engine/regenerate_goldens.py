"""Writes llama.cpp's logits for every fixture model to `goldens/`, with the hash of the file they belong to.

Needs an environment that has llama-cpp-python, gguf and numpy; the test suite itself does not. Run from the repository
root:

    python -m tests.engine.regenerate_goldens
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from tests.engine.fixtures import FAMILIES, BlockType, tokens, write_model

GOLDENS = Path(__file__).parent / "goldens"


def oracle_logits(path: Path, sequence: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """`[positions, vocabulary]`, computed with f32 keys and values and without flash attention."""
    model = llama_cpp.Llama(
        str(path),
        n_ctx=max(64, len(sequence)),
        n_gpu_layers=0,
        n_threads=1,
        logits_all=True,
        flash_attn=False,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    model.eval(sequence)
    return np.array(model.scores[: len(sequence)], dtype=np.float32)


def main() -> None:
    GOLDENS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        for family in FAMILIES:
            arrays: dict[str, Any] = {"llama_cpp": np.array(llama_cpp.__version__)}
            for kind in family.types:
                write_model(path, family, kind)
                arrays[f"{kind.name}.sha256"] = np.array(hashlib.sha256(path.read_bytes()).hexdigest())
                kept = oracle_logits(path, tokens(family))[family.kept]
                # Half precision is far finer than the distance that quantized weights are allowed.
                arrays[f"{kind.name}.logits"] = kept if kind is BlockType.F32 else kept.astype(np.float16)
            np.savez_compressed(GOLDENS / f"{family.name}.npz", **arrays)


if __name__ == "__main__":
    main()
