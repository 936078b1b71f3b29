"""The constants of the rule: what a level and its months are worth, and from where on a claim is impossible."""

from __future__ import annotations

LEVEL_CREDIT = {"beginner": 0.3, "intermediate": 0.6, "advanced": 0.85, "expert": 1.0}
FULL_MONTHS = 24
STRONG = 0.5
# A degree's length: people use a skill before their first job. On the Redrob sample honest skills stay within 35 months
# of the years, so only a clear contradiction counts.
SKILL_SLACK_MONTHS = 36
ROLE_SLACK_MONTHS = 6
TENURE_SLACK_MONTHS = 12  # of all jobs together
EXPERT_MIN_MONTHS = 3


def credit(level: str, months: float) -> float:
    """Return the credit of one listed skill, 0 to 1: its level, in proportion to its months up to 24."""
    return LEVEL_CREDIT[level] * min(months / FULL_MONTHS, 1.0)
