"""The result of a rubric: six components, their total, and the reasons for each mark in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from reward.facts import Facts

COMPONENTS = (
    "format_valid",
    "decision_match",
    "score_alignment",
    "reason_quality",
    "length_penalty",
    "no_hallucination",
)
DECISIONS = ("shortlist", "reject")


class Finding(NamedTuple):
    """The reason for a component's mark: the component's name and one phrase."""

    component: str
    text: str


class GoldLabel(NamedTuple):
    """The label that a completion is graded against: decision, fit in [0, 1], and what its reasons are about."""

    decision: str
    score: float
    context: str = ""
    """The user message of the prompt; the published rubric's."""
    facts: Facts | None = None
    """The strict rubric's."""


@dataclass
class GradeSheet:
    """The marks during grading; components without a mark are 0, and findings are noted where a mark is decided."""

    marks: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPONENTS, 0.0))
    findings: list[Finding] = field(default_factory=list)

    def give(self, component: str, mark: float, *texts: str) -> None:
        """Set a component's mark and note findings about it."""
        self.marks[component] = mark
        self.note(component, *texts)

    def note(self, component: str, *texts: str) -> None:
        """Note findings about a component."""
        self.findings.extend(Finding(component, text) for text in texts)


@dataclass(frozen=True)
class Breakdown:
    """Six components and their convex combination `total`, each a float in [0, 1], with the findings behind them."""

    format_valid: float
    decision_match: float
    score_alignment: float
    reason_quality: float
    length_penalty: float
    no_hallucination: float
    total: float
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, float]:
        """Return the six components and `total` by name, without the findings."""
        return {name: getattr(self, name) for name in (*COMPONENTS, "total")}

    def lines(self) -> list[str]:
        """Return one line for each component with its mark and findings, in order, then the total."""
        printed = []
        for name in COMPONENTS:
            texts = [finding.text for finding in self.findings if finding.component == name]
            printed.append(f"{name} {getattr(self, name):.2f}: {'; '.join(texts) or 'nothing to object'}")
        return [*printed, f"total {self.total:.2f}"]
