"""The constants of the fit rule: the credit of a skill, and the margins of claims that contradict the years."""

from __future__ import annotations

LEVEL_CREDIT = {"beginner": 0.3, "intermediate": 0.6, "advanced": 0.85, "expert": 1.0}
FULL_MONTHS = 24
UNKNOWN_MONTHS = FULL_MONTHS / 2
"""The months that a skill counts with where the profile gives none."""

# A degree's length: people use a skill before their first job. On the Redrob sample honest skills stay within 35 months
# of the years, so only a clear contradiction counts.
SKILL_SLACK_MONTHS = 36
ROLE_SLACK_MONTHS = 6
TENURE_SLACK_MONTHS = 12  # of all jobs together
EXPERT_MIN_MONTHS = 3


def credit(level: str, months: float | None) -> float:
    """Return the credit of one listed skill, 0 to 1: its level, in proportion to its months up to 24."""
    return LEVEL_CREDIT[level] * min((UNKNOWN_MONTHS if months is None else months) / FULL_MONTHS, 1.0)
