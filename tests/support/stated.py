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
from reward.facts import DEGREES, LEVELS

SKILL = re.compile(rf"(?P<name>.+)(: | \()(?P<level>{'|'.join(LEVELS)}), (?P<months>\d+) ?m(onths?)?\)?")
YEARS = re.compile(r"(?P<years>[\d.]+) years?, (?P<side>\w+) (?P<low>\d+)(-(?P<high>\d+)|\+)")
WORK = re.compile(r".*?\b(?P<degree>partly related|unrelated|related)( work)?")
RELEVANCE = {words: degree for degree, words in DEGREES.items()}


def stated_score(completion: str) -> float | None:
    """Return the rule's score of the facts that an answer states; None where it states no skill.

    A skill said to be missing counts nothing; years and work that it does not speak of count in full.
    """
    try:
        reasons = json.loads(completion)["reasons"]
        clauses = [clause.strip() for reason in reasons for clause in reason.split(";")]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    skills = [credit for clause in clauses if (credit := skill_credit(clause)) is not None]
    if not skills:
        return None
    if any(clause.endswith("impossible") for clause in clauses):
        return 0.0
    years = [stated_years(match) for clause in clauses if (match := YEARS.fullmatch(clause))]
    work = [RELEVANCE[match["degree"]] for clause in clauses if (match := WORK.fullmatch(clause))]
    return weighted(sum(skills) / len(skills), min(years, default=1.0), max(work, default=1.0))


def skill_credit(clause: str) -> float | None:
    """Return the credit of the skill that a clause states, 0 for one that is missing; None for another clause."""
    if clause.endswith(": missing"):
        return 0.0
    match = SKILL.fullmatch(clause)
    return credit(match["level"], float(match["months"])) if match else None


def stated_years(match: re.Match[str]) -> float:
    """Return the credit of the years that a clause states: in full where it calls them inside the range."""
    if match["side"] in ("inside", "within"):
        return 1.0
    high = float(match["high"]) if match["high"] else None
    return years_credit(float(match["years"]), float(match["low"]), high)


def stated_auc(episodes: Sequence[dict[str, Any]]) -> float:
    """Return the ROC AUC of the stated scores; an answer without one ranks last."""
    scores = [stated_score(episode["completion"]) for episode in episodes]
    ranked = np.array([NO_SCORE if score is None else score for score in scores])
    positive = np.array([episode["positive"] > 0.5 for episode in episodes])
    return float(roc_auc(positive, ranked, np.ones((1, len(ranked))))[0])
