"""Held-out rewards while a run trains, so that it keeps the best adapter it had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_grpo.config import Config
from mlx_grpo.data import check_lengths, dataset_files, load_prompts
from mlx_grpo.errors import UserError
from mlx_grpo.learner import Learner
from mlx_grpo.policy import Policy
from mlx_grpo.rollout import generate
from mlx_grpo.sampling import Sampling
from mlx_grpo.scoring import check_columns
from mlx_grpo.types import Prompt


@dataclass(slots=True)
class Best:
    """The highest held-out reward so far, and the number of GRPO steps behind it."""

    reward: float = -np.inf
    steps: int = 0

    def beaten_by(self, reward: float, steps: int) -> bool:
        """Whether this reward is higher; if so, it is the best from now on."""
        if not reward > self.reward:
            return False
        self.reward, self.steps = reward, steps
        return True


def validation_prompts(config: Config, policy: Policy) -> list[Prompt]:
    """The held-out prompts that choose the adapter, none of which `mlx-grpo eval` reads.

    Raises UserError where the held-out file has no row left for them.
    """
    _, heldout = dataset_files(config.data)
    if heldout is None:
        raise UserError("eval_steps: set, but data.heldout is not; name a held-out file, or set eval_steps to 0")
    prompts = load_prompts(heldout, policy.tokenizer, config.data.enable_thinking)
    spare = validation_rows(config, prompts)
    if not spare:
        raise UserError(
            f"eval_steps: set, but eval.episodes {config.eval.episodes} takes all {len(prompts)} held-out rows; "
            "lower it, or set eval_steps to 0"
        )
    check_columns(config.reward, spare)
    tokens = min(config.eval.max_new_tokens, config.max_completion_length)
    check_lengths(spare, tokens, policy.model.args.max_position_embeddings)
    return spare


def validation_rows(config: Config, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The last `eval.validation` of the held-out prompts that `eval.episodes` leaves."""
    return list(prompts[config.eval.episodes :][-config.eval.validation :])


def validate(learner: Learner, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Mean reward and components of greedy completions, under TRL's names for an evaluation's metrics."""
    config, ranks = learner.config, learner.ranks
    sampling = Sampling(min(config.eval.max_new_tokens, config.max_completion_length), temperature=0)
    mine = ranks.share(prompts)
    found = []
    for start in range(0, len(mine), config.eval.batch_size):
        rollouts = generate(learner.policy, mine[start : start + config.eval.batch_size], 1, sampling)
        scores = learner.reward([r.prompt for r in rollouts], [r.completion for r in rollouts])
        columns = {"eval/reward": scores.rewards} | {f"eval/{name}": v for name, v in scores.components.items()}
        found += [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    everyones = [row for rows in ranks.gather(found) for row in rows]
    return {name: float(np.nanmean([row[name] for row in everyones])) for name in everyones[0]}
