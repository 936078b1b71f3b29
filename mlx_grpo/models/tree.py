"""The tree of a batch's tokens: what several rows begin with is one node, run once for all of them.

Candidates of one job share instruction and job, and a group's completions share their prompt. The tree is found from
the token ids alone, so it has as many levels as the prompts have beginnings in common:

    instruction and job --+-- candidate --- the group's completions
                          +-- candidate --- the group's completions
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import cast

from mlx_grpo.data.batch import batched, take_rows
from mlx_grpo.data.types import Batch

SHARED_TOKENS = 32
"""Fewest tokens that a node saves; fewer are not worth a pass of their own. A group's prompt is always a node."""

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A run of tokens that several rows continue; the root's is empty."""

    token_ids: TokenIds
    children: tuple[Node, ...]
    """The nodes that continue it."""
    parts: tuple[Batch, ...]
    """The rows that continue it, in micro-batches. Each begins with the rest of its prompt, at least the last token."""

    def every_part(self) -> Iterator[Batch]:
        """Yield the micro-batches of this node and of all below it, in the order in which they are run."""
        for child in self.children:
            yield from child.every_part()
        yield from self.parts


def token_tree(
    batch: Batch, max_rows: int | None = None, *, rows: Sequence[int] | None = None, share: bool = True
) -> Node:
    """Return the tree of a batch, in micro-batches of at most `max_rows` rows; without `share` the root alone.

    `rows` are those to include, maybe none; by default all of them.
    """
    included = range(len(batch.prompt_index)) if rows is None else rows
    size = max_rows or max(1, len(included))
    if not share or not included:
        return Node((), (), _parts(batch, included, size))
    rows_of: dict[int, list[int]] = {}
    for row in included:
        rows_of.setdefault(batch.prompt_index[row], []).append(row)
    prompts = _Prompts(batch, _beginnings(batch), rows_of, size)
    return _grow(prompts, sorted(rows_of, key=prompts.beginnings.__getitem__), 0, 0)


@dataclass(frozen=True, slots=True)
class _Prompts:
    """What a tree is grown from."""

    batch: Batch
    beginnings: Sequence[TokenIds]
    rows_of: Mapping[int, list[int]]
    """The included rows of each prompt."""
    max_rows: int


def _grow(prompts: _Prompts, family: Sequence[int], start: int, end: int) -> Node:
    """Return the node of tokens `start` to `end`, which a family of prompts, in sorted order, has in common."""
    # No closure that calls itself: it would be a cycle, which holds its batch until Python next collects garbage.
    children: list[Node] = []
    own: list[int] = []
    for siblings, common in families(prompts.beginnings, family, end):
        rows = [row for prompt in siblings for row in prompts.rows_of[prompt]]
        if common > end and len(rows) > 1:
            children.append(_grow(prompts, siblings, end, common))
        else:
            own += rows
    token_ids = prompts.beginnings[family[0]][start:end]
    return Node(token_ids, tuple(children), _parts(prompts.batch, own, prompts.max_rows))


def rows_in_order(batch: Batch) -> list[int]:
    """Return a batch's rows so that those with a beginning in common are neighbours."""
    beginnings = _beginnings(batch)
    return sorted(range(len(batch.prompt_index)), key=lambda row: beginnings[batch.prompt_index[row]])


def common_start(prompts: Sequence[TokenIds]) -> int:
    """Return how many tokens all prompts share at their start, 0 if below `SHARED_TOKENS`; never a whole prompt."""
    first, last = min(prompts)[:-1], max(prompts)[:-1]  # all share what the first and last share
    shared = min(_common_length(first, last), min(map(len, prompts)) - 1)
    return shared if shared >= SHARED_TOKENS else 0


def families(beginnings: Sequence[TokenIds], prompts: Sequence[int], end: int) -> Iterator[tuple[list[int], int]]:
    """Divide sorted prompts into those that share enough tokens after `end` for a node of their own.

    Yields the prompts of each family, and how many tokens they all begin with.
    """
    runs: list[list[int]] = [[prompts[0]]]
    for before, prompt in pairwise(prompts):
        shared = _common_length(beginnings[before], beginnings[prompt]) - end
        equal = beginnings[before] == beginnings[prompt]
        if shared >= SHARED_TOKENS or (equal and shared > 0):
            runs[-1].append(prompt)
        else:
            runs.append([prompt])
    for run in runs:
        yield run, _common_length(beginnings[run[0]], beginnings[run[-1]])


def _common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _beginnings(batch: Batch) -> list[TokenIds]:
    """Return each prompt without its last token, which begins the pass of the completions that it predicts."""
    return [tuple(cast(list[int], ids.tolist())[:-1]) for ids in batch.prompt_ids]


def _parts(batch: Batch, rows: Sequence[int], size: int) -> tuple[Batch, ...]:
    return tuple(take_rows(batch, some) for some in batched(rows, size))
