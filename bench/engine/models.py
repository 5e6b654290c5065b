"""Model files of random weights in published shapes, for measuring engines: `python -m bench engine-models FOLDER`.

The weights are drawn in F16 and quantized by llama.cpp, so that a file is what that project's users have. Nothing of ours
takes part, and this file runs without the package: `python -m bench.engine.models` in any environment that has numpy,
gguf and llama-cpp-python, which the dependency group `oracle` brings.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

from .shapes import SHAPES, Shape

# File types by llama.cpp's numbers (`llama_ftype`).
KINDS = {"q4_0": 2, "q8_0": 7, "q4_k_m": 15}
F16 = 1


def matrices(shape: Shape) -> Iterator[tuple[str, int, int]]:
    """Names, rows and columns."""
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    yield "token_embd", shape.vocabulary, shape.width
    if not shape.tied:
        yield "output", shape.vocabulary, shape.width
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_q", queries, shape.width
        yield f"blk.{layer}.attn_k", keys, shape.width
        yield f"blk.{layer}.attn_v", keys, shape.width
        yield f"blk.{layer}.attn_output", shape.width, queries
        yield f"blk.{layer}.ffn_gate", shape.feed_forward, shape.width
        yield f"blk.{layer}.ffn_up", shape.feed_forward, shape.width
        yield f"blk.{layer}.ffn_down", shape.width, shape.feed_forward


def norms(shape: Shape) -> Iterator[tuple[str, int]]:
    """Names and lengths."""
    yield "output_norm", shape.width
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm", shape.width
        yield f"blk.{layer}.ffn_norm", shape.width
        if shape.head_norms:
            yield f"blk.{layer}.attn_q_norm", shape.head_width
            yield f"blk.{layer}.attn_k_norm", shape.head_width


def write_weights(path: Path, shape: Shape, seed: int = 0) -> None:
    """The model in F16. Rows have the length 1 on average, as those of trained models roughly have."""
    import gguf
    import numpy as np

    from .vocabulary import write_vocabulary

    noise = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), shape.architecture)
    _write_keys(writer, shape)
    write_vocabulary(writer, shape)
    for name, rows, columns in matrices(shape):
        weights = noise.standard_normal((rows, columns), dtype=np.float32)
        weights *= columns**-0.5
        writer.add_tensor(f"{name}.weight", weights.astype(np.float16))
    for name, length in norms(shape):
        scales = 1 + noise.standard_normal(length, dtype=np.float32) / 20
        writer.add_tensor(f"{name}.weight", scales.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_keys(writer: object, shape: Shape) -> None:
    import gguf

    assert isinstance(writer, gguf.GGUFWriter)
    writer.add_name(f"random weights, {shape.name}")
    writer.add_file_type(F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(shape.theta)
    writer.add_vocab_size(shape.vocabulary)


def quantize(source: Path, target: Path, kind: str, threads: int) -> None:
    """Quantize as llama.cpp does. Raises `RuntimeError` when it cannot."""
    from llama_cpp import llama_cpp as llama

    options = llama.llama_model_quantize_default_params()
    options.nthread, options.ftype = threads, KINDS[kind]
    failed = llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(options))
    if failed:
        raise RuntimeError(f"llama.cpp could not quantize {source} to {kind}: code {failed}")


def write_models(folder: Path, shapes: list[Shape], kinds: list[str], threads: int) -> list[Path]:
    """Every shape in every kind, as `FOLDER/SHAPE-KIND.gguf`; a file that exists is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for shape in shapes:
        wanted = {kind: folder / f"{shape.name}-{kind}.gguf" for kind in kinds}
        missing = {kind: path for kind, path in wanted.items() if not path.exists()}
        if missing:
            weights = folder / f"{shape.name}-f16.gguf.part"
            try:
                write_weights(weights, shape)
                for kind, path in missing.items():
                    part = path.with_suffix(".gguf.part")
                    quantize(weights, part, kind, threads)
                    part.rename(path)
            finally:
                weights.unlink(missing_ok=True)
        written += wanted.values()
    return written


def main(arguments: list[str]) -> int:
    names = [shape.name for shape in SHAPES]
    parser = argparse.ArgumentParser(prog="bench engine-models", description="Write model files of random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", action="append", choices=names, help="one of several; all when left out")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="one of several; q4_k_m when left out")
    parser.add_argument("--threads", type=int, default=0, help="0: all processors")
    options = parser.parse_args(arguments)
    shapes = [shape for shape in SHAPES if shape.name in (options.shape or names)]
    for path in write_models(options.folder, shapes, options.kind or ["q4_k_m"], options.threads):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
