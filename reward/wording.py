"""The canonical wording of each fact, and the facts that decide a candidate's fit."""

from __future__ import annotations

from reward.facts import DEGREES, Claim, Facts, Requirement, Skill
from reward.names import fold


def decisive_facts(facts: Facts) -> dict[str, int]:
    """Return the decisive facts in order, in canonical wording, each with the number of parts that state it in full.

    The order: the requirements, the years (unless any number will do), the work, and each impossible claim. Left out is
    what no clause can state: a skill with neither level nor months, and work without a title.
    """
    found: dict[str, int] = {}
    for asked in facts.requirements:
        if asked.best is None:
            found[missing_text(asked)] = 1
        elif asked.best.parts:
            found[skill_text(asked.best)] = len(asked.best.parts)
    if facts.low > 0 or facts.high is not None:
        found[years_text(facts)] = 1
    if work := work_text(facts):
        found[work] = 1
    return found | {claim_text(claim, facts): 1 for claim in facts.impossible}


def skill_text(skill: Skill) -> str:
    """Return "Excel: advanced, 7 months", or as much of it as the profile states."""
    months = [] if skill.months is None else [_count(skill.months, "month")]
    return f"{skill.name}: {', '.join(([skill.level] if skill.level else []) + months) or 'listed'}"


def missing_text(asked: Requirement) -> str:
    """Return "SQL: missing" or "Pinecone or Qdrant: missing"."""
    return f"{' or '.join(asked.names)}: missing"


def years_text(facts: Facts) -> str:
    """Return "9 years, above 4-6"."""
    return f"{_count(facts.years, 'year')}, {side_of_range(facts)} {facts.range_text}"


def side_of_range(facts: Facts) -> str:
    """Return where the years lie: "above", "inside" or "below" the job's range."""
    if facts.years < facts.low:
        return "below"
    return "above" if facts.high is not None and facts.years > facts.high else "inside"


def work_text(facts: Facts) -> str:
    """Return "Accountant: related work" or "work with SQL and Spark: related"; "" where neither shows the degree."""
    title = next((title for title in facts.title_names if facts.titles[fold(title)] == facts.work), "")
    if title:
        return f"{title}: {DEGREES[facts.work]} work"
    names = list(facts.work_skills.values())[: round(2 * facts.work)]
    shown = names and skills_degree(len(facts.work_skills)) == facts.work
    return f"work with {' and '.join(names)}: {DEGREES[facts.work]}" if shown else ""


def skills_degree(count: int) -> float:
    """Return the degree that work with so many of the job's skills has: two or more are related, one partly."""
    return min(count, 2) / 2


def claim_text(claim: Claim, facts: Facts) -> str:
    """Return an impossible claim: "Kafka: 150 months in 6 years, impossible"."""
    years = _count(facts.years, "year")
    if claim.kind == "jobs":
        *others, last = (f"{months:g}" for months in claim.months)
        return f"jobs of {', '.join(others)} and {last} months in {years}, impossible"
    months = _count(claim.months[0], "month")
    if claim.kind == "expert":
        return f"expert in {claim.name} after {months}, impossible"
    if claim.kind == "role":
        return f"{months} at {claim.name} in {years}, impossible"
    return f"{claim.name}: {months} in {years}, impossible"


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
