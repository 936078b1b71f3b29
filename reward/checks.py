"""Checks before and beside a grade: if a row has what a rubric needs, and what the facts say to each reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from reward.evidence import Evidence, weigh
from reward.facts import REMEDY, read_facts
from reward.limits import StrictLimits
from reward.parsing import read_strict
from reward.rubric import Rubric


class CheckedReasons(NamedTuple):
    """A completion's reasons, and what the facts say to them."""

    texts: list[str]
    evidence: Evidence
    """`evidence.reasons` holds the clauses of each text."""


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
    found = read_strict(completion)
    reasons = found.fields.get("reasons") if found else None
    limits = limits or StrictLimits()
    read = reasons[: limits.max_reasons] if isinstance(reasons, list) else []
    texts = [reason if isinstance(reason, str) else json.dumps(reason) for reason in read]
    return CheckedReasons(texts, weigh(read, read_facts(facts), limits.max_reason_chars))
