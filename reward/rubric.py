"""A rubric: a grader, weights and limits, called on one completion at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

from reward.breakdown import COMPONENTS, DECISIONS, Breakdown, GoldLabel, GradeSheet
from reward.facts import read_facts
from reward.limits import PublishedLimits, StrictLimits


@dataclass(frozen=True)
class Weights:
    """A weight for each component, at least 0; `Rubric` divides them by their sum, so only their ratios count."""

    format_valid: float
    decision_match: float
    score_alignment: float
    reason_quality: float
    length_penalty: float
    no_hallucination: float


Limits = TypeVar("Limits", PublishedLimits, StrictLimits)


@dataclass(frozen=True)
class Rubric(Generic[Limits]):
    """Grades a completion by rules; immutable, and the same completion always gets the same grade.

    `grade` is a module-level function (completion, GoldLabel, limits) -> GradeSheet, so a rubric can be pickled.
    `version` stands for its rules: totals compare only under the same one. `columns` are what a row hands over, by
    name. Raises ValueError naming every weight and limit that makes no sense.
    """

    name: str
    version: str
    columns: tuple[str, ...]
    grade: Callable[[str, GoldLabel, Limits], GradeSheet]
    weights: Weights
    limits: Limits

    def __post_init__(self) -> None:
        weights = vars(self.weights)
        problems = [
            f"weights.{name} = {value!r}: must be finite and at least 0; give a share such as 0.2"
            for name, value in weights.items()
            if not _is_number(value) or value < 0
        ]
        if not problems and sum(weights.values()) <= 0:
            problems.append(f"weights = {weights}: all are 0; give at least one component a weight")
        mistyped = [
            f"limits.{name} = {value!r}: must be a finite number; give one"
            for name, value in vars(self.limits).items()
            if not _is_number(value)
        ]
        mistyped += [
            f"limits.{field.name} = {value!r}: counts something; give a whole number"
            for field in fields(self.limits)
            if field.type == "int" and isinstance(value := vars(self.limits)[field.name], float)
        ]
        problems += mistyped or self.limits.problems()
        if problems:
            raise ValueError("; ".join(problems))

    def __call__(
        self,
        completion: str,
        *,
        decision: str,
        score: float,
        facts: Mapping[str, Any] | None = None,
        context: str | None = None,
    ) -> Breakdown:
        """Grade one completion against its label and fit; never raise on any completion text.

        decision: "shortlist" or "reject". score: the fit, in [0, 1]. facts: the column of the row, which strict
        needs. context: the job and profile of the prompt, which published needs.
        Raises ValueError for anything else: a mistake in the data, not in the completion.
        """
        gold = self._gold(decision, score, facts, context)
        sheet = self.grade(completion, gold, self.limits)
        weights = vars(self.weights)
        total = sum(weights[name] * sheet.marks[name] for name in COMPONENTS) / sum(weights.values())
        # Rounding in the last place may leave [0, 1] by 1e-16.
        return Breakdown(**sheet.marks, total=min(1.0, max(0.0, total)), findings=tuple(sheet.findings))

    def explain(self, completion: str, **gold: Any) -> list[str]:
        """Return one line for each component, with its mark and findings, then the total; called like the rubric."""
        return self(completion, **gold).lines()

    def with_(self, *, weights: Mapping[str, float] | None = None, limits: Mapping[str, float] | None = None) -> Self:
        """Return this rubric with some weights or limits changed: `STRICT.with_(weights={"length_penalty": 0})`.

        Raises ValueError naming every key that is no weight or limit, and every value that makes no sense.
        """
        new_weights: dict[str, Any] = dict(weights or {})
        new_limits: dict[str, Any] = dict(limits or {})
        problems = _unknown("weights", new_weights, self.weights) + _unknown("limits", new_limits, self.limits)
        if problems:
            raise ValueError("; ".join(problems))
        return replace(self, weights=replace(self.weights, **new_weights), limits=replace(self.limits, **new_limits))

    def _gold(self, decision: str, score: float, facts: object, context: object) -> GoldLabel:
        if decision not in DECISIONS:
            raise ValueError(
                f"decision = {decision!r}: the label must be one of {', '.join(DECISIONS)}; correct the data"
            )
        if not _is_number(score) or not 0 <= score <= 1:
            raise ValueError(f"score = {score!r}: the fit must be a number from 0 to 1; correct the data")
        if "facts" in self.columns:
            return GoldLabel(decision, score, facts=read_facts(facts))
        if not isinstance(context, str):
            raise ValueError(
                f"context is {type(context).__name__}: it must be the text that the model read; correct the data"
            )
        return GoldLabel(decision, score, context=context)


def _is_number(value: object) -> bool:
    # NaN compares false; math.isfinite would raise for an integer past the largest float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _unknown(kind: str, given: Mapping[str, float], known: Weights | PublishedLimits | StrictLimits) -> list[str]:
    names = [field.name for field in fields(known)]
    return [
        f"{kind}.{name} = {value!r}: there is no such key; choose from {', '.join(names)}"
        for name, value in given.items()
        if name not in names
    ]
