"""One pass over a prompt serves its whole group, in training as in generation.

A group's G completions continue the same prompt of P tokens. Running the prompt once, keeping its keys and
values as differentiable arrays and broadcasting them to the rows turns G·(P + T) tokens into P + G·T. The
gradient is the same: what flows back into the keys and values continues through the prompt pass.

mlx-lm's attention asks its cache for two things only, `offset` and `update_and_fetch`, which is all that
`PrefixCache` has to answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_grpo.types import Batch


class PrefixCache:
    """Records one layer's keys and values on the prompt pass; puts them in front of every row afterwards."""

    def __init__(self, keys: mx.array | None = None, values: mx.array | None = None):
        self.keys, self.values = keys, values  # [1, heads, P, d]
        self.offset = 0 if keys is None else keys.shape[2]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The prompt's own keys and values while recording; else the prompt's followed by each row's."""
        if self.keys is None:
            self.keys, self.values, self.offset = keys, values, keys.shape[2]
            return keys, values
        rows = keys.shape[0]
        return tuple(
            mx.concatenate([mx.broadcast_to(prefix, (rows, *prefix.shape[1:])), own], axis=2)
            for prefix, own in ((self.keys, keys), (self.values, values))
        )

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> str | None:
        """Causal attention aligned to the last key, as mlx-lm's own caches ask of the attention kernel."""
        return None if n == 1 and self.keys is not None else "causal"


def shares_prompt(model: nn.Module) -> bool:
    """True for models whose every layer uses a plain KV cache and whose attention is mlx-lm's shared one.

    Sliding windows and recurrent states cannot be recorded once and broadcast; Gemma 2 masks in its own way.
    """
    plain = all(type(cache) is KVCache for cache in make_prompt_cache(model))
    return plain and model.model_type != "gemma2"


def prefill(model: nn.Module, prompt_ids: mx.array) -> list[KVCache]:
    """Run all of a prompt [P] but its last token, and return the caches that decoding continues from."""
    caches = make_prompt_cache(model)
    if prompt_ids.size > 1:
        model(prompt_ids[None, :-1], cache=caches)
        mx.eval([cache.state for cache in caches])
    return caches


def shared_hidden(model: nn.Module, batch: Batch) -> mx.array:
    """Hidden states that predict each completion token, [B, T, D], with one pass over each prompt."""
    parts = []
    for index, prompt_ids in enumerate(batch.prompt_ids):
        start = batch.prompt_index.index(index)
        rows = batch.completion_ids[start : start + batch.prompt_index.count(index)]  # [G, T]
        last = mx.broadcast_to(prompt_ids[None, -1:], (rows.shape[0], 1))  # [G, 1]
        inputs = mx.concatenate([last, rows[:, :-1]], axis=1)  # [G, T]
        if prompt_ids.size == 1:  # nothing to share
            parts.append(model.model(inputs))
            continue
        caches = [PrefixCache() for _ in model.layers]
        model.model(prompt_ids[None, :-1], caches)
        parts.append(model.model(inputs, caches))
    return mx.concatenate(parts, axis=0)


def plain_hidden(model: nn.Module, batch: Batch) -> mx.array:
    """The same hidden states [B, T, D], running each row's prompt and completion as one right-padded sequence."""
    width = batch.completion_ids.shape[1]
    lengths = [batch.prompt_ids[i].size for i in batch.prompt_index]
    longest = max(lengths)
    rows = []
    for row, index in enumerate(batch.prompt_index):
        padding = mx.zeros((longest - lengths[row],), mx.int32)
        # Causal attention never looks right, so padding behind a row needs no mask.
        rows.append(mx.concatenate([batch.prompt_ids[index], batch.completion_ids[row, :-1], padding]))
    hidden = model.model(mx.stack(rows))  # [B, longest + T - 1, D]
    positions = mx.array(lengths)[:, None] - 1 + mx.arange(width)[None]  # [B, T]
    return mx.take_along_axis(hidden, positions[..., None], axis=1)


@contextmanager
def checkpointed_layers(model: nn.Module) -> Iterator[None]:
    """Recompute each layer in the backward pass instead of keeping its activations (arXiv:1604.06174).

    `mx.checkpoint` drops the gradient of arrays that its function closes over, so weights and the prompt's keys
    and values go in as arguments, and recorded ones come out as results.
    """
    layer_type = type(model.layers[0])
    forward = layer_type.__call__

    def recomputed(layer: nn.Module, x: mx.array, mask=None, cache: PrefixCache | None = None) -> mx.array:
        recording = cache is not None and cache.keys is None

        def inner(weights: dict, x: mx.array, prefix: list[mx.array]):
            layer.update(weights)
            inside = PrefixCache(*prefix) if cache is not None else None
            out = forward(layer, x, mask, inside)
            return (out, inside.keys, inside.values) if recording else (out,)

        prefix = [cache.keys, cache.values] if cache is not None and not recording else []
        out, *recorded = mx.checkpoint(inner)(layer.trainable_parameters(), x, prefix)
        if recording:
            cache.update_and_fetch(*recorded)
        return out

    layer_type.__call__ = recomputed
    try:
        yield
    finally:
        layer_type.__call__ = forward
