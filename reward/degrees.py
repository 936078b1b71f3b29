"""The depth of a profile's skills, and reasons that contradict it: "strong in Python" of a beginner.

A skill counts by its level, in proportion to its months up to 24 (`credit`).
From `STRONG` on it is strong, below that thin. A reason is false only where it is clearly on the wrong side, by more
than `MARGIN`, whatever a level or months that the profile leaves out would be.
"""

from __future__ import annotations

from itertools import pairwise

from reward.clauses import Fault, Item
from reward.profile import Detail, Part, Term
from reward.tokens import Token, counts, number
from reward.words import LACKS

LEVEL_CREDIT = {"beginner": 0.3, "intermediate": 0.6, "advanced": 0.85, "expert": 1.0}
FULL_MONTHS = 24
STRONG = 0.5
MARGIN = 0.05
# A degree's length: people use a skill before their first job. On the Redrob sample honest skills stay within 35 months
# of the years, so only a clear contradiction counts.
SKILL_SLACK_MONTHS = 36
ROLE_SLACK_MONTHS = 6
TENURE_SLACK_MONTHS = 12  # of all jobs together
EXPERT_MIN_MONTHS = 3
_VERDICT_SIGNS = frozenset(",;:-–—(")


def credit(level: str, months: float) -> float:
    """Return the credit of one listed skill, 0 to 1."""
    return LEVEL_CREDIT[level] * min(months / FULL_MONTHS, 1.0)


def wrong_degrees(items: list[Item], candidate: Part) -> list[Fault]:
    """Find "strong in Python" where Python is (beginner, 6m), and "thin on SQL" where SQL is (expert, 48m)."""
    wrong: list[Fault] = []
    for item in items:
        known = candidate.details.get(item.words)
        if not item.degree or known is None:
            continue
        least, most = _credits(known)
        if item.degree > 0 and most < STRONG - MARGIN:
            wrong.append(item.fault(f"says strong of {item.name}, which is {known.text}"))
        if item.degree < 0 and least > STRONG + MARGIN:
            wrong.append(item.fault(f"says thin of {item.name}, which is {known.text}"))
    return wrong


def wrong_counts(items: list[Item], tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """Find "strong in Python and SQL, two of four" where the job requires three, or not one of those two."""
    wrong: list[Fault] = []
    least, most = job.asked
    if not least:
        return wrong
    clear = least == most == len(job.required)  # "Part 145" is read as no term, "Testing and Tagging" as one or two
    for at, part, total, stop in counts(tokens):
        named = {item.words for item in items if item.start < at and item.polarity > 0} & job.required
        # "A, B and two more, four of five"
        more = any(number(n) and word.key == "more" for n, word in pairwise(tokens[:at]))
        praised = any(item.degree > 0 for item in items if item.start < at)
        met = sum(_may_count(term, candidate, praised) for term in job.required)
        if not least <= (number(total) or 0.0) <= most:
            wrong.append(Fault(at, stop, f"says of {total.text}, but the job requires {least}"))
        elif named and clear and not more and part != len(named):
            wrong.append(Fault(at, stop, f"says {tokens[at].text}, but names {len(named)} of what the job requires"))
        elif clear and part > met:
            what = "strong" if praised else "listed"
            wrong.append(Fault(at, stop, f"says {tokens[at].text} where {met} of what the job requires are {what}"))
    return wrong


def _may_count(term: Term, candidate: Part, strong: bool) -> bool:
    """Return True if the profile lists a term, or may be strong in it."""
    known = candidate.details.get(term)
    return term in candidate.runs and (not strong or known is None or _credits(known)[1] >= STRONG - MARGIN)


def wrong_verdicts(tokens: list[Token], candidate: Part) -> list[Fault]:
    """Find "124m of SQL in 5 years, possible", "48m of SQL in 5 years, impossible" and the like.

    Read only where a reason ends in a bare verdict; "hardly possible" and "a possible mistake" are not judged.
    """
    negated = [token.key for token in tokens[-2:-1]] == ["not"]
    cut, verdict = len(tokens) - 1 - negated, tokens[-1].key
    copula = cut > 0 and tokens[cut - 1].key == "is"
    claim = tokens[: cut - copula]
    bare = verdict in ("possible", "impossible") and (copula or not _VERDICT_SIGNS.isdisjoint(tokens[cut].before))
    if not claim or not bare or any(token.key in LACKS for token in claim):
        return []
    fault = _wrong_verdict(claim, (verdict == "possible") != negated, candidate)
    return [Fault(len(tokens) - 1, len(tokens), fault)] if fault else []


def _wrong_verdict(claim: list[Token], can: bool, candidate: Part) -> str:
    """Return why a claim is not possible, or not impossible, as its reason says; "" where it is."""
    keys = [token.key for token in claim]
    said = "possible" if can else "impossible"
    if "expert" in keys and keys[-2:-1] == ["after"] and claim[-1].unit == "month":
        right = can == ((claim[-1].value or 0.0) >= EXPERT_MIN_MONTHS)
        return "" if right else f"calls expert after {claim[-1].text} {said}"
    months = [token.value for token in claim if token.unit == "month" and token.value is not None]
    years = [token.value for token in claim if token.unit == "year" and token.value is not None]
    if not months or len(years) != 1:
        # "claims SQL, possible": a verdict on months in years that names none.
        return f"calls {said} what has no months in years" if keys[0] in ("claims", "claim") else ""
    (career,) = years
    if career not in candidate.years:
        return f"speaks of {career:g} years, which the candidate does not have"
    # Jobs count together, and the months of several skills each by themselves.
    jobs = "jobs" in keys
    if jobs and not {(month, "month") for month in months} <= frozenset().union(*candidate.stays.values()):
        return "speaks of jobs that the candidate did not have for so long"
    claimed = sum(months) if jobs else max(months)
    slack = TENURE_SLACK_MONTHS if jobs else ROLE_SLACK_MONTHS if "at" in keys else SKILL_SLACK_MONTHS
    holds = claimed <= career * 12 + slack if can else claimed > career * 12
    return "" if holds else f"calls {claimed:g}m in {career:g} years {said}"


def _credits(known: Detail) -> tuple[float, float]:
    """Return the least and the most credit that the profile allows for a skill."""
    months = sorted(value for value, unit in known.numbers if unit == "month") or [0, FULL_MONTHS]
    least = credit(known.level, months[0]) if known.level else 0.0
    return least, credit(known.level or "expert", months[-1])
