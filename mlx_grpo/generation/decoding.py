"""Rows that decode together: each attends to the one copy of every node above it, and to its own tokens.

Decoding one token for eight rows after a prompt of 750 tokens otherwise reads eight copies of the prompt's keys
and values, a matrix-vector product each; stacked, the queries of all rows below a node are one matrix product over
one copy. The first level holds the nodes that begin the prompts, such as a job, the next one what continues them.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_grpo.generation.nodes import PREFILL_CHUNK, Node, Nodes, prefill
from mlx_grpo.models.attention import MASKED, Partial, dispatch_on_cache, merge, over_prefix, partial_attention
from mlx_grpo.models.prefix import KeysValues, Prefix, shares_prompt
from mlx_grpo.models.tree import TokenIds

OWN_STEP = 256
"""Most positions by which the room for the rows' own tokens grows."""


class Level:
    """The nodes of one depth, and the place of each row among the queries of its node.

    R nodes, N rows; g rows at most continue one node.
    """

    def __init__(self, chains: Sequence[Nodes], depth: int):
        self.nodes = list(dict.fromkeys(chain[depth] for chain in chains if len(chain) > depth))
        numbers = {node: number for number, node in enumerate(self.nodes)}
        node_of = np.array([numbers[chain[depth]] if len(chain) > depth else -1 for chain in chains])  # [N]
        present = node_of >= 0
        order = np.argsort(node_of, kind="stable")[(~present).sum() :]  # the rows that have a node, node by node
        counts = np.bincount(node_of[order], minlength=len(self.nodes))  # [R]
        self.width = int(counts.max())  # g
        seats = np.arange(order.size) - np.repeat(counts.cumsum() - counts, counts)
        self.even = bool((counts == self.width).all() and np.array_equal(order, np.arange(len(chains))))
        """True if every node has g rows in order, so that grouping them is only a change of shape."""
        rows = np.zeros((len(self.nodes), self.width), np.int32)  # empty places repeat row 0 and are never read
        rows[node_of[order], seats] = order
        places = np.zeros(len(chains), np.int32)
        places[order] = node_of[order] * self.width + seats
        self.rows, self.places = mx.array(rows), mx.array(places)
        self.present = None if present.all() else mx.array(present)[:, None, None, None]
        lengths = np.array([node.length for node in self.nodes])
        self.longest = int(lengths.max())  # S
        same = (lengths == self.longest).all()
        self.visible = None if same else (mx.arange(self.longest) < mx.array(lengths)[:, None])[:, None, None]

    def to_nodes(self, x: mx.array) -> mx.array:
        """Reshape rows [N, ...] to nodes [R, g, ...]."""
        return x.reshape(len(self.nodes), self.width, *x.shape[1:]) if self.even else x[self.rows]

    def to_rows(self, part: Partial) -> Partial:
        """Reshape a Partial of nodes [R, g, ..., d] to one of rows [N, ..., d], empty for rows without a node."""
        flat = (x.reshape(-1, *x.shape[2:]) for x in part)
        weighted, total, highest = flat if self.even else (x[self.places] for x in flat)
        return Partial(weighted, total, highest if self.present is None else mx.where(self.present, highest, MASKED))


class Layout:
    """The rows of all layers' caches.

    `begins` [N] are the positions in the caches at which the rows' own tokens begin, the lowest of them 0.
    """

    def __init__(self, chains: Sequence[Nodes], begins: np.ndarray):
        self.chains, self.begins = list(chains), begins
        self.levels = [Level(chains, depth) for depth in range(max(map(len, chains)))]
        lengths = [len(chain[-1].token_ids) if chain else 0 for chain in chains]
        self._starts = mx.array((np.array(lengths) - begins).astype(np.int32))  # [N]
        self._together = not begins.any()
        self._positions: tuple[int, mx.array] = (0, self._starts)
        self._seen: tuple[int, mx.array | None] = (0, None)

    def positions(self, written: int) -> mx.array:
        """Return the position of each row's next token, [N], after `written` positions of the caches."""
        if self._positions[0] != written:  # all layers ask for the same
            self._positions = written, self._starts + written
        return self._positions[1]

    def visible(self, written: int) -> mx.array | None:
        """Return which of the caches' `written` positions each row sees, [N, 1, 1, written]; None if it sees all."""
        if self._together:
            return None
        if self._seen[0] != written:
            self._seen = written, (mx.arange(written) >= mx.array(self.begins)[:, None])[:, None, None]
        return self._seen[1]


