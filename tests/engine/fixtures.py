"""Small decoders with random weights as GGUF files, byte for byte the same everywhere: the models of the parity tests.

Only integers and exactly rounded conversions go into a weight, so that no library's random number stream or float
printing can change a file. A file that changes all the same is noticed by its hash in `goldens/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
BlockType = gguf.GGMLQuantizationType
Setting = bool | int | float | str

BLOCK_TYPES: Final = (
    BlockType.F32,
    BlockType.F16,
    BlockType.BF16,
    BlockType.Q8_0,
    BlockType.Q4_0,
    BlockType.Q4_K,
    BlockType.Q5_K,
    BlockType.Q6_K,
)
KEPT_POSITIONS: Final = 12
K_TYPES: Final = (BlockType.Q3_K, BlockType.Q4_K, BlockType.Q5_K, BlockType.Q6_K)


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of the feed-forward; `shared` is the width of one that all rows go through."""

    count: int = 4
    used: int = 2
    feed_forward: int = 96
    shared: int = 0
    shared_gate: bool = False

    def grown(self) -> Experts:
        return replace(self, feed_forward=256, shared=256 if self.shared else 0)


@dataclass(frozen=True)
class Family:
    """A decoder's shape; `grown` makes its rows long enough for the 256-value blocks of the K types. `keys` are written
    under the architecture's name, beside the ones of every decoder."""

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
    post_norms: bool = False
    fused: bool = False
    rope_divisors: bool = False
    long_rope: bool = False
    rotated_quarters: int = 4
    rope_base: float = 10_000.0
    experts: Experts | None = None
    keys: dict[str, Setting] = field(default_factory=dict)
    positions: int = 24
    types: tuple[BlockType, ...] = BLOCK_TYPES

    @property
    def kept(self) -> slice:
        """The positions whose logits the goldens hold: early ones and late ones, in files that stay small."""
        step = self.positions // KEPT_POSITIONS
        return slice(step - 1, step * KEPT_POSITIONS, step)

    @property
    def pairs(self) -> int:
        """Pairs of a head's elements that rotate."""
        return self.head_width * self.rotated_quarters // 8

    def grown(self) -> Family:
        # Four heads keep head_width * heads a multiple of 256 for both 64 and 128.
        wide = 128 if self.head_width * self.heads != self.width else 64
        kv_heads = 4 if self.kv_heads == self.heads else 2
        experts = self.experts.grown() if self.experts else None
        return replace(self, width=256, heads=4, kv_heads=kv_heads, head_width=wide, feed_forward=512, experts=experts)

    def lengthened(self) -> Family:
        """Over several hundred positions, in a few block types."""
        types = (BlockType.F32, BlockType.Q8_0, BlockType.Q4_K)
        return replace(self, name=f"{self.name}_long", positions=1100, types=types)


