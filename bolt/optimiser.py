"""One step of learning: Muon for the matrices inside the blocks, AdamW for everything else, and a running mean.

Muon (Jordan, 2024) replaces a matrix's step by the nearest orthogonal one; scaled as in Moonlight (Liu et al., 2025) it
shares the rate of AdamW.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bolt.model import Parameters, multiply

DECAY = 0.05
LARGEST_SLOPE = 1.0


class State(NamedTuple):
    """The weights, their first and second moments, and their running mean, which is what is kept in the end."""

    weights: Parameters
    first: Parameters
    second: Parameters
    mean: Parameters


def begin(weights: Parameters) -> State:
    """A state at rest."""
    return State(
        weights,
        {name: jnp.zeros_like(value) for name, value in weights.items()},
        {name: jnp.zeros_like(value) for name, value in weights.items()},
        {name: jnp.array(value) for name, value in weights.items()},
    )


def _orthogonal(matrix: jax.Array) -> jax.Array:
    """About the nearest matrix whose singular values are all one: five Newton-Schulz steps."""
    x: jax.Array = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(5):
        square = multiply(x, x)
        x = 3.4445 * x + multiply(-4.7750 * square + 2.0315 * multiply(square, square), x.T)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def advance(state: State, slopes: Parameters, step: jax.Array, rate: jax.Array, average: float) -> State:
    """The state after one step (counted from 1) against `slopes`; `average` is the most that the mean keeps of itself."""
    norm = jnp.sqrt(sum(jnp.sum(value * value) for value in slopes.values()))
    scale = jnp.minimum(1.0, LARGEST_SLOPE / (norm + 1e-6))
    slopes = {name: scale * value for name, value in slopes.items()}
    first = {name: 0.95 * state.first[name] + 0.05 * slopes[name] for name in slopes}
    second = {name: 0.98 * state.second[name] + 0.02 * slopes[name] ** 2 for name in slopes}

    def direction(name: str) -> jax.Array:
        weight = state.weights[name]
        if name.startswith("blk.") and weight.ndim == 2:
            ahead = 0.95 * first[name] + 0.05 * slopes[name]
            return _orthogonal(ahead) * (0.2 * max(weight.shape) ** 0.5)
        size: jax.Array = jnp.sqrt(second[name] / (1 - 0.98**step)) + 1e-8
        return first[name] / (1 - 0.95**step) / size

    def moved(name: str) -> jax.Array:
        weight = state.weights[name]
        shrink = DECAY * weight if weight.ndim == 2 else 0.0
        return weight - rate * (direction(name) + shrink)

    weights = {name: moved(name) for name in slopes}
    kept = jnp.minimum(average, 1 - 1 / step)
    mean = {name: kept * state.mean[name] + (1 - kept) * weights[name] for name in slopes}
    return State(weights, first, second, mean)
