"""Rows that decode together: each group attends to the one copy of its prompt, each row to its own completion.

Decoding one token for eight rows after a prompt of 750 tokens otherwise reads eight copies of the prompt's keys
and values, a matrix-vector product each; stacked, a group's queries are one matrix product over one copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from operator import itemgetter
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_grpo.models.attention import Partial, dispatch_on_cache, merge, over_prefix, partial_attention
from mlx_grpo.models.prefix import KeysValues, Prefix, extend, shares_prompt
from mlx_grpo.models.tree import SHARED_TOKENS, common_start

PREFILL_CHUNK = 512
"""Prompt tokens run in one evaluation, so that a long prompt does not keep a GPU from drawing the display."""


class Start(NamedTuple):
    """Tokens that prompts of several batches begin with, and the layers' keys and values for them."""

    token_ids: tuple[int, ...]
    prefix: Prefix | None


NO_START = Start((), None)


def shared_start(model: nn.Module, prompts: Sequence[tuple[int, ...]]) -> Start:
    """Run the tokens that all prompts begin with once, for every batch of such prompts.

    Returns NO_START where the prompts or the model have nothing to share.
    """
    length = common_start(prompts) if shares_prompt(model) else 0
    if not length:
        return NO_START
    token_ids = prompts[0][:length]
    prefix = extend(model, mx.array(token_ids))
    mx.eval(prefix)
    return Start(token_ids, prefix)


def prefill(model: nn.Module, prompts: Sequence[tuple[int, ...]], start: Start = NO_START) -> list[Prefix]:
    """Return the keys and values of each prompt without its last token.

    Tokens that several prompts begin with are run once.
    """
    prefixes: list[Prefix] = [[] for _ in prompts]
    latest = start
    # In sorted order prompts that begin with the same text are neighbours.
    for index in sorted(range(len(prompts)), key=lambda i: prompts[i]):
        ids = prompts[index][:-1]
        runs = ((_common_length(run.token_ids, ids), run.prefix) for run in (latest, start))
        length, known = max(runs, key=itemgetter(0))
        kept = length if length >= SHARED_TOKENS else 0
        prefix = cut(known, kept) if known and kept else None
        for first in range(kept, len(ids), PREFILL_CHUNK):
            own = extend(model, mx.array(ids[first : first + PREFILL_CHUNK]), (prefix,) if prefix else ())
            prefix = joined(prefix, own) if prefix else own
            mx.eval(prefix)
        latest = Start(ids, prefix)
        prefixes[index] = prefix or []
    return prefixes


