"""The log-probability and entropy of every completion token of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_grpo.backend.exponential import exp
from mlx_grpo.data.batch import LENGTH_BUCKET
from mlx_grpo.data.types import Batch
from mlx_grpo.models.head import Projection, output_head
from mlx_grpo.models.prefix import Chain, caches_after, chain_length, extend
from mlx_grpo.models.tree import Node

HEAD_CHUNK = 512
"""Positions whose logits exist at once: 512 of Qwen3's 151,936-wide fp32 rows are 0.3 GB."""


class TokenScores(NamedTuple):
    """fp32 [B, T], 0 where the mask is 0."""

    logps: mx.array
    entropies: mx.array


def score_tokens(model: nn.Module, batch: Batch, temperature: float = 1.0, chain: Chain = ()) -> TokenScores:
    """Compute log-softmax of `logits / temperature` at each completion token, and its entropy (no gradient).

    All rows continue `chain`, the keys and values of what their prompts begin with; without it each runs whole.
    """
    hidden, positions = _hidden_states(model, batch, chain)
    shape = batch.mask.shape
    masked_in = np.flatnonzero(np.array(batch.mask))  # M of B·T
    targets = batch.completion_ids.flatten()  # [B·T]
    logps, entropies = mx.zeros(batch.mask.size), mx.zeros(batch.mask.size)
    for start in range(0, masked_in.size, HEAD_CHUNK):
        chosen = masked_in[start : start + HEAD_CHUNK]
        places, chunk = mx.array(positions[chosen]), mx.array(chosen)
        chunk_logps, chunk_entropies = _chunk_scores(model, hidden[places], targets[chunk], temperature)
        logps = logps.at[chunk].add(chunk_logps)
        entropies = entropies.at[chunk].add(chunk_entropies)
    return TokenScores(logps.reshape(shape), entropies.reshape(shape))


def score_tree(model: nn.Module, tree: Node, temperature: float = 1.0) -> list[TokenScores]:
    """Score a tree's micro-batches without gradient, one at a time and in their order; each node is run once."""
    return list(_score_below(model, tree, temperature, ()))


def _score_below(model: nn.Module, node: Node, temperature: float, chain: Chain) -> Iterator[TokenScores]:
    for child in node.children:
        keys_values = extend(model, mx.array(child.token_ids), chain)
        mx.eval(keys_values)
        yield from _score_below(model, child, temperature, (*chain, keys_values))
    for part in node.parts:
        scores = score_tokens(model, part, temperature, chain)
        mx.eval(scores)
        yield scores


def _hidden_states(model: nn.Module, batch: Batch, chain: Chain) -> tuple[mx.array, np.ndarray]:
    """Run rows that continue a chain, as one right-padded batch.

    Returns the hidden states [B·L, D], and for each completion token the place of the one that predicts it, [B·T].
    """
    rows, width = batch.mask.shape
    start = chain_length(chain)
    lengths = np.array([batch.prompt_ids[i].size - start for i in batch.prompt_index])  # of the rest of each prompt
    # Tokens after a row's last unmasked one change nothing: causal attention never looks ahead.
    last = (np.array(batch.mask) * np.arange(width)).max(axis=1).astype(int)
    longest = -(-int((lengths + last).max()) // LENGTH_BUCKET) * LENGTH_BUCKET  # L
    padded = []
    for row, index in enumerate(batch.prompt_index):
        ids = mx.concatenate([batch.prompt_ids[index][start:], batch.completion_ids[row, :-1]])[:longest]
        padded.append(mx.pad(ids, (0, longest - ids.size)))
    caches = [caches_after(model, chain)] if chain else []
    hidden = model.model(mx.stack(padded), *caches)  # [B, L, D]
    first = np.arange(rows) * longest + lengths - 1  # the prompt's last token
    positions = np.minimum(first[:, None] + np.arange(width), hidden.shape[0] * longest - 1)
    return hidden.reshape(-1, hidden.shape[-1]), positions.flatten()


def _chunk_scores(
    model: nn.Module, hidden: mx.array, targets: mx.array, temperature: float
) -> tuple[mx.array, mx.array]:
    """Score hidden states [M, D]: log-probabilities and entropies [M]. The logits [M, V] are not kept for backward."""
    head, project = output_head(model)
    weights = head.trainable_parameters()

    def scores(weights: dict, hidden: mx.array) -> tuple[mx.array, mx.array]:
        head.update(weights)
        return token_scores(project(hidden), targets, temperature)

    if not weights:
        return _frozen_head_scores(project, hidden, targets, temperature)
    # Weights go in as an argument: mx.checkpoint silently drops the gradient of what its function closes over.
    return mx.checkpoint(scores)(weights, hidden)


def _frozen_head_scores(
    project: Projection, hidden: mx.array, targets: mx.array, temperature: float
) -> tuple[mx.array, mx.array]:
    """Score hidden states [M, D] under a frozen head, with the gradient of each log-probability taken at once.

    That gradient is one row [D] for each position, all that backward needs. So the logits are computed once instead
    of twice, as in fused linear cross-entropy (Liger Kernel, arXiv:2410.10989).
    """

    @mx.custom_function
    def scores(hidden: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        ones, zeros = mx.ones(targets.shape), mx.zeros(targets.shape)
        values, (rows,) = mx.vjp(lambda h: token_scores(project(h), targets, temperature), [hidden], [ones, zeros])
        # Taken at once, or the logits of all chunks would wait for the backward pass.
        return *mx.depends(values, [rows]), rows

    @scores.vjp
    def scores_vjp(primals: object, cotangents: tuple, outputs: tuple) -> mx.array:
        return (cotangents[0][:, None] * outputs[2]).astype(hidden.dtype)

    logps, entropies, _ = cast(tuple[mx.array, mx.array, mx.array], scores(hidden))
    return logps, entropies


def token_scores(logits: mx.array, targets: mx.array, temperature: float) -> tuple[mx.array, mx.array]:
    """Return log-probabilities of the targets and entropies, [M], from logits [M, V] by one exponential of each."""
    logits = logits.astype(mx.float32) / temperature
    shifted = logits - mx.stop_gradient(logits.max(axis=-1, keepdims=True))  # [M, V]
    exponentials = exp(shifted)
    total = exponentials.sum(axis=-1)  # [M]
    log_total = mx.log(total)
    logps = mx.take_along_axis(shifted, targets[:, None], axis=-1)[:, 0] - log_total
    return logps, mx.stop_gradient(log_total - (exponentials * shifted).sum(axis=-1) / total)
