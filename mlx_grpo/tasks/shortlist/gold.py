"""Gold completions, which a supervised warm start trains on: the decisive facts as reasons, then the verdict.

The reasons are the steps of the fit rule in its order: the requirements one by one, the years and a doubt, the work. A
model that writes them first has everything that the score needs. Each step has one wording, so that a small model
learns the judgement and not a choice of synonyms.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlx_grpo.tasks.shortlist.facts import Facts
from mlx_grpo.tasks.shortlist.fit import years_text
from mlx_grpo.tasks.shortlist.records import Fit

FIRST_REQUIREMENTS = 3
"""The requirements of the first reason; the others follow in the second."""
MOST_CLAIMS = 2
"""A claim more says nothing new of a profile that can't be true; ten would fill the completion."""


def gold_completion(fit: Fit, facts: Facts) -> str:
    """Return the gold completion as JSON text."""
    return dump_answer({"reasons": gold_reasons(facts), "score": fit.score, "decision": fit.decision})


def gold_reasons(facts: Facts) -> list[str]:
    """Return two to four reasons that state every decisive fact once, in the canonical wording."""
    requirements = [_requirement(entry, facts["skills"]) for entry in facts["requirements"]]
    parts = [requirements[:FIRST_REQUIREMENTS], requirements[FIRST_REQUIREMENTS:], _years(facts), [_work(facts)]]
    return ["; ".join(clauses) for clauses in parts if clauses]


def _requirement(entry: Facts, skills: Facts) -> str:
    if entry["best"] is None:
        return f"{entry['any'][0]}: missing"
    skill = skills[entry["best"]]
    months = "" if skill["months"] is None else f", {_months(skill['months'])}"
    return f"{entry['best']}: {skill['level']}{months}"


def _years(facts: Facts) -> list[str]:
    """Return the years against the range, where the job asks for any, and the claims that contradict them."""
    low, high = facts["range"]
    years = facts["years"]
    place = "below" if years < low else "inside" if high is None or years <= high else "above"
    asked = f"{low}+" if high is None else f"{low}-{high}"
    against = [] if (low, high) == (0, None) else [f"{years_text(years)}, {place} {asked}"]
    return against + [_claim(claim, years_text(years)) for claim in facts["impossible"][:MOST_CLAIMS]]


def _claim(claim: Facts, years: str) -> str:
    if claim["kind"] == "expert":
        return f"expert in {claim['name']} after {_months(claim['months'])}, impossible"
    if claim["kind"] == "role":
        return f"{_months(claim['months'])} at {claim['name']} in {years}, impossible"
    if claim["kind"] == "jobs":
        return f"jobs of {join(claim['months'])} months in {years}, impossible"
    return f"{claim['name']}: {_months(claim['months'])} in {years}, impossible"


def _work(facts: Facts) -> str:
    """Return the degree of the work, with the title or else the skills that it comes from."""
    degree = {1: "related", 0.5: "partly related", 0: "unrelated"}[facts["work"]]
    title = next((title for title, own in facts["titles"].items() if own == facts["work"]), None)
    if title is not None:
        return f"{title}: {degree} work"
    return f"work with {join(facts['work_skills'][:2])}: {degree}"


def _months(months: int) -> str:
    return "1 month" if months == 1 else f"{months} months"


def join(items: Sequence[Any]) -> str:
    """Join items to "A", "A and B" or "A, B and C"."""
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def dump_answer(answer: Facts) -> str:
    """Format an answer as the JSON text of a completion, with the blanks that instruct models write too."""
    return json.dumps(answer, ensure_ascii=False)
