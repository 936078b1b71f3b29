"""The forms of a clause: how each is read, and when it is confirmed.

A form says all that its clause says, so it can be checked to the last word. Patterns are matched against the whole
clause in `plain` spelling, in the order doubt, years, work, skill, missing; the first that matches counts. Their time
grows with the square of a clause's length at worst, which the rubric bounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from reward.facts import DEGREES, LEVELS, Facts, skills_degree
from reward.names import fold, quote

Status = Literal["confirmed", "refuted", "unread"]

# A longer name that neither job nor profile has is prose: "the candidate's long work with Excel is advanced".
MAX_NAME_WORDS = 5


class Finding(NamedTuple):
    """What the facts say to a statement, and why; the facts it speaks of, and the parts of them it states."""

    status: Status
    why: str
    facts: tuple[str, ...] = ()
    """In canonical wording; mostly one."""
    parts: frozenset[str] = frozenset()


class Form(NamedTuple):
    """One way to write a clause."""

    kind: Literal["doubt", "years", "gap", "work", "skill", "missing"]
    """What such a clause speaks of; a gap is of the years."""
    pattern: re.Pattern[str]
    check: Callable[[re.Match[str], Facts], list[Finding]]
    """Tells from the pattern's match what the facts say."""


_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_UNIT = r" ?(?:m|months?)"
_MONTHS = rf"(?P<months>{_NUMBER}){_UNIT}"
_NAMES = r"(?P<names>[^:]+?)"
_DOUBT = rf" in (?P<years>{_NUMBER}) years?(?:,| is|:)? impossible"
_DOUBTS = {
    "jobs": rf"jobs of (?P<months>{_NUMBER}(?:{_UNIT})?(?:(?:, | and |, and ){_NUMBER}(?:{_UNIT})?)+){_DOUBT}",
    "expert": rf"expert in {_NAMES} after {_MONTHS}(?:,| is|:)? impossible",
    "role": rf"{_MONTHS} at {_NAMES}{_DOUBT}",
    "skill": rf"{_NAMES}(?::|,| for) {_MONTHS}{_DOUBT}",
}
_SIDES = {"above": "above", "over": "above", "inside": "inside", "within": "inside", "below": "below", "under": "below"}
_SIDE = rf"(?P<side>{'|'.join(_SIDES)})"
_YEARS = (
    rf"(?P<years>{_NUMBER}) years?(?:(?: of experience)?(?:,| is|:)| of experience) {_SIDE} "
    rf"(?P<low>{_NUMBER})(?: ?\+| ?(?:-|to) ?(?P<high>{_NUMBER}))(?: years)?"
)
_GAP = rf"(?P<gap>{_NUMBER}) years? {_SIDE} the (?P<end>maximum|minimum) of (?P<bound>{_NUMBER})"
_DEGREE = r"(?P<degree>(?:part(?:ly|ially) )?related|unrelated)"
_SKILL_WORK = rf"work with {_NAMES}(?::| is|,) {_DEGREE}(?: work)?"
_TITLE_WORK = rf"(?P<as>work as (?:an? )?)?{_NAMES}(?P<colon>:| is|,) {_DEGREE}(?P<work> work)?"
_LEVEL = rf"(?P<level>{'|'.join(LEVELS)})(?: level)?"
_AND_MONTHS = rf"(?:(?:,| for| with)? \(?{_MONTHS}\)?)?"
_LISTED = (
    rf"{_LEVEL} in {_NAMES}{_AND_MONTHS}",
    rf"{_MONTHS} of {_NAMES}",
    rf"{_NAMES}(?::| is|,| -) {_LEVEL}{_AND_MONTHS}",
    rf"{_NAMES}(?::| is|,| -| for) {_MONTHS}(?:,? {_LEVEL})?",
    rf"{_NAMES}(?::| is)? ?\({_LEVEL}(?:, ?{_MONTHS})?\)",
    rf"{_NAMES}(?::| is)? ?\({_MONTHS}(?:, ?{_LEVEL})?\)",
)
_MISSING = (rf"{_NAMES}(?::| is| are|,)? (?:missing|not listed)", rf"(?:no|lacks|missing) {_NAMES}")
_SEPARATOR = re.compile(r"(,? (?:and|or|&) (?:no |lacks )?|, ?(?:no |lacks )?)")


