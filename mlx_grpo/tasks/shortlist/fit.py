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

from collections.abc import Sequence

from mlx_grpo.tasks.shortlist.degrees import (
    EXPERT_MIN_MONTHS,
    ROLE_SLACK_MONTHS,
    SKILL_SLACK_MONTHS,
    TENURE_SLACK_MONTHS,
    credit,
)
from mlx_grpo.tasks.shortlist.records import Candidate, Claim, Fit, Job, Skill
from mlx_grpo.tasks.shortlist.text import fold, mentions, same_name
from mlx_grpo.tasks.shortlist.titles import kinship


def skill_credit(skill: Skill) -> float:
    """Return the credit of one listed skill, 0 to 1."""
    return credit(skill.level, skill.months)


def best_skill(requirement: str, candidate: Candidate) -> Skill | None:
    """Return the candidate's skill with the most credit that meets a requirement, or None."""
    names = requirement.split(" or ")
    listed = [skill for skill in candidate.skills if any(same_name(skill.name, name) for name in names)]
    return max(listed, key=skill_credit, default=None)


def years_credit(years: float, low: float, high: float | None) -> float:
    """Return 1 for years inside a job's range, less outside it; high is None where it has no upper end."""
    if years < low:
        return years / low
    if high is not None and years > high:
        return max(0.5, 1.0 - 0.1 * (years - high))
    return 1.0


def title_degrees(job: Job, candidate: Candidate) -> dict[str, float]:
    """Return how near each of the candidate's titles is to the job's (1, 0.5 or 0), the current title first."""
    titles = (candidate.title, *(role.title for role in candidate.roles))
    return {title: kinship(title, job.title) for title in titles}


def work_skills(job: Job, candidate: Candidate) -> list[str]:
    """Return the job's skills that the candidate's work names, in the job's order."""
    work = " ; ".join(role.text for role in candidate.roles)
    return list({fold(name): name for name in job.skill_names if mentions(name, work)}.values())


def work_degree(skills: list[str]) -> float:
    """Return how near work is that names these skills of the job: two make it related, one partly."""
    return min(len(skills) / 2, 1.0)


def relevance(job: Job, candidate: Candidate) -> tuple[float, tuple[str, ...]]:
    """Return how near titles and work are to the job (1, 0.5 or 0), and the title or skill names that show it."""
    degrees, named = title_degrees(job, candidate), work_skills(job, candidate)[:2]
    nearest = max(degrees, key=lambda title: degrees[title])  # the first of equals
    if work_degree(named) > degrees[nearest]:
        return work_degree(named), tuple(named)
    return degrees[nearest], (nearest,)


def impossible_claims(candidate: Candidate) -> tuple[Claim, ...]:
    """Return the claims that contradict the candidate's years."""
    career = candidate.years * 12
    claims: list[Claim] = []
    for skill in candidate.skills:
        if skill.months is None:
            continue
        if skill.months > career + SKILL_SLACK_MONTHS:
            claims.append(Claim("skill", skill.name, (skill.months,)))
        if skill.level == "expert" and skill.months < EXPERT_MIN_MONTHS:
            claims.append(Claim("expert", skill.name, (skill.months,)))
    for role in candidate.roles:
        if role.months > career + ROLE_SLACK_MONTHS:
            claims.append(Claim("role", role.company, (role.months,)))
    months = tuple(role.months for role in candidate.roles)
    if not claims and sum(months) > career + TENURE_SLACK_MONTHS:
        claims.append(Claim("jobs", "", months))
    return tuple(claims)


def years_text(years: float) -> str:
    """Format years as the prompt does: "1 year", "4 years", "6.9 years"."""
    return f"{years:g} year" if years == 1 else f"{years:g} years"


def fit(job: Job, candidate: Candidate) -> Fit:
    """Return the gold fit of a prompt's job and candidate, by the rule at the head of this file."""
    best = tuple(best_skill(requirement, candidate) for requirement in job.required)
    nice = [best_skill(name, candidate) for name in job.nice]
    bonus = 0.1 * _sum_of_credits(nice) / len(nice) if nice else 0.0
    skills = min(1.0, _sum_of_credits(best) / len(best) + bonus)
    years = years_credit(candidate.years, job.min_years, job.max_years)
    related, evidence = relevance(job, candidate)
    impossible = impossible_claims(candidate)
    score = 0.0 if impossible else weighted(skills, years, related)
    return Fit(
        score=round(score, 2),
        skills=skills,
        years=years,
        relevance=related,
        evidence=evidence,
        best=best,
        impossible=impossible,
    )


def weighted(skills: float, years: float, relevance: float) -> float:
    """Return the score where no claim is impossible; all three are from 0 to 1."""
    return (0.85 * skills + 0.15 * years) * (0.4 + 0.6 * relevance)


def _sum_of_credits(skills: Sequence[Skill | None]) -> float:
    return sum(skill_credit(skill) for skill in skills if skill)
