"""Rows that decode together: each attends to the one copy of every node above it, and to its own tokens.

Decoding one token for eight rows after a prompt of 750 tokens otherwise reads eight copies of the prompt's keys
and values, a matrix-vector product each; stacked, the queries of all rows below a node are one matrix product over
one copy. The first level holds the nodes that begin the prompts, such as a job, the next one what continues them.
What a single row has after these, and a few tokens after which several rows begin, count among the rows' own tokens:
another product and its merge take longer than a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_grpo.generation.layout import Layout, Level
from mlx_grpo.generation.nodes import PREFILL_CHUNK, Node, Nodes, prefill
from mlx_grpo.models.attention import dispatch_on_cache, merge, over_prefix, partial_attention, row_attention
from mlx_grpo.models.prefix import KeysValues, Prefix, shares_prompt
from mlx_grpo.models.tree import TokenIds

OWN_STEP = 256
"""Most positions by which the room for the rows' own tokens grows."""

COPIED_TOKENS = 32
"""Tokens of a prompt that are copied for each of its rows, if it has no more; docs/performance.md has the times."""


class NodeCache:
    """One layer's cache for decoding: each level's nodes, padded to one length, and the rows' own tokens.

    A row's own tokens begin with the node that was copied for it, if one was.
    """

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
        visible = self._layout.visible(keys.shape[2])
        if not self.stacks:
            return row_attention(queries, keys, values, scale, visible)
        rows, _, _, size = queries.shape
        grouped = (queries * scale).reshape(rows, keys.shape[1], -1, size)  # [N, K, r, d]
        parts = [partial_attention(grouped, keys, values, visible)]
        for level, stack in zip(self._layout.levels, self.stacks, strict=True):
            over = over_prefix(level.to_nodes(grouped), *stack, level.visible)
            parts.append(level.to_rows(over))
        return merge(parts).reshape(queries.shape).astype(queries.dtype)

    def arrange(
        self, layout: Layout, layer: int, rows: mx.array | None, dropped: int, copied: Sequence[Node | None]
    ) -> None:
        """Take another layout, whose first rows are `rows` of the present one (None: all of them).

        The first `dropped` positions of the rows' own tokens are forgotten; below 0, so many are put before them.
        The new rows' own tokens are those of `copied`.
        """
        old = self.layout.levels if self.layout else []
        self.stacks = [
            _stacked(level, layer, *((old[d].nodes, self.stacks[d]) if d < len(old) else ([], None)))
            for d, level in enumerate(layout.levels)
        ]
        self.layout = layout
        self.own.offset -= dropped
        if self.own.keys is None and not any(copied):
            return
        room = self.own.offset + self.own.step
        added = [node.keys_values(layer) if node else None for node in copied]
        present = (x if x is None or rows is None else x[rows] for x in (self.own.keys, self.own.values))
        self.own.keys, self.own.values = (
            _own_tokens(x, [part[kind] if part else None for part in added], dropped, self.own.offset, room)
            for kind, x in enumerate(present)
        )

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
        present, begins = (self.layout.chains, self.layout.begins) if self.layout else ([], np.zeros(0, int))
        known = self._known_nodes()
        distinct = list(dict.fromkeys(prompts))
        nodes_of = dict(zip(distinct, prefill(self.model, distinct, known), strict=True))
        chains = [nodes_of[ids] for ids in prompts]
        copied = _copied(chains, known)
        above = [chain[:-1] if node else chain for chain, node in zip(chains, copied, strict=True)]
        lengths = np.array([node.length if node else 0 for node in copied])
        ends = self.caches[0].own.offset
        self._arrange([*present, *above], np.concatenate([begins, ends - lengths]), None, copied)

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all rows but these, and the nodes that none of these continues."""
        assert self.layout is not None, "there are no rows yet"
        self._arrange([self.layout.chains[row] for row in rows], self.layout.begins[rows], rows)

    def _arrange(
        self,
        chains: Sequence[Nodes],
        begins: np.ndarray,
        rows: Sequence[int] | None,
        copied: Sequence[Node | None] = (),
    ) -> None:
        dropped = int(begins.min())
        self.layout = Layout(chains, begins - dropped)
        places = None if rows is None else mx.array(list(rows))
        for layer, cache in enumerate(self.caches):
            cache.arrange(self.layout, layer, places, dropped, copied)
        for chain in self.layout.chains:
            for node in chain:
                node.prefix = node.prefix if node in self.start else None  # now in the stacks

    def _known_nodes(self) -> Nodes:
        """Return the nodes that new rows may continue, with their keys and values: the start, and those in stacks."""
        if self.layout is None:
            return self.start
        held = dict.fromkeys(node for chain in self.layout.chains for node in chain)
        for node in held:
            if node.prefix is None:
                node.prefix = [cache.prefix(len(node.above), node) for cache in self.caches]
        return (*self.start, *held)


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
    return x[:, :, :length] if x.shape[2] >= length else _padded(x, 0, length - x.shape[2])


def _copied(chains: Sequence[Nodes], known: Collection[Node]) -> list[Node | None]:
    """Return the node of each row that is copied for it: its last one, if nothing else continues it or it is short."""
    continued = {*known, *(node for chain in chains for node in chain[:-1])}
    rows = Counter(chain[-1] for chain in chains if chain)
    copied = {node for node in rows if node not in continued and (rows[node] == 1 or node.length <= COPIED_TOKENS)}
    return [chain[-1] if chain and chain[-1] in copied else None for chain in chains]


def _own_tokens(
    present: mx.array | None, added: Sequence[mx.array | None], dropped: int, written: int, room: int
) -> mx.array:
    """Return the rows' own keys or values [N, K, S, d]: those of the present rows, moved, and of the added ones.

    What is added, [1, K, s, d], ends at position `written`; S is `room` where there are no rows yet.
    """
    pieces = []
    if present is not None:
        pieces.append(present[:, :, dropped:] if dropped >= 0 else _padded(present, -dropped, 0))
        room = pieces[0].shape[2]
    like = next(x for x in (*pieces, *added) if x is not None)
    empty = mx.zeros((1, like.shape[1], room, like.shape[3]), like.dtype)
    pieces += [empty if x is None else _padded(x, written - x.shape[2], room - written) for x in added]
    return _concatenated(pieces)


def _padded(x: mx.array, left: int, right: int) -> mx.array:
    """Put zeros before and after the positions of keys or values [R, K, S, d]."""
    return mx.pad(x, [(0, 0), (0, 0), (left, right), (0, 0)])