def match_form(clause: str) -> tuple[Form, re.Match[str]] | None:
    """Return the form of a clause in `plain` spelling and its match, true or not; None where it is in no form."""
    return next(((form, match) for form in _FORMS if (match := form.pattern.fullmatch(clause))), None)


def read_clause(clause: str, facts: Facts) -> list[Finding]:
    """Check a clause in `plain` spelling: a finding for each fact it speaks of, none where it is in no form."""
    if found := match_form(clause):
        form, match = found
        return _merged(form.check(match, facts))
    return []


def _doubt(kind: str, match: re.Match[str], facts: Facts) -> list[Finding]:
    found = match.groupdict()
    name, years = fold(found.get("names") or ""), found.get("years")
    months = sorted(map(float, re.findall(_NUMBER, match["months"])))
    for claim in facts.impossible:
        # "Northwind: 48 months in 2 years" is the claim of a role, written like one of a skill.
        same_kind = kind == claim.kind or {kind, claim.kind} == {"skill", "role"}
        same_claim = fold(claim.name) == name and sorted(claim.months) == months
        if same_kind and same_claim and (years is None or float(years) == facts.years):
            fact = claim.fact(facts.years)
            return [Finding("confirmed", "the rule calls it impossible", (fact,), frozenset((fact,)))]
    if name not in facts.companies and _is_prose(name, facts):
        return [Finding("unread", f"{quote(name)} is no skill or company")]
    # Any false doubt contradicts the true ones: to doubt everything must not pay.
    every = tuple(claim.fact(facts.years) for claim in facts.impossible)
    return [Finding("refuted", f"the rule calls {'something else' if every else 'nothing'} impossible", every)]


def _years(match: re.Match[str], facts: Facts) -> list[Finding]:
    high = None if match["high"] is None else float(match["high"])
    told = (float(match["years"]), _SIDES[match["side"]], float(match["low"]), high)
    return [_years_finding(told == (facts.years, facts.side, facts.low, facts.high), facts)]


def _gap(match: re.Match[str], facts: Facts) -> list[Finding]:
    side, bound = _SIDES[match["side"]], float(match["bound"])
    if (side, match["end"]) not in (("above", "maximum"), ("below", "minimum")):
        return []
    end = facts.high if side == "above" else facts.low
    # 6.9 - 6 is 0.9000000000000004
    gap = abs(abs(facts.years - bound) - float(match["gap"])) < 1e-6
    return [_years_finding(side == facts.side and bound == end and gap, facts)]


def _years_finding(right: bool, facts: Facts) -> Finding:
    if right:
        return Finding("confirmed", "years and range are these", (facts.years_fact,), frozenset(("years",)))
    return Finding("refuted", f"it is {facts.years_fact}", (facts.years_fact,))


def _title_work(match: re.Match[str], facts: Facts) -> list[Finding]:
    title, stated = fold(match["names"]), _degree(match)
    if title not in facts.titles:
        sure = match["as"] or match["work"] or match["colon"] == ":"
        about = _work_facts(facts) if sure else ()
        return [Finding("refuted" if sure else "unread", f"{quote(title)} is no title of the candidate", about)]
    written, degree = facts.titles[title]
    fact = f"{written}: {DEGREES[degree]} work"
    if degree != stated:
        return [Finding("refuted", f"it is {quote(fact)}", _work_facts(facts))]
    about = _work_facts(facts) if degree == facts.work else (fact,)
    return [Finding("confirmed", "the title has this degree", about, frozenset((fact,)))]


def _skill_work(match: re.Match[str], facts: Facts) -> list[Finding]:
    names = list(dict.fromkeys(split_names(match["names"], facts)))
    if others := [name for name in names if name not in facts.asked]:
        return [Finding("unread", f"the job does not ask for {quote(others[0])}")]
    if absent := [name for name in names if name not in facts.work_skills]:
        return [Finding("refuted", f"the work does not name {quote(absent[0])}", _work_facts(facts))]
    degree = skills_degree(len(names))
    if degree != _degree(match):
        return [
            Finding("refuted", f"to name {len(names)} of the job's skills is {DEGREES[degree]}", _work_facts(facts))
        ]
    fact = f"work with {' and '.join(facts.work_skills[name] for name in names)}: {DEGREES[degree]}"
    about = _work_facts(facts) if degree == facts.work else (fact,)
    return [Finding("confirmed", "the work names them", about, frozenset(f"work with {name}" for name in names))]


def _degree(match: re.Match[str]) -> float:
    words = match["degree"].replace("partially", "partly")
    return next(degree for degree, text in DEGREES.items() if text == words)


