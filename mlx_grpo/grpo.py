"""The mathematics of GRPO: arrays in, arrays out. No model, no configuration.

Where this departs from "DeepSeekMath" (arXiv:2402.03300, section 4.1), in the order of the code:

1. Advantages can be centred only (`scale="none"`, Dr. GRPO, arXiv:2503.20783) or scaled by the standard
   deviation of the whole batch; equal rewards give exactly 0, not rounding noise divided by 1e-4.
2. The default normaliser is DAPO's, one weight for every token of the step (arXiv:2503.14476); every
   `loss_type` is a per-token term times one array of weights, so micro-batches add up exactly.
3. The upper clipping bound has its own epsilon (DAPO's clip-higher) and an optional absolute cap `delta`.
4. The ratio can be taken per sequence (GSPO, arXiv:2507.18071), capped without clipping the gradient
   (CISPO, arXiv:2506.13585) or passed through a soft gate (SAPO, arXiv:2511.20347).
5. Components can be normalised one by one before they are summed (GDPO, arXiv:2601.05242).
6. The KL estimator k3 can be multiplied by the ratio, which makes its gradient unbiased off-policy.

Shapes: P prompts, G completions each, B = P·G rows, T padded completion length. All arrays are fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import mlx.core as mx

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo"]
ImportanceSamplingLevel = Literal["token", "sequence"]
RewardScale = Literal["group", "batch", "none"]
RewardAggregation = Literal["sum_then_normalize", "normalize_then_sum"]

SAPO_TEMPERATURE_POSITIVE = 1.0
SAPO_TEMPERATURE_NEGATIVE = 1.05


@dataclass(frozen=True, slots=True)
class LossConfig:
    """The settings of the loss, as a run's configuration names them."""

    loss_type: LossType = "dapo"
    importance_sampling_level: ImportanceSamplingLevel = "token"
    epsilon: float = 0.2
    epsilon_high: float = 0.2
    """Upper clipping range; with cispo the largest ratio itself."""
    delta: float | None = None
    """Absolute cap of the ratio; None for no cap."""
    beta: float = 0.0
    """Weight of the KL to the reference."""
    use_bias_correction_kl: bool = True


DEFAULT = LossConfig()


class LossTerms(NamedTuple):
    """The loss of some rows, and the sums from which the metrics are computed; all are scalars.

    `kl` sums over unmasked tokens. The clipped counts are of tokens, or of rows where ratios are per sequence.
    """

    loss: mx.array
    kl: mx.array
    clipped_low: mx.array
    clipped_high: mx.array


def group_advantages(rewards: mx.array, scale: RewardScale = "group") -> mx.array:
    """Return each completion's advantage over its group, [P, G] -> [P, G].

    NaN marks a completion that no reward function applies to: it gets 0 and is left out of its group's mean and
    deviation.
    Source: DeepSeekMath, section 4.1.2, outcome supervision.
    """
    applies = ~mx.isnan(rewards)  # [P, G]
    # Counting from the group's lowest reward makes equal rewards exactly 0 before anything is divided.
    lowest = mx.where(applies, rewards, mx.inf).min(axis=1, keepdims=True)  # [P, 1]
    above = mx.where(applies, rewards - lowest, 0.0)  # [P, G]
    centred = mx.where(applies, above - _mean(above, applies, axis=1), 0.0)  # [P, G]
    if scale == "none":
        return centred
    if scale == "group":
        return centred / (_std(centred, applies, axis=1) + 1e-4)
    of_all = mx.where(applies, rewards, 0.0)
    return centred / (_std(of_all - _mean(of_all, applies), applies) + 1e-4)


def normalize_then_sum(components: mx.array, weights: mx.array) -> mx.array:
    """Normalise each component within each group, then sum them by their weights, [C, P, G] and [C] -> [P, G].

    A constant component adds exactly 0 to its group. NaN marks a component that does not apply; a completion to which
    none applies stays NaN. `group_advantages` with the scale "batch" takes the result.
    Source: GDPO, arXiv:2601.05242.
    """
    normalized = group_advantages(components.reshape(-1, components.shape[-1])).reshape(components.shape)  # [C, P, G]
    total = (weights[:, None, None] * normalized).sum(axis=0)  # [P, G]
    return mx.where(mx.isnan(components).all(axis=0), mx.nan, total)


def token_weights(mask: mx.array, loss_type: LossType, max_completion_length: int) -> mx.array:
    """Return the weight of each token's term, [B, T] -> [B, T].

    Compute it once from the whole step's mask, and slice it for micro-batches.
    """
    rows = mask.shape[0]
    if loss_type in ("grpo", "sapo"):
        return mask / (rows * mx.maximum(mask.sum(axis=1, keepdims=True), 1.0))
    if loss_type == "dr_grpo":
        return mask / (rows * max_completion_length)
    return mask / mx.maximum(mask.sum(), 1.0)