class NodeCache:
    """One layer's cache for decoding: each level's nodes, padded to one length, and the rows' own tokens."""

    def __init__(self, room: int):
        self.layout: Layout | None = None
        self.stacks: list[KeysValues] = []
        """For each level [R, K, S, d]."""
        self.own = KVCache()
        self.own.step = room

    @property
    def offset(self) -> mx.array:
        """Return the position of each row's next token, [N]."""
        return self._layout.positions(self.own.offset)

    @property
    def _layout(self) -> Layout:
        assert self.layout is not None, "there are no rows yet"
        return self.layout

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add a token of each row; return each row's own keys and values so far, [N, K, t, d]."""
        return self.own.update_and_fetch(keys, values)

    def make_mask(self, n: int, **_: object) -> None:
        """Return None, since `attend` masks by itself."""

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
        """Attend with each row's one query, [N, H, 1, d], over its nodes and its own tokens."""
        rows, _, _, size = queries.shape
        grouped = (queries * scale).reshape(rows, keys.shape[1], -1, size)  # [N, K, r, d]
        parts = [partial_attention(grouped, keys, values, self._layout.visible(keys.shape[2]))]
        for level, stack in zip(self._layout.levels, self.stacks, strict=True):
            over = over_prefix(level.to_nodes(grouped), *stack, level.visible)
            parts.append(level.to_rows(over))
        return merge(parts).reshape(queries.shape).astype(queries.dtype)

    def arrange(self, layout: Layout, layer: int, rows: mx.array | None, dropped: int) -> None:
        """Take another layout, whose first rows are `rows` of the present one (None: all of them).

        The first `dropped` positions of the rows' own tokens are forgotten.
        """
        old = self.layout.levels if self.layout else []
        self.stacks = [
            _stacked(level, layer, *((old[d].nodes, self.stacks[d]) if d < len(old) else ([], None)))
            for d, level in enumerate(layout.levels)
        ]
        self.layout = layout
        if self.own.keys is not None:
            self.own.keys, self.own.values = (
                _with_rows(x if rows is None else x[rows], len(layout.chains))[:, :, dropped:]
                for x in (self.own.keys, self.own.values)
            )
            self.own.offset -= dropped

    def prefix(self, depth: int, node: Node) -> KeysValues:
        """Return a node's keys and values [1, K, S, d]."""
        place = self._layout.levels[depth].nodes.index(node)
        return KeysValues(*(x[place : place + 1, :, : node.length] for x in self.stacks[depth]))


