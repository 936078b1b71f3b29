"""The groups of a step: drawn, scored, and drawn again where they teach nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import sample_prompts
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.distributed.ranks import Ranks
from mlx_grpo.generation.branch import draw_shared_prefixes, with_shared_prefix
from mlx_grpo.generation.rollout import OnToken, generate
from mlx_grpo.generation.sampling import Sampling
from mlx_grpo.rewards import Scores
from mlx_grpo.training.state import TrainState

UNREACHED_STEP = 2**32


def roll_out(
    state: TrainState, prompts: Sequence[Prompt], step: int, on_token: OnToken | None
) -> tuple[list[Rollout], Scores, int]:
    """The step's N scored rollouts, prompt-major, and how many groups were redrawn because they had no signal."""
    config = state.config
    rollouts, scores = draw_groups(
        state,
        sample_prompts(prompts, config.prompts_per_step, config.seed, step, config.data.balance_by),
        step,
        on_token,
    )
    redrawn = 0
    for attempt in range(1, config.dynamic_sampling + 1):
        dead = np.flatnonzero(~nonzero_variance(scores, config))
        if dead.size == 0:
            break
        # Steps have streams of their own, so a redraw takes the stream of a step that no run reaches.
        stream = step + attempt * UNREACHED_STEP
        others = sample_prompts(
            prompts, dead.size, config.seed + attempt * UNREACHED_STEP, step, config.data.balance_by
        )
        fresh, fresh_scores = draw_groups(state, others, stream, on_token)
        rows = (dead[:, None] * config.num_generations + np.arange(config.num_generations)).ravel()
        for row, rollout in zip(rows, fresh, strict=True):
            rollouts[row] = rollout
        scores = scores.replaced(rows, fresh_scores)
        redrawn += dead.size
    return rollouts, scores, redrawn


def draw_groups(
    state: TrainState, chosen: Sequence[Prompt], step: int, on_token: OnToken | None
) -> tuple[list[Rollout], Scores]:
    """A group of completions for each prompt, with what they earned; each rank draws and scores some groups."""
    config, ranks = state.config, state.ranks
    mine = ranks.share(range(len(chosen)))
    rollouts, scores = [], None
    if mine:
        prompts = [chosen[group] for group in mine]
        sampling = Sampling(config.max_completion_length, config.temperature, config.top_p, config.top_k, config.min_p)
        if config.branch_at:
            prompts = draw_shared_prefixes(
                state.policy,
                prompts,
                config.branch_at,
                sampling,
                seed=config.seed,
                step=step,
                first_group=mine[0],
                on_token=on_token,
            )
        rollouts = generate(
            state.policy,
            prompts,
            config.num_generations,
            sampling,
            seed=config.seed,
            step=step,
            first_row=mine[0] * config.num_generations,
            on_token=on_token,
        )
        scores = state.reward([r.prompt for r in rollouts], [r.completion for r in rollouts])
    if ranks.size == 1:
        return rollouts, scores
    return _from_all(ranks, chosen, config.num_generations, rollouts, scores)


def _from_all(
    ranks: Ranks, chosen: Sequence[Prompt], num_generations: int, rollouts: Sequence[Rollout], scores: Scores | None
) -> tuple[list[Rollout], Scores]:
    """Every rank's rollouts and scores, `num_generations` for each of the chosen prompts, in their order [N]."""
    stems = [rollout.prompt.shared_prefix_ids for rollout in rollouts[::num_generations]]
    drawn = [(r.completion_ids, r.completion, r.finish_reason, r.sampled_logps, r.sampled_entropies) for r in rollouts]
    earned = scores and (scores.rewards.tolist(), {name: v.tolist() for name, v in scores.components.items()})
    gathered = ranks.gather([stems, drawn, earned])
    everyones_stems = [stem for part, _, _ in gathered for stem in part]
    grown = [with_shared_prefix(prompt, stem) for prompt, stem in zip(chosen, everyones_stems, strict=True)]
    prompts = [prompt for prompt in grown for _ in range(num_generations)]
    records = [record for _, part, _ in gathered for record in part]
    earned_parts = [part for _, _, part in gathered if part]
    everyones = [
        Rollout(prompt, tuple(ids), completion, reason, tuple(logps), tuple(entropies))
        for prompt, (ids, completion, reason, logps, entropies) in zip(prompts, records, strict=True)
    ]
    rewards = np.concatenate([values for values, _ in earned_parts])
    names = earned_parts[0][1]
    return everyones, Scores(rewards, {n: np.concatenate([columns[n] for _, columns in earned_parts]) for n in names})


def nonzero_variance(scores: Scores, config: Config) -> np.ndarray:
    """Which groups hold two different rewards, [P]: the others' advantages are all 0 (DAPO, arXiv:2503.14476)."""
    groups = scores.rewards.reshape(-1, config.num_generations)
    lowest = np.where(np.isnan(groups), np.inf, groups).min(axis=1)
    return np.where(np.isnan(groups), -np.inf, groups).max(axis=1) > lowest


def training_rewards(scores: Scores, config: Config, step: int) -> np.ndarray:
    """The rewards [P, G] that the policy learns from: what was earned, or for a control the same in random order.

    With `reward.shuffle` the step's rewards change places among all its completions, seeded by (seed, step).
    """
    rewards = scores.rewards
    if config.reward.shuffle:
        rewards = np.random.default_rng([config.seed, step]).permutation(rewards)
    return rewards.reshape(-1, config.num_generations)
