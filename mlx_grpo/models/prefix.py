"""Run what many rows begin with once, and let all rows attend to its one copy, in training and in generation.

A group's G completions continue the same prompt of P tokens: one copy of its keys and values turns G·(P + T) tokens
into P + G·T. Prompts that begin alike share that beginning in the same way, so what a row continues is a chain of
nodes (see `mlx_grpo.models.tree`). The gradient is the same: it flows back into the keys and values of each node and
continues through the node's own pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_grpo.models.attention import Partial, causal_partial, dispatch_on_cache, merge, over_prefix


class KeysValues(NamedTuple):
    """One layer's keys and values of S tokens, each [1, K, S, d]."""

    keys: mx.array
    values: mx.array


Prefix = list[KeysValues]
"""The keys and values of a node's tokens, layer by layer."""

Chain = tuple[Prefix, ...]
"""The nodes that a row continues, from the root on; empty for a row that begins at its first token."""


class PrefixCache:
    """One layer's cache for a pass whose rows all continue the same chain of nodes, or start without one.

    mlx-lm uses a cache's `offset`, `update_and_fetch` and `make_mask`; `attend` replaces its attention.
    """

    def __init__(self, nodes: Sequence[KeysValues] = ()):
        self.nodes = tuple(nodes)
        self.own: KeysValues | None = None
        self.offset = sum(node.keys.shape[2] for node in self.nodes)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Store the pass's own keys and values [B, K, L, d], and return them."""
        self.own = KeysValues(keys, values)
        return keys, values

    def make_mask(self, n: int, **_: object) -> None:
        """Return no mask: `attend` masks by itself."""

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """Attend with queries [B, H, L, d] over each node and, causally, over the pass's own tokens."""
        rows, _, length, size = queries.shape
        grouped = (queries * scale).reshape(rows, keys.shape[1], -1, length, size)  # [B, K, r, L, d]
        parts = [causal_partial(grouped, keys, values)]
        stacked = grouped.reshape(1, rows, keys.shape[1], -1, size)
        for node in self.nodes:
            over = over_prefix(stacked, *node)
            parts.append(Partial(*(x.reshape(*grouped.shape[:-1], -1) for x in over)))
        return merge(parts).reshape(queries.shape).astype(queries.dtype)


def shares_prompt(model: nn.Module) -> bool:
    """Return True if every layer uses a plain KV cache and mlx-lm's shared attention function.

    Sliding windows and recurrent states cannot be recorded once and shared; Gemma 2 masks in its own way.
    """
    plain = all(type(cache) is KVCache for cache in make_prompt_cache(model))
    return plain and model.model_type != "gemma2"


def prompt_path(model: nn.Module) -> str:
    """Return how a model runs a prompt that several completions continue, in words."""
    if shares_prompt(model):
        return "each prompt runs once for all its completions"
    reason = "caps its attention scores" if model.model_type == "gemma2" else "keeps no plain key-value cache"
    return f"{model.model_type} {reason}: each completion runs its own prompt"


def caches_after(model: nn.Module, chain: Chain) -> list[PrefixCache]:
    """Make a cache for each layer, for a pass of rows that continue `chain`."""
    dispatch_on_cache(model)
    return [PrefixCache([node[layer] for node in chain]) for layer in range(len(model.layers))]


def extend(model: nn.Module, token_ids: mx.array, chain: Chain = ()) -> Prefix:
    """Return the keys and values of the tokens [S] that continue `chain`; differentiable."""
    caches = caches_after(model, chain)
    model.model(token_ids[None], caches)
    return [own_keys_values(cache) for cache in caches]


def own_keys_values(cache: PrefixCache) -> KeysValues:
    """Return what a layer's pass stored."""
    assert cache.own is not None, "the layer has not run yet"
    return cache.own


def chain_length(chain: Chain) -> int:
    """Return the number of tokens in a chain."""
    return sum(node[0].keys.shape[2] for node in chain)


def random_seed() -> int:
    """Return the seed that sets MLX's random state to its present value; a key is its seed's two halves."""
    high, low = mx.random.state[0].tolist()  # type: ignore[index]  # typed as object
    return high << 32 | low


@contextmanager
def checkpointed_layers(model: nn.Module) -> Iterator[None]:
    """Recompute each layer in the backward pass instead of keeping its activations (arXiv:1604.06174).

    `mx.checkpoint` drops the gradient of arrays that its function closes over. So weights and the chain's keys
    and values go in as arguments, and recorded ones come out as results.
    """
    layer_type = type(model.layers[0])
    forward = layer_type.__call__

    def recomputed(
        layer: nn.Module, x: mx.array, mask: mx.array | str | None = None, cache: PrefixCache | None = None
    ) -> mx.array:
        first = random_seed()

        def inner(weights: dict, x: mx.array, nodes: list[tuple[mx.array, ...]]) -> tuple[mx.array, ...]:
            layer.update(weights)
            inside = PrefixCache([KeysValues(*node) for node in nodes]) if cache is not None else None
            later = random_seed()
            mx.random.seed(first)  # dropout repeats its first choice when it is recomputed
            out = forward(layer, x, mask, inside)
            if later != first:
                mx.random.seed(later)
            return out, *(inside.own if inside and inside.own else ())

        nodes = [tuple(node) for node in cache.nodes] if cache is not None else []
        out, *own = mx.checkpoint(inner)(layer.trainable_parameters(), x, nodes)
        if cache is not None:
            cache.update_and_fetch(*own)
        return out

    layer_type.__call__ = recomputed
    try:
        yield
    finally:
        layer_type.__call__ = forward
