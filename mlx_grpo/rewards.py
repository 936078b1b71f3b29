"""Completions to rewards and to figures: by a task's rules, or by a user's own functions in TRL's shape."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsFloat, cast

import numpy as np

from mlx_grpo.config.schema import Config, RewardConfig
from mlx_grpo.data.thinking import strip_thinking
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError, short_repr
from mlx_grpo.tasks.base import LABELS, Figures, Grader
from mlx_grpo.tasks.lookup import TASK_OF_RUBRIC, find_task
from mlx_grpo.user_functions import (
    UNTRAINED,
    TrainerState,
    call_functions,
    import_function,
    reserved_columns,
    reward_arguments,
    row_columns,
    text_arguments,
)

LARGEST_REWARD = 1e15
"""Larger rewards overflow in advantages: a group's deviation sums their squares in float32, which ends at 3e38."""

EPISODE_KEYS = ("model", "prompt_id", "completion", "characters", "reward", "components", "cluster")
"""The keys of an episode that are no figures."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The rewards of N completions; NaN where no reward function applies."""

    rewards: np.ndarray
    """f64 [N]"""
    components: dict[str, np.ndarray]
    """Each [N]: the components of a task's reward, or the reward functions by name."""

    def replaced(self, rows: np.ndarray, fresh: Scores) -> Scores:
        """Return a copy of these scores in which some rows have new ones."""
        rewards = self.rewards.copy()
        components = {name: values.copy() for name, values in self.components.items()}
        rewards[rows] = fresh.rewards
        for name, values in components.items():
            values[rows] = fresh.components[name]
        return Scores(rewards, components)


class Reward(Protocol):
    """Scores N completions; functions of the user's own also read their token ids and the progress of training."""

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: TrainerState = UNTRAINED,
    ) -> Scores:
        """Return the scores [N]; None for `completion_ids` stands for empty ones."""
        ...


Judge = Callable[[Sequence[Prompt], Sequence[str]], list[Figures]]


def load_reward(config: RewardConfig) -> Reward:
    """Make the reward that a config names; raise UserError where it can't be made."""
    if config.rubric is None:
        return _function_reward(config)
    return task_reward(TASK_OF_RUBRIC[config.rubric].grader(config))


def load_judge(config: Config) -> Judge | None:
    """Make the judge that a config names, or its task's; None where there is neither.

    Raises UserError where it can't be made.
    """
    if config.reward.judge is not None:
        return _function_judge(config.reward.judge)
    task = find_task(config)
    if task is None:
        return None
    return lambda prompts, completions: task.judge(_without_thinking(prompts, completions), **_task_columns(prompts))


def check_columns(config: RewardConfig, prompts: Sequence[Prompt]) -> None:
    """Raise UserError naming the first row whose columns the configured rubric can't grade against."""
    if config.rubric is None:
        return
    task = TASK_OF_RUBRIC[config.rubric]
    found = {prompt.id: task.problem(config, {**prompt.columns, "context": prompt.context}) for prompt in prompts}
    problems = {row: problem for row, problem in found.items() if problem}
    if problems:
        row, problem = next(iter(problems.items()))
        others = f" (and {len(problems) - 1} other rows like it)" if len(problems) > 1 else ""
        raise UserError(f"row {row}: {problem}{others}")


def column_warnings(config: RewardConfig, prompts: Sequence[Prompt]) -> list[str]:
    """Return a line for the columns that the user's own functions do not receive, if there are any."""
    names = reserved_columns(prompts) if config.functions or config.judge else []
    if not names:
        return []
    dropped = ", ".join(names)
    return [f"warning: reward functions get no column {dropped}: an argument has the name; rename it in the rows"]


def task_reward(grader: Grader) -> Reward:
    """Make a reward of a task's grader, which is given the rows' columns, and of each prompt its `context`."""

    def score(
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: TrainerState = UNTRAINED,
    ) -> Scores:
        marks = grader(_without_thinking(prompts, completions), **_task_columns(prompts))
        columns = {name: np.array([own[name] for own in marks]) for name in marks[0]}
        return Scores(columns.pop("total"), columns)

    return score


def _without_thinking(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[str]:
    pairs = zip(prompts, completions, strict=True)
    return [strip_thinking(completion, prompt.opens_thought) for prompt, completion in pairs]


def _task_columns(prompts: Sequence[Prompt]) -> dict[str, list]:
    return {**row_columns(prompts), "context": [prompt.context for prompt in prompts]}


def _function_reward(config: RewardConfig) -> Reward:
    functions = {_key(name): import_function("reward.functions", name) for name in config.functions}
    weights = np.array(config.reward_weights or [1.0] * len(functions))
    labels = function_labels(config)

    def score(
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]] | None = None,
        trainer_state: TrainerState = UNTRAINED,
    ) -> Scores:
        ids = [()] * len(prompts) if completion_ids is None else completion_ids
        arguments = reward_arguments(prompts, completions, ids, trainer_state)
        values = call_functions(functions, prompts, completions, arguments, "numbers")
        stacked = np.array([_as_rewards(key, own, prompts, completions) for key, own in values.items()])
        applies = ~np.isnan(stacked)
        total = (np.where(applies, stacked, 0.0) * weights[:, None]).sum(axis=0)
        _check_total(total, prompts, completions)
        return Scores(np.where(applies.any(axis=0), total, np.nan), dict(zip(labels, stacked, strict=True)))

    return score


