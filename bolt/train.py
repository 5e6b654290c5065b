"""The training loop: rows of similar length in one batch, one step of the optimiser for each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from bolt import model, optimiser
from bolt.corpus import Corpus, seeded
from bolt.tokenizer import Sample, sample

LENGTHS = [24, 28, 32, 40, 48, 64, 96, 128, 192, 320]
ROUND = 8000  # conversations drawn at a time, then sorted into batches


@dataclass(frozen=True)
class Plan:
    """What a training run does."""

    steps: int
    tokens: int = 2048
    peak: float = 3.0e-3
    warmup: int = 150
    dropout: float = 0.1
    average: float = 0.998
    cut_answer: int = 4
    seed: int = 7


Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def _rows(samples: list[Sample], length: int) -> Batch:
    tokens = np.zeros((len(samples), length), dtype=np.int32)
    importance = np.zeros((len(samples), length), dtype=np.float32)
    facts = np.full((len(samples), length), -1, dtype=np.int32)
    for row, item in enumerate(samples):
        size = min(len(item.tokens), length)
        tokens[row, :size] = item.tokens[:size]
        importance[row, :size] = item.importance[:size]
        facts[row, :size] = item.facts[:size]
    return tokens, importance, facts


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


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _step(
    shape: model.Shape,
    plan: Plan,
    state: optimiser.State,
    batch: tuple[jax.Array, jax.Array, jax.Array],
    step: jax.Array,
    rate: jax.Array,
    key: jax.Array,
) -> tuple[optimiser.State, model.Progress]:
    def loss(weights: model.Parameters) -> tuple[jax.Array, model.Progress]:
        return model.loss(shape, weights, batch, key, plan.dropout)

    slopes, progress = jax.grad(loss, has_aux=True)(state.weights)
    return optimiser.advance(state, slopes, step, rate, plan.average), progress


def _rate(plan: Plan, step: int) -> float:
    """A short rise, then half a cosine down to 2 % of the peak."""
    done = max(0.0, (step - plan.warmup) / max(1, plan.steps - plan.warmup))
    return plan.peak * min(1.0, step / plan.warmup) * (0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * done))))


def train(shape: model.Shape, corpus: Corpus, tokenizer: Tokenizer, plan: Plan) -> model.Parameters:
    """The running mean of the weights after `plan.steps` steps; prints how far it is.

    `found` is the share of questions, never seen before, whose fact is recognised.
    """
    state = optimiser.begin(model.initialise(shape, plan.seed, len(corpus.facts) + 1))
    key = jax.random.key(plan.seed, impl="rbg")
    began, recent = time.monotonic(), []
    for step, batch in zip(range(1, plan.steps + 1), batches(corpus, tokenizer, plan), strict=False):
        rate, noise = jnp.float32(_rate(plan, step)), jax.random.fold_in(key, step)
        state, progress = _step(shape, plan, state, batch, jnp.float32(step), rate, noise)
        recent.append([float(value) for value in progress])
        if step % 50 == 0:
            words, found = np.mean(recent[-50:], axis=0)
            minutes = (time.monotonic() - began) / 60
            print(f"step {step}/{plan.steps}  words {words:.3f}  found {found:.3f}  {minutes:.1f} min", flush=True)
    return state.mean
