"""Evaluation during training, on the validation split, so that a run keeps its best adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import check_lengths, dataset_files, load_prompts, validation_rows
from mlx_grpo.data.types import Prompt, Rollout
from mlx_grpo.errors import UserError
from mlx_grpo.generation.nodes import shared_start
from mlx_grpo.generation.rollout import complete
from mlx_grpo.models.policy import Policy
from mlx_grpo.planning.memory import EVALUATION_ROWS
from mlx_grpo.rewards import Judge, check_columns, load_judge
from mlx_grpo.tasks.base import averaged
from mlx_grpo.training.groups import score_rollouts
from mlx_grpo.training.metrics import mean_without_nan
from mlx_grpo.training.state import TrainState
from mlx_grpo.user_functions import TrainerState


@dataclass(slots=True)
class Best:
    """The best adapter's rewards on the validation split, and the number of GRPO steps that made it."""

    rewards: list[float] = field(default_factory=list)
    """One for each prompt, NaN where the reward does not apply; empty before the first evaluation."""
    steps: int = 0

    @property
    def reward(self) -> float:
        """Return the mean reward; NaN where none applies."""
        return mean_without_nan(np.array(self.rewards))

    def replace_if_better(self, rewards: Sequence[float], steps: int) -> bool:
        """Take these rewards as the best if they are higher by more than chance; return True if so.

        More than chance is a mean of the paired differences above their standard error (the one-standard-error rule:
        Breiman et al., Classification and Regression Trees, 1984). With a few dozen prompts a smaller gain may be luck.
        """
        if not np.isnan(self.rewards).all():  # else there is no best yet, or no reward applied to it
            gains = np.array(rewards) - np.array(self.rewards)
            gains = gains[~np.isnan(gains)]
            error = gains.std(ddof=1) / np.sqrt(gains.size) if gains.size > 1 else 0.0
            if not (gains.size and gains.mean() > error):
                return False
        self.rewards = list(rewards)
        self.steps = steps
        return True


def validation_prompts(config: Config, policy: Policy, today: str | None = None) -> list[Prompt]:
    """Return the validation split: the held-out prompts that choose the adapter, none of which `mlx-grpo eval` reads.

    `today` is the date in them. Raises UserError where the held-out file has no row left for it.
    """
    _, heldout = dataset_files(config.data)
    if heldout is None:
        raise UserError(
            "eval_steps: set, but data.heldout is not; name a held-out file, or for a data set on the Hub "
            "data.heldout_split, or set eval_steps to 0"
        )
    prompts = load_prompts(heldout, policy.tokenizer, config.data.enable_thinking, today)
    spare = validation_rows(config, prompts)
    if not spare:
        raise UserError(
            f"eval_steps: set, but eval.episodes {config.eval.episodes} takes all {len(prompts)} held-out rows; "
            "lower it, or set eval_steps to 0"
        )
    check_columns(config.reward, spare)
    tokens = min(config.eval.max_new_tokens, config.max_completion_length)
    check_lengths(spare, tokens, policy.length_limit)
    return spare


def validate(state: TrainState, prompts: Sequence[Prompt]) -> tuple[dict[str, float], list[float]]:
    """Return the mean reward and components of greedy completions, by TRL's names for an evaluation, and each reward.

    The judge's figures, where there is a judge, are independent of the reward that trains.
    """
    config, ranks = state.config, state.ranks
    rollouts = _complete(state, ranks.share(prompts))
    own_rows = _rollout_metrics(state, rollouts, load_judge(config)) if rollouts else []
    rows = [row for rank_rows in ranks.gather(own_rows) for row in rank_rows]
    means = {name: mean_without_nan(np.array([row[name] for row in rows])) for name in rows[0]}
    return means, [row["eval/reward"] for row in rows]


def _complete(state: TrainState, prompts: Sequence[Prompt]) -> list[Rollout]:
    """Return greedy completions of this rank's prompts."""
    config, policy = state.config, state.policy
    if not prompts:
        return []
    max_tokens = min(config.eval.max_new_tokens, config.max_completion_length)
    ids = [prompt.token_ids for prompt in prompts]
    # Not by free memory: the rows beside a row change its last digits, and a resumed run has to have the same bits.
    max_rows = config.eval.batch_size or EVALUATION_ROWS
    return list(complete(policy, prompts, max_tokens, max_rows, shared_start(policy.model, ids)))


def _rollout_metrics(state: TrainState, rollouts: Sequence[Rollout], judge: Judge | None) -> list[dict[str, float]]:
    """Return the metrics of each rollout."""
    prompts = [rollout.prompt for rollout in rollouts]
    completions = [rollout.completion for rollout in rollouts]
    scores = score_rollouts(state.reward, rollouts, TrainerState(state.config.max_steps, state.config.max_steps))
    columns = {f"eval/{name}": values for name, values in scores.components.items()} | {"eval/reward": scores.rewards}
    if judge is not None:
        figures = judge(prompts, completions)
        columns |= {f"eval/{name}": np.array([own[name] for own in figures], float) for name in averaged(figures[0])}
    return [{name: float(values[row]) for name, values in columns.items()} for row in range(len(rollouts))]
