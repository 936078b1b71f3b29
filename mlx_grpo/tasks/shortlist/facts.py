"""The facts of a prompt that the strict rubric checks reasons against, made by the code that computes the gold score.

docs/guide/data.md describes the keys.
"""

from __future__ import annotations

from typing import Any

from mlx_grpo.tasks.shortlist.fit import best_skill, fit, skill_credit, title_degrees, work_skills
from mlx_grpo.tasks.shortlist.records import Candidate, Claim, Job, Skill
from reward.facts import SCHEMA

Facts = dict[str, Any]
"""What JSON can hold, and a column of every row."""


def facts_of(job: Job, candidate: Candidate) -> Facts:
    """Return the facts of one job and one candidate, both exactly as the prompt contains them."""
    gold = fit(job, candidate)
    return {
        "version": SCHEMA,
        "requirements": [_requirement(name, skill) for name, skill in zip(job.required, gold.best, strict=True)],
        "nice": [_requirement(name, best_skill(name, candidate)) for name in job.nice],
        "skills": _skills(candidate),
        "years": _plain(candidate.years),
        "range": [job.min_years, job.max_years],
        "titles": {title: _plain(degree) for title, degree in title_degrees(job, candidate).items()},
        "work_skills": work_skills(job, candidate),
        "work": _plain(gold.relevance),
        "roles": [[role.title, role.company, role.months] for role in candidate.roles],
        "impossible": [_claim(claim) for claim in gold.impossible],
    }


def _requirement(name: str, best: Skill | None) -> Facts:
    return {"any": name.split(" or "), "best": best.name if best else None}


def _skills(candidate: Candidate) -> Facts:
    """Return the listed skills by name; of a name that is listed twice, the one with the most credit."""
    listed: dict[str, Skill] = {}
    for skill in candidate.skills:
        if skill.name not in listed or skill_credit(skill) > skill_credit(listed[skill.name]):
            listed[skill.name] = skill
    return {name: {"level": skill.level, "months": skill.months} for name, skill in listed.items()}


def _claim(claim: Claim) -> Facts:
    if claim.kind == "jobs":
        return {"kind": "jobs", "months": list(claim.months)}
    return {"kind": claim.kind, "name": claim.name, "months": claim.months[0]}


def _plain(number: float) -> float | int:
    """Return a whole number as an int, which JSON writes without a point."""
    return int(number) if number == int(number) else number
