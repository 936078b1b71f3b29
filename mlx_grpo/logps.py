"""A model and a batch to the log-probability and entropy of every completion token."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_grpo.errors import UserError
from mlx_grpo.prefix import plain_hidden, shared_hidden, shares_prompt
from mlx_grpo.types import Batch

HEAD_CHUNK = 512
"""Positions whose logits exist at once: 512 of Qwen3's 151,936-wide fp32 rows are 0.3 GB."""


class TokenScores(NamedTuple):
    """fp32 [B, T], 0 where the mask is 0."""

    logps: mx.array
    entropies: mx.array


def score_tokens(model: nn.Module, batch: Batch, temperature: float = 1.0, shared: bool | None = None) -> TokenScores:
    """Log-softmax of `logits / temperature` at each completion token, and its entropy (no gradient).

    `shared` chooses the shared prompt pass or the plain one; None means shared wherever the model allows it.
    """
    if shared is None:
        shared = len(batch.prompt_ids) < len(batch.prompt_index) and shares_prompt(model)
    hidden = shared_hidden(model, batch) if shared else plain_hidden(model, batch)  # [B, T, D]
    return _head_scores(model, hidden, batch, temperature)


def _head_scores(model: nn.Module, hidden: mx.array, batch: Batch, temperature: float) -> TokenScores:
    """Apply the vocabulary head to the unmasked positions, a chunk at a time, never holding [B, T, V]."""
    shape = batch.mask.shape
    positions = np.flatnonzero(np.array(batch.mask))  # M masked-in positions of B·T
    flat = hidden.reshape(-1, hidden.shape[-1])  # [B·T, D]
    targets = batch.completion_ids.flatten()  # [B·T]
    logps, entropies = mx.zeros(flat.shape[0]), mx.zeros(flat.shape[0])
    for start in range(0, positions.size, HEAD_CHUNK):
        chunk = mx.array(positions[start : start + HEAD_CHUNK])
        chunk_logps, chunk_entropies = _chunk_scores(model, flat[chunk], targets[chunk], temperature)
        logps = logps.at[chunk].add(chunk_logps)
        entropies = entropies.at[chunk].add(chunk_entropies)
    return TokenScores(logps.reshape(shape), mx.stop_gradient(entropies).reshape(shape))


def _chunk_scores(
    model: nn.Module, hidden: mx.array, targets: mx.array, temperature: float
) -> tuple[mx.array, mx.array]:
    """Log-probabilities and entropies [M] of hidden states [M, D]; the logits [M, V] are recomputed for backward."""
    head, project = output_head(model)

    # Weights go in as an argument: mx.checkpoint silently drops the gradient of what its function closes over.
    def scores(weights: dict, hidden: mx.array) -> tuple[mx.array, mx.array]:
        head.update(weights)
        logits = project(hidden).astype(mx.float32) / temperature  # [M, V]
        log_total = mx.logsumexp(logits, axis=-1)  # [M]
        logps = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0] - log_total
        all_logps = mx.stop_gradient(logits - log_total[:, None])  # [M, V]
        return logps, -(mx.exp(all_logps) * all_logps).sum(axis=-1)

    return mx.checkpoint(scores)(head.trainable_parameters(), hidden)


def output_head(model: nn.Module) -> tuple[nn.Module, Callable[[mx.array], mx.array]]:
    """The module that holds the head's weights, and how it turns hidden states into logits."""
    if model.args.tie_word_embeddings:
        return model.model.embed_tokens, model.model.embed_tokens.as_linear
    return model.lm_head, model.lm_head


def check_architecture(model: nn.Module) -> None:
    """Raise UserError for models whose logits are more than a head on hidden states, which `score_tokens` assumes.

    Granite scales its logits, Gemma 2 caps them; trained on other log-probabilities they would go wrong in silence.
    """
    ids = mx.array([[0, 1, 2]])
    try:
        _, project = output_head(model)
        same = mx.allclose(project(model.model(ids)), model(ids), rtol=1e-3, atol=1e-3).item()
        context = model.args.max_position_embeddings
    except AttributeError:
        same = context = False
    if not same or not context:
        raise UserError(
            f"model: the {model.model_type} architecture is not supported: its logits are not a plain head on "
            "model.model's hidden states; use a Qwen2, Qwen3, Llama, Mistral or Phi-3 model"
        )
