"""The forms of a clause, and how each is read. A form says all that its clause says, so it can be checked.

Every pattern is matched against a whole clause in `plain` spelling, in this order; the first that matches counts.
Patterns take time in proportion to the square of a clause's length at worst, which `limits.max_reason_chars` bounds.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from reward.facts import DEGREES, LEVELS


class Doubt(NamedTuple):
    """An impossible claim of one kind (see `Claim`), and the years beside it; None for an "expert"."""

    kind: str
    name: str
    months: tuple[float, ...]
    years: float | None


class Years(NamedTuple):
    """The candidate's years against the job's range: "9 years, above 4-6"."""

    years: float
    side: str
    low: float
    high: float | None


class Gap(NamedTuple):
    """The years between the candidate and one end of the range: "3 years above the maximum of 6"."""

    gap: float
    side: str
    bound: float


class TitleWork(NamedTuple):
    """The degree of work under one title. `sure` is False where the clause does not say that it speaks of work."""

    title: str
    degree: float
    sure: bool


class SkillWork(NamedTuple):
    """The degree of work with some of the job's skills; `names` is a list in words."""

    names: str
    degree: float


class Listed(NamedTuple):
    """Skills that the profile lists, with a level, months or both; `names` is a list in words."""

    names: str
    level: str | None
    months: float | None


class Missing(NamedTuple):
    """Skills that the profile does not list; `names` is a list in words."""

    names: str


Statement = Doubt | Years | Gap | TitleWork | SkillWork | Listed | Missing

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_MONTHS = rf"(?P<months>{_NUMBER}) ?(?:m|months?)"
_IN_YEARS = rf"in (?P<years>{_NUMBER}) years?"
_IMPOSSIBLE = r"(?:,| is|:)? impossible"
_RANGE = rf"(?P<low>{_NUMBER})(?:(?P<open> ?\+)| ?(?:-|to) ?(?P<high>{_NUMBER}))"
_SIDES = {"above": "above", "over": "above", "inside": "inside", "within": "inside", "below": "below", "under": "below"}
_SIDE = rf"(?P<side>{'|'.join(_SIDES)})"
_DEGREE = r"(?P<degree>(?:part(?:ly|ially) )?related|unrelated)"
_LEVEL = rf"(?P<level>{'|'.join(LEVELS)})(?: level)?"

_JOBS = re.compile(
    rf"jobs of (?P<list>{_NUMBER}(?: ?(?:m|months?))?(?:(?:, | and |, and ){_NUMBER}(?: ?(?:m|months?))?)+)"
    rf" {_IN_YEARS}{_IMPOSSIBLE}"
)
_EXPERT = re.compile(rf"expert in (?P<name>[^:]+) after {_MONTHS}{_IMPOSSIBLE}")
_ROLE = re.compile(rf"{_MONTHS} at (?P<name>[^:]+) {_IN_YEARS}{_IMPOSSIBLE}")
_SKILL = re.compile(rf"(?P<name>[^:]+?)(?::|,| for) {_MONTHS} {_IN_YEARS}{_IMPOSSIBLE}")
_YEARS = re.compile(
    rf"(?P<years>{_NUMBER}) years?(?:(?: of experience)?(?:,| is|:)| of experience) {_SIDE} {_RANGE}(?: years)?"
)
_GAP = re.compile(rf"(?P<gap>{_NUMBER}) years? {_SIDE} the (?P<end>maximum|minimum) of (?P<bound>{_NUMBER})")
_SKILL_WORK = re.compile(rf"work with (?P<names>[^:]+?)(?::| is|,) {_DEGREE}(?: work)?")
_TITLE_WORK = re.compile(rf"(?P<as>work as )?(?P<title>[^:]+?)(?::| is|,) {_DEGREE}(?P<work> work)?")
_AND_MONTHS = rf"(?:(?:,| for| with) {_MONTHS})?"
_LISTED = [
    re.compile(pattern)
    for pattern in (
        rf"{_LEVEL} in (?P<names>[^:]+?){_AND_MONTHS}",
        rf"{_MONTHS} of (?P<names>[^:]+)",
        rf"(?P<names>[^:]+?)(?::| is|,| -) {_LEVEL}{_AND_MONTHS}",
        rf"(?P<names>[^:]+?)(?::| is|,| -| for) {_MONTHS}(?:,? {_LEVEL})?",
        rf"(?P<names>[^:]+?)(?::| is)? ?\({_LEVEL}(?:, ?{_MONTHS})?\)",
        rf"(?P<names>[^:]+?)(?::| is)? ?\({_MONTHS}(?:, ?{_LEVEL})?\)",
    )
]
_MISSING = [
    re.compile(pattern)
    for pattern in (
        r"(?P<names>[^:]+?)(?::| is| are|,)? (?:missing|not listed)",
        r"(?:no|lacks|missing) (?P<names>[^:]+)",
    )
]


def read_clause(clause: str) -> Statement | None:
    """Return what a clause in `plain` spelling states; None where it is in none of the forms."""
    return _doubt(clause) or _years(clause) or _work(clause) or _listed(clause) or _missing(clause)


def _doubt(clause: str) -> Doubt | None:
    if not clause.endswith("impossible"):
        return None
    if match := _JOBS.fullmatch(clause):
        months = tuple(map(float, re.findall(_NUMBER, match["list"])))
        return Doubt("jobs", "", months, float(match["years"]))
    if match := _EXPERT.fullmatch(clause):
        return Doubt("expert", match["name"], (float(match["months"]),), None)
    for kind, pattern in (("role", _ROLE), ("skill", _SKILL)):
        if match := pattern.fullmatch(clause):
            return Doubt(kind, match["name"], (float(match["months"]),), float(match["years"]))
    return None


def _years(clause: str) -> Years | Gap | None:
    if match := _YEARS.fullmatch(clause):
        high = None if match["high"] is None else float(match["high"])
        return Years(float(match["years"]), _SIDES[match["side"]], float(match["low"]), high)
    if match := _GAP.fullmatch(clause):
        side = _SIDES[match["side"]]
        if (side, match["end"]) in (("above", "maximum"), ("below", "minimum")):
            return Gap(float(match["gap"]), side, float(match["bound"]))
    return None


def _work(clause: str) -> TitleWork | SkillWork | None:
    if "related" not in clause:
        return None
    if match := _SKILL_WORK.fullmatch(clause):
        return SkillWork(match["names"], _degree(match["degree"]))
    if match := _TITLE_WORK.fullmatch(clause):
        return TitleWork(match["title"], _degree(match["degree"]), bool(match["as"] or match["work"]))
    return None


def _degree(words: str) -> float:
    words = words.replace("partially", "partly")
    return next(degree for degree, text in DEGREES.items() if text == words)


def _listed(clause: str) -> Listed | None:
    for pattern in _LISTED:
        if match := pattern.fullmatch(clause):
            found = match.groupdict()
            months = found.get("months")
            return Listed(match["names"], found.get("level"), float(months) if months else None)
    return None


def _missing(clause: str) -> Missing | None:
    for pattern in _MISSING:
        if match := pattern.fullmatch(clause):
            return Missing(match["names"])
    return None
