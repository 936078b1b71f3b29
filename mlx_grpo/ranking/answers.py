"""A completion as an answer that can be ranked: decision, score, and each reason with what the rubric says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from mlx_grpo.rewards import strip_thinking
from reward import Rubric
from reward.grounding import judge_reasons
from reward.parsing import read_strict
from reward.profile import read_context
from reward.strict import SHORTLIST_FROM


class Reason(NamedTuple):
    """One reason of an answer."""

    text: str
    grounded: bool
    """The strict rubric finds that it stands on the job and the profile, in words of its own."""
    why: str
    """What the rubric objects to; "" where it is grounded."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of one candidate, or why it says nothing that can be ranked."""

    candidate_id: str
    decision: str = ""
    """shortlist or reject; "" where there is no valid answer."""
    score: float | None = None
    reasons: tuple[Reason, ...] = ()
    retried: bool = False
    note: str = ""
    """Why there is no valid answer; of a valid one, what contradicts itself in it."""
    completion: str = ""
    """What the model wrote, where that is no valid answer."""

    @property
    def valid(self) -> bool:
        """Whether it has a decision, a score and reasons."""
        return self.score is not None

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The answer that `dataclasses.asdict` made these fields of, after a round through JSON."""
        answer = cls(**fields)
        return replace(answer, reasons=tuple(Reason(*reason) for reason in answer.reasons))


def read_answer(candidate_id: str, completion: str, context: str, rubric: Rubric) -> Answer:
    """Read a completion strictly: valid is what the strict rubric finds valid in form.

    `context` is the user message that the model was shown; `rubric` is the strict one with a run's limits.
    """
    text = strip_thinking(completion)
    # The form does not depend on what is right, so any label does.
    graded = rubric(text, decision="reject", score=0.0, context=context)
    found = read_strict(text)
    if found is None or graded.format_valid < 1:
        faults = [finding.text for finding in graded.findings if finding.component == "format_valid"]
        return Answer(candidate_id, note="; ".join(faults), completion=completion)
    decision, score, reasons = (found.fields[key] for key in ("decision", "score", "reasons"))
    judged = judge_reasons(reasons, read_context(context), rubric.limits)
    contradicts = (score >= SHORTLIST_FROM) != (decision == "shortlist")
    return Answer(
        candidate_id,
        decision,
        float(score),
        tuple(Reason(reason, not j.why, j.why) for reason, j in zip(reasons, judged, strict=True)),
        note=f"score {score:.2f} contradicts {decision}" if contradicts else "",
    )
