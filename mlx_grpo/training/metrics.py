"""What a step is measured by: TRL's names and definitions, and every completion for people to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_grpo.data.types import Batch, Rollout
from mlx_grpo.rewards import Scores


def reward_metrics(rollouts: Sequence[Rollout], scores: Scores, rewards: mx.array) -> dict[str, float]:
    """What the step's completions earned and how long they are; rewards [P, G], NaN where nothing applies."""
    lengths = [len(rollout.prompt.shared_prefix_ids) + len(rollout.completion_ids) for rollout in rollouts]
    by_group = np.array(rewards, np.float64)
    repeated = sum(len(rollout.prompt.shared_prefix_ids) for i, rollout in enumerate(rollouts) if i % by_group.shape[1])
    applicable = [group[~np.isnan(group)] for group in by_group]
    return {
        "reward": known_mean(by_group),
        "reward_std": _std(by_group),
        "frac_reward_zero_std": float(np.mean([group.size == 0 or np.ptp(group) == 0 for group in applicable])),
        **{f"rewards/{name}/mean": known_mean(values) for name, values in scores.components.items()},
        "completions/mean_length": float(np.mean(lengths)),
        "completions/clipped_ratio": float(np.mean([r.finish_reason == "length" for r in rollouts])),
        "step_completion_tokens": float(sum(lengths) - repeated),  # a stem is decoded once
        "num_tokens": float(sum(len(r.prompt.given_ids) + len(r.completion_ids) for r in rollouts)),
    }


def loss_metrics(sums: np.ndarray, parts: Sequence[Batch], logps: mx.array, clipped_by_row: bool) -> dict[str, float]:
    """Means over the step of what the loss summed, and the sampler's distance from the trainer; names as TRL's."""
    loss, kl, clipped_low, clipped_high, entropy = (float(value) for value in sums)
    mask = np.concatenate([np.array(part.mask) for part in parts])  # [N, T]
    tokens = max(float(mask.sum()), 1.0)
    ratios = len(mask) if clipped_by_row else tokens
    sampled = np.concatenate([np.array(part.sampled_logps) for part in parts])  # [N, T]
    difference = np.abs(sampled - np.array(logps)) * mask
    return {
        "loss": loss,
        "kl": kl / tokens,
        "entropy": entropy / tokens,
        "clip_ratio/low_mean": clipped_low / ratios,
        "clip_ratio/high_mean": clipped_high / ratios,
        "sampling/sampling_logp_difference/mean": float(difference.sum()) / tokens,
        "sampling/sampling_logp_difference/max": float(difference.max()),
    }


def samples(step: int, rollouts: Sequence[Rollout], scores: Scores) -> list[dict[str, Any]]:
    """One record for each completion of a step, for people to read."""
    return [
        {
            "step": step,
            "prompt_id": rollout.prompt.id,
            "completion": rollout.completion,
            "finish_reason": rollout.finish_reason,
            **({"stem_tokens": len(rollout.prompt.shared_prefix_ids)} if rollout.prompt.shared_prefix_ids else {}),
            "reward": _number(scores.rewards[row]),
            "rewards": {name: _number(values[row]) for name, values in scores.components.items()},
        }
        for row, rollout in enumerate(rollouts)
    ]


def token_records(rollouts: Sequence[Rollout], scores: Scores) -> list[dict[str, Any]]:
    """The same in tokens, as the loss saw them; for the inspection of a step that could not be learned from."""
    return [
        {
            "prompt_id": rollout.prompt.id,
            "prompt_ids": rollout.prompt.given_ids,
            "completion_ids": rollout.completion_ids,
            "sampled_logps": rollout.sampled_logps,
            "reward": _number(scores.rewards[row]),
        }
        for row, rollout in enumerate(rollouts)
    ]


def known_mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where nothing is."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else math.nan


def _std(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.std(ddof=1)) if kept.size > 1 else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
