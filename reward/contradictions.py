"""Find reasons that say the opposite of the profile, as far as rules can.

Read: "lacks Python" where the candidate lists it, "has Rust" where only the job does, "covers none / all of the
required skills", "Python is beginner level", "(advanced, 48m)" or "48m of Python" where the profile says otherwise,
"48m at Northwind" of 24m there, "strong in Python" of a beginner, "two of four" where three are required, "1 year is
inside 3-6", "124m in 5 years, possible", "work as SQL", "24m at Python", "led 48 people" of 48 months. A clause the
rules cannot place counts as neither; they are meant to be right when they speak.
"""

from __future__ import annotations

import math
from itertools import pairwise, takewhile

from reward.breakdown import quote
from reward.clauses import Fault, Item, read_items
from reward.degrees import wrong_counts, wrong_degrees, wrong_verdicts
from reward.places import misplaced
from reward.profile import Context, Part
from reward.tokens import Token, counted, grounded
from reward.words import (
    ABOVE,
    BELOW,
    BESIDES,
    BOUNDS,
    EVERY,
    HAS,
    HELD_FOR,
    INSIDE,
    LACKING,
    LEVELS,
    NONE,
    QUALIFIERS,
    REQUIREMENTS,
    UNITS,
    WITHIN,
)

_ROUNDED = 0.5  # "7 years" of 6.9
_OPENS = frozenset(("with", "only", "and", "but"))
_CUTS = frozenset(",.;:")
_COPULAS = frozenset(("is", "are", "was", "falls", "fall", "lies", "well", "just", "far"))


def contradictions(tokens: list[Token], context: Context) -> list[Fault]:
    """Return what the reason made of `tokens` says against the context."""
    wrong = [fault for at, token in enumerate(tokens) if (fault := _wrong_comparison(at, token, tokens))]
    wrong += _bare_numbers(tokens, context) + _hanging_numbers(tokens)
    if context.job is None or context.candidate is None:
        return wrong
    items = read_items(tokens, context)
    wrong += _claimed_and_denied(items, context.job, context.candidate)
    wrong += _wrong_years(tokens, context.candidate)
    wrong += misplaced(items, tokens, context.job, context.candidate)
    wrong += _claimed_numbers(tokens, context.job, context.candidate)
    wrong += _quantified(items, context.job, context.candidate)
    wrong += _wrong_details(items, tokens, context.job, context.candidate)
    wrong += _wrong_stays(items, tokens, context.candidate)
    wrong += wrong_degrees(items, context.candidate) + wrong_counts(items, tokens, context.job, context.candidate)
    return wrong + wrong_verdicts(tokens, context.candidate)


def _wrong_years(tokens: list[Token], candidate: Part) -> list[Fault]:
    """Find "6 years is inside 3-6" of a candidate who has 9; the job's own years may be compared with those 9."""
    wrong: list[Fault] = []
    for at, token in enumerate(tokens):
        stop = at + 1 + (at + 1 < len(tokens) and tokens[at + 1].key in UNITS and tokens[at + 1].value is None)
        # "Python for 2.5 years is below 3-6" and the 6 of "3-6 years" are of something else.
        own = at == 0 or tokens[at - 1].key in HAS | _OPENS or not _CUTS.isdisjoint(token.before)
        if token.unit != "year" or token.value is None or not own or token.value in candidate.years:
            continue
        if not _compared(tokens[stop:], candidate):
            continue
        if candidate.years and all(abs(token.value - years) > _ROUNDED for years in candidate.years):
            wrong.append(Fault(at, stop, f"speaks of {token.value:g} years, which the candidate does not have"))
    return wrong


def _compared(after: list[Token], candidate: Part) -> bool:
    """Return True if "is inside 3-6", "falls well below" or ", inside" follows, and no years of the candidate."""
    lead = sum(1 for _ in takewhile(lambda token: token.key in _COPULAS, after))
    if not after[lead:] or after[lead].key not in BELOW | ABOVE | INSIDE or bool(lead) == ("," in after[0].before):
        return False
    near = next((token for token in after[lead + 1 : lead + 4] if token.value is not None), None)
    return near is not None and near.value not in candidate.years


def _bare_numbers(tokens: list[Token], context: Context) -> list[Fault]:
    """Find numbers such as "claims SQL, 5, 7" that agree only with years or months, in a reason without units."""
    if any(token.unit or token.key in BELOW | ABOVE | INSIDE for token in tokens):
        return []
    skipped = counted(tokens)
    return [
        Fault(at, at + 1, f"says {quote(token.text)} of nothing")
        for at, token in enumerate(tokens)
        if token.value is not None and at not in skipped and (at == 0 or tokens[at - 1].key not in LEVELS)
        if grounded(token, context.numbers) and (round(token.value, 4), "") not in context.numbers
    ]


