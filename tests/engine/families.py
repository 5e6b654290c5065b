"""The decoders of the parity tests: one family for each way in which architectures differ, small enough to compute in
no time and chosen so that each difference changes the logits. `fixtures` writes them as files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import gguf

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
    seed: int = 0
    """For mixtures: another draw where two experts of one row come out so close that rounding decides between them."""
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
    Family("qwen2moe", "qwen2moe", biases=True, seed=2, experts=Experts(shared=64, shared_gate=True)),
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