def _work_facts(facts: Facts) -> tuple[str, ...]:
    return (facts.work_fact,) if facts.work_fact else ()


def _listed(match: re.Match[str], facts: Facts) -> list[Finding]:
    found = {"level": None, "months": None} | match.groupdict()
    level, months = found["level"], None if found["months"] is None else float(found["months"])
    names = split_names(match["names"], facts)
    if not any(name in facts.asked or name in facts.skills for name in names):
        names = [fold(match["names"])]
    return [_listed_skill(name, level, months, facts) for name in names]


def _listed_skill(name: str, level: str | None, months: float | None, facts: Facts) -> Finding:
    entries, asked = facts.skills.get(name, ()), _asked_facts(name, facts)
    for entry in entries:
        if level in (None, entry.level) and months in (None, entry.months):
            stated = {"level": level, "months": months}
            parts = frozenset(f"{entry.fact} ({part})" for part in stated if stated[part] is not None)
            return Finding("confirmed", "the profile lists it so", (entry.fact,), parts)
    if entries:
        return Finding("refuted", f"the profile has {quote(entries[0].fact)}", asked or (entries[0].fact,))
    if _is_prose(name, facts):
        return Finding("unread", f"{quote(name)} is no skill")
    return Finding("refuted", f"the profile does not list {quote(name)}", asked)


def _is_prose(name: str, facts: Facts) -> bool:
    """Return True if a name is none of a skill: a title, a company, or words around a name ("has SQL")."""
    if name in facts.asked or name in facts.skills:
        return False
    known = (*facts.asked, *facts.skills, *facts.titles, *facts.companies)
    return len(name.split()) > MAX_NAME_WORDS or any(f" {other} " in f" {name} " for other in known)


def _missing(match: re.Match[str], facts: Facts) -> list[Finding]:
    return [_missing_skill(name, facts) for name in split_names(match["names"], facts)]


def _missing_skill(name: str, facts: Facts) -> Finding:
    entries, asked = facts.skills.get(name, ()), _asked_facts(name, facts)
    if entries:
        return Finding("refuted", f"the profile has {quote(entries[0].fact)}", asked or (entries[0].fact,))
    unmet = tuple(entry.fact for entry in facts.asked.get(name, ()) if entry.best is None)
    if unmet:
        return Finding("confirmed", "the profile does not list it", unmet, frozenset((f"{name}: missing",)))
    if asked:
        return Finding("refuted", f"the profile has an alternative, {quote(asked[0])}", asked)
    return Finding("unread", f"the job does not ask for {quote(name)}")


def _asked_facts(name: str, facts: Facts) -> tuple[str, ...]:
    return tuple(entry.fact for entry in facts.asked.get(name, ()))


def split_names(names: str, facts: Facts) -> list[str]:
    """Split a list in words into folded names, a known name whole: "testing and tagging, sql" gives two."""
    pieces = _SEPARATOR.split(names)  # name, separator, name, ...
    found: list[str] = []
    at = 0
    while at < len(pieces):
        stops = [stop for stop in (at + 7, at + 5, at + 3) if stop <= len(pieces)]
        joined = ((fold("".join(pieces[at:stop])), stop) for stop in stops)
        known = ((name, stop) for name, stop in joined if name in facts.asked or name in facts.skills)
        name, stop = next(known, (fold(pieces[at]), at + 1))
        found += [name] if name else []
        at = stop + 1
    return found


def _merged(findings: list[Finding]) -> list[Finding]:
    """Merge findings about the same facts: "Pinecone or Qdrant: missing" is one statement."""
    merged: dict[object, Finding] = {}
    for number, finding in enumerate(findings):
        key = (finding.status, finding.facts) if finding.facts else number
        first = merged.get(key, finding)
        merged[key] = first._replace(parts=first.parts | finding.parts)
    return list(merged.values())


_FORMS = [
    *(Form("doubt", re.compile(pattern), partial(_doubt, kind)) for kind, pattern in _DOUBTS.items()),
    Form("years", re.compile(_YEARS), _years),
    Form("gap", re.compile(_GAP), _gap),
    Form("work", re.compile(_SKILL_WORK), _skill_work),
    Form("work", re.compile(_TITLE_WORK), _title_work),
    *(Form("skill", re.compile(pattern), _listed) for pattern in _LISTED),
    *(Form("missing", re.compile(pattern), _missing) for pattern in _MISSING),
]
