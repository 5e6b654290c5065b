"""The training loop: AdamW by hand, a cosine, a running mean of the weights, rows of similar length in one batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from bolt import model
from bolt.corpus import Corpus, seeded
from bolt.tokenizer import Sample, sample

LENGTHS = [48, 64, 96, 128, 192, 320]
ROUND = 6000  # conversations drawn at a time, then sorted into batches


@dataclass(frozen=True)
class Plan:
    """What a training run does; `minutes` ends it early, the cosine then follows the clock instead of the steps."""

    steps: int
    tokens: int = 4096
    peak: float = 2.0e-3
    warmup: int = 100
    decay: float = 0.1
    dropout: float = 0.1
    average: float = 0.998
    cut_answer: int = 20
    seed: int = 7


Batch = tuple[np.ndarray, np.ndarray]


def _rows(samples: list[Sample], length: int) -> Batch:
    tokens = np.zeros((len(samples), length), dtype=np.int32)
    importance = np.zeros((len(samples), length), dtype=np.float32)
    for row, item in enumerate(samples):
        size = min(len(item.tokens), length)
        tokens[row, :size] = item.tokens[:size]
        importance[row, :size] = item.importance[:size]
    return tokens, importance


def batches(corpus: Corpus, tokenizer: Tokenizer, plan: Plan) -> Iterator[Batch]:
    """Batches without end; each holds about `plan.tokens` tokens in rows of one of `LENGTHS`."""
    random = seeded(plan.seed)
    waiting: dict[int, list[Sample]] = {length: [] for length in LENGTHS}
    while True:
        for _ in range(ROUND):
            item = sample(tokenizer, corpus.conversation(random), random, cut_answer=plan.cut_answer)
            length = next((length for length in LENGTHS if len(item.tokens) <= length), LENGTHS[-1])
            waiting[length].append(item)
        ready: list[Batch] = []
        for length, samples in waiting.items():
            size = plan.tokens // length
            while len(samples) >= size:
                ready.append(_rows(samples[:size], length))
                del samples[:size]
        random.shuffle(ready)
        yield from ready


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3, 4, 5))
def _step(
    shape: model.Shape,
    plan: Plan,
    weights: model.Parameters,
    first: model.Parameters,
    second: model.Parameters,
    mean: model.Parameters,
    tokens: jax.Array,
    importance: jax.Array,
    step: jax.Array,
    rate: jax.Array,
    key: jax.Array,
) -> tuple[model.Parameters, model.Parameters, model.Parameters, model.Parameters, jax.Array]:
    loss, slope = jax.value_and_grad(lambda w: model.loss(shape, w, tokens, importance, key, plan.dropout))(weights)
    norm = jnp.sqrt(sum(jnp.sum(value * value) for value in slope.values()))
    scale = jnp.minimum(1.0, 1.0 / (norm + 1e-6))
    first = {name: 0.9 * first[name] + 0.1 * scale * slope[name] for name in weights}
    second = {name: 0.98 * second[name] + 0.02 * (scale * slope[name]) ** 2 for name in weights}
    one, two = 1 - 0.9**step, 1 - 0.98**step

    def moved(name: str) -> jax.Array:
        shrink = plan.decay * weights[name] if weights[name].ndim == 2 else 0.0
        return weights[name] - rate * (first[name] / one / (jnp.sqrt(second[name] / two) + 1e-8) + shrink)

    weights = {name: moved(name) for name in weights}
    kept = jnp.minimum(plan.average, 1 - 1 / step)
    mean = {name: kept * mean[name] + (1 - kept) * weights[name] for name in weights}
    return weights, first, second, mean, loss


def train(shape: model.Shape, corpus: Corpus, tokenizer: Tokenizer, plan: Plan) -> model.Parameters:
    """The running mean of the weights after `plan.steps` steps; prints the loss as it goes."""
    weights = model.initialise(shape, plan.seed)
    first = {name: jnp.zeros_like(value) for name, value in weights.items()}
    second = {name: jnp.zeros_like(value) for name, value in weights.items()}
    mean = {name: jnp.array(value) for name, value in weights.items()}
    key = jax.random.key(plan.seed, impl="rbg")
    began, losses = time.monotonic(), []
    for step, (tokens, importance) in zip(range(1, plan.steps + 1), batches(corpus, tokenizer, plan), strict=False):
        progress = max(0.0, (step - plan.warmup) / max(1, plan.steps - plan.warmup))
        rate = plan.peak * min(1.0, step / plan.warmup) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress)))
        weights, first, second, mean, loss = _step(
            shape, plan, weights, first, second, mean, tokens, importance,
            jnp.float32(step), jnp.float32(rate), jax.random.fold_in(key, step),
        )  # fmt: skip
        losses.append(float(loss))
        if step % 50 == 0:
            spent = time.monotonic() - began
            print(f"step {step}/{plan.steps}  loss {np.mean(losses[-50:]):.3f}  {spent / 60:.1f} min", flush=True)
    return mean
