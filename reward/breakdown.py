"""What a rubric hands back: six components, their total, and the reasons for each in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

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
    """Why a component earned what it earned: the component's name and one phrase."""

    component: str
    text: str


class GoldLabel(NamedTuple):
    """What a completion is graded against: the label, the fit in [0, 1], and the text the policy was shown."""

    decision: str
    score: float
    context: str


@dataclass
class GradeSheet:
    """The marks while grading: components not given stay 0; findings are noted where the marks are decided."""

    marks: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPONENTS, 0.0))
    findings: list[Finding] = field(default_factory=list)

    def give(self, component: str, mark: float, *texts: str) -> None:
        self.marks[component] = mark
        self.note(component, *texts)

    def note(self, component: str, *texts: str) -> None:
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
        """The six components and `total` by name, without the findings."""
        return {name: getattr(self, name) for name in (*COMPONENTS, "total")}

    def lines(self) -> list[str]:
        """One line for each component, in order, then the total: its mark and what was found."""
        told = []
        for name in COMPONENTS:
            texts = [finding.text for finding in self.findings if finding.component == name]
            told.append(f"{name} {getattr(self, name):.2f}: {'; '.join(texts) or 'nothing to object'}")
        return [*told, f"total {self.total:.2f}"]


def quote(text: str, width: int = 60) -> str:
    """Foreign text made safe to print: cut at `width`, with what UTF-8 cannot carry (lone surrogates) escaped."""
    short = text if len(text) <= width else text[: width - 1] + "…"
    return "'" + short.encode("utf-8", "backslashreplace").decode("utf-8") + "'"
