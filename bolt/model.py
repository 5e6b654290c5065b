"""The network: a Llama decoder in JAX, its loss, and nothing about data or files.

Parameters carry the names and row-major shapes of the GGUF file, [outputs, inputs], so that export is a plain copy.
Rotary positions turn neighbouring pairs (2i, 2i+1), which is what a GGUF of architecture `llama` expects; training with
the half-split layout of other code bases would need the rows of q and k permuted on export.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Parameters = dict[str, jax.Array]
FACTS = "facts"


class Progress(NamedTuple):
    """Cross entropy of the words, and the share of positions after a question where its fact is recognised."""

    words: jax.Array
    found: jax.Array


@dataclass(frozen=True)
class Shape:
    """The sizes of the network; every width is a multiple of 32, the block length of Q8_0."""

    vocabulary: int
    width: int = 256
    layers: int = 3
    heads: int = 8
    hidden: int = 640
    rope_base: float = 10000.0
    epsilon: float = 1e-5
    context: int = 2048

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def initialise(shape: Shape, seed: int, facts: int) -> Parameters:
    """Small normal weights, the two projections into the residual stream scaled down by depth."""
    random = np.random.default_rng(seed)

    def normal(rows: int, columns: int, scale: float) -> jax.Array:
        return jnp.asarray(random.normal(0.0, scale, (rows, columns)), dtype=jnp.float32)

    narrow = 0.5 / np.sqrt(shape.width)
    into_residual = narrow / np.sqrt(2 * shape.layers)
    parameters = {
        "token_embd.weight": normal(shape.vocabulary, shape.width, 0.04),
        "output_norm.weight": jnp.ones(shape.width),
        FACTS: normal(facts, shape.width, narrow),
    }
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        parameters[block + "attn_norm.weight"] = jnp.ones(shape.width)
        parameters[block + "ffn_norm.weight"] = jnp.ones(shape.width)
        for name in ("attn_q", "attn_k", "attn_v"):
            parameters[block + name + ".weight"] = normal(shape.width, shape.width, narrow)
        parameters[block + "attn_output.weight"] = normal(shape.width, shape.width, into_residual)
        parameters[block + "ffn_gate.weight"] = normal(shape.hidden, shape.width, narrow)
        parameters[block + "ffn_up.weight"] = normal(shape.hidden, shape.width, narrow)
        parameters[block + "ffn_down.weight"] = normal(shape.width, shape.hidden, into_residual)
    return parameters


def count(parameters: Parameters) -> int:
    """How many weights of the file there are."""
    return sum(int(value.size) for name, value in parameters.items() if name != FACTS)


def _dot(left: jax.Array, right: jax.Array, over: tuple[int, int]) -> jax.Array:
    """Products in bfloat16, sums in float32: twice as fast where the processor has it, the same elsewhere."""
    narrow = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    dimensions = (((over[0],), (over[1],)), ((), ()))
    return jax.lax.dot_general(*narrow, dimensions, preferred_element_type=jnp.float32)


@jax.custom_vjp
def multiply(x: jax.Array, weight: jax.Array) -> jax.Array:
    """x [..., inputs] times weight [outputs, inputs]; the slopes are taken in the same precision."""
    rows = x.reshape(-1, x.shape[-1])
    return _dot(rows, weight, (1, 1)).reshape(*x.shape[:-1], weight.shape[0])


def _multiply_forward(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return multiply(x, weight), (x, weight)


def _multiply_backward(kept: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = kept
    rows = slope.reshape(-1, slope.shape[-1])
    return _dot(rows, weight, (1, 0)).reshape(x.shape), _dot(rows, x.reshape(-1, x.shape[-1]), (0, 0))


multiply.defvjp(_multiply_forward, _multiply_backward)


def norm(values: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    """Root mean square norm over the last axis."""
    return values * jax.lax.rsqrt(jnp.mean(values * values, axis=-1, keepdims=True) + epsilon) * weight


def _angles(shape: Shape, length: int) -> tuple[jax.Array, jax.Array]:
    steps = np.arange(0, shape.head_width, 2) / shape.head_width
    angles = np.outer(np.arange(length), shape.rope_base**-steps)
    return jnp.asarray(np.cos(angles), dtype=jnp.float32), jnp.asarray(np.sin(angles), dtype=jnp.float32)


def _rotate(values: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """values: [batch, position, head, head width]; pairs are neighbours."""
    even, odd = values[..., 0::2], values[..., 1::2]
    cosine, sine = cosine[None, :, None, :], sine[None, :, None, :]
    turned = jnp.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1)
    return turned.reshape(values.shape)


def _drop(values: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    if key is None or rate == 0.0:
        return values
    keep = jax.random.bernoulli(key, 1.0 - rate, values.shape)
    return jnp.where(keep, values / (1.0 - rate), 0.0)


def _attend(shape: Shape, weights: Parameters, block: str, x: jax.Array) -> jax.Array:
    batch, length, _ = x.shape
    split = (batch, length, shape.heads, shape.head_width)
    cosine, sine = _angles(shape, length)
    query = _rotate(multiply(x, weights[block + "attn_q.weight"]).reshape(split), cosine, sine)
    key = _rotate(multiply(x, weights[block + "attn_k.weight"]).reshape(split), cosine, sine)
    value = multiply(x, weights[block + "attn_v.weight"]).reshape(split)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(shape.head_width)
    causal = np.tril(np.ones((length, length), dtype=bool))
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(causal, scores, -1e9), axis=-1), value)
    return multiply(mixed.reshape(batch, length, shape.width), weights[block + "attn_output.weight"])


def feed(weights: Parameters, block: str, x: jax.Array) -> jax.Array:
    """The SwiGLU half of a block, of input that is already normed."""
    gate = jax.nn.silu(multiply(x, weights[block + "ffn_gate.weight"]))
    return multiply(gate * multiply(x, weights[block + "ffn_up.weight"]), weights[block + "ffn_down.weight"])


def hidden(
    shape: Shape, weights: Parameters, tokens: jax.Array, key: jax.Array | None = None, dropout: float = 0.0
) -> jax.Array:
    """What the last block leaves, normed: [batch, position, width] of tokens [batch, position]."""
    keys: list[jax.Array | None] = [None] * (2 * shape.layers + 1)
    if key is not None:
        keys = list(jax.random.split(key, 2 * shape.layers + 1))
    x = _drop(weights["token_embd.weight"][tokens], dropout, keys[-1])
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        normed = norm(x, weights[block + "attn_norm.weight"], shape.epsilon)
        x = x + _drop(_attend(shape, weights, block, normed), dropout, keys[2 * layer])
        normed = norm(x, weights[block + "ffn_norm.weight"], shape.epsilon)
        x = x + _drop(feed(weights, block, normed), dropout, keys[2 * layer + 1])
    return norm(x, weights["output_norm.weight"], shape.epsilon)


def forward(shape: Shape, weights: Parameters, tokens: jax.Array) -> jax.Array:
    """Logits [batch, position, vocabulary]; the output matrix is the embedding."""
    return multiply(hidden(shape, weights, tokens), weights["token_embd.weight"])


def _surprise(logits: jax.Array, chosen: jax.Array) -> jax.Array:
    likely = jnp.take_along_axis(logits, chosen[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - likely


def loss(
    shape: Shape,
    weights: Parameters,
    batch: tuple[jax.Array, jax.Array, jax.Array],
    key: jax.Array,
    dropout: float,
) -> tuple[jax.Array, Progress]:
    """Weighted mean cross entropy of the next token, plus that of the fact which is asked for.

    The batch is (tokens, importance, facts), all [row, position]. `importance` belongs to predicting that token. `facts` is
    the number of the fact where a question has just been read, else -1; the matrix that reads it off (`FACTS`) is
    scaffolding and not exported.
    """
    tokens, importance, facts = batch
    state = hidden(shape, weights, tokens[:, :-1], key, dropout)
    words = _surprise(multiply(state, weights["token_embd.weight"]), tokens[:, 1:])
    words_loss = jnp.sum(words * importance[:, 1:]) / jnp.sum(importance[:, 1:])
    asked = facts[:, :-1]
    guesses = multiply(state, weights[FACTS])
    number = jnp.maximum(1, jnp.sum(asked >= 0))
    facts_loss = jnp.sum(jnp.where(asked >= 0, _surprise(guesses, jnp.maximum(asked, 0)), 0.0)) / number
    found = jnp.sum(jnp.argmax(guesses, axis=-1) == asked) / number
    return words_loss + 0.5 * facts_loss, Progress(words_loss, found)
