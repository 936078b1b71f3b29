"""The score that the fit rule gives to the facts as an answer states them, true or not.

Where it orders candidates better than the answer's own score, the model has read the profile and does not weigh it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mlx_grpo.tasks.shortlist.degrees import credit

SKILL = re.compile(r"(?P<name>.+): (?P<level>beginner|intermediate|advanced|expert), (?P<months>\d+) ?m(onths?)?")
YEARS = re.compile(r"(?P<years>[\d.]+) years?, (?P<side>\w+) (?P<low>\d+)(-(?P<high>\d+)|\+)")
WORK = re.compile(r".*?\b(?P<degree>partly related|unrelated|related)( work)?")
DEGREES = {"related": 1.0, "partly related": 0.5, "unrelated": 0.0}


def stated_score(completion: str) -> float | None:
    """Return the rule's score of the facts that an answer states; None where it states no skill.

    A skill said to be missing counts nothing; years and work that it does not speak of count in full.
    """
    try:
        reasons = json.loads(completion)["reasons"]
        clauses = [clause.strip() for reason in reasons for clause in reason.split(";")]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    credits = [credit_of(clause) for clause in clauses]
    skills = [each for each in credits if each is not None]
    if not skills:
        return None
    if any(clause.endswith("impossible") for clause in clauses):
        return 0.0
    years = min((years_credit(match) for clause in clauses if (match := YEARS.fullmatch(clause))), default=1.0)
    work = [DEGREES[match["degree"]] for clause in clauses if (match := WORK.fullmatch(clause))]
    return (0.85 * sum(skills) / len(skills) + 0.15 * years) * (0.4 + 0.6 * max(work, default=1.0))


def credit_of(clause: str) -> float | None:
    """Return the credit of the skill that a clause states, 0 for one that is missing; None for another clause."""
    if clause.endswith(": missing"):
        return 0.0
    match = SKILL.fullmatch(clause)
    return credit(match["level"], float(match["months"])) if match else None


def years_credit(match: re.Match[str]) -> float:
    """Return the credit of years on the side that the clause names, whatever its numbers say."""
    years, low = float(match["years"]), float(match["low"])
    if match["side"] in ("below", "under"):
        return min(1.0, years / low) if low else 1.0
    if match["side"] == "above" and match["high"]:
        return max(0.5, 1.0 - 0.1 * max(0.0, years - float(match["high"])))
    return 1.0


def stated_auc(episodes: list[dict[str, Any]]) -> float:
    """Return the ROC AUC of the stated scores; an answer without one ranks last."""
    scores: dict[bool, list[float]] = {True: [], False: []}
    for episode in episodes:
        score = stated_score(episode["completion"])
        scores[episode["positive"] > 0.5].append(-1.0 if score is None else score)
    good, bad = scores[True], scores[False]
    return sum((one > other) + 0.5 * (one == other) for one in good for other in bad) / (len(good) * len(bad))
