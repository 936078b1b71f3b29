"""Run a prompt once for its whole group, in training and in generation.

A group's G completions continue the same prompt of P tokens. All rows attend to one copy of its keys and values,
which turns G·(P + T) tokens into P + G·T. The gradient is the same: it flows back into the keys and values and
continues through the prompt's pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_grpo.data.batch import LENGTH_BUCKET
from mlx_grpo.data.types import Batch
from mlx_grpo.models.attention import causal_partial, dispatch_on_cache, merge, over_prefix


class KeysValues(NamedTuple):
    """One layer's keys and values of S tokens, each [1, K, S, d]."""

    keys: mx.array
    values: mx.array


SHARED_TOKENS = 32
"""Fewest common tokens at the prompts' start that are run once for all; fewer are not worth a pass of their own."""

Prefix = list[KeysValues]
"""The keys and values of a sequence of tokens, layer by layer."""


class PrefixCache:
    """One layer's cache for a pass whose rows all continue the same prefix, or start without one.

    mlx-lm uses a cache's `offset`, `update_and_fetch` and `make_mask`; `attend` replaces its attention.
    """

    def __init__(self, prefix: KeysValues | None = None):
        self.prefix = prefix
        self.own: KeysValues | None = None
        self.offset = 0 if prefix is None else prefix.keys.shape[2]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Store the pass's own keys and values [B, K, L, d], and return them."""
        self.own = KeysValues(keys, values)
        return keys, values

    def make_mask(self, n: int, **_: object) -> None:
        """Return no mask: `attend` masks by itself."""

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """Attend with queries [B, H, L, d] over the prefix and, causally, over the pass's own tokens."""
        rows, _, length, size = queries.shape
        grouped = (queries * scale).reshape(rows, keys.shape[1], -1, length, size)  # [B, K, r, L, d]
        parts = [causal_partial(grouped, keys, values)]
        if self.prefix is not None:
            over = over_prefix(grouped[None], *self.prefix)
            parts.append(type(over)(*(x[0] for x in over)))
        return merge(parts).reshape(queries.shape).astype(queries.dtype)

    def extended(self) -> KeysValues:
        """Return the keys and values of the prefix and the pass's own tokens after it; for a pass of one row."""
        assert self.own is not None, "the layer has not run yet"
        if self.prefix is None:
            return self.own
        return KeysValues(*(mx.concatenate(list(pair), axis=2) for pair in zip(self.prefix, self.own, strict=True)))


def shares_prompt(model: nn.Module) -> bool:
    """Return True if every layer uses a plain KV cache and mlx-lm's shared attention function.

    Sliding windows and recurrent states cannot be recorded once and shared; Gemma 2 masks in its own way.
    """
    plain = all(type(cache) is KVCache for cache in make_prompt_cache(model))
    return plain and model.model_type != "gemma2"


def caches_after(model: nn.Module, prefix: Prefix | None) -> list[PrefixCache]:
    """Make a cache for each layer, for a pass of rows that continue `prefix`."""
    dispatch_on_cache(model)
    if prefix is None:
        return [PrefixCache() for _ in model.layers]
    return [PrefixCache(layer) for layer in prefix]


def extend(model: nn.Module, token_ids: mx.array, prefix: Prefix | None = None) -> Prefix:
    """Return the keys and values of `prefix` and the tokens [S] after it; differentiable."""
    caches = caches_after(model, prefix)
    model.model(token_ids[None], caches)
    return [cache.extended() for cache in caches]


def prompt_prefixes(model: nn.Module, batch: Batch) -> list[Prefix | None]:
    """Run each prompt but its last token, which the completions' pass begins with; None for prompts of one token."""
    return [extend(model, ids[:-1]) if ids.size > 1 else None for ids in batch.prompt_ids]


def shared_hidden(model: nn.Module, batch: Batch, prefixes: Sequence[Prefix | None] | None = None) -> mx.array:
    """Compute the hidden states that predict each completion token, [B, T, D], with one pass over each prompt.

    Each group runs as far as its own longest row; after it, where the mask is 0, the states are 0.
    `prefixes` are the batch's `prompt_prefixes` if they are computed already.
    """
    if prefixes is None:
        prefixes = prompt_prefixes(model, batch)
    parts, mask = [], np.array(batch.mask)
    for index, (prompt_ids, prefix) in enumerate(zip(batch.prompt_ids, prefixes, strict=True)):
        start = batch.prompt_index.index(index)
        group = slice(start, start + batch.prompt_index.count(index))
        width = reach(mask[group])
        rows = batch.completion_ids[group, : width - 1]  # [G, t - 1]
        last = mx.broadcast_to(prompt_ids[None, -1:], (rows.shape[0], 1))  # [G, 1]
        hidden = model.model(mx.concatenate([last, rows], axis=1), caches_after(model, prefix))  # [G, t, D]
        parts.append(mx.pad(hidden, [(0, 0), (0, mask.shape[1] - width), (0, 0)]))
    return mx.concatenate(parts, axis=0)


