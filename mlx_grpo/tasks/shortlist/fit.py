"""The rule behind every gold label: how well a shown candidate fits a shown job.

    score = (0.85 skills + 0.15 years) * (0.4 + 0.6 relevance)      0 where a claim cannot be true

- skills: the mean over the required skills of level * min(months / 24, 1), plus a tenth of the
  same mean over the nice-to-haves, at most 1. Listing every keyword at two months earns little.
- years: 1 inside the range; years / minimum below it; a tenth less per year above it, at least 0.5.
- relevance: 1 where a shown title shares a word with the job's title or the work names two of the
  job's skills; 0.5 where only a common role word ("engineer") is shared or one skill is named; else 0.
  So a full list of keywords behind unrelated work cannot reach the shortlist.
"""

from __future__ import annotations

from mlx_grpo.tasks.shortlist.records import Candidate, Fit, Job, Role, Skill
from mlx_grpo.tasks.shortlist.text import fold, mentions, same_name
from reward.degrees import (
    EXPERT_MIN_MONTHS,
    FULL_MONTHS,
    ROLE_SLACK_MONTHS,
    SKILL_SLACK_MONTHS,
    STRONG,
    TENURE_SLACK_MONTHS,
    credit,
)
from reward.titles import kinship

UNKNOWN_MONTHS = FULL_MONTHS / 2


def skill_credit(skill: Skill) -> float:
    """What one listed skill is worth, 0 to 1: its level, in proportion to its months up to 24."""
    return credit(skill.level, UNKNOWN_MONTHS if skill.months is None else skill.months)


def best_skill(requirement: str, candidate: Candidate) -> Skill | None:
    """The candidate's most creditable skill that meets a requirement, or None."""
    names = requirement.split(" or ")
    listed = [skill for skill in candidate.skills if any(same_name(skill.name, name) for name in names)]
    return max(listed, key=skill_credit, default=None)


def years_credit(years: float, job: Job) -> float:
    """1 inside the job's range, less outside it."""
    if years < job.min_years:
        return years / job.min_years
    if job.max_years is not None and years > job.max_years:
        return max(0.5, 1.0 - 0.1 * (years - job.max_years))
    return 1.0


def relevance(job: Job, candidate: Candidate) -> tuple[float, tuple[str, ...]]:
    """How near the shown titles and work are to the job (1, 0.5 or 0), and the title or skill names that say so."""
    best, evidence = 0.0, (candidate.title,)
    for title in (candidate.title, *(shown.title for shown in candidate.roles)):
        value = kinship(title, job.title)
        if value > best:
            best, evidence = value, (title,)
    work = " ; ".join(shown.text for shown in candidate.roles)
    named = list({fold(name): name for name in job.skill_names if mentions(name, work)}.values())[:2]
    return (len(named) / 2, tuple(named)) if len(named) / 2 > best else (best, evidence)


def impossible_claims(candidate: Candidate) -> tuple[str, ...]:
    """The claims that contradict the candidate's years, in words and numbers that the prompt shows."""
    career = candidate.years * 12
    found = []
    for skill in candidate.skills:
        if skill.months is None:
            continue
        if skill.months > career + SKILL_SLACK_MONTHS:
            found.append(skill_claim(skill, candidate))
        if skill.level == "expert" and skill.months < EXPERT_MIN_MONTHS:
            found.append(f"calls itself expert in {skill.name} after {skill.months}m")
    found += [role_claim(role, candidate) for role in candidate.roles if role.months > career + ROLE_SLACK_MONTHS]
    total = sum(role.months for role in candidate.roles)
    if not found and total > career + TENURE_SLACK_MONTHS:
        listed = " and ".join(f"{role.months}m" for role in candidate.roles)
        found.append(f"claims jobs of {listed} in {years_text(candidate.years)}")
    return tuple(found)


def skill_claim(skill: Skill, candidate: Candidate) -> str:
    """What a skill's months say beside the years: "claims 48m of Python in 6 years"."""
    return f"claims {skill.months}m of {skill.name} in {years_text(candidate.years)}"


def role_claim(role: Role, candidate: Candidate) -> str:
    """What a role's months say beside the years: "claims 48m at Northwind in 6 years"."""
    return f"claims {role.months}m at {role.company} in {years_text(candidate.years)}"


def years_text(years: float) -> str:
    """As the prompt writes it: "1 year", "4 years", "6.9 years"."""
    return f"{years:g} year" if years == 1 else f"{years:g} years"


def fit(job: Job, candidate: Candidate) -> Fit:
    """The gold fit of what one prompt shows; deterministic, the rule stands at the head of this file."""
    strong, thin, missing, credits = [], [], [], []
    for requirement in job.required:
        skill = best_skill(requirement, candidate)
        credits.append(0.0 if skill is None else skill_credit(skill))
        if skill is None:
            missing.append(requirement)
        else:
            (strong if credits[-1] >= STRONG else thin).append(skill)
    bonus = [skill_credit(skill) for name in job.nice if (skill := best_skill(name, candidate))]
    skills = sum(credits) / len(credits) + (0.1 * sum(bonus) / len(job.nice) if job.nice else 0.0)
    skills = min(1.0, skills)
    years, (related, evidence) = years_credit(candidate.years, job), relevance(job, candidate)
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
