"""Which of the nodes above it each row that decodes attends to, and which of its own positions."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mlx_grpo.generation.nodes import Nodes
from mlx_grpo.models.attention import MASKED, Partial


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
