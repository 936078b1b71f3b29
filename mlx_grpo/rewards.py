"""Completions to rewards and to figures: by a task's rules, or by a user's own functions in TRL's shape."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_grpo.config.schema import Config, RewardConfig
from mlx_grpo.data.thinking import strip_thinking
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError, short_repr
from mlx_grpo.tasks.base import LABELS, Figures, Grader
from mlx_grpo.tasks.lookup import TASK_OF_RUBRIC, find_task

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


Reward = Callable[[Sequence[Prompt], Sequence[str]], Scores]
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


def task_reward(grader: Grader) -> Reward:
    """Make a reward of a task's grader, which is given the rows' columns, and of each prompt its `context`."""

    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> Scores:
        marks = grader(_without_thinking(prompts, completions), **_task_columns(prompts))
        columns = {name: np.array([own[name] for own in marks]) for name in marks[0]}
        return Scores(columns.pop("total"), columns)

    return score


def _without_thinking(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[str]:
    pairs = zip(prompts, completions, strict=True)
    return [strip_thinking(completion, prompt.opens_thought) for prompt, completion in pairs]


def _columns(prompts: Sequence[Prompt]) -> dict[str, list]:
    """Return the columns that all rows have."""
    keys = set.intersection(*(set(prompt.columns) for prompt in prompts))
    return {key: [prompt.columns[key] for prompt in prompts] for key in sorted(keys)}


def _task_columns(prompts: Sequence[Prompt]) -> dict[str, list]:
    return _columns(prompts) | {"context": [prompt.context for prompt in prompts]}


def _function_reward(config: RewardConfig) -> Reward:
    functions = {name: _import_function("reward.functions", name) for name in config.functions}
    weights = config.reward_weights or [1.0] * len(functions)
    short = [name.partition(":")[2] for name in functions]
    labels = short if len(set(short)) == len(short) else list(functions)

    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> Scores:
        columns = _columns(prompts)
        stacked = np.array([_call_reward(name, f, prompts, completions, columns) for name, f in functions.items()])
        applies = ~np.isnan(stacked)
        total = (np.where(applies, stacked, 0.0) * np.array(weights)[:, None]).sum(axis=0)
        return Scores(np.where(applies.any(axis=0), total, np.nan), dict(zip(labels, stacked, strict=True)))

    return score


def _function_judge(name: str) -> Judge:
    function = _import_function("reward.judge", name)

    def judge(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Figures]:
        key = f"reward.judge: {name}"
        values = _call(key, function, prompts, completions, _columns(prompts), "dictionaries")
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


def _import_function(key: str, name: str) -> Callable[..., Any]:
    """Import a function of the user's own, which `key` of the configuration names."""
    module, _, attribute = name.partition(":")
    if "" not in sys.path:  # a console script does not import from the working folder, where users keep their rewards
        sys.path.insert(0, "")
    imported, error = _call_user_code(importlib.import_module, module)
    if error is not None:
        raise UserError(
            f"{key}: {name}: {type(error).__name__}: {error}; the module must be importable from here"
        ) from error
    if attribute not in vars(imported):
        raise UserError(f"{key}: {name}: {module} has no {attribute}; correct the name")
    if not callable(vars(imported)[attribute]):
        raise UserError(f"{key}: {name}: is no function but {short_repr(vars(imported)[attribute])}; name one")
    return vars(imported)[attribute]


def _call_user_code(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[Any, Exception | None]:
    """Call a user's own code; return its value, or None and its exception."""
    try:
        return call(*arguments, **keywords), None
    except Exception as error:  # it may raise anything, and the run must say whose fault it was
        return None, error


def _call(
    key: str,
    function: Callable[..., Any],
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    columns: Mapping[str, list],
    wanted: str,
) -> list[Any]:
    """Return the value of a user's function for each completion; raise UserError where it fails.

    `key` names the function in messages; `wanted` is what it should list.
    """
    texts = [prompt.text for prompt in prompts]
    values, error = _call_user_code(function, prompts=texts, completions=list(completions), **columns)
    if error is not None:
        where = _culprit(function, prompts, completions, columns)
        raise UserError(
            f"{key} raised {type(error).__name__}: {error} {where}; mend it, or return None for what it can't judge"
        ) from error
    try:
        values = list(values)
    except TypeError:
        raise UserError(f"{key} returned {short_repr(values)}; return a list of {wanted}") from None
    if len(values) != len(completions):
        raise UserError(
            f"{key} returned {len(values)} values for {len(completions)} completions "
            f"(rows {prompts[0].id} to {prompts[-1].id}); return one for each, None where it does not apply"
        )
    return values


def _call_reward(
    name: str,
    function: Callable[..., Any],
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    columns: Mapping[str, list],
) -> np.ndarray:
    """Return one function's values [N], None as NaN; raise UserError for every fault in a user's code."""
    key = f"reward.functions: {name}"
    values = _call(key, function, prompts, completions, columns, "numbers")
    for prompt, completion, value in zip(prompts, completions, values, strict=True):
        if value is not None and not _is_finite(value):
            raise UserError(
                f"{key} returned {short_repr(value)} for row {prompt.id}; "
                f"return a finite number, or None where it does not apply (completion: {completion[:80]!r})"
            )
    return np.array([math.nan if value is None else float(value) for value in values])


def _plain(value: Any) -> float | None:
    """Return a figure as JSON can hold it."""
    if value is None or isinstance(value, bool):
        return value
    return bool(value) if isinstance(value, np.bool_) else float(value)


def _is_finite(value: Any) -> bool:
    if not isinstance(value, (int, float, np.number, np.bool_)):
        return False
    size: Any = abs(value)  # NaN compares false; an integer past the largest float must not reach float()
    return bool(size <= sys.float_info.max)


def _culprit(
    function: Callable[..., Any], prompts: Sequence[Prompt], completions: Sequence[str], columns: Mapping[str, list]
) -> str:
    """Name the completion that a function fails on when it is called with one at a time."""
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        one = {column: [values[i]] for column, values in columns.items()}
        if _call_user_code(function, prompts=[prompt.text], completions=[completion], **one)[1] is not None:
            return f"for row {prompt.id} (completion: {completion[:80]!r})"
    return f"for {len(completions)} completions together, though for none of them alone"
