"""What rows that decode together continue: runs of tokens, each run once for all rows below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_grpo.models.prefix import KeysValues, Prefix, extend, shares_prompt
from mlx_grpo.models.tree import TokenIds, common_start, families

PREFILL_CHUNK = 512
"""Prompt tokens run in one evaluation, so that a long prompt does not keep a GPU from drawing the display."""


@dataclass(eq=False, slots=True)
class Node:
    """A run of tokens that rows continue."""

    token_ids: TokenIds
    """All tokens from the prompt's first one to the node's last one."""
    above: tuple[Node, ...]
    """The nodes that it continues itself, from the first one on."""
    prefix: Prefix | None
    """The keys and values of the node's own tokens; None while the caches of decoding rows hold them."""

    @property
    def length(self) -> int:
        """Return the number of the node's own tokens."""
        return len(self.token_ids) - (len(self.above[-1].token_ids) if self.above else 0)

    def keys_values(self, layer: int) -> KeysValues:
        """Return one layer's keys and values of the node's own tokens."""
        assert self.prefix is not None, "the caches hold the node"
        return self.prefix[layer]


Nodes = tuple[Node, ...]
"""The nodes that a row continues, from the first one on; () for a row that begins at its first token."""


def shared_start(model: nn.Module, prompts: Sequence[TokenIds]) -> Nodes:
    """Run the tokens that all prompts begin with once, for every batch of such prompts.

    Returns () where the prompts or the model have nothing to share.
    """
    length = common_start(prompts) if shares_prompt(model) else 0
    return (_run(model, prompts[0][:length], ()),) if length else ()


def prefill(model: nn.Module, prompts: Sequence[TokenIds], known: Iterable[Node] = ()) -> list[Nodes]:
    """Run prompts without their last tokens and return the nodes of each.

    Tokens that several prompts begin with, and those of `known` nodes, are not run again.
    """
    beginnings = [ids[:-1] for ids in prompts]
    members: dict[Nodes, list[int]] = {}
    deepest_first = sorted(known, key=lambda node: -len(node.token_ids))
    for prompt in sorted(range(len(prompts)), key=beginnings.__getitem__):
        members.setdefault(_deepest(deepest_first, beginnings[prompt]), []).append(prompt)
    chains: dict[int, Nodes] = {}
    for chain, siblings in members.items():
        chains.update(_grow(model, beginnings, siblings, chain))
    return [chains[prompt] for prompt in range(len(prompts))]


def _grow(
    model: nn.Module, beginnings: Sequence[TokenIds], prompts: Sequence[int], chain: Nodes
) -> Iterator[tuple[int, Nodes]]:
    """Run what prompts, in sorted order, have after the tokens of `chain`; yield the nodes of each."""
    end = len(chain[-1].token_ids) if chain else 0
    for family, common in families(beginnings, prompts, end):
        first = family[0]
        longer = (*chain, _run(model, beginnings[first][:common], chain)) if common > end else chain
        if len(family) > 1:
            yield from _grow(model, beginnings, family, longer)
        else:
            yield first, longer


def _deepest(deepest_first: Iterable[Node], beginning: TokenIds) -> Nodes:
    """Return the first known node that a prompt begins with, and the nodes above it; () where there is none."""
    for node in deepest_first:
        if beginning[: len(node.token_ids)] == node.token_ids:
            return (*node.above, node)
    return ()


def _run(model: nn.Module, token_ids: TokenIds, chain: Nodes) -> Node:
    """Run what `token_ids` has after the tokens of `chain`, in chunks; return it as one node."""
    above = tuple(node.prefix for node in chain if node.prefix is not None)
    assert len(above) == len(chain), "the caches hold a node that is to be continued"
    pieces: list[Prefix] = []
    for first in range(len(chain[-1].token_ids) if chain else 0, len(token_ids), PREFILL_CHUNK):
        own = extend(model, mx.array(token_ids[first : first + PREFILL_CHUNK]), (*above, *pieces))
        mx.eval(own)
        pieces.append(own)
    return Node(token_ids, chain, _joined(pieces))


def _joined(pieces: Sequence[Prefix]) -> Prefix:
    """Return the keys and values of consecutive runs of tokens as one."""
    if len(pieces) == 1:
        return pieces[0]
    layers = zip(*pieces, strict=True)
    prefix = [KeysValues(*(mx.concatenate(list(x), axis=2) for x in zip(*layer, strict=True))) for layer in layers]
    mx.eval(prefix)
    return prefix
