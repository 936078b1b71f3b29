"""The sampler: temperature first, then top-k, top-p and min-p, as TRL and transformers do.

mlx-lm's own sampler filters first and tempers then, which keeps other tokens. Every row has its own random key, made
of (seed, step, row) and advanced by position. So a row's samples depend neither on the rows beside it nor on earlier
draws.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn; temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    ignore_stop: bool = False
    """Decode all `max_tokens` even after a stop token; for timing."""

    @property
    def filters(self) -> bool:
        """Return True if any filter keeps tokens from being drawn."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


class Draw(NamedTuple):
    """One token for each row, [B]; log-probabilities and entropies are of the tempered logits before any filter."""

    tokens: mx.array
    logps: mx.array
    """Of the drawn tokens."""
    entropies: mx.array


def filtered(logits: mx.array, sampling: Sampling) -> mx.array:
    """Set the tempered logits [B, V] of all tokens that the filters drop to -inf."""
    if 0 < sampling.top_k < logits.shape[-1]:
        lowest_kept = mx.topk(logits, sampling.top_k, axis=-1).min(axis=-1, keepdims=True)
        logits = mx.where(logits < lowest_kept, -mx.inf, logits)
    if sampling.top_p < 1:
        order = mx.argsort(-logits, axis=-1)
        descending = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
        # A token stays while the mass before it is below top_p, so the most likely one always does.
        kept_ordered = mx.cumsum(descending, axis=-1) - descending < sampling.top_p
        kept = mx.put_along_axis(mx.zeros_like(kept_ordered), order, kept_ordered, axis=-1)
        logits = mx.where(kept, logits, -mx.inf)
    if sampling.min_p > 0:
        probabilities = mx.softmax(logits, axis=-1)
        floor = sampling.min_p * probabilities.max(axis=-1, keepdims=True)
        logits = mx.where(probabilities < floor, -mx.inf, logits)
    return logits


def row_keys(seed: int, step: int, rows: Sequence[int]) -> mx.array:
    """Return one random key for each of these rows of a step, u32 [B, 2]."""
    return mx.stack([mx.random.key(_mix(seed, step, row)) for row in rows])


def draw(logits: mx.array, keys: mx.array, position: int, sampling: Sampling) -> Draw:
    """Sample one token for each row: logits [B, V], keys [B, 2]; log-probabilities as the trainer computes them."""
    tempered = logits.astype(mx.float32) / (sampling.temperature or 1.0)  # [B, V]
    highest = tempered.max(axis=-1, keepdims=True)
    shifted = tempered - highest  # [B, V]
    weights = mx.exp(shifted)  # [B, V]
    total = weights.sum(axis=-1)  # [B]
    log_total = mx.log(total)
    entropies = log_total - (weights * shifted).sum(axis=-1) / total
    if sampling.temperature == 0:
        tokens = mx.argmax(tempered, axis=-1)
    else:
        if sampling.filters:
            weights = mx.exp(filtered(tempered, sampling) - highest)
        tokens = _pick(weights, keys + position)
    return Draw(tokens, mx.take_along_axis(shifted, tokens[:, None], axis=-1)[:, 0] - log_total, entropies)


def _pick(weights: mx.array, keys: mx.array) -> mx.array:
    """Draw a token for each row in proportion to its weights [B, V], by one uniform number for each row."""
    cumulative = mx.cumsum(weights, axis=-1)
    total = cumulative[:, -1:]
    uniform = mx.vmap(lambda key: mx.random.uniform(key=key))(keys)[:, None]  # [B, 1]
    picked = (cumulative <= uniform * total).sum(axis=-1)
    # uniform * total can round up to total; the first token that reaches it is the last with any weight.
    return mx.minimum(picked, (cumulative < total).sum(axis=-1))


def seed_step(seed: int, phase: int, step: int, rank: int) -> None:
    """Seed every global random state from the step, so that a resumed run draws the same numbers.

    MLX's state serves dropout; Python's and numpy's serve a user's reward functions.
    """
    mixed = _mix(seed, phase, step, rank)
    mx.random.seed(mixed)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)


def _mix(*parts: int) -> int:
    """Hash small integers to 64 bits (splitmix64), so that neighbouring seeds and steps share no streams."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state
