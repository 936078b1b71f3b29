"""Completions to rewards: the rule rubrics, or a user's own functions in TRL's shape."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mlx_grpo.config.schema import RewardConfig
from mlx_grpo.data.types import Prompt
from mlx_grpo.errors import UserError, short_repr
from reward import PUBLISHED, RUBRICS, Rubric
from reward.evidence import Evidence, weigh
from reward.facts import REMEDY, read_facts
from reward.limits import StrictLimits
from reward.parsing import read_strict


@dataclass(frozen=True, slots=True)
class Scores:
    """The rewards of N completions; NaN where no reward function applies."""

    rewards: np.ndarray
    """f64 [N]"""
    components: dict[str, np.ndarray]
    """Each [N]: the rubric's components, or the reward functions by name."""

    def replaced(self, rows: np.ndarray, fresh: Scores) -> Scores:
        """Return a copy of these scores in which some rows have new ones."""
        rewards = self.rewards.copy()
        components = {name: values.copy() for name, values in self.components.items()}
        rewards[rows] = fresh.rewards
        for name, values in components.items():
            values[rows] = fresh.components[name]
        return Scores(rewards, components)


class CheckedReasons(NamedTuple):
    """A completion's reasons, and what the facts say to them."""

    texts: list[str]
    evidence: Evidence
    """`evidence.reasons` holds the clauses of each text."""


Reward = Callable[[Sequence[Prompt], Sequence[str]], Scores]


def strip_thinking(text: str) -> str:
    """Remove `<think>...</think>` from a completion, and unfinished thinking up to the end."""
    return re.sub(r"<think>.*?(?:</think>|\Z)", "", text, flags=re.DOTALL).strip()


def load_reward(config: RewardConfig) -> Reward:
    """Make the reward that a config names; raise UserError where it can't be made."""
    if config.rubric is None:
        return _function_reward(config)
    return rubric_reward(make_rubric(config))


def make_rubric(config: RewardConfig) -> Rubric:
    """Return the configured rubric with its weights and limits."""
    try:
        return RUBRICS[config.rubric or "strict"].with_(weights=config.weights, limits=config.limits)
    except ValueError as error:
        raise UserError(f"reward: {error}") from None


def check_columns(config: RewardConfig, prompts: Sequence[Prompt]) -> None:
    """Raise UserError naming the first row whose columns the configured rubric can't grade against."""
    if config.rubric is None:
        return
    rubric = make_rubric(config)
    found = {prompt.id: _label_problem(prompt, rubric) for prompt in prompts}
    problems = {row: problem for row, problem in found.items() if problem}
    if problems:
        row, problem = next(iter(problems.items()))
        others = f" (and {len(problems) - 1} other rows like it)" if len(problems) > 1 else ""
        remedy = "correct the columns, or set reward.rubric to null and name reward.functions"
        raise UserError(f"row {row}: {problem}{others}" + ("" if REMEDY in problem else f"; {remedy}"))


def has_gold_label(prompt: Prompt) -> bool:
    """Return True if a row has the columns that the published rubric grades against, with valid values."""
    return _label_problem(prompt, PUBLISHED) is None


def rubric_reward(rubric: Rubric) -> Reward:
    """Make a reward of a rubric; its rows need the rubric's columns, of which a prompt itself can be the `context`."""

    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> Scores:
        breakdowns = []
        for prompt, completion in zip(prompts, completions, strict=True):
            breakdowns.append(rubric(strip_thinking(completion), **_label(prompt, rubric)).as_dict())
        columns = {name: np.array([b[name] for b in breakdowns]) for name in breakdowns[0]}
        return Scores(columns.pop("total"), columns)

    return score


def columns_problem(columns: Mapping[str, Any], rubric: Rubric) -> str | None:
    """Return the reason why a rubric can't grade against these columns, with the remedy; None where it can."""
    missing = [column for column in rubric.columns if column not in columns]
    if missing == ["facts"]:
        return f"has no facts, which {rubric.version} confirms reasons against; {REMEDY}"
    if missing:
        return f"has no {', '.join(missing)}, which the rubric grades against"
    try:
        rubric("", **{column: columns[column] for column in rubric.columns})
    except ValueError as error:
        return str(error)
    return None


def check_reasons(completion: str, facts: Mapping[str, Any], limits: StrictLimits | None = None) -> CheckedReasons:
    """Check the reasons of a completion against a row's facts; there are none where it holds no list of reasons."""
    found = read_strict(strip_thinking(completion))
    reasons = found.fields.get("reasons") if found else None
    limits = limits or StrictLimits()
    read = reasons[: limits.max_reasons] if isinstance(reasons, list) else []
    texts = [reason if isinstance(reason, str) else json.dumps(reason) for reason in read]
    return CheckedReasons(texts, weigh(read, read_facts(facts), limits.max_reason_chars))


