"""How much a profile shows, and reasons that say otherwise: "strong in Python" of a beginner, "124m in 5 years".

A skill counts by its level, in proportion to its months up to 24 (`credit`).
From `STRONG` on it is strong, below that thin. A reason is false only where it is clearly on the wrong side, by more
than `MARGIN`, whatever a level or months that the profile leaves out would be.
"""

from __future__ import annotations

from reward.clauses import Fault, Item
from reward.profile import Detail, Part
from reward.tokens import Token
from reward.words import NUMBER_WORDS

LEVEL_CREDIT = {"beginner": 0.3, "intermediate": 0.6, "advanced": 0.85, "expert": 1.0}
FULL_MONTHS = 24
STRONG = 0.5
MARGIN = 0.05
# A degree's length: people use a skill before their first job, so only what goes further contradicts the years.
SLACK_MONTHS = 36


def credit(level: str, months: float) -> float:
    """What one listed skill is worth, 0 to 1."""
    return LEVEL_CREDIT[level] * min(months / FULL_MONTHS, 1.0)


def wrong_degrees(items: list[Item], candidate: Part) -> list[Fault]:
    """ "strong in Python" where Python is (beginner, 6m), "thin on SQL" where SQL is (expert, 48m)."""
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


def wrong_counts(items: list[Item], tokens: list[Token], job: Part) -> list[Fault]:
    """ "strong in Python and SQL, two of four" where the job requires three, or where one of them is not required."""
    wrong: list[Fault] = []
    least, most = job.asked
    if not least:
        return wrong
    clear = least == most == len(job.required)  # "Part 145" is read as no term, "Testing and Tagging" as one or two
    for at, (count, of, total) in enumerate(zip(tokens, tokens[1:], tokens[2:], strict=False)):
        part, whole = _number(count), _number(total)
        if of.key != "of" or part is None or whole is None or count.unit or total.unit:
            continue
        named = {item.words for item in items if item.start < at and item.polarity > 0} & job.required
        more = any(token.key == "more" for token in tokens[:at])  # "A, B and two more, four of five"
        if not least <= whole <= most:
            wrong.append(Fault(at, at + 3, f"says of {total.text}, but the job requires {least}"))
        elif named and clear and not more and part != len(named):
            wrong.append(Fault(at, at + 3, f"says {count.text}, but names {len(named)} of what the job requires"))
    return wrong


def wrong_possibilities(tokens: list[Token]) -> list[Fault]:
    """ "claims 124m of Python in 5 years, possible", or 48m of it, "impossible"; months past the slack can't be."""
    wrong: list[Fault] = []
    for at, token in enumerate(tokens):
        if token.key not in ("possible", "impossible"):
            continue
        months = [t.value for t in tokens[:at] if t.unit == "month"]
        years = [t.value for t in tokens[:at] if t.unit == "year"]
        can = (token.key == "possible") != (tokens[at - 1].key == "not")
        if not months or len(years) != 1:
            continue
        if can and max(months) > years[0] * 12 + SLACK_MONTHS:
            wrong.append(Fault(at, at + 1, f"calls {max(months):g}m in {years[0]:g} years possible"))
        elif not can and sum(months) <= years[0] * 12:
            wrong.append(Fault(at, at + 1, f"calls {sum(months):g}m in {years[0]:g} years impossible"))
    return wrong


def _credits(known: Detail) -> tuple[float, float]:
    """The least and the most that a skill can count for, by what the profile says of it."""
    months = sorted(value for value, unit in known.numbers if unit == "month") or [0, FULL_MONTHS]
    least = credit(known.level, months[0]) if known.level else 0.0
    return least, credit(known.level or "expert", months[-1])


def _number(token: Token) -> float | None:
    return token.value if token.value is not None else NUMBER_WORDS.get(token.key)