class SharedRows:
    """The caches of rows that decode together; each node's keys and values are stored once."""

    def __init__(self, model: nn.Module, max_tokens: int, start: Nodes = ()):
        dispatch_on_cache(model)
        self.model, self.start = model, start
        self.caches = [NodeCache(min(max_tokens, OWN_STEP)) for _ in model.layers]
        self.layout: Layout | None = None

    def add(self, prompts: Sequence[TokenIds]) -> None:
        """Run the prompts of new rows without their last tokens, and add the rows after the present ones."""
        present = self.layout.chains if self.layout else []
        known = self._inner_nodes()
        distinct = list(dict.fromkeys(prompts))
        chains = dict(zip(distinct, prefill(self.model, distinct, known), strict=True))
        written = self.caches[0].own.offset
        begins = np.concatenate([self.layout.begins if self.layout else [], np.full(len(prompts), written)]).astype(int)
        self._arrange([*present, *(chains[ids] for ids in prompts)], begins, None)

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all rows but these, and the nodes that none of these continues."""
        assert self.layout is not None, "there are no rows yet"
        self._arrange([self.layout.chains[row] for row in rows], self.layout.begins[rows], rows)

    def _arrange(self, chains: Sequence[Nodes], begins: np.ndarray, rows: Sequence[int] | None) -> None:
        dropped = int(begins.min())
        self.layout = Layout(chains, begins - dropped)
        places = None if rows is None else mx.array(list(rows))
        for layer, cache in enumerate(self.caches):
            cache.arrange(self.layout, layer, places, dropped)
        for chain in self.layout.chains:
            for node in chain:
                node.prefix = node.prefix if node in self.start else None  # now in the stacks

    def _inner_nodes(self) -> Nodes:
        """Return the nodes that new rows may continue, with their keys and values: the start, and all with children."""
        if self.layout is None:
            return self.start
        inner = dict.fromkeys(node for chain in self.layout.chains for node in chain[:-1])
        for node in inner:
            if node.prefix is None:
                node.prefix = [cache.prefix(len(node.above), node) for cache in self.caches]
        return (*self.start, *inner)


class CopiedRows:
    """mlx-lm's batched caches, each row with a copy of its prompt, for models whose prompts cannot be shared."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.caches: list = []

    def add(self, prompts: Sequence[TokenIds]) -> None:
        """Run the prompts of new rows without their last tokens, and add the rows after the present ones."""
        filled = {ids: self._run(ids) for ids in dict.fromkeys(prompts)}
        added = [layer[0].merge(list(layer)) for layer in zip(*(filled[ids] for ids in prompts), strict=True)]
        if not self.caches:
            self.caches = added
            return
        for cache, more in zip(self.caches, added, strict=True):
            cache.extend(more)

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all rows but these."""
        for cache in self.caches:
            cache.filter(list(rows))

    def _run(self, ids: TokenIds) -> list:
        caches = make_prompt_cache(self.model)
        for start in range(0, len(ids) - 1, PREFILL_CHUNK):
            self.model(mx.array(ids[:-1][start : start + PREFILL_CHUNK])[None], cache=caches)
            mx.eval([cache.state for cache in caches])
        return caches


def decoding_rows(model: nn.Module, max_tokens: int, start: Nodes = ()) -> SharedRows | CopiedRows:
    """Return empty caches for rows of at most `max_tokens` tokens; prompts that begin with `start` continue it."""
    return SharedRows(model, max_tokens, start) if shares_prompt(model) else CopiedRows(model)


def _stacked(level: Level, layer: int, old: Sequence[Node], stack: KeysValues | None) -> KeysValues:
    """Return one layer's keys and values of a level's nodes [R, K, S, d], from the old ones' and the new nodes'."""
    if stack is not None and level.nodes == list(old):
        return stack
    numbers = {node: number for number, node in enumerate(old)}
    kept = [numbers[node] for node in level.nodes if node in numbers]  # they come first: rows are added at the end
    new: list[Prefix] = [node.prefix for node in level.nodes[len(kept) :] if node.prefix is not None]
    present = [KeysValues(*(x[mx.array(kept)] for x in stack))] if stack is not None and kept else []
    columns = zip(*present, *(prefix[layer] for prefix in new), strict=True)
    return KeysValues(*(_concatenated([_to_length(x, level.longest) for x in column]) for column in columns))


def _concatenated(arrays: Sequence[mx.array]) -> mx.array:
    return arrays[0] if len(arrays) == 1 else mx.concatenate(list(arrays))


def _to_length(x: mx.array, length: int) -> mx.array:
    """Cut or pad keys or values [R, K, S, d] to S = `length`."""
    if x.shape[2] >= length:
        return x[:, :, :length]
    return mx.pad(x, [(0, 0), (0, 0), (0, length - x.shape[2]), (0, 0)])


def _with_rows(x: mx.array, rows: int) -> mx.array:
    """Add rows of zeros to an array [N, ...] up to `rows` rows."""
    return x if x.shape[0] == rows else mx.pad(x, [(0, rows - x.shape[0]), (0, 0), (0, 0), (0, 0)])
