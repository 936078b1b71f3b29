"""The published rubric ("redrob") to the letter, loopholes included, so that totals compare with published ones.

Where the original would crash (a decision that is no string, a score of NaN) the component is 0.
"""

from __future__ import annotations

import re
from typing import Any

from reward.breakdown import COMPONENTS, GoldLabel, GradeSheet
from reward.limits import PublishedLimits
from reward.names import quote
from reward.parsing import read_published

# Possessive (`++`) so that a long run of "A-- A-- A--" costs linear time; `_claims` then cuts a chain at its
# last word that ends on a boundary, which is what a backtracking `\b` after the group would do.
_CHAIN = re.compile(r"\b[A-Z][A-Za-z0-9-]{2,}+(?:\s++[A-Z][A-Za-z0-9-]{2,}+)*+")
_CHAIN_WORD = re.compile(r"[A-Z][A-Za-z0-9-]{2,}+")
_BOUNDED_WORD = re.compile(r"[A-Z][A-Za-z0-9-]{2,}\b")
_NUMBER = re.compile(r"\b\d+(?:\.\d+)?\b")
_WORD = re.compile(r"[a-z][a-z-]{2,}")


def grade_published(completion: str, gold: GoldLabel, limits: PublishedLimits) -> GradeSheet:
    """Grade one completion by the six published components (source: the redrob rubric)."""
    sheet = GradeSheet()
    _length(completion, limits, sheet)
    found = read_published(completion)
    if found is None:
        sheet.give("format_valid", 0.0, "no JSON object reads between the first { and the last }")
        for name in set(COMPONENTS) - {"format_valid", "length_penalty"}:
            sheet.note(name, "nothing to grade")
        return sheet
    sheet.give("format_valid", 1.0)
    _decision(found.get("decision"), gold, sheet)
    _score(found.get("score"), gold, sheet)
    reasons = found.get("reasons")
    _quality(reasons, gold, limits, sheet)
    _hallucination(reasons, gold, sheet)
    return sheet


def _length(completion: str, limits: PublishedLimits, sheet: GradeSheet) -> None:
    n = len(completion)
    if n < limits.short_chars:
        sheet.give("length_penalty", n / limits.short_chars, f"{n} characters, under {limits.short_chars}")
    elif n <= limits.full_chars:
        sheet.give("length_penalty", 1.0)
    else:
        left = max(0.0, (limits.zero_chars - n) / (limits.zero_chars - limits.full_chars))
        sheet.give("length_penalty", left, f"{n} characters, over {limits.full_chars}")


def _decision(value: Any, gold: GoldLabel, sheet: GradeSheet) -> None:
    if not isinstance(value, str):
        sheet.give("decision_match", 0.0, "no decision that is a string")
    elif value.strip().lower() == gold.decision:
        sheet.give("decision_match", 1.0)
    else:
        sheet.give("decision_match", 0.0, f"{quote(value)} where the label is {gold.decision}")


def _score(value: Any, gold: GoldLabel, sheet: GradeSheet) -> None:
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        sheet.give("score_alignment", 0.0, "the score cannot be read as a number")
        return
    if score != score:
        sheet.give("score_alignment", 0.0, "the score is NaN")
        return
    score = min(1.0, max(0.0, score))
    error = abs(score - gold.score)
    sheet.give("score_alignment", 1.0 - error, *([f"{score:.2f} where the fit is {gold.score:.2f}"] if error else []))


def _quality(reasons: Any, gold: GoldLabel, limits: PublishedLimits, sheet: GradeSheet) -> None:
    listed = reasons if isinstance(reasons, list) else []
    texts = [text.strip() for text in listed if isinstance(text, str)]
    kept = [text for text in texts if limits.min_reason_chars <= len(text) <= limits.max_reason_chars]
    if not kept:
        span = f"{limits.min_reason_chars} to {limits.max_reason_chars}"
        sheet.give("reason_quality", 0.0, f"no reason of {span} characters")
        return
    count = min(len(kept), limits.full_reasons) / limits.full_reasons * (0.5 if len(kept) < 2 else 1.0)
    words = [word for text in kept for word in _WORD.findall(text.lower())]
    diversity = len(set(words)) / len(words) if words else 0.0
    lowered = gold.context.lower()
    copy = sum(text.lower() in lowered for text in kept) / len(kept)
    mark = 0.5 * count + 0.3 * diversity + 0.2 * (1.0 - copy)
    sheet.give("reason_quality", mark, f"count {count:.2f}, diversity {diversity:.2f}, copied {copy:.2f}")


def _hallucination(reasons: Any, gold: GoldLabel, sheet: GradeSheet) -> None:
    if not isinstance(reasons, list) or not reasons:
        sheet.give("no_hallucination", 0.0, "reasons is no list with something in it")
        return
    claims = _claims(" ".join(text for text in reasons if isinstance(text, str)))
    if not claims:
        sheet.give("no_hallucination", 1.0)
        return
    missing = [claim for claim in claims if claim not in gold.context]
    mark = (len(claims) - len(missing)) / len(claims)
    sheet.give("no_hallucination", mark, *(f"{quote(c)} stands nowhere in the context" for c in missing[:5]))


def _claims(text: str) -> list[str]:
    """List every number, then every run of capitalised words, with repeats: "3 years at Acme Corp" -> 3, Acme Corp."""
    claims = _NUMBER.findall(text)
    at = 0
    while chain := _CHAIN.search(text, at):
        end = _last_boundary(text, *chain.span())
        if end is not None:
            claims.append(text[chain.start() : end])
        at = chain.end()
    return claims


def _last_boundary(text: str, start: int, end: int) -> int | None:
    """Find the end of the last word of a chain that ends on a word boundary; None if no word does."""
    words = [word.start() for word in _CHAIN_WORD.finditer(text, start, end)]
    ends = (match.end() for at in reversed(words) if (match := _BOUNDED_WORD.match(text, at)))
    return next(ends, None)
