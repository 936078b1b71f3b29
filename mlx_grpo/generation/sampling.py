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

from mlx_grpo.backend.exponential import exp


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
    def greedy(self) -> bool:
        """Return True if the most likely token is taken each time."""
        return self.temperature == 0


class Draw(NamedTuple):
    """One token for each row, [B]; log-probabilities and entropies are of the tempered logits before any filter."""

    tokens: mx.array
    logps: mx.array
    """Of the drawn tokens."""
    entropies: mx.array


def filtered(weights: mx.array, sampling: Sampling) -> mx.array:
    """Set the weights [B, V] of all tokens that the filters drop to 0; the highest weight of a row is 1."""
    if 0 < sampling.top_k < weights.shape[-1]:
        lowest_kept = mx.topk(weights, sampling.top_k, axis=-1).min(axis=-1, keepdims=True)
        weights = mx.where(weights < lowest_kept, 0, weights)
    if sampling.top_p < 1:
        order = mx.argsort(-weights, axis=-1)
        descending = mx.take_along_axis(weights, order, axis=-1)
        cumulative = mx.cumsum(descending, axis=-1)
        # A token is kept while the mass before it is below top_p, so the most likely one always is.
        kept_ordered = cumulative - descending < sampling.top_p * cumulative[:, -1:]
        kept = mx.put_along_axis(mx.zeros_like(kept_ordered), order, kept_ordered, axis=-1)
        weights = mx.where(kept, weights, 0)
    return mx.where(weights < sampling.min_p, 0, weights) if sampling.min_p > 0 else weights


def row_keys(seed: int, step: int, rows: Sequence[int]) -> mx.array:
    """Return one random key for each of these rows of a step, u32 [B, 2]."""
    return mx.stack([mx.random.key(_mix(seed, step, row)) for row in rows])


def draw(logits: mx.array, keys: mx.array, position: int | mx.array, sampling: Sampling) -> Draw:
    """Sample one token for each row: logits [B, V], keys [B, 2], one position or [B, 1]; the temperature is above 0.

    Log-probabilities are computed as the trainer computes them; one exponential serves them, entropies and weights.
    """
    tempered = logits.astype(mx.float32)  # [B, V]
    tempered = tempered if sampling.temperature == 1 else tempered / sampling.temperature
    shifted = tempered - tempered.max(axis=-1, keepdims=True)  # [B, V]
    weights = exp(shifted)  # [B, V]
    total = weights.sum(axis=-1)  # [B]
    log_total = mx.log(total)
    entropies = log_total - (weights * shifted).sum(axis=-1) / total
    tokens = _pick(filtered(weights, sampling), keys + position)
    return Draw(tokens, mx.take_along_axis(shifted, tokens[:, None], axis=-1)[:, 0] - log_total, entropies)


def _pick(weights: mx.array, keys: mx.array) -> mx.array:
    """Draw a token for each row in proportion to its weights [B, V], by one uniform number for each row."""
    cumulative = mx.cumsum(weights, axis=-1)
    total = cumulative[:, -1:]
    uniform = mx.vmap(lambda key: mx.random.uniform(key=key))(keys)[:, None]  # [B, 1]
    # uniform * total can round up to total; just below it the token is the last one with any weight.
    threshold = mx.minimum(uniform * total, total * (1 - 2**-24))
    return (cumulative <= threshold).sum(axis=-1)


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
