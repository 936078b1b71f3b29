"""From a batch to the next policy: log-probabilities, gradients by micro-batch, clipping, AdamW."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from mlx_grpo.config.schema import Config
from mlx_grpo.data.types import Batch
from mlx_grpo.grpo import LossConfig, grpo_loss, high_entropy_mask, token_weights
from mlx_grpo.models.logps import TokenScores, score_tokens, score_tree
from mlx_grpo.models.policy import swapped
from mlx_grpo.models.prefix import Chain, shares_prompt
from mlx_grpo.models.tree import Node, rows_in_order, token_tree
from mlx_grpo.training.accumulate import accumulate
from mlx_grpo.training.metrics import loss_metrics
from mlx_grpo.training.optimizer import apply_update
from mlx_grpo.training.state import TrainState


class FixedLogps(NamedTuple):
    """Log-probabilities f32 [N, T] that do not change during a step's updates; None where the loss needs none."""

    old: mx.array | None
    """Those of the policy before the first update; needed for several iterations on one batch."""
    reference: mx.array | None
    """Those of the reference; needed for a KL."""


class PartLoss(NamedTuple):
    """The loss of one micro-batch, the sums that its metrics are made of, and the policy's logps [B, T]."""

    loss: mx.array
    kl: mx.array
    clipped_low: mx.array
    clipped_high: mx.array
    entropy: mx.array
    logps: mx.array

    def sums(self) -> mx.array:
        """Return all but the logps as one array, [5]."""
        return mx.stack(list(self[:-1]))


class LossGradients(NamedTuple):
    """The gradient of a batch's loss, None where no token gives one, and the loss's metrics."""

    gradients: dict[str, Any] | None
    metrics: dict[str, float]


def token_logps(state: TrainState, batch: Batch) -> FixedLogps:
    """Score a batch's tokens with the old policy and the reference, where the loss needs them."""
    old = score_batch(state, batch).logps if state.config.num_iterations > 1 else None
    reference = None
    if state.reference is not None:
        with swapped(state.policy.model, state.reference):
            reference = score_batch(state, batch).logps
    return FixedLogps(old, reference)


def entropy_mask(state: TrainState, batch: Batch, iteration: int) -> mx.array | None:
    """Return the mask [N, T] of the tokens with the highest entropies; None where the loss keeps all tokens."""
    if state.config.top_entropy_quantile == 1:
        return None
    # In the first iteration the policy is the sampler's, which recorded its entropies.
    entropies = score_batch(state, batch).entropies if iteration else batch.sampled_entropies
    return high_entropy_mask(entropies, batch.mask, state.config.top_entropy_quantile)


def loss_gradients(
    state: TrainState, batch: Batch, logps: FixedLogps, term_mask: mx.array | None = None
) -> LossGradients:
    """Compute the gradient of a batch's loss, summed over micro-batches and ranks; `term_mask` is [N, T]."""
    config, model, ranks = state.config, state.policy.model, state.ranks
    weights = token_weights(batch.mask, config.loss_type, config.max_completion_length)  # [N, T]
    settings = loss_config(config)

    def loss(part: Batch, chain: Chain = ()) -> PartLoss:
        rows = mx.array(part.rows)
        policy_logps, entropies = score_tokens(model, part, config.temperature, chain)  # [B, T]
        terms = grpo_loss(
            policy_logps,
            mx.stop_gradient(policy_logps) if logps.old is None else logps.old[rows],
            part.advantages,
            part.mask,
            weights[rows],
            settings,
            ref_logps=None if logps.reference is None else logps.reference[rows],
            term_mask=None if term_mask is None else term_mask[rows],
        )
        return PartLoss(*terms, (entropies * part.mask).sum(), mx.stop_gradient(policy_logps))

    tree = own_tree(state, batch)
    values, gradients = accumulate(
        model,
        loss,
        tree,
        has_gradient=_has_advantage if logps.reference is None else _has_tokens,
        checkpointing=config.gradient_checkpointing,
    )
    losses = [PartLoss(*part_values) for part_values in values]
    sums = ranks.sum(sum((part.sums() for part in losses), mx.zeros(len(PartLoss._fields) - 1)))
    policy_logps = ranks.assemble(tree.every_part(), [part.logps for part in losses], batch.mask.shape)
    metrics = loss_metrics(np.array(sums), batch, policy_logps, config.importance_sampling_level == "sequence")
    return LossGradients(ranks.sum_gradients(gradients, model.trainable_parameters()), metrics)


def update_policy(state: TrainState, loss: LossGradients, rate: float) -> dict[str, float]:
    """Clip the gradients, take one optimizer step, and return the loss's metrics with the gradients' norm."""
    model = state.policy.model
    norm = 0.0
    finite = math.isfinite(loss.metrics["loss"])
    # Without a gradient there is no step: Adam divides by the root of the second moment, so it would make a
    # full-sized step of rounding noise.
    if loss.gradients is not None and finite:
        norm = apply_update(model, state.optimizer, loss.gradients, rate, state.config.max_grad_norm)
    mx.eval(model.trainable_parameters(), state.optimizer.state)
    return {**loss.metrics, "grad_norm": norm, "update_skipped": float(not (finite and math.isfinite(norm)))}


def loss_config(config: Config) -> LossConfig:
    """Return the settings of the loss in a run's configuration."""
    return LossConfig(
        loss_type=config.loss_type,
        importance_sampling_level=config.importance_sampling_level,
        epsilon=config.epsilon,
        epsilon_high=config.clip_high,
        delta=config.delta,
        beta=config.beta,
        use_bias_correction_kl=config.use_bias_correction_kl,
    )


def own_tree(state: TrainState, batch: Batch) -> Node:
    """Return the tree of this rank's rows. By default a micro-batch has as many rows as a group."""
    size = state.config.micro_batch_size or state.config.num_generations
    own = state.ranks.share(rows_in_order(batch))
    return token_tree(batch, size, rows=own, share=shares_prompt(state.policy.model))


def score_batch(state: TrainState, batch: Batch) -> TokenScores:
    """Return log-probabilities and entropies [N, T] without gradient; each rank scores its share of the rows."""
    ranks, shape = state.ranks, batch.mask.shape
    tree = own_tree(state, batch)
    parts, scored = list(tree.every_part()), score_tree(state.policy.model, tree, state.config.temperature)
    logps = ranks.assemble(parts, [scores.logps for scores in scored], shape)
    return TokenScores(logps, ranks.assemble(parts, [scores.entropies for scores in scored], shape))


def _has_advantage(part: Batch) -> bool:
    """Return True if a part has a gradient where there is no KL: all advantages 0 give a gradient of exactly 0."""
    return bool(mx.any(part.mask * (part.advantages[:, None] != 0)))


def _has_tokens(part: Batch) -> bool:
    """Return True if a part has a gradient where there is a KL: every unmasked token gives one."""
    return bool(mx.any(part.mask))
