"""The strict rubric, the one to train on: it gives no reward for the published rubric's loopholes.

1. format_valid is the share of five checks that pass. Unless all pass, every other component is scaled by
   `invalid_share` * format_valid: a policy sees the direction to improve in, and no exploit is worthwhile.
2. score_alignment falls to 0 at an error of `score_tolerance`, since a hedged 0.5 is not nearly right. Where score
   and decision contradict each other, both components are 0.
3. reason_quality is the share of the decisive facts that confirmed clauses state (`reward.evidence`).
4. no_hallucination is confirmed / (confirmed + unread + 2 refuted) clauses.
"""

from __future__ import annotations

from typing import Any

from reward.breakdown import COMPONENTS, DECISIONS, GoldLabel, GradeSheet
from reward.evidence import Evidence, weigh
from reward.limits import StrictLimits
from reward.names import quote
from reward.parsing import StrictObject, read_strict

VERSION = "strict 2"
KEYS = frozenset(("decision", "score", "reasons"))
# From here up a score says shortlist, below it reject.
SHORTLIST_FROM = 0.5


def grade_strict(completion: str, gold: GoldLabel, limits: StrictLimits) -> GradeSheet:
    """Grade one completion by the six strict components."""
    sheet = GradeSheet()
    found = read_strict(completion)
    if found is None:
        sheet.give("format_valid", 0.0, "no JSON object reads between the first { and the last }")
        for name in COMPONENTS[1:]:
            sheet.note(name, "nothing to grade")
        return sheet
    failed = _format_failures(found, limits)
    sheet.give("format_valid", 1.0 - len(failed) / 5, *failed)
    decision = found.fields.get("decision")
    score = _finite_score(found.fields.get("score"))
    _decision(decision, score, gold, sheet)
    _score(score, decision, gold, limits, sheet)
    _reasons(found.fields.get("reasons"), gold, limits, sheet)
    _length(completion, limits, sheet)
    if failed:
        _scale(sheet, limits)
    return sheet


def _format_failures(found: StrictObject, limits: StrictLimits) -> list[str]:
    """Return one phrase for each of the five checks that fails."""
    fields = found.fields
    checks = {
        "text stands outside the object": found.alone,
        "the keys are not exactly decision, score and reasons, once each": fields.keys() == KEYS and not found.repeated,
        "the decision is neither shortlist nor reject": _is_decision(fields.get("decision")),
        "the score is no number from 0 to 1": _finite_score(fields.get("score")) is not None,
        f"the reasons are not {limits.min_reasons} to {limits.max_reasons} strings with text in them": (
            _are_reasons(fields.get("reasons"), limits)
        ),
    }
    return [text for text, holds in checks.items() if not holds]


def _are_reasons(value: Any, limits: StrictLimits) -> bool:
    if not isinstance(value, list) or not limits.min_reasons <= len(value) <= limits.max_reasons:
        return False
    return all(isinstance(reason, str) and reason.strip() for reason in value)


def _is_decision(value: Any) -> bool:
    return isinstance(value, str) and value in DECISIONS


def _finite_score(value: Any) -> float | None:
    # bool is an int in Python; a huge int compares without overflow, and float() comes after the bounds.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)


def _decision(value: Any, score: float | None, gold: GoldLabel, sheet: GradeSheet) -> None:
    if not _is_decision(value):
        sheet.give("decision_match", 0.0, "no decision to compare")
    elif value != gold.decision:
        sheet.give("decision_match", 0.0, f"{quote(value)} where the label is {gold.decision}")
    elif _contradicts(score, value):
        sheet.give("decision_match", 0.0, f"score {score:.2f} contradicts {value}")
    else:
        sheet.give("decision_match", 1.0)


def _contradicts(score: float | None, decision: str) -> bool:
    return score is not None and (score >= SHORTLIST_FROM) != (decision == "shortlist")


def _score(score: float | None, decision: Any, gold: GoldLabel, limits: StrictLimits, sheet: GradeSheet) -> None:
    if score is None or not _is_decision(decision):
        sheet.give("score_alignment", 0.0, "no score and decision to compare")
    elif _contradicts(score, decision):
        sheet.give("score_alignment", 0.0, f"score {score:.2f} contradicts {decision}")
    else:
        error = abs(score - gold.score)
        mark = max(0.0, 1.0 - error / limits.score_tolerance)
        sheet.give("score_alignment", mark, *([f"{score:.2f} where the fit is {gold.score:.2f}"] if error else []))


def _reasons(reasons: Any, gold: GoldLabel, limits: StrictLimits, sheet: GradeSheet) -> None:
    if not isinstance(reasons, list) or not reasons:
        for name in ("reason_quality", "no_hallucination"):
            sheet.give(name, 0.0, "no list of reasons")
        return
    assert gold.facts is not None, "Rubric reads the facts of every row that strict grades"
    # Reasons past the most allowed are not read: a megabyte of them must not cost a minute.
    evidence = weigh(reasons[: limits.max_reasons], gold.facts, limits.max_reason_chars)
    contradicted = {fact for row in evidence.reasons for c in row if c.status == "refuted" for fact in c.facts}
    lost = [(fact, share) for fact, share in evidence.covered.items() if share < 1]
    words = [f"{_how(fact, share, contradicted)}: {quote(fact)}" for fact, share in lost]
    sheet.give("reason_quality", evidence.coverage, *words)
    sheet.give("no_hallucination", evidence.no_hallucination, *_objections(evidence))


def _how(fact: str, share: float, contradicted: set[str]) -> str:
    return "contradicted" if fact in contradicted else "stated in part" if share else "not stated"


def _objections(evidence: Evidence) -> list[str]:
    """Return a phrase for each clause that is refuted or unread, or why there is nothing to count."""
    phrases = [
        f"reason {number}, {quote(clause.text)} {clause.status}: {clause.why}"
        for number, row in enumerate(evidence.reasons, start=1)
        for clause in row
        if clause.status != "confirmed"
    ]
    return phrases or ([] if evidence.count("confirmed") else ["no clause states a decisive fact"])


def _length(completion: str, limits: StrictLimits, sheet: GradeSheet) -> None:
    n = len(completion)
    if n <= limits.full_chars:
        sheet.give("length_penalty", 1.0)
        return
    left = max(0.0, (limits.zero_chars - n) / (limits.zero_chars - limits.full_chars))
    sheet.give("length_penalty", left, f"{n} characters, over {limits.full_chars}")


def _scale(sheet: GradeSheet, limits: StrictLimits) -> None:
    share = limits.invalid_share * sheet.marks["format_valid"]
    for name in COMPONENTS[1:]:
        sheet.give(name, sheet.marks[name] * share, f"scaled by {share:.2f} for the invalid format")
