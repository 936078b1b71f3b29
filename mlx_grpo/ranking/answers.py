"""A completion as an answer that can be ranked: decision, score, and each reason checked against the facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from mlx_grpo.data.thinking import strip_thinking
from reward import Rubric
from reward.checks import check_reasons
from reward.evidence import Clause
from reward.limits import StrictLimits
from reward.parsing import read_strict
from reward.strict import SHORTLIST_FROM


class Mark(NamedTuple):
    """One clause of a reason."""

    text: str
    status: str
    """confirmed, refuted or unread."""
    why: str


class Reason(NamedTuple):
    """One reason of an answer."""

    text: str
    marks: tuple[Mark, ...]
    """Of its clauses, in order."""

    @property
    def status(self) -> str:
        """Return "refuted" where any clause is, else "unread" where any is, else "confirmed"."""
        found = {mark.status for mark in self.marks}
        return next((status for status in ("refuted", "unread", "confirmed") if status in found), "unread")


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer about one candidate, or the note why there is none that can be ranked."""

    candidate_id: str
    decision: str = ""
    """shortlist or reject; "" where there is no valid answer."""
    score: float | None = None
    coverage: float | None = None
    """The share of the decisive facts that confirmed clauses state, 0 to 1; None where there is no valid answer."""
    reasons: tuple[Reason, ...] = ()
    retried: bool = False
    note: str = ""
    """Why there is no valid answer; or the contradiction in a valid one."""
    completion: str = ""
    """The completion, where it is no valid answer."""

    @property
    def valid(self) -> bool:
        """Return True if the answer has a decision, a score and reasons."""
        return self.score is not None

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Make an answer from the fields of `dataclasses.asdict`, after a round trip through JSON."""
        answer = cls(**fields)
        reasons = tuple(Reason(text, tuple(Mark(*mark) for mark in marks)) for text, marks in answer.reasons)
        return replace(answer, reasons=reasons)


def read_answer(
    candidate_id: str,
    completion: str,
    facts: Mapping[str, Any],
    rubric: Rubric[StrictLimits],
    opened: bool = False,
) -> Answer:
    """Read a completion strictly: it is a valid answer if the strict rubric calls its format valid.

    `facts` are those of the prompt; `rubric` is the strict one with a run's limits. `opened` means that the prompt
    began a thought.
    """
    text = strip_thinking(completion, opened)
    # The format does not depend on the label, so any label will do.
    graded = rubric(text, decision="reject", score=0.0, facts=facts)
    parsed = read_strict(text)
    if parsed is None or graded.format_valid < 1:
        faults = [finding.text for finding in graded.findings if finding.component == "format_valid"]
        return Answer(candidate_id, note="; ".join(faults), completion=completion)
    decision, score = parsed.fields["decision"], parsed.fields["score"]
    texts, evidence = check_reasons(text, facts, rubric.limits)
    contradicts = (score >= SHORTLIST_FROM) != (decision == "shortlist")
    return Answer(
        candidate_id,
        decision,
        float(score),
        evidence.coverage,
        tuple(Reason(text, _marks(clauses)) for text, clauses in zip(texts, evidence.reasons, strict=True)),
        note=f"score {score:.2f} contradicts {decision}" if contradicts else "",
    )


def _marks(clauses: tuple[Clause, ...]) -> tuple[Mark, ...]:
    return tuple(Mark(clause.text, clause.status, clause.why) for clause in clauses)
