"""Small decoders with random weights as GGUF files, byte for byte the same everywhere: the models of the parity tests.

Only integers and exactly rounded conversions go into a weight, so that no library's random number stream or float
printing can change a file. A file that changes all the same is noticed by its hash in `goldens/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
BlockType = gguf.GGMLQuantizationType

POSITIONS: Final = 20
BLOCK_TYPES: Final = (
    BlockType.F32,
    BlockType.F16,
    BlockType.Q8_0,
    BlockType.Q4_0,
    BlockType.Q4_K,
    BlockType.Q6_K,
)


@dataclass(frozen=True)
class Family:
    """A decoder's shape; `grown` makes its rows long enough for the 256-value blocks of the K types."""

    name: str
    architecture: str
    width: int = 96
    heads: int = 6
    kv_heads: int = 2
    head_width: int = 16
    feed_forward: int = 160
    vocabulary: int = 97
    layers: int = 2
    tied: bool = False
    biases: bool = False
    head_norms: bool = False
    rope_divisors: bool = False
    rope_base: float = 10_000.0
    rope_factor: float | None = None

    def grown(self) -> Family:
        # Four heads keep head_width * heads a multiple of 256 for both 64 and 128.
        wide = 128 if self.head_width * self.heads != self.width else 64
        kv_heads = 4 if self.kv_heads == self.heads else 2
        return replace(self, width=256, heads=4, kv_heads=kv_heads, head_width=wide, feed_forward=512)


FAMILIES: Final = (
    Family("llama", "llama", head_width=32, rope_divisors=True, rope_base=500_000.0),
    Family("llama_tied", "llama", tied=True, kv_heads=6, rope_factor=4.0),
    Family("mistral", "llama", rope_base=1_000_000.0),
    Family("qwen2", "qwen2", tied=True, biases=True, rope_base=1_000_000.0),
    Family("qwen3", "qwen3", head_width=32, head_norms=True, kv_heads=3, rope_base=1_000_000.0),
)


class Noise:
    """SplitMix64: the same bits on every platform and with every version of numpy."""

    def __init__(self, seed: int) -> None:
        self._state = np.uint64(seed)

    def bits(self, count: int) -> npt.NDArray[np.uint64]:
        step = np.uint64(0x9E3779B97F4A7C15)
        with np.errstate(over="ignore"):
            mixed = self._state + step * np.arange(1, count + 1, dtype=np.uint64)
            self._state = mixed[-1]
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))

    def floats(self, *shape: int) -> Floats:
        """Uniform in -1..1, multiples of 2^-23."""
        whole = (self.bits(int(np.prod(shape))) >> np.uint64(40)).astype(np.int64) - (1 << 23)
        return (whole.astype(np.float32) / np.float32(1 << 23)).reshape(shape)

    def bytes(self, count: int) -> Bytes:
        return (self.bits(count) >> np.uint64(56)).astype(np.uint8)


@dataclass(frozen=True)
class Blocks:
    """Where a block type keeps its half-precision scale, and the largest quant that it multiplies; where it keeps the
    scale of its minima, and how much larger that one must be for values to centre on zero."""

    scale: int
    largest: float
    minimum: int | None = None
    centre: float = 0


BLOCKS: Final = {
    BlockType.Q8_0: Blocks(0, 127),
    BlockType.Q4_0: Blocks(0, 8),
    BlockType.Q4_K: Blocks(0, 63 * 7.5, minimum=2, centre=7.5),
    BlockType.Q6_K: Blocks(208, 128 * 32),
}


