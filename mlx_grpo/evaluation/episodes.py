"""Held-out prompts, and their completions as scored episodes, in the order of the held-out file."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_grpo.config.schema import Config
from mlx_grpo.data.dataset import dataset_files, load_prompts, validation_rows
from mlx_grpo.data.thinking import strip_thinking
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError
from mlx_grpo.json_files import Record
from mlx_grpo.models.policy import load_tokenizer_of
from mlx_grpo.rewards import Judge, Reward
from mlx_grpo.runs import Run
from mlx_grpo.tasks.lookup import find_task
from mlx_grpo.user_functions import UNTRAINED, TrainerState


def heldout_prompts(run: Run, episodes: int | None = None, others: Sequence[Run] = ()) -> list[Prompt]:
    """Return the first `episodes` held-out prompts of a run (its config's number by default).

    The prompts that chose the adapter of this run or of the `others` are left out, since they would flatter it.
    Raises UserError where the run has no held-out prompts.
    """
    config = run.config
    _, heldout = dataset_files(config.data)
    if heldout is None:
        raise UserError(
            "data.heldout: not set, and training prompts prove nothing; name a held-out file, or for a data set on the "
            "Hub data.heldout_split"
        )
    tokenizer = load_tokenizer_of(config.model)
    prompts = load_prompts(heldout, tokenizer, config.data.enable_thinking, run.today)
    used: set[str] = set()
    for each in (config, *(other.config for other in others)):
        if each.eval_steps:
            used |= {prompt.id for prompt in validation_rows(each, prompts)}
    return [prompt for prompt in prompts if prompt.id not in used][: episodes or config.eval.episodes]


def cluster_column(config: Config, prompts: Sequence[Prompt]) -> str | None:
    """Return the column that ties rows together: the configured one, else the task's where all rows have it.

    Raises UserError where a row lacks the configured one.
    """
    lacking = [prompt.id for prompt in prompts if config.eval.cluster and config.eval.cluster not in prompt.columns]
    if lacking:
        raise UserError(
            f"eval.cluster: row {lacking[0]} has no column {config.eval.cluster!r}; name a column of every held-out row"
        )
    task = find_task(config)
    column = config.eval.cluster or (task.cluster if task else None)
    return column if column and all(column in prompt.columns for prompt in prompts) else None


def score_completions(
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    reward: Reward,
    judge: Judge | None = None,
    cluster: str | None = None,
    completion_ids: Sequence[Sequence[int]] | None = None,
    trainer_state: TrainerState = UNTRAINED,
) -> list[Record]:
    """Return an episode for each prompt: its id, completion, reward, the reward's components, and the judge's figures.

    `cluster` is the column that ties rows together.
    """
    scores = reward(prompts, completions, completion_ids, trainer_state)
    figures = judge(prompts, completions) if judge else [{}] * len(prompts)
    episodes = []
    for i, (prompt, raw) in enumerate(zip(prompts, completions, strict=True)):
        completion = strip_thinking(raw, prompt.opens_thought)
        episode: Record = {
            "prompt_id": prompt.id,
            "completion": completion,
            "characters": len(completion),
            "reward": float(scores.rewards[i]),
            "components": {name: float(values[i]) for name, values in scores.components.items()},
            **figures[i],
        }
        episodes.append(episode | ({"cluster": str(prompt.columns[cluster])} if cluster else {}))
    return episodes
