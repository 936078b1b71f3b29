"""A completion as an answer that can be ranked: decision, score, and each reason with the rubric's judgement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from mlx_grpo.rewards import strip_thinking
from reward import Rubric
from reward.grounding import judge_reasons
from reward.limits import StrictLimits
from reward.parsing import read_strict
from reward.profile import read_context
from reward.strict import SHORTLIST_FROM


class Reason(NamedTuple):
    """One reason of an answer."""

    text: str
    grounded: bool
    """True if the strict rubric has no objection: the reason cites the job or the profile in its own words."""
    why: str
    """The rubric's objection; "" where it is grounded."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer about one candidate, or the note why there is none that can be ranked."""

    candidate_id: str
    decision: str = ""
    """shortlist or reject; "" where there is no valid answer."""
    score: float | None = None
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
        return replace(answer, reasons=tuple(Reason(*reason) for reason in answer.reasons))


def read_answer(candidate_id: str, completion: str, context: str, rubric: Rubric[StrictLimits]) -> Answer:
    """Read a completion strictly: it is a valid answer if the strict rubric calls its format valid.

    `context` is the user message of the prompt; `rubric` is the strict one with a run's limits.
    """
    text = strip_thinking(completion)
    # The format does not depend on the label, so any label will do.
    graded = rubric(text, decision="reject", score=0.0, context=context)
    parsed = read_strict(text)
    if parsed is None or graded.format_valid < 1:
        faults = [finding.text for finding in graded.findings if finding.component == "format_valid"]
        return Answer(candidate_id, note="; ".join(faults), completion=completion)
    decision, score, reasons = (parsed.fields[key] for key in ("decision", "score", "reasons"))
    judged = judge_reasons(reasons, read_context(context), rubric.limits)
    contradicts = (score >= SHORTLIST_FROM) != (decision == "shortlist")
    return Answer(
        candidate_id,
        decision,
        float(score),
        tuple(Reason(reason, not j.why, j.why) for reason, j in zip(reasons, judged, strict=True)),
        note=f"score {score:.2f} contradicts {decision}" if contradicts else "",
    )
