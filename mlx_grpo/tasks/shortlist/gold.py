"""Gold completions, which a supervised warm start trains on: true reasons that cite the prompt, then the verdict.

The reasons are the rule's own steps: strong skills, thin or missing skills, years and kind of work, and the longest or
an impossible claim. A model that writes them first has everything that the score needs.

The last two are written for every candidate, and give their evidence before the verdict ("claims 48m of SQL in 4
years, possible"), so that every example trains the check. When only impossible profiles had the last reason, a trained
model noticed an impossible claim in three of ten.

Skills are in the order of the prompt, and each step has one wording. A small model then learns the judgement and not a
choice of synonyms: with four wordings of each step, the choice was a quarter of the remaining loss after 640 examples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlx_grpo.tasks.shortlist.fit import role_claim, skill_claim, years_text
from mlx_grpo.tasks.shortlist.prompt import range_text
from mlx_grpo.tasks.shortlist.records import Candidate, Fit, Job, Order, Skill
from mlx_grpo.tasks.shortlist.text import mentions

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_NAMES = 4


def gold_completion(job: Job, candidate: Candidate, fit: Fit, *, order: Order = "reasons_first") -> str:
    """Return the gold completion as compact JSON text."""
    reasons = gold_reasons(job, candidate, fit)
    if order == "reasons_first":
        return dump_answer({"reasons": reasons, "score": fit.score, "decision": fit.decision})
    return dump_answer({"decision": fit.decision, "score": fit.score, "reasons": reasons})


def gold_reasons(job: Job, candidate: Candidate, fit: Fit) -> list[str]:
    """Return two to four short reasons, each true and each citing words or numbers as the prompt writes them."""
    years_and_work = f"{_years(job, candidate, fit)}, {_relevance(candidate, fit)}"
    reasons = (_strong(job, candidate, fit), _lacking(candidate, fit), years_and_work, _claim(candidate, fit))
    return [reason for reason in reasons if reason]


def join(names: list[str], last: str = "and") -> str:
    """Join names to "A", "A and B", "A, B and C" or "A, B, C and two more".

    The commas keep capitalised names from running together.
    """
    if len(names) > MOST_NAMES:
        more = len(names) - MOST_NAMES + 1
        names = [*names[: MOST_NAMES - 1], f"{_number(more)} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _strong(job: Job, candidate: Candidate, fit: Fit) -> str:
    if not fit.strong:
        return ""
    share = f"{_number(len(fit.strong))} of {_number(len(job.required))}"
    return f"strong in {join(_as_listed(candidate, fit.strong))}, {share}"


def _lacking(candidate: Candidate, fit: Fit) -> str:
    prose = " ; ".join([candidate.title, candidate.headline, candidate.summary])
    prose = " ; ".join([prose, *(f"{role.title} ; {role.text}" for role in candidate.roles)])
    # A skill that the prose names but the skills do not list: "lacks Python" would be false there.
    named = {entry: name for entry in fit.missing for name in entry.split(" or ") if mentions(name, prose)}
    absent = [entry.split(" or ")[0] for entry in fit.missing if entry not in named]
    parts = [f"thin on {join(_as_listed(candidate, fit.thin))}"] if fit.thin else []
    # Before the absent skills: names after "lacks" read as denied.
    if named and not (fit.thin and absent):
        parts.append(f"names {join(list(named.values()))} in passing only")
    if absent:
        parts.append(f"lacks {join(absent, 'or')}")
    return ", ".join(parts)


def _as_listed(candidate: Candidate, skills: Sequence[Skill]) -> list[str]:
    """List skill names in the order of the profile: a list copied from the job would be no reason."""
    return [skill.name for skill in candidate.skills if skill in skills]


def _years(job: Job, candidate: Candidate, fit: Fit) -> str:
    place = "inside" if fit.years == 1 else "under" if candidate.years < job.min_years else "above"
    return f"{years_text(candidate.years)} is {place} {range_text(job).removesuffix(' years')}"


def _relevance(candidate: Candidate, fit: Fit) -> str:
    degree = "related" if fit.relevance == 1 else "partly related" if fit.relevance > 0 else "unrelated"
    titles = [candidate.title, *(role.title for role in candidate.roles)]
    if fit.evidence[0] in titles:
        return f"work as {fit.evidence[0]} is {degree}"
    return f"work shows {join(list(fit.evidence))}, {degree}"


def _claim(candidate: Candidate, fit: Fit) -> str:
    if fit.impossible:
        return f"{fit.impossible[0]}, impossible"
    claims = [(skill.months, skill_claim(skill, candidate)) for skill in candidate.skills if skill.months]
    claims += [(role.months, role_claim(role, candidate)) for role in candidate.roles if role.months]
    return f"{max(claims)[1]}, possible" if claims else ""


def _number(count: int) -> str:
    return _NUMBERS[min(count, len(_NUMBERS) - 1)]


def dump_answer(answer: dict[str, object]) -> str:
    """Format an answer as the compact JSON text of a completion."""
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
