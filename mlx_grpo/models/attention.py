"""Exact attention in parts: over a prefix that many rows share, then over each row's own tokens.

Softmax over several sets of keys is a weighted mean of the softmaxes over each. So the G rows of a group can
attend to one copy of their prompt in one matrix product, and a causal pass can skip the half that its mask
hides ("Hydragen", arXiv:2402.05099; the merge is FlashAttention's, arXiv:2205.14135, algorithm 1).

Shapes: B rows, H query heads, K key heads (H = K·r), L queries, S keys, d head size.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_grpo.backend import exponential
from mlx_grpo.backend.exponential import exp, fused

CAUSAL_BLOCK = 256
"""Queries in one matrix product with the keys up to their own; fewer waste less on the mask, more less on calls."""

MASKED = -1e30
"""A hidden key's score; finite, so that a row that sees no key of one set still merges with the others."""


class Partial(NamedTuple):
    """Attention over some of the keys, before it is normalized; fp32."""

    weighted: mx.array
    """[..., L, d]: values times exp(score - highest)."""
    total: mx.array
    """[..., L, 1]: sum of exp(score - highest)."""
    highest: mx.array
    """[..., L, 1]; a constant to the gradient, since it cancels."""


def partial_attention(queries: mx.array, keys: mx.array, values: mx.array, visible: mx.array | None = None) -> Partial:
    """Attend with scaled queries [..., L, d] over keys and values [..., S, d] of one head; `visible` is [..., L, S]."""
    scores = (queries @ keys.swapaxes(-1, -2)).astype(mx.float32)  # [..., L, S]
    if visible is not None:
        scores = mx.where(visible, scores, MASKED)
    highest = scores.max(axis=-1, keepdims=True)
    exponentials = _exponentials(scores, highest)
    weighted = (exponentials.astype(values.dtype) @ values).astype(mx.float32)
    return Partial(weighted, exponentials.sum(axis=-1, keepdims=True), highest)


@fused
def _exponentials(scores: mx.array, highest: mx.array) -> mx.array:
    return exp(scores - mx.stop_gradient(highest))


def merge(parts: Sequence[Partial]) -> mx.array:
    """Merge parts over disjoint keys into the attention [..., L, d] over all of them."""
    return _merged([tuple(part) for part in parts])


@fused
def _merged(parts: list[tuple[mx.array, ...]]) -> mx.array:
    highests = [mx.stop_gradient(highest) for _, _, highest in parts]
    highest = reduce(mx.maximum, highests)
    factors = [mx.exp(own - highest) for own in highests]
    weighted = reduce(mx.add, [own * factor for (own, _, _), factor in zip(parts, factors, strict=True)])
    total = reduce(mx.add, [own * factor for (_, own, _), factor in zip(parts, factors, strict=True)])
    return weighted / total


def row_attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, visible: mx.array | None = None
) -> mx.array:
    """Attend with queries [B, H, 1, d] over keys and values [B, K, S, d] of each row; `visible` is [B, 1, 1, S].

    MLX's own function is one kernel on a GPU. On a Linux CPU it takes twice as long as this module's parts.
    """
    if not exponential.SLOW_EXP:
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=visible)
    grouped = (queries * scale).reshape(*keys.shape[:2], -1, queries.shape[-1])
    part = partial_attention(grouped, keys, values, visible)
    return (part.weighted / part.total).reshape(queries.shape).astype(queries.dtype)


def causal_partial(queries: mx.array, keys: mx.array, values: mx.array) -> Partial:
    """Attend causally with queries [B, K, r, L, d] over their own keys [B, K, L, d]; return a Partial of that shape."""
    *heads, length, size = queries.shape
    repeats = heads[-1]
    blocks = []
    for start in range(0, length, CAUSAL_BLOCK):
        stop = min(start + CAUSAL_BLOCK, length)
        # The r query heads of a key head are rows of one matrix.
        block = queries[..., start:stop, :].reshape(*heads[:-1], -1, size)  # [B, K, r·block, d]
        visible = mx.tile(mx.arange(start, stop)[:, None] >= mx.arange(stop)[None], (repeats, 1))
        part = partial_attention(block, keys[..., :stop, :], values[..., :stop, :], visible)
        blocks.append(Partial(*(x.reshape(*heads, stop - start, -1) for x in part)))
    if len(blocks) == 1:
        return blocks[0]
    return Partial(*(mx.concatenate(list(pieces), axis=-2) for pieces in zip(*blocks, strict=True)))


def over_prefix(queries: mx.array, keys: mx.array, values: mx.array, visible: mx.array | None = None) -> Partial:
    """Attend with R groups of g rows, [R, g, K, m, d], each group over its one prefix, [R, K, S, d].

    A row has m queries for each key head; all of a group's are one matrix. `visible` is [R, 1, 1, S].
    """
    groups, rows, heads, count, size = queries.shape
    stacked = queries.swapaxes(1, 2).reshape(groups, heads, rows * count, size)
    part = partial_attention(stacked, keys, values, visible)
    return Partial(*(x.reshape(groups, heads, rows, count, -1).swapaxes(1, 2) for x in part))


def dispatch_on_cache(model: nn.Module) -> None:
    """Replace the attention function of a model's mlx-lm module by one that first asks the cache.

    A cache with a method `attend` gets the queries and the keys and values that its `update_and_fetch` returned.
    """
    module: Any = sys.modules[type(model.layers[0].self_attn).__module__]
    library = module.scaled_dot_product_attention
    if getattr(library, "asks_cache", False):
        return

    def attention(queries: mx.array, keys: mx.array, values: mx.array, cache: object, **options: object) -> mx.array:
        if hasattr(cache, "attend"):
            return cache.attend(queries, keys, values, options["scale"])
        return library(queries, keys, values, cache=cache, **options)

    attention.asks_cache = True  # type: ignore[attr-defined]  # marks the function as replaced
    module.scaled_dot_product_attention = attention
