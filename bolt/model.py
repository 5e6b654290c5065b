"""The network: a Llama decoder in JAX, its loss, and nothing about data or files.

Parameters carry the names and row-major shapes of the GGUF file, [outputs, inputs], so that export is a plain copy.
Rotary positions turn neighbouring pairs (2i, 2i+1), which is what a GGUF of architecture `llama` expects; training with
the half-split layout of other code bases would need the rows of q and k permuted on export.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

Parameters = dict[str, jax.Array]


@dataclass(frozen=True)
class Shape:
    """The sizes of the network; every width is a multiple of 32, the block length of Q8_0."""

    vocabulary: int
    width: int = 256
    layers: int = 4
    heads: int = 8
    hidden: int = 640
    rope_base: float = 10000.0
    epsilon: float = 1e-5
    context: int = 2048

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def initialise(shape: Shape, seed: int) -> Parameters:
    """Small normal weights, the two projections into the residual stream scaled down by depth."""
    random = np.random.default_rng(seed)

    def normal(rows: int, columns: int, scale: float) -> jax.Array:
        return jnp.asarray(random.normal(0.0, scale, (rows, columns)), dtype=jnp.float32)

    narrow = 0.5 / np.sqrt(shape.width)
    into_residual = narrow / np.sqrt(2 * shape.layers)
    parameters = {
        "token_embd.weight": normal(shape.vocabulary, shape.width, 0.04),
        "output_norm.weight": jnp.ones(shape.width),
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
    """How many weights there are."""
    return sum(int(value.size) for value in parameters.values())


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
    query = _rotate((x @ weights[block + "attn_q.weight"].T).reshape(split), cosine, sine)
    key = _rotate((x @ weights[block + "attn_k.weight"].T).reshape(split), cosine, sine)
    value = (x @ weights[block + "attn_v.weight"].T).reshape(split)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(shape.head_width)
    causal = np.tril(np.ones((length, length), dtype=bool))
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(causal, scores, -1e9), axis=-1), value)
    return mixed.reshape(batch, length, shape.width) @ weights[block + "attn_output.weight"].T


def feed(weights: Parameters, block: str, x: jax.Array) -> jax.Array:
    """The SwiGLU half of a block, of input that is already normed."""
    gate = jax.nn.silu(x @ weights[block + "ffn_gate.weight"].T)
    return (gate * (x @ weights[block + "ffn_up.weight"].T)) @ weights[block + "ffn_down.weight"].T


def forward(
    shape: Shape, weights: Parameters, tokens: jax.Array, key: jax.Array | None = None, dropout: float = 0.0
) -> jax.Array:
    """Logits [batch, position, vocabulary] of tokens [batch, position]; the output matrix is the embedding."""
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
    return norm(x, weights["output_norm.weight"], shape.epsilon) @ weights["token_embd.weight"].T


def loss(
    shape: Shape, weights: Parameters, tokens: jax.Array, importance: jax.Array, key: jax.Array, dropout: float
) -> jax.Array:
    """Mean cross entropy of the next token, weighted; `importance[b, t]` belongs to predicting `tokens[b, t]`."""
    logits = forward(shape, weights, tokens[:, :-1], key, dropout)
    chosen = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    surprise = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.sum(surprise * importance[:, 1:]) / jnp.sum(importance[:, 1:])
