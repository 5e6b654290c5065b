"""The shapes of published models, for files of random weights: an engine's speed depends on nothing else."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A decoder: sizes in elements, `tied` when the output matrix is the embedding."""

    name: str
    architecture: str
    splitting: str
    """The pre-tokenizer that the vocabulary names."""
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    vocabulary: int
    context: int
    theta: float
    tied: bool = False
    head_norms: bool = False


SHAPES = (
    Shape(
        "qwen3-0.6b",
        "qwen3",
        "qwen2",
        width=1024,
        layers=28,
        heads=16,
        kv_heads=8,
        head_width=128,
        feed_forward=3072,
        vocabulary=151_936,
        context=40_960,
        theta=1e6,
        tied=True,
        head_norms=True,
    ),
    Shape(
        "llama-1.1b",
        "llama",
        "llama-bpe",
        width=2048,
        layers=22,
        heads=32,
        kv_heads=4,
        head_width=64,
        feed_forward=5632,
        vocabulary=32_000,
        context=32_768,
        theta=1e4,
    ),
)