def component_weights(config: RewardConfig) -> dict[str, float]:
    """Return the weight of each component in the reward; those of a rubric sum to 1."""
    if config.rubric is None:
        labels = function_labels(config)
        return dict(zip(labels, config.reward_weights or [1.0] * len(labels), strict=True))
    weights = TASK_OF_RUBRIC[config.rubric].weights(config)
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def function_labels(config: RewardConfig) -> list[str]:
    """Return the names of the configured functions in metrics: without their module where that is enough."""
    short = [name.partition(":")[2] for name in config.functions]
    return short if len(set(short)) == len(short) else list(config.functions)


def _key(function: str) -> str:
    return f"reward.functions: {function}"


def _as_rewards(key: str, values: Sequence[Any], prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
    """Return one function's values [N], None as NaN; raise UserError for a value that is no reward."""
    for prompt, completion, value in zip(prompts, completions, values, strict=True):
        if value is not None and not _is_finite(value, LARGEST_REWARD):
            raise UserError(
                f"{key} returned {short_repr(value)} for row {prompt.id}; return a finite number up to "
                f"{LARGEST_REWARD:.0e}, or None where it does not apply (completion: {completion[:80]!r})"
            )
    return np.array([math.nan if value is None else float(value) for value in values])


def _check_total(total: np.ndarray, prompts: Sequence[Prompt], completions: Sequence[str]) -> None:
    """Raise UserError where the weights make a completion's reward too large."""
    for row in np.flatnonzero(~(np.abs(total) <= LARGEST_REWARD))[:1]:
        raise UserError(
            f"reward.reward_weights: the weighted rewards of row {prompts[row].id} sum to {total[row]:.3g}; lower the "
            f"weights, so that sums are up to {LARGEST_REWARD:.0e} (completion: {completions[row][:80]!r})"
        )


def _function_judge(name: str) -> Judge:
    function = import_function("reward.judge", name)

    def judge(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Figures]:
        key = f"reward.judge: {name}"
        arguments = text_arguments(prompts, completions)
        values = call_functions({key: function}, prompts, completions, arguments, "dictionaries")[key]
        for prompt, completion, figures in zip(prompts, completions, values, strict=True):
            problem = _figures_problem(figures, values[0])
            if problem:
                raise UserError(f"{key}: row {prompt.id}: {problem} (completion: {completion[:80]!r})")
        return [{name: _plain(value) for name, value in figures.items()} for figures in values]

    return judge


def _figures_problem(figures: Any, first: Any) -> str | None:
    """Return what is wrong with a completion's figures, with the remedy; `first` are those of the first completion."""
    if not isinstance(figures, dict) or not figures or not all(isinstance(name, str) for name in figures):
        return f"returned {short_repr(figures)}; return a dictionary of named numbers"
    taken = [name for name in figures if name in EPISODE_KEYS]
    if taken:
        return f"{taken[0]!r} is a name of the evaluation's own; give the figure another"
    if figures.keys() != first.keys():
        return f"has the figures {', '.join(figures)}, the first row {', '.join(first)}; return the same ones for all"
    for name, value in figures.items():
        if value is not None and not _is_finite(value):
            return f"{name} is {short_repr(value)}; return a finite number, or None where it does not apply"
        if value is None and name in LABELS:
            return f"{name} is None; it says what is right, so give it for every row"
        if value is not None and name in ("score", "fit") and not 0 <= value <= 1:
            return f"{name} is {short_repr(value)}; scale it to lie between 0 and 1"
    return None


def _plain(value: Any) -> float | None:
    """Return a figure as JSON can hold it."""
    if value is None or isinstance(value, bool):
        return value
    return bool(value) if isinstance(value, np.bool_) else float(value)


def _is_finite(value: Any, largest: float = sys.float_info.max) -> bool:
    """Return True for a number up to `largest` in size; it may be an array's single element."""
    if not isinstance(value, SupportsFloat):
        return False
    try:
        size: Any = abs(cast(Any, value))  # an integer past the largest float must not reach float()
        return bool(size <= largest)  # NaN compares false
    except (ValueError, RuntimeError, ArithmeticError):  # an array of several numbers; a signaling NaN of Decimal
        return False