def _common_length(left: Sequence[int], right: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def cut(prefix: Prefix, length: int) -> Prefix:
    """Return the first tokens of a prefix; keys and values of a token do not depend on later ones."""
    return [KeysValues(known.keys[..., :length, :], known.values[..., :length, :]) for known in prefix]


def joined(prefix: Prefix, own: Prefix) -> Prefix:
    """Return the keys and values of a prefix and of the tokens after it, as one."""
    pairs = zip(prefix, own, strict=True)
    return [KeysValues(*(mx.concatenate(list(both), axis=2) for both in zip(*pair, strict=True))) for pair in pairs]


class Layout:
    """The rows still decoding, and the place of each among the queries of its group.

    `group_of` [N] is ascending; `lengths` are those of the groups' prefixes.
    """

    def __init__(self, group_of: np.ndarray, lengths: np.ndarray):
        self.group_of, self.lengths = group_of, lengths
        self.groups, first, counts = np.unique(group_of, return_index=True, return_counts=True)
        self.width = int(counts.max())  # g
        seats = np.arange(group_of.size) - np.repeat(first, counts)  # [N]
        self.even = bool((counts == self.width).all())
        """True if every group has g rows, so that grouping them is only a change of shape."""
        rank = np.repeat(np.arange(self.groups.size), counts)  # [N]
        rows = np.zeros((self.groups.size, self.width), np.int32)  # empty places repeat row 0 and are never read
        rows[rank, seats] = np.arange(group_of.size)
        self.rows, self.seats = mx.array(rows), mx.array(rank * self.width + seats)
        live = lengths[self.groups]
        self.longest = int(live.max())  # S
        self.visible = None if (live == self.longest).all() else mx.arange(self.longest) < mx.array(live)[:, None]
        self.starts = mx.array(lengths[group_of])  # [N]

    def keep(self, rows: Sequence[int]) -> Layout:
        """Return the layout of some of these rows."""
        return Layout(self.group_of[np.array(rows)], self.lengths)

    def to_groups(self, x: mx.array) -> mx.array:
        """Reshape rows [N, ...] to groups [R, g, ...]."""
        return x.reshape(self.groups.size, self.width, *x.shape[1:]) if self.even else x[self.rows]

    def to_rows(self, x: mx.array) -> mx.array:
        """Reshape groups [R, g, ...] to rows [N, ...]."""
        flat = x.reshape(-1, *x.shape[2:])
        return flat if self.even else flat[self.seats]


class GroupCache:
    """One layer's cache for decoding: the groups' prefixes, padded to one length, and the rows' own tokens."""

    def __init__(self, prefix: KeysValues | None, layout: Layout, max_tokens: int):
        self.prefix = prefix  # [R, K, S, d]
        self.layout = layout
        self.own = KVCache()
        self.own.step = max_tokens  # room for the whole completion at once

    @property
    def offset(self) -> mx.array:
        """Return the position of each row's next token, [N]."""
        return self.layout.starts + self.own.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add a token of each row; return each row's own keys and values so far, [N, K, t, d]."""
        return self.own.update_and_fetch(keys, values)

    def make_mask(self, n: int, **_: object) -> None:
        """Return None, since `attend` masks by itself."""

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """Attend with each row's one query, [N, H, 1, d], over its group's prefix and its own tokens."""
        rows, _, _, size = queries.shape
        grouped = (queries * scale).reshape(rows, keys.shape[1], -1, size)  # [N, K, r, d]
        parts = [partial_attention(grouped, keys, values)]
        if self.prefix is not None:
            visible = self.layout.visible
            visible = None if visible is None else visible[:, None, None]  # [R, 1, 1, S]
            over = over_prefix(self.layout.to_groups(grouped)[..., None, :], *self.prefix, visible)
            parts.append(Partial(*(self.layout.to_rows(x)[..., 0, :] for x in over)))
        return merge(parts).reshape(queries.shape).astype(queries.dtype)

    def keep(self, rows: mx.array, layout: Layout, groups: np.ndarray | None) -> None:
        """Keep some rows, and the `groups` that still have any (None: all groups)."""
        self.layout = layout
        self.own.keys, self.own.values = self.own.keys[rows], self.own.values[rows]
        if groups is not None and self.prefix is not None:
            self.prefix = KeysValues(*(x[mx.array(groups), :, : layout.longest] for x in self.prefix))


def decoding_caches(
    model: nn.Module, prompts: Sequence[tuple[int, ...]], rows_each: int, max_tokens: int, start: Start = NO_START
) -> list:
    """Return a cache for each layer, filled with all prompts without their last tokens.

    `rows_each` rows continue each prompt.
    """
    if not shares_prompt(model):
        return _copied_prompts(model, prompts, rows_each)
    dispatch_on_cache(model)
    prefixes = prefill(model, prompts, start)
    layout = Layout(np.repeat(np.arange(len(prompts)), rows_each), np.array([len(ids) - 1 for ids in prompts]))
    return [GroupCache(stack(prefixes, layer), layout, max_tokens) for layer in range(len(model.layers))]


def keep_rows(caches: list, rows: list[int]) -> None:
    """Remove all rows but these from the caches."""
    if not isinstance(caches[0], GroupCache):
        for cache in caches:
            cache.filter(rows)
        return
    before = caches[0].layout
    after = before.keep(rows)
    groups = np.flatnonzero(np.isin(before.groups, after.groups))
    for cache in caches:
        cache.keep(mx.array(rows), after, groups if groups.size < before.groups.size else None)


def stack(prefixes: Sequence[Prefix], layer: int) -> KeysValues | None:
    """Stack one layer's keys and values of R prefixes to [R, K, S, d], padded on the right.

    Returns None where all prefixes are empty.
    """
    known = [prefix[layer] if prefix else None for prefix in prefixes]
    longest = max((kv.keys.shape[2] for kv in known if kv is not None), default=0)
    if not longest:
        return None
    like = next(kv for kv in known if kv is not None)
    none = KeysValues(like.keys[..., :0, :], like.values[..., :0, :])
    columns = zip(*(kv or none for kv in known), strict=True)
    return KeysValues(
        *(
            mx.concatenate([mx.pad(x, [(0, 0), (0, 0), (0, longest - x.shape[2]), (0, 0)]) for x in column])
            for column in columns
        )
    )


def _copied_prompts(model: nn.Module, prompts: Sequence[tuple[int, ...]], rows_each: int) -> list:
    """Fill mlx-lm's batched caches, each row with a copy of its prompt, for models whose prompts cannot be shared."""
    rows = []
    for ids in prompts:
        caches = make_prompt_cache(model)
        for start in range(0, len(ids) - 1, PREFILL_CHUNK):
            model(mx.array(ids[:-1][start : start + PREFILL_CHUNK])[None], cache=caches)
            mx.eval([cache.state for cache in caches])
        rows += [caches] * rows_each
    return [layer[0].merge(list(layer)) for layer in zip(*rows, strict=True)]
