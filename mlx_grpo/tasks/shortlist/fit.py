"""The rule behind every gold label: how well a prompt's candidate fits its job.

    score = (0.85 skills + 0.15 years) * (0.4 + 0.6 relevance)      0 where a claim cannot be true

- skills: the mean over the required skills of level * min(months / 24, 1), plus a tenth of the
  same mean over the nice-to-haves, at most 1. Listing every keyword at two months gives little.
- years: 1 inside the range; years / minimum below it; a tenth less per year above it, at least 0.5.
- relevance: 1 where a title shares a word with the job's title or the work names two of the
  job's skills; 0.5 where only a common role word ("engineer") is shared or one skill is named; else 0.
  So a full list of keywords behind unrelated work cannot reach the shortlist.
"""

from __future__ import annotations

from mlx_grpo.tasks.shortlist.degrees import (
    EXPERT_MIN_MONTHS,
    FULL_MONTHS,
    ROLE_SLACK_MONTHS,
    SKILL_SLACK_MONTHS,
    STRONG,
    TENURE_SLACK_MONTHS,
    credit,
)
from mlx_grpo.tasks.shortlist.records import Candidate, Fit, Job, Role, Skill
from mlx_grpo.tasks.shortlist.text import fold, mentions, same_name
from mlx_grpo.tasks.shortlist.titles import kinship

UNKNOWN_MONTHS = FULL_MONTHS / 2


def skill_credit(skill: Skill) -> float:
    """Return the credit of one listed skill, 0 to 1: its level, in proportion to its months up to 24."""
    return credit(skill.level, UNKNOWN_MONTHS if skill.months is None else skill.months)


def best_skill(requirement: str, candidate: Candidate) -> Skill | None:
    """Return the candidate's skill with the most credit that meets a requirement, or None."""
    names = requirement.split(" or ")
    listed = [skill for skill in candidate.skills if any(same_name(skill.name, name) for name in names)]
    return max(listed, key=skill_credit, default=None)


def years_credit(years: float, job: Job) -> float:
    """Return 1 for years inside the job's range, less outside it."""
    if years < job.min_years:
        return years / job.min_years
    if job.max_years is not None and years > job.max_years:
        return max(0.5, 1.0 - 0.1 * (years - job.max_years))
    return 1.0


def relevance(job: Job, candidate: Candidate) -> tuple[float, tuple[str, ...]]:
    """Return how near titles and work are to the job (1, 0.5 or 0), and the title or skill names that show it."""
    best, evidence = 0.0, (candidate.title,)
    for title in (candidate.title, *(role.title for role in candidate.roles)):
        value = kinship(title, job.title)
        if value > best:
            best, evidence = value, (title,)
    work = " ; ".join(role.text for role in candidate.roles)
    named = list({fold(name): name for name in job.skill_names if mentions(name, work)}.values())[:2]
    return (len(named) / 2, tuple(named)) if len(named) / 2 > best else (best, evidence)


def impossible_claims(candidate: Candidate) -> tuple[str, ...]:
    """Return the claims that contradict the candidate's years, in words and numbers of the prompt."""
    career = candidate.years * 12
    claims = []
    for skill in candidate.skills:
        if skill.months is None:
            continue
        if skill.months > career + SKILL_SLACK_MONTHS:
            claims.append(skill_claim(skill, candidate))
        if skill.level == "expert" and skill.months < EXPERT_MIN_MONTHS:
            claims.append(f"calls itself expert in {skill.name} after {skill.months}m")
    claims += [role_claim(role, candidate) for role in candidate.roles if role.months > career + ROLE_SLACK_MONTHS]
    total = sum(role.months for role in candidate.roles)
    if not claims and total > career + TENURE_SLACK_MONTHS:
        listed = " and ".join(f"{role.months}m" for role in candidate.roles)
        claims.append(f"claims jobs of {listed} in {years_text(candidate.years)}")
    return tuple(claims)


def skill_claim(skill: Skill, candidate: Candidate) -> str:
    """Return a skill's months beside the years: "claims 48m of Python in 6 years"."""
    return f"claims {skill.months}m of {skill.name} in {years_text(candidate.years)}"


def role_claim(role: Role, candidate: Candidate) -> str:
    """Return a role's months beside the years: "claims 48m at Northwind in 6 years"."""
    return f"claims {role.months}m at {role.company} in {years_text(candidate.years)}"


def years_text(years: float) -> str:
    """Format years as the prompt does: "1 year", "4 years", "6.9 years"."""
    return f"{years:g} year" if years == 1 else f"{years:g} years"


def fit(job: Job, candidate: Candidate) -> Fit:
    """Return the gold fit of a prompt's job and candidate, by the rule at the head of this file."""
    strong: list[Skill] = []
    thin: list[Skill] = []
    missing: list[str] = []
    credits: list[float] = []
    for requirement in job.required:
        skill = best_skill(requirement, candidate)
        credits.append(0.0 if skill is None else skill_credit(skill))
        if skill is None:
            missing.append(requirement)
        elif credits[-1] >= STRONG:
            strong.append(skill)
        else:
            thin.append(skill)
    nice = [best_skill(name, candidate) for name in job.nice]
    bonus = sum(skill_credit(skill) for skill in nice if skill)
    skills = min(1.0, sum(credits) / len(credits) + (0.1 * bonus / len(job.nice) if job.nice else 0.0))
    years = years_credit(candidate.years, job)
    related, evidence = relevance(job, candidate)
    impossible = impossible_claims(candidate)
    score = 0.0 if impossible else (0.85 * skills + 0.15 * years) * (0.4 + 0.6 * related)
    return Fit(
        score=round(score, 2),
        skills=skills,
        years=years,
        relevance=related,
        evidence=evidence,
        strong=tuple(strong),
        thin=tuple(thin),
        missing=tuple(missing),
        impossible=impossible,
    )
