"""The score that the fit rule gives to the facts as an answer states them, true or not.

Where it orders candidates better than the answer's own score, the model has read the profile and does not weigh it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlx_grpo.evaluation.statistics import NO_SCORE, roc_auc
from mlx_grpo.tasks.shortlist.degrees import credit
from mlx_grpo.tasks.shortlist.fit import weighted, years_credit
from reward.facts import DEGREES
from reward.forms import match_form
from reward.names import plain

RELEVANCE = {words: degree for degree, words in DEGREES.items()}


def stated_score(completion: str) -> float | None:
    """Return the rule's score of the facts that an answer states; None where it states no skill.

    A skill said to be missing counts nothing; years and work that it does not speak of count in full.
    """
    try:
        reasons = json.loads(completion)["reasons"]
        clauses = [plain(clause).rstrip(" .,") for reason in reasons for clause in reason.split(";")]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    found = [(form.kind, match) for form, match in filter(None, map(match_form, clauses))]
    skills = [skill_credit(match) for _, match in found if match.groupdict().get("level")]
    skills += [0.0 for kind, _ in found if kind == "missing"]
    if not skills:
        return None
    if any(kind == "doubt" for kind, _ in found):
        return 0.0
    years = [stated_years(match) for kind, match in found if kind == "years"]
    work = [relevance(match) for kind, match in found if kind == "work"]
    return weighted(sum(skills) / len(skills), min(years, default=1.0), max(work, default=1.0))


def skill_credit(match: re.Match[str]) -> float:
    """Return the credit of the skill that a clause states with its level."""
    months = match.groupdict().get("months")
    return credit(match["level"], None if months is None else float(months))


def stated_years(match: re.Match[str]) -> float:
    """Return the credit of the years that a clause states: in full where it calls them inside the range."""
    if match["side"] in ("inside", "within"):
        return 1.0
    high = float(match["high"]) if match["high"] else None
    return years_credit(float(match["years"]), float(match["low"]), high)


def relevance(match: re.Match[str]) -> float:
    """Return the degree of the work that a clause states."""
    return RELEVANCE[match["degree"].replace("partially", "partly")]


def stated_auc(episodes: Sequence[dict[str, Any]]) -> float:
    """Return the ROC AUC of the stated scores; an answer without one ranks last."""
    scores = [stated_score(episode["completion"]) for episode in episodes]
    ranked = np.array([NO_SCORE if score is None else score for score in scores])
    positive = np.array([episode["positive"] > 0.5 for episode in episodes])
    return float(roc_auc(positive, ranked, np.ones((1, len(ranked))))[0])