def _hanging_numbers(tokens: list[Token]) -> list[Fault]:
    """Find numbers such as "claims 7 years on 5-8": at a clause's end, after a time and "on" or "after"."""
    wrong: list[Fault] = []
    for at in range(1, len(tokens) - 1):
        timed = tokens[at - 1].unit or tokens[at - 1].key in UNITS
        if tokens[at].key not in ("on", "after") or not timed:
            continue
        bare = list(takewhile(lambda token: token.value is not None and not token.unit, tokens[at + 1 : at + 3]))
        stop = at + 1 + len(bare)
        if bare and (stop == len(tokens) or not _CUTS.isdisjoint(tokens[stop].before)):
            said = "-".join(token.text for token in bare)
            wrong.append(Fault(at + 1, stop, f"says {quote(said)} of nothing"))
    return wrong


def _claimed_and_denied(items: list[Item], job: Part, candidate: Part) -> list[Fault]:
    wrong: list[Fault] = []
    elsewhere = any(item.words in candidate.stays or item.words == ("work",) for item in items)

    def of_work(item: Item) -> bool:  # "not SQL at Northwind" of somebody who lists it
        return elsewhere and candidate.used is not None and item.words not in candidate.used | set(candidate.stays)

    for at, item in enumerate(items):
        if item.polarity > 0 and item.words in job.runs and item.words not in candidate.runs:
            wrong.append(item.fault(f"claims {item.name}, which only the job names"))
        # "lacks SQL at Northwind" denies no stay there.
        there = at > 1 and items[at - 2].named and items[at - 1].words == ("at",) and item.words in candidate.stays
        excused = there or _qualified(items, at) or of_work(item)
        if item.polarity < 0 and item.words in candidate.runs and not excused:
            wrong.append(item.fault(f"denies {item.name}, which stands in the candidate's profile"))
    return wrong


