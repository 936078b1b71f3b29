"""From a batch to the next policy: gradients by micro-batch, clipping, AdamW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_grpo import grpo
from mlx_grpo.config.schema import Config
from mlx_grpo.data.batch import split_batch
from mlx_grpo.data.types import Batch
from mlx_grpo.models.logps import TokenScores, score_parts, score_tokens
from mlx_grpo.models.policy import swapped
from mlx_grpo.models.prefix import Prefix
from mlx_grpo.training.accumulate import accumulate
from mlx_grpo.training.metrics import loss_metrics
from mlx_grpo.training.optimizer import apply_update
from mlx_grpo.training.state import TrainState


def update_policy(state: TrainState, batch: Batch, rate: float) -> dict[str, float]:
    """`num_iterations` optimizer steps on one batch; metrics are the means over them."""
    config, model = state.config, state.policy.model
    weights = grpo.token_weights(batch.mask, config.loss_type, config.max_completion_length)  # [N, T]
    parts = split_batch(batch, config.micro_batch_size or config.num_generations)
    old = scores_of(state, parts, batch.mask.shape).logps if config.num_iterations > 1 else None
    reference = None
    if state.reference is not None:
        with swapped(model, state.reference):
            reference = scores_of(state, parts, batch.mask.shape).logps
    updates = []
    for iteration in range(config.num_iterations):
        term_mask = None  # [N, T]
        if config.top_entropy_quantile < 1:
            # The first iteration's policy is the sampler's, which knows its entropies already.
            known = scores_of(state, parts, batch.mask.shape).entropies if iteration else batch.sampled_entropies
            term_mask = grpo.high_entropy_mask(known, batch.mask, config.top_entropy_quantile)
        gradients, metrics = gradients_of(state, parts, weights, old, reference, term_mask)
        norm, finite = 0.0, math.isfinite(metrics["loss"])
        # Adam divides by the root of the second moment, so a step on nothing but rounding noise is a full-sized step.
        if gradients is not None and finite:
            norm = apply_update(model, state.optimizer, gradients, rate, config.max_grad_norm)
        mx.eval(model.trainable_parameters(), state.optimizer.state)
        updates.append({**metrics, "grad_norm": norm, "update_skipped": float(not (finite and math.isfinite(norm)))})
    averaged = {name: float(np.mean([update[name] for update in updates])) for name in updates[0]}
    # Later iterations drift from the sampler by design; the first tells whether sampler and trainer compute alike.
    return averaged | {name: value for name, value in updates[0].items() if name.startswith("sampling/")}


def gradients_of(
    state: TrainState,
    parts: Sequence[Batch],
    weights: mx.array,
    old: mx.array | None,
    reference: mx.array | None,
    term_mask: mx.array | None = None,
) -> tuple[dict[str, Any] | None, dict[str, float]]:
    """The step's gradient, summed over micro-batches, and its metrics; None where nothing gives a gradient.

    `weights`, `old`, `reference` and `term_mask` are [N, T] for the whole batch; the parts' losses add up to its loss.
    """
    config, model, ranks = state.config, state.policy.model, state.ranks
    has_gradient = _has_advantage if reference is None else _has_tokens

    def loss(part: Batch, prefixes: Sequence[Prefix | None] | None = None) -> tuple[mx.array, ...]:
        rows = slice(*part.rows)
        logps, entropies = score_tokens(model, part, config.temperature, prefixes=prefixes)  # [B, T]
        terms = grpo.grpo_loss(
            logps,
            mx.stop_gradient(logps) if old is None else old[rows],
            part.advantages,
            part.mask,
            weights[rows],
            ref_logps=None if reference is None else reference[rows],
            term_mask=None if term_mask is None else term_mask[rows],
            **loss_options(config),
        )
        return *terms, (entropies * part.mask).sum(), mx.stop_gradient(logps)

    mine = ranks.share(parts)
    values, gradients = accumulate(
        model, loss, mine, has_gradient=has_gradient, checkpointing=config.gradient_checkpointing
    )
    sums = ranks.sum(sum((mx.stack(part[:5]) for part in values), mx.zeros(5)))
    logps = ranks.assemble(mine, [part[5] for part in values], weights.shape)
    metrics = loss_metrics(np.array(sums), parts, logps, config.importance_sampling_level == "sequence")
    return ranks.sum_gradients(gradients, model.trainable_parameters()), metrics


def _has_advantage(part: Batch) -> bool:
    """Whether a part's gradient needs computing where there is no KL: without advantage it is exactly 0."""
    return bool(mx.any(part.mask * (part.advantages[:, None] != 0)))


def _has_tokens(part: Batch) -> bool:
    """The same with a KL, which every token that counts has a part in."""
    return bool(mx.any(part.mask))


def scores_of(state: TrainState, parts: Sequence[Batch], shape: tuple[int, ...]) -> TokenScores:
    """Log-probabilities and entropies [N, T] of the whole batch, without gradient; each rank scores some parts."""
    mine = state.ranks.share(parts)
    scored = score_parts(state.policy.model, mine, state.config.temperature)
    logps = state.ranks.assemble(mine, [scores.logps for scores in scored], shape)
    return TokenScores(logps, state.ranks.assemble(mine, [scores.entropies for scores in scored], shape))


def loss_options(config: Config) -> dict[str, Any]:
    """The keyword arguments of `grpo_loss` that come from the configuration."""
    return {
        "loss_type": config.loss_type,
        "importance_sampling_level": config.importance_sampling_level,
        "epsilon": config.epsilon,
        "epsilon_high": config.clip_high,
        "delta": config.delta,
        "beta": config.beta,
        "use_bias_correction_kl": config.use_bias_correction_kl,
    }
