"""Small encoders with random weights as GGUF files, byte for byte the same everywhere, with a vocabulary of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import gguf
import numpy as np

from .families import BlockType
from .fixtures import BLOCKS, Noise, random_blocks
from .sentences import SENTENCES
from .vocabularies import add_word_piece, word_piece, word_piece_agrees

BLOCK_TYPES: Final = (BlockType.F32, BlockType.F16, BlockType.Q8_0, BlockType.Q4_K, BlockType.Q6_K)
CONTEXT: Final = 128
TEXTS: Final = tuple(text for text in SENTENCES if len(text) < 60 and word_piece_agrees(text))


@dataclass(frozen=True)
class Shape:
    """An encoder's shape; `grown` makes its rows long enough for the 256-value blocks of the K types."""

    name: str
    architecture: str
    pooling: gguf.PoolingType
    width: int = 64
    heads: int = 4
    feed_forward: int = 96
    layers: int = 2
    fused: bool = False
    biases: bool = True

    def grown(self) -> Shape:
        return replace(self, width=256, feed_forward=512)


SHAPES: Final = (
    Shape("bert", "bert", gguf.PoolingType.MEAN),
    Shape("bert_cls", "bert", gguf.PoolingType.CLS, fused=True),
    Shape("nomic", "nomic-bert", gguf.PoolingType.MEAN, fused=True, biases=False),
    Shape("nomic_last", "nomic-bert", gguf.PoolingType.LAST, heads=2, biases=False),
)


def write_encoder(path: Path, shape: Shape, kind: BlockType = BlockType.F32) -> Path:
    """Writes the model with its matrices in `kind`; norms, biases and positions are F32."""
    shape = shape.grown() if kind in (BlockType.Q4_K, BlockType.Q6_K) else shape
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(1e-6)
    writer.add_causal_attention(False)
    writer.add_pooling_type(shape.pooling)
    writer.add_rope_freq_base(1000.0)
    add_word_piece(writer)
    _Weights(writer, shape, kind).write()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class _Weights:
    def __init__(self, writer: gguf.GGUFWriter, shape: Shape, kind: BlockType) -> None:
        self._writer, self._shape, self._kind = writer, shape, kind
        self._noise = Noise(len(shape.name) + shape.width)

    def write(self) -> None:
        shape = self._shape
        width, inner = shape.width, shape.feed_forward
        self._matrix("token_embd", len(word_piece()), width)
        self._writer.add_tensor("token_types.weight", self._noise.floats(2, width) / np.float32(8))
        if shape.architecture == "bert":
            self._writer.add_tensor("position_embd.weight", self._noise.floats(CONTEXT, width) / np.float32(8))
        self._norm("token_embd_norm")
        for layer in range(shape.layers):
            if shape.fused:
                self._linear(f"blk.{layer}.attn_qkv", 3 * width, width)
            else:
                for part in "qkv":
                    self._linear(f"blk.{layer}.attn_{part}", width, width)
            self._linear(f"blk.{layer}.attn_output", width, width)
            self._norm(f"blk.{layer}.attn_output_norm")
            self._linear(f"blk.{layer}.ffn_up", inner, width)
            if shape.architecture == "nomic-bert":
                self._linear(f"blk.{layer}.ffn_gate", inner, width)
            self._linear(f"blk.{layer}.ffn_down", width, inner)
            self._norm(f"blk.{layer}.layer_output_norm")

    def _linear(self, name: str, rows: int, columns: int) -> None:
        self._matrix(name, rows, columns)
        if self._shape.biases:
            self._writer.add_tensor(f"{name}.bias", self._noise.floats(rows) / np.float32(8))

    def _matrix(self, name: str, rows: int, columns: int) -> None:
        # Rows longer than one make attention choose, so that a mistake in it shows.
        scale = float(2 ** -int(np.log2(columns) / 2 - 1.5))
        kind = self._kind
        if kind in BLOCKS:
            blocks = random_blocks(self._noise, kind, rows, columns, scale)
            self._writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
        else:
            dtype = np.float16 if kind is BlockType.F16 else np.float32
            self._writer.add_tensor(
                f"{name}.weight", (self._noise.floats(rows, columns) * np.float32(scale)).astype(dtype)
            )

    def _norm(self, name: str) -> None:
        self._writer.add_tensor(f"{name}.weight", np.float32(1) + self._noise.floats(self._shape.width) / np.float32(8))
        self._writer.add_tensor(f"{name}.bias", self._noise.floats(self._shape.width) / np.float32(8))
