"""The groups of a step: generated and scored by all ranks together, and redrawn where all rewards are equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_grpo.config.schema import Config
from mlx_grpo.data.sampling import sample_instead
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.errors import UserError
from mlx_grpo.generation.branch import draw_shared_prefixes, with_shared_prefix
from mlx_grpo.generation.rollout import OnToken, generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.grpo import normalize_then_sum
from mlx_grpo.rewards import Reward, Scores, component_weights
from mlx_grpo.training.state import TrainState
from mlx_grpo.user_functions import TrainerState

UNREACHED_STEP = 2**32
"""More steps than any run takes: an offset that gives a redraw a random stream of its own."""


def generate_groups(
    state: TrainState, prompts: Sequence[Prompt], step: int, on_token: OnToken | None = None
) -> list[Rollout]:
    """Sample a group of completions for each of P prompts; return N = P·G rollouts, prompt-major, on every rank."""
    config, ranks = state.config, state.ranks
    groups = ranks.share(range(len(prompts)))
    own_prompts = [prompts[group] for group in groups]
    rollouts: list[Rollout] = []
    if own_prompts:
        sampling = Sampling(config.max_completion_length, config.temperature, config.top_p, config.top_k, config.min_p)
        if config.branch_at:
            own_prompts = draw_shared_prefixes(
                state.policy,
                own_prompts,
                config.branch_at,
                sampling,
                seed=config.seed,
                step=step,
                first_group=groups[0],
                on_token=on_token,
            )
        rollouts = generate(
            state.policy,
            own_prompts,
            config.num_generations,
            sampling,
            seed=config.seed,
            step=step,
            first_row=groups[0] * config.num_generations,
            on_token=on_token,
        )
    return _gather_rollouts(ranks, prompts, config.num_generations, rollouts)


class RewardFailed(UserError):
    """A fault in a user's reward function, raised before a step has changed anything."""