def random_blocks(noise: Noise, kind: BlockType, rows: int, columns: int, scale: float) -> Bytes:
    """Valid blocks of random values within about `scale`: random bits under half-precision scales that fit it."""
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = noise.bytes(rows * columns // per_block * size).reshape(-1, size)
    layout = BLOCKS[kind]
    scales = (noise.floats(len(blocks)) * np.float32(0.25) + np.float32(0.75)) * np.float32(scale / layout.largest)
    _put_halves(blocks, layout.scale, scales)
    if layout.minimum is not None:
        _put_halves(blocks, layout.minimum, scales * np.float32(layout.centre))
    return blocks.reshape(rows, -1)


def _put_halves(blocks: Bytes, offset: int, values: Floats) -> None:
    blocks[:, offset : offset + 2] = values.astype("<f2").view(np.uint8).reshape(-1, 2)


def write_model(path: Path, family: Family, kind: BlockType) -> None:
    """Writes the family's model with its matrices in `kind`; norms and biases are F32."""
    shape = family.grown() if kind in (BlockType.Q4_K, BlockType.Q6_K) else family
    writer = gguf.GGUFWriter(path, shape.architecture)
    _write_keys(writer, shape)
    _write_tensors(writer, shape, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokens(family: Family) -> list[int]:
    return [int(bits) % family.vocabulary for bits in Noise(7).bits(POSITIONS)]


def _write_keys(writer: gguf.GGUFWriter, shape: Family) -> None:
    writer.add_context_length(512)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    if shape.head_width * shape.heads != shape.width:
        writer.add_key_length(shape.head_width)
        writer.add_value_length(shape.head_width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(shape.rope_base)
    if shape.rope_factor is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_factor)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("none")


def _write_tensors(writer: gguf.GGUFWriter, shape: Family, kind: BlockType) -> None:
    noise = Noise(len(shape.name) + shape.width)

    def matrix(name: str, rows: int, columns: int) -> None:
        # Rows of about unit length keep activations in range; a power of two keeps the division exact.
        scale = float(2 ** -int(np.log2(columns) / 2 - 0.5))
        if kind in BLOCKS:
            writer.add_tensor(f"{name}.weight", random_blocks(noise, kind, rows, columns, scale), raw_dtype=kind)
        else:
            dtype = np.float16 if kind is BlockType.F16 else np.float32
            writer.add_tensor(f"{name}.weight", (noise.floats(rows, columns) * np.float32(scale)).astype(dtype))

    def vector(name: str, length: int, centre: float) -> None:
        writer.add_tensor(name, np.float32(centre) + noise.floats(length) / np.float32(8))

    matrix("token_embd", shape.vocabulary, shape.width)
    vector("output_norm.weight", shape.width, 1)
    if not shape.tied:
        matrix("output", shape.vocabulary, shape.width)
    if shape.rope_divisors:
        vector("rope_freqs.weight", shape.head_width // 2, 2)
    for layer in range(shape.layers):
        _write_layer(f"blk.{layer}", shape, matrix, vector)


def _write_layer(
    prefix: str, shape: Family, matrix: Callable[[str, int, int], None], vector: Callable[[str, int, float], None]
) -> None:
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    vector(f"{prefix}.attn_norm.weight", shape.width, 1)
    matrix(f"{prefix}.attn_q", queries, shape.width)
    matrix(f"{prefix}.attn_k", keys, shape.width)
    matrix(f"{prefix}.attn_v", keys, shape.width)
    matrix(f"{prefix}.attn_output", shape.width, queries)
    if shape.biases:
        for part, length in (("q", queries), ("k", keys), ("v", keys)):
            vector(f"{prefix}.attn_{part}.bias", length, 0)
    if shape.head_norms:
        vector(f"{prefix}.attn_q_norm.weight", shape.head_width, 1)
        vector(f"{prefix}.attn_k_norm.weight", shape.head_width, 1)
    vector(f"{prefix}.ffn_norm.weight", shape.width, 1)
    matrix(f"{prefix}.ffn_gate", shape.feed_forward, shape.width)
    matrix(f"{prefix}.ffn_up", shape.feed_forward, shape.width)
    matrix(f"{prefix}.ffn_down", shape.width, shape.feed_forward)
