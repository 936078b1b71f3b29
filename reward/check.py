"""Each statement against the facts: confirmed, refuted, or unread where it names nothing that can be checked."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from reward.facts import DEGREES, Facts, Requirement
from reward.forms import Doubt, Gap, Listed, Missing, SkillWork, Statement, TitleWork, Years
from reward.names import fold, quote
from reward.wording import (
    claim_text,
    missing_text,
    side_of_range,
    skill_text,
    skills_degree,
    work_text,
    years_text,
)

Status = Literal["confirmed", "refuted", "unread"]

# A longer name that neither job nor profile has is prose: "the candidate's long work with Excel is advanced".
MAX_NAME_WORDS = 5
_SEPARATOR = re.compile(r"(,? (?:and|or|&) (?:no |lacks )?|, ?(?:no |lacks )?)")


class Finding(NamedTuple):
    """What a statement is worth: its status and the reason for it, the facts it speaks of, and the parts it states."""

    status: Status
    why: str
    facts: tuple[str, ...] = ()
    """In canonical wording."""
    parts: frozenset[str] = frozenset()


def check(statement: Statement, facts: Facts) -> list[Finding]:
    """Return a finding for each fact that a statement speaks of; a list of names states one for each."""
    match statement:
        case Doubt():
            return [_doubt(statement, facts)]
        case Years() | Gap():
            return [_years(statement, facts)]
        case TitleWork():
            return [_title_work(statement, facts)]
        case SkillWork():
            return [_skill_work(statement, facts)]
        case Listed():
            return _merged([_listed(name, statement, facts) for name in _listed_names(statement.names, facts)])
        case Missing():
            return _merged([_missing(name, facts) for name in split_names(statement.names, _known(facts))])


def split_names(names: str, known: set[str]) -> list[str]:
    """Split a list in words into folded names, a known name whole: "testing and tagging, sql" gives two."""
    if fold(names) in known:
        return [fold(names)]
    pieces = _SEPARATOR.split(names)  # name, separator, name, ...
    found: list[str] = []
    at = 0
    while at < len(pieces):
        runs = (("".join(pieces[at:stop]), stop) for stop in (at + 5, at + 3))
        name, stop = next(((run, stop) for run, stop in runs if fold(run) in known), (pieces[at], at + 1))
        found.append(fold(name))
        at = stop + 1
    return [name for name in found if name]


def _known(facts: Facts) -> set[str]:
    asked = {fold(name) for entry in facts.requirements + facts.nice for name in entry.names}
    return asked | facts.skills.keys() | facts.work_skills.keys()


def _merged(findings: list[Finding]) -> list[Finding]:
    """Merge findings about the same facts: "Pinecone or Qdrant: missing" is one statement."""
    merged: dict[object, Finding] = {}
    for number, finding in enumerate(findings):
        key = (finding.status, finding.facts) if finding.facts else number
        first = merged.get(key, finding)
        merged[key] = first._replace(parts=first.parts | finding.parts)
    return list(merged.values())


def _doubt(doubt: Doubt, facts: Facts) -> Finding:
    if doubt.years in (None, facts.years):
        for claim in facts.impossible:
            # "Northwind: 48 months in 2 years" is the claim of a role, written like one of a skill.
            kinds = {claim.kind, doubt.kind}
            named = fold(claim.name) == fold(doubt.name) and sorted(claim.months) == sorted(doubt.months)
            if named and (len(kinds) == 1 or kinds == {"skill", "role"}):
                text = claim_text(claim, facts)
                return Finding("confirmed", "the rule calls it impossible", (text,), frozenset((text,)))
    claims = tuple(claim_text(claim, facts) for claim in facts.impossible)
    return Finding("refuted", f"the rule calls {'nothing' if not claims else 'something else'} impossible", claims)


def _years(statement: Years | Gap, facts: Facts) -> Finding:
    text = years_text(facts)
    side = side_of_range(facts)
    if isinstance(statement, Years):
        right = statement == Years(facts.years, side, facts.low, facts.high)
    else:
        bound = facts.low if side == "below" else facts.high
        right = side == statement.side and bound == statement.bound and _equal(abs(facts.years - bound), statement.gap)
    if right:
        return Finding("confirmed", "the years and the range are these", (text,), frozenset(("years",)))
    return Finding("refuted", f"it is {text}", (text,))


def _equal(left: float, right: float) -> bool:
    return abs(left - right) < 1e-6  # 6.9 - 6 is 0.9000000000000004


def _title_work(statement: TitleWork, facts: Facts) -> Finding:
    title = fold(statement.title)
    degree = facts.titles.get(title)
    if degree is None and not statement.sure:
        return Finding("unread", f"{quote(statement.title)} is no title of the candidate")
    if degree is None:
        return Finding("refuted", f"{quote(statement.title)} is no title of the candidate", _work(facts))
    if degree != statement.degree:
        return Finding("refuted", f"work as {quote(statement.title)} is {DEGREES[degree]}", _work(facts))
    about = _work(facts) if degree == facts.work else (f"{title}: {DEGREES[degree]} work",)
    return Finding("confirmed", "the title has this degree", about, frozenset((f"work as {title}",)))


def _skill_work(statement: SkillWork, facts: Facts) -> Finding:
    known = _known(facts)
    names = list(dict.fromkeys(split_names(statement.names, known)))
    if known.isdisjoint(names):
        return Finding("unread", "names nothing that the job asks for")
    absent = [name for name in names if name not in facts.work_skills]
    if absent:
        return Finding("refuted", f"the work does not name {quote(absent[0])}", _work(facts))
    degree = skills_degree(len(names))
    if degree != statement.degree:
        return Finding("refuted", f"work with {len(names)} of the job's skills is {DEGREES[degree]}", _work(facts))
    about = _work(facts) if degree == facts.work else (f"work with {' and '.join(names)}: {DEGREES[degree]}",)
    return Finding("confirmed", "the work names them", about, frozenset(f"work with {name}" for name in names))


def _work(facts: Facts) -> tuple[str, ...]:
    text = work_text(facts)
    return (text,) if text else ()


def _listed_names(names: str, facts: Facts) -> list[str]:
    """Return the names of a list, or the whole as one name where none of them is known."""
    known = _known(facts)
    split = split_names(names, known)
    return [fold(names)] if known.isdisjoint(split) else split


def _listed(name: str, statement: Listed, facts: Facts) -> Finding:
    entries, asked = facts.skills.get(name), facts.asking(name)
    if entries is None:
        if not asked and (name in facts.titles or name in facts.companies or len(name.split()) > MAX_NAME_WORDS):
            return Finding("unread", f"{quote(name)} is no skill")
        return Finding("refuted", f"the profile does not list {quote(name)}", tuple(map(requirement_text, asked)))
    for entry in entries:
        if statement.level in (None, entry.level) and statement.months in (None, entry.months):
            parts = [part for part in ("level", "months") if getattr(statement, part) is not None]
            said = frozenset(f"{skill_text(entry)} {part}" for part in parts)
            return Finding("confirmed", "the profile lists it so", (skill_text(entry),), said)
    about = tuple(map(requirement_text, asked)) or (skill_text(entries[0]),)
    return Finding("refuted", f"the profile has {quote(skill_text(entries[0]))}", about)


def _missing(name: str, facts: Facts) -> Finding:
    entries, asked = facts.skills.get(name), facts.asking(name)
    unmet = tuple(missing_text(entry) for entry in asked if entry.best is None)
    if entries:
        about = tuple(map(requirement_text, asked)) or (skill_text(entries[0]),)
        return Finding("refuted", f"the profile has {quote(skill_text(entries[0]))}", about)
    if unmet:
        return Finding("confirmed", "the profile does not list it", unmet, frozenset((f"{name} missing",)))
    if asked:
        met = quote(requirement_text(asked[0]))
        return Finding("refuted", f"the profile has an alternative, {met}", tuple(map(requirement_text, asked)))
    return Finding("unread", f"the job does not ask for {quote(name)}")


def requirement_text(asked: Requirement) -> str:
    """Return the fact about a requirement: the best skill that meets it, or that it is missing."""
    return missing_text(asked) if asked.best is None else skill_text(asked.best)