def reach(mask: np.ndarray) -> int:
    """Return the width of a mask [G, T] up to its last one, in whole buckets of tokens, at least one bucket."""
    columns = np.flatnonzero(mask.any(axis=0))
    buckets = 1 + int(columns[-1]) // LENGTH_BUCKET if columns.size else 1
    return min(buckets * LENGTH_BUCKET, mask.shape[1])


def plain_hidden(model: nn.Module, batch: Batch, start: int = 0) -> mx.array:
    """Compute the hidden states [B, T, D] of `shared_hidden` with each row as one right-padded sequence.

    The first `start` tokens, which all prompts must have in common, are run once for all rows.
    """
    width = batch.completion_ids.shape[1]
    lengths = [batch.prompt_ids[i].size for i in batch.prompt_index]
    # Tokens after a row's last unmasked one change nothing: causal attention never looks ahead.
    last = np.array(batch.mask * mx.arange(width)).max(axis=1).astype(int)
    longest = -(-int((lengths + last).max()) // LENGTH_BUCKET) * LENGTH_BUCKET
    rows = []
    for row, index in enumerate(batch.prompt_index):
        ids = mx.concatenate([batch.prompt_ids[index], batch.completion_ids[row, :-1]])[:longest]
        rows.append(mx.pad(ids, (0, longest - ids.size))[start:])
    prefix = extend(model, batch.prompt_ids[0][:start]) if start else None
    hidden = model.model(mx.stack(rows), *([caches_after(model, prefix)] if prefix else []))  # [B, longest - start, D]
    positions = mx.array(lengths)[:, None] - 1 - start + mx.arange(width)[None]  # [B, T]
    positions = mx.minimum(positions, longest - start - 1)
    return mx.take_along_axis(hidden, positions[..., None], axis=1)


def common_start(prompt_ids: Sequence[mx.array]) -> int:
    """Return how many tokens all prompts share at their start, 0 if below `SHARED_TOKENS`; never a whole prompt."""
    shortest = min(ids.size for ids in prompt_ids) - 1
    rows = np.stack([np.array(ids[:shortest]) for ids in prompt_ids])  # [prompts, shortest]
    differs = (rows != rows[0]).any(axis=0)
    shared = int(differs.argmax()) if differs.any() else shortest
    return shared if shared >= SHARED_TOKENS else 0


def random_seed() -> int:
    """Return the seed that sets MLX's random state to its present value; a key is its seed's two halves."""
    high, low = mx.random.state[0].tolist()  # type: ignore[index]  # typed as object
    return high << 32 | low


@contextmanager
def checkpointed_layers(model: nn.Module) -> Iterator[None]:
    """Recompute each layer in the backward pass instead of keeping its activations (arXiv:1604.06174).

    `mx.checkpoint` drops the gradient of arrays that its function closes over. So weights and the prompt's keys
    and values go in as arguments, and recorded ones come out as results.
    """
    layer_type = type(model.layers[0])
    forward = layer_type.__call__

    def recomputed(
        layer: nn.Module, x: mx.array, mask: mx.array | str | None = None, cache: PrefixCache | None = None
    ) -> mx.array:
        first = random_seed()

        def inner(weights: dict, x: mx.array, prefix: tuple[mx.array, ...]) -> tuple[mx.array, ...]:
            layer.update(weights)
            inside = PrefixCache(KeysValues(*prefix) if prefix else None) if cache is not None else None
            later = random_seed()
            mx.random.seed(first)  # dropout repeats its first choice when it is recomputed
            out = forward(layer, x, mask, inside)
            if later != first:
                mx.random.seed(later)
            return out, *(inside.own if inside and inside.own else ())

        prefix = tuple(cache.prefix or ()) if cache is not None else ()
        out, *own = mx.checkpoint(inner)(layer.trainable_parameters(), x, prefix)
        if cache is not None:
            cache.update_and_fetch(*own)
        return out

    layer_type.__call__ = recomputed
    try:
        yield
    finally:
        layer_type.__call__ = forward