def score_groups(state: TrainState, rollouts: Sequence[Rollout], step: int) -> Scores:
    """Score N rollouts, each rank its share of the groups; return all scores [N] on every rank.

    Raises RewardFailed where a function of the user's own fails.
    """
    size = state.config.num_generations
    own = select_groups(rollouts, state.ranks.share(range(len(rollouts) // size)), size)
    progress = TrainerState(step, state.config.max_steps)
    try:
        scores = score_rollouts(state.reward, own, progress) if own else None
    except UserError as error:
        raise RewardFailed(*error.problems) from error
    return _gather_scores(state.ranks, scores)


def score_rollouts(reward: Reward, rollouts: Sequence[Rollout], progress: TrainerState) -> Scores:
    """Score rollouts [N] by a reward."""
    prompts, completions = [r.prompt for r in rollouts], [r.completion for r in rollouts]
    return reward(prompts, completions, [r.whole_ids for r in rollouts], progress)


def redraw_zero_variance(
    state: TrainState,
    dataset: Sequence[Prompt],
    rollouts: list[Rollout],
    scores: Scores,
    step: int,
    on_token: OnToken | None = None,
) -> tuple[list[Rollout], Scores, int]:
    """Replace groups whose rewards are all equal by groups of other prompts, up to `dynamic_sampling` times.

    Returns the rollouts, their scores, and the number of groups redrawn. Source: DAPO, arXiv:2503.14476.
    """
    config, size = state.config, state.config.num_generations
    redrawn = 0
    for attempt in range(1, config.dynamic_sampling + 1):
        zero_variance = np.flatnonzero(~nonzero_variance(scores, config))
        if zero_variance.size == 0:
            break
        # Each step draws from a random stream of its own; a redraw takes the stream of a step that no run reaches.
        stream = attempt * UNREACHED_STEP
        replaced = [rollouts[group * size].prompt for group in zero_variance]
        others = sample_instead(dataset, replaced, config.seed + stream, step, config.data)
        fresh = generate_groups(state, others, step + stream, on_token)
        rows = (zero_variance[:, None] * size + np.arange(size)).ravel()
        rollouts = list(rollouts)
        for row, rollout in zip(rows, fresh, strict=True):
            rollouts[row] = rollout
        scores = scores.replaced(rows, score_groups(state, fresh, step))
        redrawn += zero_variance.size
    return rollouts, scores, redrawn


def select_groups(rollouts: Sequence[Rollout], groups: Sequence[int], num_generations: int) -> list[Rollout]:
    """Return the rollouts of the groups with these indices, in their order."""
    return [rollouts[group * num_generations + row] for group in groups for row in range(num_generations)]


def groups_to_train(scores: Scores, config: Config) -> list[int]:
    """Return the indices of the groups that make the batch: with dynamic sampling, drop those of zero variance.

    Where all have zero variance, none is dropped.
    """
    nonzero = nonzero_variance(scores, config)  # [P]
    if config.dynamic_sampling and nonzero.any():
        return [int(group) for group in np.flatnonzero(nonzero)]
    return list(range(len(nonzero)))


def nonzero_variance(scores: Scores, config: Config) -> np.ndarray:
    """Return True for each group with two different rewards, bool [P]; any other group's advantages are 0.

    Where components are normalised one by one, a group with two different values of a component counts.
    """
    values = [scores.rewards]
    if config.multi_objective_aggregation == "normalize_then_sum":
        values = [scores.components[name] for name, weight in component_weights(config.reward).items() if weight]
    size = config.num_generations
    groups = np.array(values).reshape(len(values), len(scores.rewards) // size, size)  # [C, P, G]
    lowest = np.where(np.isnan(groups), np.inf, groups).min(axis=-1)
    highest = np.where(np.isnan(groups), -np.inf, groups).max(axis=-1)
    return (highest > lowest).any(axis=0)


def training_rewards(scores: Scores, config: Config, step: int) -> mx.array:
    """Return the rewards that the policy learns from, f32 [P, G].

    With `multi_objective_aggregation: normalize_then_sum` they are sums of normalised components. With
    `reward.shuffle`, a control, the step's rewards are permuted among all its completions, by (seed, step).
    """
    if config.multi_objective_aggregation == "sum_then_normalize":
        return mx.array(_shuffled(scores.rewards, config, step).reshape(-1, config.num_generations), mx.float32)
    weights = component_weights(config.reward)
    values = np.stack([scores.components[name] for name in weights], axis=1)  # [N, C]
    values = _shuffled(values, config, step).T.reshape(len(weights), -1, config.num_generations)  # [C, P, G]
    return normalize_then_sum(mx.array(values, mx.float32), mx.array(list(weights.values()), mx.float32))


def _shuffled(values: np.ndarray, config: Config, step: int) -> np.ndarray:
    """Permute the rows of `values`, one a completion, where the config asks for the control."""
    if not config.reward.shuffle:
        return values
    return np.random.default_rng([config.seed, step]).permutation(values)


def _gather_rollouts(
    ranks: Ranks, prompts: Sequence[Prompt], num_generations: int, own: list[Rollout]
) -> list[Rollout]:
    """Return every rank's rollouts, in the order of the prompts."""
    if ranks.size == 1:
        return own
    records = [record for part in ranks.gather([_to_record(rollout) for rollout in own]) for record in part]
    gathered = []
    for group, prompt in enumerate(prompts):
        rows = records[group * num_generations : (group + 1) * num_generations]
        shared = with_shared_prefix(prompt, rows[0]["shared_prefix_ids"])  # one object for a group's rows
        gathered += [_to_rollout(shared, record) for record in rows]
    return gathered


def _to_record(rollout: Rollout) -> dict[str, Any]:
    return {
        "shared_prefix_ids": rollout.prompt.shared_prefix_ids,
        "completion_ids": rollout.completion_ids,
        "completion": rollout.completion,
        "finish_reason": rollout.finish_reason,
        "sampled_logps": rollout.sampled_logps,
        "sampled_entropies": rollout.sampled_entropies,
    }


def _to_rollout(prompt: Prompt, record: dict[str, Any]) -> Rollout:
    return Rollout(
        prompt,
        completion_ids=tuple(record["completion_ids"]),
        completion=record["completion"],
        finish_reason=record["finish_reason"],
        sampled_logps=tuple(record["sampled_logps"]),
        sampled_entropies=tuple(record["sampled_entropies"]),
    )


def _gather_scores(ranks: Ranks, own: Scores | None) -> Scores:
    """Return every rank's scores, in the order of the ranks; a rank without groups has none."""
    if ranks.size == 1 and own is not None:
        return own
    record = None
    if own is not None:
        record = [own.rewards.tolist(), {name: values.tolist() for name, values in own.components.items()}]
    parts = [part for part in ranks.gather(record) if part]
    rewards = np.concatenate([rewards for rewards, _ in parts])
    names = parts[0][1]
    return Scores(rewards, {name: np.concatenate([components[name] for _, components in parts]) for name in names})
