"""Greedy answers to many prompts at once, in JAX, with a cache of keys and values.

All rows stand at the same position: while a row's prompt lasts its own tokens are fed, then the ones it chose.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bolt import model


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _step(
    shape: model.Shape, weights: model.Parameters, cache: jax.Array, tokens: jax.Array, position: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """cache: [layer, 2, row, position, head, head width]; returns the cache and the likeliest next tokens."""
    rows, length = tokens.shape[0], cache.shape[3]
    split = (rows, shape.heads, shape.head_width)
    steps = np.arange(0, shape.head_width, 2) / shape.head_width
    angle = position * jnp.asarray(shape.rope_base**-steps, dtype=jnp.float32)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)

    def turn(values: jax.Array) -> jax.Array:
        even, odd = values[..., 0::2], values[..., 1::2]
        return jnp.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1).reshape(values.shape)

    x = weights["token_embd.weight"][tokens]
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        normed = model.norm(x, weights[block + "attn_norm.weight"], shape.epsilon)
        query = turn((normed @ weights[block + "attn_q.weight"].T).reshape(split))
        key = turn((normed @ weights[block + "attn_k.weight"].T).reshape(split))
        value = (normed @ weights[block + "attn_v.weight"].T).reshape(split)
        cache = cache.at[layer, 0, :, position].set(key).at[layer, 1, :, position].set(value)
        scores = jnp.einsum("rhd,rthd->rht", query, cache[layer, 0]) / np.sqrt(shape.head_width)
        scores = jnp.where(jnp.arange(length) <= position, scores, -1e9)
        mixed = jnp.einsum("rht,rthd->rhd", jax.nn.softmax(scores, axis=-1), cache[layer, 1])
        x = x + mixed.reshape(rows, shape.width) @ weights[block + "attn_output.weight"].T
        x = x + model.feed(weights, block, model.norm(x, weights[block + "ffn_norm.weight"], shape.epsilon))
    logits = model.norm(x, weights["output_norm.weight"], shape.epsilon) @ weights["token_embd.weight"].T
    return cache, jnp.argmax(logits, axis=-1)


def greedy(
    shape: model.Shape, weights: model.Parameters, prompts: list[list[int]], *, end: int, limit: int
) -> list[list[int]]:
    """For each prompt the tokens up to `end` (left out), at most `limit`."""
    length = max(map(len, prompts)) + limit
    cache = jnp.zeros((shape.layers, 2, len(prompts), length, shape.heads, shape.head_width))
    answers: list[list[int]] = [[] for _ in prompts]
    finished = [False] * len(prompts)
    tokens = np.array([prompt[0] for prompt in prompts])
    for position in range(length):
        cache, chosen = _step(shape, weights, cache, jnp.asarray(tokens), jnp.int32(position))
        following = np.asarray(chosen)
        for row, prompt in enumerate(prompts):
            if position + 1 < len(prompt):
                tokens[row] = prompt[position + 1]
                continue
            tokens[row] = following[row]
            if following[row] == end or len(answers[row]) == limit:
                finished[row] = True
            elif not finished[row]:
                answers[row].append(int(following[row]))
        if all(finished):
            break
    return answers
