"""The metrics of a step, by TRL's names and definitions, and a readable record of every completion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_grpo.config.schema import Config
from mlx_grpo.data.thinking import ends_in_thought
from mlx_grpo.data.types import Batch, Rollout
from mlx_grpo.rewards import Scores, load_judge
from mlx_grpo.tasks.lookup import find_task
from mlx_grpo.training.groups import nonzero_variance


def reward_metrics(rollouts: Sequence[Rollout], scores: Scores, config: Config) -> dict[str, float]:
    """Return means of the rewards and lengths of a step's N rollouts, without NaN rewards."""
    num_generations = config.num_generations
    lengths = [len(rollout.prompt.shared_prefix_ids) + len(rollout.completion_ids) for rollout in rollouts]
    by_group = scores.rewards.reshape(-1, num_generations)  # [P, G]
    repeated = sum(len(rollout.prompt.shared_prefix_ids) for i, rollout in enumerate(rollouts) if i % num_generations)
    return {
        "reward": mean_without_nan(by_group),
        "reward_std": _std(by_group),
        "frac_reward_zero_std": float(np.mean(~nonzero_variance(scores, config))),
        **{f"rewards/{name}/mean": mean_without_nan(values) for name, values in scores.components.items()},
        **{f"rewards/{name}/std": _std(values) for name, values in scores.components.items()},
        "completions/mean_length": float(np.mean(lengths)),
        "completions/clipped_ratio": float(np.mean([r.finish_reason == "length" for r in rollouts])),
        "completions/cut_in_thought": float(np.mean([_cut_in_thought(rollout) for rollout in rollouts])),
        "step_completion_tokens": float(sum(lengths) - repeated),  # a shared prefix is decoded once
        "num_tokens": float(sum(len(r.prompt.given_ids) + len(r.completion_ids) for r in rollouts)),
    }


def spread_within_groups(scores: Scores, num_generations: int) -> float:
    """Return the mean standard deviation of a group's rewards, over the groups with two rewards or more."""
    return mean_without_nan(np.array([_std(group) for group in scores.rewards.reshape(-1, num_generations)]))


def valid_share(config: Config, rollouts: Sequence[Rollout]) -> float | None:
    """Return the share of completions that the run's task calls valid; None where no task says so."""
    task = find_task(config)
    judge = load_judge(config) if task and config.reward.judge is None else None
    if judge is None:
        return None
    figures = judge([rollout.prompt for rollout in rollouts], [rollout.completion for rollout in rollouts])
    return float(np.mean([own["valid"] for own in figures])) if "valid" in figures[0] else None


def group_metrics(rollouts: Sequence[Rollout], redrawn: int, dropped: int) -> dict[str, float]:
    """Return how many groups were redrawn and dropped, and the share whose completions share a beginning."""
    return {
        "groups/redrawn": float(redrawn),
        "groups/dropped": float(dropped),
        "groups/branched": float(np.mean([bool(rollout.prompt.shared_prefix_ids) for rollout in rollouts])),
    }


def loss_metrics(sums: np.ndarray, batch: Batch, logps: mx.array, clipped_by_row: bool) -> dict[str, float]:
    """Return means over the step of the loss's sums, and the difference of the sampler's and the trainer's logps.

    `sums` are loss, KL, tokens (or rows, with `clipped_by_row`) clipped low and high, and entropy. `logps` [N, T]
    are the policy's.
    """
    loss, kl, clipped_low, clipped_high, entropy = (float(value) for value in sums)
    mask = np.array(batch.mask)  # [N, T]
    tokens = max(float(mask.sum()), 1.0)
    ratios = len(mask) if clipped_by_row else tokens
    difference = np.abs(np.array(batch.sampled_logps) - np.array(logps)) * mask  # [N, T]
    return {
        "loss": loss,
        "kl": kl / tokens,
        "entropy": entropy / tokens,
        "clip_ratio/low_mean": clipped_low / ratios,
        "clip_ratio/high_mean": clipped_high / ratios,
        "sampling/sampling_logp_difference/mean": float(difference.sum()) / tokens,
        "sampling/sampling_logp_difference/max": float(difference.max()),
    }


def mean_update(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the means over a step's iterations; of the sampler's distance from the trainer, the first iteration's.

    Later iterations leave the sampler's policy by design, so only the first can compare sampler and trainer.
    """
    means = {name: float(np.mean([update[name] for update in updates])) for name in updates[0]}
    return means | {name: value for name, value in updates[0].items() if name.startswith("sampling/")}


def samples(step: int, rollouts: Sequence[Rollout], scores: Scores) -> list[dict[str, Any]]:
    """Return a record for each completion of a step, for people to read."""
    return [
        {
            "step": step,
            "prompt_id": rollout.prompt.id,
            "completion": rollout.completion,
            "finish_reason": rollout.finish_reason,
            **({"prompt_opens_thought": True} if rollout.prompt.opens_thought else {}),
            **({"stem_tokens": len(rollout.prompt.shared_prefix_ids)} if rollout.prompt.shared_prefix_ids else {}),
            "reward": _number(scores.rewards[row]),
            "rewards": {name: _number(values[row]) for name, values in scores.components.items()},
        }
        for row, rollout in enumerate(rollouts)
    ]


def token_records(rollouts: Sequence[Rollout], scores: Scores) -> list[dict[str, Any]]:
    """Return a record of each completion's tokens, to inspect a step whose update was not finite."""
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


def mean_without_nan(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN where all are."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else math.nan


def _cut_in_thought(rollout: Rollout) -> bool:
    return rollout.finish_reason == "length" and ends_in_thought(rollout.completion, rollout.prompt.opens_thought)


def _std(values: np.ndarray) -> float:
    """Return the sample's standard deviation without NaN values; exactly 0 where all are equal."""
    kept = values[~np.isnan(values)]
    if kept.size > 1 and np.ptp(kept) == 0:
        return 0.0  # the mean of equal values may differ from them in the last bit
    return float(kept.std(ddof=1)) if kept.size > 1 else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