def _claimed_numbers(tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """Find "has 6 years" where only the job names 6."""
    return [
        Fault(at, at + 1, f"claims {quote(token.text)}, which only the job names")
        for at, (verb, token) in enumerate(pairwise(tokens), start=1)
        if verb.key in HAS and token.unit and grounded(token, job.numbers) and not grounded(token, candidate.numbers)
    ]


def _qualified(items: list[Item], at: int) -> bool:
    """Return True if "lacks Python" is about a degree: "lacks advanced Python", "no Python at expert level"."""
    near = [item for item in items[max(0, at - 3) : at + 4] if item.clause == items[at].clause and not item.named]
    return any(item.words[0] in QUALIFIERS or item.words[0].isdigit() for item in near)


def _quantified(items: list[Item], job: Part, candidate: Part) -> list[Fault]:
    """Check "covers none of the required skills" and "has all required skills" against the job's own list."""
    words = [item.words[0] for item in items]
    have = {term for term in job.required if term in candidate.runs}
    wrong: list[Fault] = []
    for at, word in enumerate(words):
        ahead = words[at + 1 : at + 5]
        mine = [later for later in items[at:] if later.clause == items[at].clause]
        besides = {later.words[0] for later in items[at : at + len(mine) + 1]}  # or right after: "all, except Spark"
        if word not in NONE | EVERY or REQUIREMENTS.isdisjoint(ahead) or not BESIDES.isdisjoint(besides):
            continue
        if word in NONE and items[at + 1].named:  # "no Airflow in the skills"
            continue
        before = words[max(0, at - 2) : at]
        none = word in NONE or not LACKING.isdisjoint(before)
        text = ""
        if none and have:
            text = f"says none of what the job asks for, but {quote(' '.join(min(have)))} is in the profile"
        elif not none and "not" not in before and len(have) < len(job.required):
            gap = min(job.required - have)
            text = f"says all of what the job asks for, but {quote(' '.join(gap))} is not in the profile"
        if text:
            asked = next(i for i, word in enumerate(ahead, start=at + 1) if word in REQUIREMENTS)
            wrong.append(Fault(items[at].start, items[asked].start + 1, text))
    return wrong


def _wrong_details(items: list[Item], tokens: list[Token], job: Part, candidate: Part) -> list[Fault]:
    """Find levels and months given to the wrong skill: "Python (expert, 48m)" where these are SQL's."""
    wrong: list[Fault] = []
    for item in items:
        known = candidate.details.get(item.words)
        if not item.named or known is None or item.words in job.details:
            continue
        said, numbers = _said_of(item, tokens)
        if said and known.level and said != known.level:
            wrong.append(item.fault(f"says {said} of {item.name}, which is {known.level}"))
        wrong += [
            Fault(at := tokens.index(token), at + 1, f"says {token.text} of {item.name}")
            for token in numbers
            if known.numbers and not grounded(token, known.numbers)
        ]
    return wrong


def _wrong_stays(items: list[Item], tokens: list[Token], candidate: Part) -> list[Fault]:
    """Find "claims 48m at Northwind" or "has 4 years at Northwind" where the profile gives 24m there."""
    wrong: list[Fault] = []
    for item in items:
        at = item.start - 2
        if item.words not in candidate.stays or at < 0 or tokens[at + 1].key != "at" or item.polarity < 0:
            continue
        at -= at > 0 and not tokens[at].unit and tokens[at].key in UNITS  # "4 years at": the unit is a word of its own
        said, verb = tokens[at], tokens[at - 1].key if at > 0 else ""
        # "more than 12m at Northwind" and "needs 48m at Northwind" claim no length.
        claimed = said.unit and (not verb or verb in HAS)
        if claimed and not grounded(said, candidate.stays[item.words]):
            wrong.append(Fault(at, at + 1, f"says {said.text} at {item.name}"))
    return wrong


def _said_of(item: Item, tokens: list[Token]) -> tuple[str, list[Token]]:
    """Return a term's level and numbers in a reason: "SQL (expert, 48m)", "expert in SQL after 2m", "48m of SQL"."""
    after = tokens[item.start + len(item.words) :]
    before = [token.key for token in tokens[max(0, item.start - 2) : item.start]]
    if before[1:] in (["of"], ["on"]):
        amount = item.start - 2
        amount -= amount > 0 and before[0] in UNITS and tokens[amount].value is None  # "48 months of SQL"
        if tokens[amount].unit:
            return "", [tokens[amount]]
    if before[1:] == ["in"] and tokens[item.start - 2].unit == "month":
        return "", [tokens[item.start - 2]]
    if after and after[0].key in HELD_FOR and len(after) > 1 and after[1].unit == "month":
        return "", [after[1]]
    if before[1:] == ["in"] and before[0] in LEVELS:
        return before[0], [token for token in after[1:2] if after[0].key == "after" and token.unit]
    if after and "(" in after[0].before:
        ends = (at for at, token in enumerate(after) if at and ")" in token.before)
        inside = after[: next(ends, len(after))]
        level = next((token.key for token in inside if token.key in LEVELS), "")
        return level, [token for token in inside if token.value is not None]
    rest = [token.key for token in after[:3]]
    while rest and rest[0] in ("is", "at", "skill", "skills"):
        rest.pop(0)
    if rest and rest[0] in LEVELS and item.polarity >= 0:  # "no Excel at expert level" says none of it
        return rest[0], []
    level = before[-1] if before else ""
    return (level, []) if item.polarity > 0 and level in LEVELS else ("", [])


def _wrong_comparison(at: int, word: Token, tokens: list[Token]) -> Fault | None:
    """Return the fault in a comparison of years or months such as "1 year is inside 3-6"; None if it has none."""
    far = next((i for i in range(at - 1, max(-1, at - 5), -1) if tokens[i].value is not None), None)
    near = next((i for i in range(at + 1, min(at + 4, len(tokens))) if tokens[i].value is not None), None)
    if word.key not in BELOW | ABOVE | INSIDE or far is None:
        return None
    ends = at + 1 == len(tokens) or "," in tokens[at + 1].before
    if ends and at - far <= 3 and tokens[far].unit and tokens[at - 1].key == "is":
        return Fault(far, at + 1, f"compares {quote(tokens[far].text)} with nothing")
    if near is None:
        return None
    left, right = tokens[far], tokens[near]
    after = tokens[near + 1] if near + 1 < len(tokens) else None
    upper = after.value if after is not None and after.before.strip() in ("-", "–", "—") else None
    value = left.value or 0.0  # both sides are numbers
    low = right.value or 0.0
    high = upper if upper is not None else math.inf if right.text.endswith("+") else low
    same_unit = {left.unit, right.unit} in ({"year"}, {"year", ""}, {"month"}, {""})
    single = word.key in INSIDE and low == high
    if not same_unit or (single and not _lone_bound(at, tokens)):
        return None
    low = -math.inf if single else low  # "within 5" is up to 5
    if word.key in BELOW:
        holds = value < low
    else:
        holds = value > (low if high == math.inf else high) if word.key in ABOVE else low <= value <= high
    ranged = after is not None and upper is not None
    bounds = f"{right.text}-{after.text}" if after is not None and upper is not None else right.text
    return None if holds else Fault(far, near + 1 + ranged, f"{quote(left.text)} is not {word.key} {quote(bounds)}")


def _lone_bound(at: int, tokens: list[Token]) -> bool:
    """Return True for a comparison with one number: "7 years is inside 6", not "inside 6 to 9" or "at least 6"."""
    if tokens[at].key not in WITHIN or tokens[at - 1].key not in _COPULAS or tokens[at + 1].value is None:
        return False
    rest = tokens[at + 2 :]
    rest = rest[1:] if rest and rest[0].key in UNITS and rest[0].value is None else rest
    ends = not rest or not _CUTS.isdisjoint(rest[0].before)
    bounded = any((token.value is not None and token.unit != "month") or token.key in BOUNDS for token in rest)
    return ends and not bounded