def _label(prompt: Prompt, rubric: Rubric) -> dict[str, Any]:
    return {column: _column(prompt, column) for column in rubric.columns}


def _label_problem(prompt: Prompt, rubric: Rubric) -> str | None:
    return columns_problem({**prompt.columns, "context": prompt.context}, rubric)


def _column(prompt: Prompt, name: str) -> Any:
    return prompt.context if name == "context" else prompt.columns[name]


def _function_reward(config: RewardConfig) -> Reward:
    functions = {name: _import_function(name) for name in config.functions}
    weights = config.reward_weights or [1.0] * len(functions)
    short = [name.partition(":")[2] for name in functions]
    labels = short if len(set(short)) == len(short) else list(functions)

    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> Scores:
        keys = set.intersection(*(set(prompt.columns) for prompt in prompts))
        columns = {key: [prompt.columns[key] for prompt in prompts] for key in sorted(keys)}
        stacked = np.array([_call(name, f, prompts, list(completions), columns) for name, f in functions.items()])
        applies = ~np.isnan(stacked)
        total = (np.where(applies, stacked, 0.0) * np.array(weights)[:, None]).sum(axis=0)
        return Scores(np.where(applies.any(axis=0), total, np.nan), dict(zip(labels, stacked, strict=True)))

    return score


def _import_function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    if "" not in sys.path:  # a console script does not import from the working folder, where users keep their rewards
        sys.path.insert(0, "")
    imported, error = _call_user_code(importlib.import_module, module)
    if error is not None:
        raise UserError(
            f"reward.functions: {name}: {type(error).__name__}: {error}; the module must be importable from here"
        ) from error
    if attribute not in vars(imported):
        raise UserError(f"reward.functions: {name}: {module} has no {attribute}; correct the name")
    if not callable(vars(imported)[attribute]):
        raise UserError(
            f"reward.functions: {name}: is no function but {short_repr(vars(imported)[attribute])}; name one"
        )
    return vars(imported)[attribute]


def _call_user_code(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[Any, Exception | None]:
    """Call a user's own code; return its value, or None and its exception."""
    try:
        return call(*arguments, **keywords), None
    except Exception as error:  # it may raise anything, and the run must say whose fault it was
        return None, error


def _call(
    name: str, function: Callable[..., Any], prompts: Sequence[Prompt], completions: list[str], columns: dict[str, list]
) -> np.ndarray:
    """Return one function's values [N], None as NaN; raise UserError for every fault in a user's code."""
    texts = [prompt.text for prompt in prompts]
    values, error = _call_user_code(function, prompts=texts, completions=completions, **columns)
    if error is not None:
        where = _culprit(function, prompts, completions, columns)
        raise UserError(
            f"reward.functions: {name} raised {type(error).__name__}: {error} {where}; mend it, "
            "or return None for what it can't judge"
        ) from error
    try:
        values = list(values)
    except TypeError:
        raise UserError(f"reward.functions: {name} returned {short_repr(values)}; return a list of numbers") from None
    if len(values) != len(completions):
        raise UserError(
            f"reward.functions: {name} returned {len(values)} values for {len(completions)} completions "
            f"(rows {prompts[0].id} to {prompts[-1].id}); return one for each, None where it does not apply"
        )
    for prompt, completion, value in zip(prompts, completions, values, strict=True):
        if value is not None and not _is_finite(value):
            raise UserError(
                f"reward.functions: {name} returned {short_repr(value)} for row {prompt.id}; "
                f"return a finite number, or None where it does not apply (completion: {completion[:80]!r})"
            )
    return np.array([math.nan if value is None else float(value) for value in values])


def _is_finite(value: Any) -> bool:
    if not isinstance(value, (int, float, np.number)):
        return False
    size: Any = abs(value)  # NaN compares false; an integer past the largest float must not reach float()
    return bool(size <= sys.float_info.max)


def _culprit(
    function: Callable[..., Any], prompts: Sequence[Prompt], completions: list[str], columns: dict[str, list]
) -> str:
    """Name the completion that a function fails on when it is called with one at a time."""
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        one = {column: [values[i]] for column, values in columns.items()}
        if _call_user_code(function, prompts=[prompt.text], completions=[completion], **one)[1] is not None:
            return f"for row {prompt.id} (completion: {completion[:80]!r})"
    return f"for {len(completions)} completions together, though for none of them alone"