def high_entropy_mask(entropies: mx.array, mask: mx.array, quantile: float) -> mx.array:
    """Return 1 for the `quantile` of masked tokens with the highest entropies, 0 for the others, [B, T] -> [B, T].

    The threshold is the (1 - quantile) quantile of the masked tokens' entropies, linearly interpolated.
    Source: arXiv:2506.01939.
    """
    # Padding sorts last, so that the first n entries are the masked tokens' own.
    ordered = mx.sort(mx.where(mask > 0, entropies, mx.inf).flatten())
    position = (1 - quantile) * max(int(mask.sum()) - 1, 0)
    low = int(position)
    high = min(low + 1, ordered.size - 1)
    fraction = position - low
    above = ordered[high] - ordered[low] if fraction else mx.array(0.0)  # not inf - inf
    return mask * (entropies >= ordered[low] + fraction * above)


def grpo_loss(
    logps: mx.array,
    old_logps: mx.array,
    advantages: mx.array,
    mask: mx.array,
    weights: mx.array,
    config: LossConfig = DEFAULT,
    *,
    ref_logps: mx.array | None = None,
    term_mask: mx.array | None = None,
) -> LossTerms:
    """Return the clipped policy loss plus `beta` times the KL to the reference, summed over the given rows.

    Shapes: `logps`, `old_logps`, `ref_logps`, `mask`, `weights`, `term_mask` [B, T]; `advantages` [B].
    `term_mask` hides tokens from the policy's term but not from the KL. `weights` come from the whole step's mask,
    so the losses of disjoint rows add up to the loss of their union.
    Source: DeepSeekMath (arXiv:2402.03300), eq. 3 and 4.
    """
    ratio = importance_ratio(logps, old_logps, mask, config.importance_sampling_level)  # [B, T] or [B, 1]
    advantage = advantages[:, None]  # [B, 1]

    term = policy_term(logps, ratio, advantage, config)  # [B, T] or [B, 1]
    if term_mask is not None:
        term = term * term_mask
    kl = mx.zeros_like(mask)
    if ref_logps is not None:
        kl = k3((ref_logps - logps) * mask) * (ratio if config.use_bias_correction_kl else 1.0)  # [B, T]
        term = term + config.beta * kl
    above = ratio > config.epsilon_high if config.loss_type == "cispo" else ratio > 1 + config.epsilon_high
    low, high = (ratio < 1 - config.epsilon) & (advantage < 0), above & (advantage > 0)
    counted = mask if config.importance_sampling_level == "token" else mx.ones_like(ratio)  # a sequence counts once
    return LossTerms((term * weights).sum(), (kl * mask).sum(), (low * counted).sum(), (high * counted).sum())


def importance_ratio(logps: mx.array, old_logps: mx.array, mask: mx.array, level: ImportanceSamplingLevel) -> mx.array:
    """Return the ratio of the policy's probability to the old policy's, per token [B, T] or per sequence [B, 1].

    A sequence's ratio is the geometric mean of its tokens' ratios (GSPO, arXiv:2507.18071, eq. 7).
    """
    # Padding may hold any token, so its log-ratio is zeroed before exp can overflow on it.
    log_ratio = (logps - old_logps) * mask  # [B, T]
    if level == "sequence":
        log_ratio = log_ratio.sum(axis=1, keepdims=True) / mx.maximum(mask.sum(axis=1, keepdims=True), 1.0)
    return mx.exp(log_ratio)


def k3(log_ratio: mx.array) -> mx.array:
    """Return an estimate of the KL per token from log(reference / policy), never negative.

    Source: joschu.net/blog/kl-approx.html, k3.
    """
    return mx.exp(log_ratio) - log_ratio - 1


def policy_term(logps: mx.array, ratio: mx.array, advantage: mx.array, config: LossConfig) -> mx.array:
    """Return the negative policy objective of each token, before any weighting, [B, T] or [B, 1]."""
    if config.loss_type == "cispo":
        return -mx.stop_gradient(mx.minimum(ratio, config.epsilon_high)) * advantage * logps
    if config.loss_type == "sapo":
        tau = mx.where(advantage > 0, SAPO_TEMPERATURE_POSITIVE, SAPO_TEMPERATURE_NEGATIVE)
        return -mx.sigmoid(tau * (ratio - 1)) * 4 / tau * advantage
    clipped = mx.clip(ratio, 1 - config.epsilon, 1 + config.epsilon_high)
    if config.delta is not None:
        ratio = mx.minimum(ratio, config.delta)
    return -mx.minimum(ratio * advantage, clipped * advantage)


def _mean(values: mx.array, applies: mx.array, axis: int | None = None) -> mx.array:
    count = applies.sum(axis=axis, keepdims=axis is not None)
    return mx.where(applies, values, 0.0).sum(axis=axis, keepdims=axis is not None) / mx.maximum(count, 1)


def _std(centred: mx.array, applies: mx.array, axis: int | None = None) -> mx.array:
    """Return the standard deviation, with Bessel's correction, of values that are already centred."""
    count = applies.sum(axis=axis, keepdims=axis is not None)
    squares = mx.where(applies, centred * centred, 0.0).sum(axis=axis, keepdims=axis is not None)
    return mx.sqrt(squares / mx.maximum(count - 1, 1))