YARN: Final[dict[str, Setting]] = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 8,
}
GEMMA3: Final = Family(
    "gemma3",
    "gemma3",
    tied=True,
    head_width=32,
    layers=3,
    head_norms=True,
    post_norms=True,
    rope_base=1_000_000.0,
    keys={
        "attention.sliding_window": 5,
        "attention.sliding_window_pattern": 3,
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 8.0,
    },
)
MIXTRAL: Final = Family("mixtral", "llama", experts=Experts(feed_forward=160))
GRANITE: Final[dict[str, Setting]] = {
    "embedding_scale": 6.0,
    "residual_scale": 0.5,
    "attention.scale": 0.125,
    "logit_scale": 4.0,
}
LONG_ROPE: Final[dict[str, Setting]] = {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": 1.19}

# Windows are shorter than the sequences, contexts before stretching too, and soft caps near the values, so that all matter.
FAMILIES: Final = (
    Family(
        "llama", "llama", head_width=32, rope_divisors=True, rope_base=500_000.0, types=(*BLOCK_TYPES, BlockType.Q5_0)
    ),
    Family(
        "llama_tied",
        "llama",
        tied=True,
        kv_heads=6,
        keys={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        types=(*BLOCK_TYPES, BlockType.Q3_K),
    ),
    Family("llama_yarn", "llama", kv_heads=3, keys=YARN),
    Family("mistral", "llama", rope_base=1_000_000.0),
    Family(
        "mistral3",
        "mistral3",
        head_width=32,
        keys=YARN
        | {
            "rope.scaling.yarn_beta_fast": 2.0,
            "rope.scaling.yarn_beta_slow": 0.5,
            "rope.scaling.yarn_log_multiplier": 0.5,
            "attention.temperature_scale": 0.5,
        },
    ),
    MIXTRAL,
    MIXTRAL.lengthened(),
    Family("qwen2", "qwen2", tied=True, biases=True, rope_base=1_000_000.0),
    Family("qwen2moe", "qwen2moe", biases=True, experts=Experts(shared=64, shared_gate=True)),
    Family("qwen3", "qwen3", head_width=32, head_norms=True, kv_heads=3, rope_base=1_000_000.0),
    Family("qwen3moe", "qwen3moe", head_width=32, head_norms=True, kv_heads=3, experts=Experts(count=8, used=3)),
    Family("gemma", "gemma", tied=True, head_width=32, kv_heads=1),
    Family(
        "gemma2",
        "gemma2",
        tied=True,
        head_width=32,
        layers=4,
        post_norms=True,
        keys={
            "attention.sliding_window": 7,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    GEMMA3,
    replace(GEMMA3, keys=GEMMA3.keys | {"attention.sliding_window": 300}).lengthened(),
    Family(
        "phi3",
        "phi3",
        fused=True,
        long_rope=True,
        keys=LONG_ROPE | {"rope.scaling.original_context_length": 32},
    ),
    Family(
        "phi4",
        "phi3",
        fused=True,
        long_rope=True,
        rotated_quarters=3,
        keys=LONG_ROPE | {"rope.scaling.original_context_length": 512},
    ),
    Family("smollm3", "smollm3", tied=True, layers=4, rope_base=1_000_000.0),
    Family("granite", "granite", tied=True, keys=GRANITE),
    Family("granitemoe", "granitemoe", experts=Experts(feed_forward=160, shared=96), keys=GRANITE),
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
    BlockType.Q5_0: Blocks(0, 16),
    BlockType.Q3_K: Blocks(108, 32 * 4),
    BlockType.Q4_K: Blocks(0, 63 * 7.5, minimum=2, centre=7.5),
    BlockType.Q5_K: Blocks(0, 63 * 15.5, minimum=2, centre=15.5),
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
    """Writes the family's model with its matrices in `kind`; norms, biases and routers are F32."""
    shape = family.grown() if kind in K_TYPES else family
    writer = gguf.GGUFWriter(path, shape.architecture)
    _write_keys(writer, shape)
    _Tensors(writer, shape, kind).write()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokens(family: Family) -> list[int]:
    return [int(bits) % family.vocabulary for bits in Noise(7).bits(family.positions)]


def _write_keys(writer: gguf.GGUFWriter, shape: Family) -> None:
    writer.add_context_length(512 if shape.positions <= 512 else 2048)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(_feed_forward(shape))
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    if shape.head_width * shape.heads != shape.width:
        writer.add_key_length(shape.head_width)
        writer.add_value_length(shape.head_width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(2 * shape.pairs)
    if shape.experts:
        _write_expert_keys(writer, shape.experts)
    for key, value in shape.keys.items():
        _write_key(writer, f"{shape.architecture}.{key}", value)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("none")


def _feed_forward(shape: Family) -> int:
    # Where experts have no width of their own, as in the llama family, they have this one.
    return shape.experts.feed_forward if shape.experts else shape.feed_forward


def _write_expert_keys(writer: gguf.GGUFWriter, experts: Experts) -> None:
    writer.add_expert_count(experts.count)
    writer.add_expert_used_count(experts.used)
    if writer.arch.startswith("qwen"):
        writer.add_expert_feed_forward_length(experts.feed_forward)
    if experts.shared:
        writer.add_expert_shared_feed_forward_length(experts.shared)


def _write_key(writer: gguf.GGUFWriter, key: str, value: Setting) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)


class _Tensors:
    """Adds a model's tensors, in an order that decides which random bits each gets."""

    def __init__(self, writer: gguf.GGUFWriter, shape: Family, kind: BlockType) -> None:
        self._writer = writer
        self._shape = shape
        self._kind = kind
        self._noise = Noise(len(shape.name) + shape.width)

    def write(self) -> None:
        shape = self._shape
        self._matrix("token_embd", shape.vocabulary, shape.width)
        self._vector("output_norm.weight", shape.width, 1)
        if not shape.tied:
            self._matrix("output", shape.vocabulary, shape.width)
        if shape.rope_divisors:
            self._vector("rope_freqs.weight", shape.pairs, 2)
        if shape.long_rope:
            self._vector("rope_factors_long.weight", shape.pairs, 4)
            self._vector("rope_factors_short.weight", shape.pairs, 1)
        for layer in range(shape.layers):
            self._attention(f"blk.{layer}")
            if shape.experts:
                self._experts(f"blk.{layer}", shape.experts)
            else:
                self._feed_forward(f"blk.{layer}")

    def _attention(self, prefix: str) -> None:
        shape = self._shape
        queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        self._vector(f"{prefix}.attn_norm.weight", shape.width, 1)
        if shape.fused:
            self._matrix(f"{prefix}.attn_qkv", queries + 2 * keys, shape.width)
        else:
            self._matrix(f"{prefix}.attn_q", queries, shape.width)
            self._matrix(f"{prefix}.attn_k", keys, shape.width)
            self._matrix(f"{prefix}.attn_v", keys, shape.width)
        self._matrix(f"{prefix}.attn_output", shape.width, queries)
        if shape.biases:
            for part, length in (("q", queries), ("k", keys), ("v", keys)):
                self._vector(f"{prefix}.attn_{part}.bias", length, 0)
        if shape.head_norms:
            self._vector(f"{prefix}.attn_q_norm.weight", shape.head_width, 1)
            self._vector(f"{prefix}.attn_k_norm.weight", shape.head_width, 1)
        if shape.post_norms:
            self._vector(f"{prefix}.post_attention_norm.weight", shape.width, 1)
            self._vector(f"{prefix}.post_ffw_norm.weight", shape.width, 1)
        self._vector(f"{prefix}.ffn_norm.weight", shape.width, 1)

    def _feed_forward(self, prefix: str) -> None:
        shape = self._shape
        if shape.fused:
            self._matrix(f"{prefix}.ffn_up", 2 * shape.feed_forward, shape.width)
        else:
            self._matrix(f"{prefix}.ffn_gate", shape.feed_forward, shape.width)
            self._matrix(f"{prefix}.ffn_up", shape.feed_forward, shape.width)
        self._matrix(f"{prefix}.ffn_down", shape.width, shape.feed_forward)

    def _experts(self, prefix: str, experts: Experts) -> None:
        width, inner = self._shape.width, experts.feed_forward
        # A router this decided chooses the same experts whatever the rounding of the layers before it.
        self._add(f"{prefix}.ffn_gate_inp.weight", self._noise.floats(experts.count, width))
        self._matrix(f"{prefix}.ffn_gate_exps", inner, width, experts.count)
        self._matrix(f"{prefix}.ffn_up_exps", inner, width, experts.count)
        self._matrix(f"{prefix}.ffn_down_exps", width, inner, experts.count)
        if experts.shared:
            self._matrix(f"{prefix}.ffn_gate_shexp", experts.shared, width)
            self._matrix(f"{prefix}.ffn_up_shexp", experts.shared, width)
            self._matrix(f"{prefix}.ffn_down_shexp", width, experts.shared)
        if experts.shared_gate:
            self._vector(f"{prefix}.ffn_gate_inp_shexp.weight", width, 0)

    def _matrix(self, name: str, rows: int, columns: int, count: int = 1) -> None:
        # Rows of about unit length keep activations in range; a power of two keeps the division exact.
        scale = float(2 ** -int(np.log2(columns) / 2 - 0.5))
        if self._kind in BLOCKS:
            values: Floats | Bytes = random_blocks(self._noise, self._kind, count * rows, columns, scale)
        else:
            values = _as_floats(self._noise.floats(count * rows, columns) * np.float32(scale), self._kind)
        shaped = values.reshape(count, rows, -1) if count > 1 else values
        self._add(f"{name}.weight", shaped, None if self._kind is BlockType.F32 else self._kind)

    def _vector(self, name: str, length: int, centre: float) -> None:
        self._add(name, np.float32(centre) + self._noise.floats(length) / np.float32(8))

    def _add(self, name: str, values: Floats | Bytes, kind: BlockType | None = None) -> None:
        self._writer.add_tensor(name, values, raw_dtype=kind)


def _as_floats(values: Floats, kind: BlockType) -> Floats | Bytes:
    """The same numbers in a type of plain floats; as bytes where numpy has no such type."""
    match kind:
        case BlockType.F16:
            return values.astype("<f2").view(np.uint8)
        case BlockType.BF16:
            # Cut off rather than rounded: exact everywhere, and as random.
            return (values.view(np.uint32) >> np.uint32(16)).astype("<u2").view(np.uint8)
        case _:
            return values
