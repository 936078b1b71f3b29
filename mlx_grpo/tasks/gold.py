"""The completion a supervised warm start learns from: true reasons that cite the prompt, then the verdict.

The three reasons are the rule's own steps (what is covered, what is thin or missing, years and kind of
work), so a model that writes them first has what it needs for the score.
"""

from __future__ import annotations

import json
from random import Random

from mlx_grpo.tasks.fit import skill_credit, years_text
from mlx_grpo.tasks.prompt import range_text, skill_text
from mlx_grpo.tasks.records import Candidate, Fit, Job, Order
from mlx_grpo.tasks.text import mentions

_STRONG = ("strong in {}", "solid in {}", "good depth in {}", "covers {} well")
_THIN = ("thin on {}", "only light {}", "weak on {}")
_MISSING = ("lacks {}", "no sign of {}", "does not list {}")
# For a skill that the prose names but the skills do not list: "lacks Python" would be false there.
_UNLISTED = ("names {} in passing only", "gives no months for {}")
_INSIDE = ("{years} is inside {range}", "{years} sits within {range}", "{years} meets the {range} asked")
_OPEN = ("{years} meets the {range} asked", "{years} is enough for {range}")
_BELOW = ("{years} is under {range}", "{years} falls short of {range}")
_ABOVE = ("{years} is above {range}", "{years} goes beyond {range}")
_RELATED = ("work as {} is related", "past {} work is close")
_PARTLY = ("work as {} is partly related", "past {} work is only near")
_UNRELATED = ("work as {} is unrelated", "past {} work is another field")
_MORE = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_NAMES = 4


def gold_completion(job: Job, candidate: Candidate, fit: Fit, *, seed: int = 0, order: Order = "reasons_first") -> str:
    """The gold answer as compact JSON text; wording varies with `seed` and the two ids."""
    reasons = gold_reasons(job, candidate, fit, seed=seed)
    verdict = {"score": fit.score, "decision": fit.decision}
    if order == "reasons_first":
        return _dumps({"reasons": reasons, **verdict})
    return _dumps({"decision": fit.decision, "score": fit.score, "reasons": reasons})


def gold_reasons(job: Job, candidate: Candidate, fit: Fit, *, seed: int = 0) -> list[str]:
    """Three short reasons, each true and each citing words or numbers as the prompt writes them."""
    rng = Random(f"{seed} {job.id} {candidate.id}")
    covered, lacking = _covered(fit, rng), _lacking(candidate, fit, rng)
    standing = _years(job, candidate, fit, rng)
    if fit.impossible:
        return [fit.impossible[0], covered or lacking, standing]
    if not covered or not lacking:
        return [covered or lacking, standing, _relevance(candidate, fit, rng)]
    # Everything in place is the plain case; work that is not related is what the score turns on, so it is said.
    tail = f", {_relevance(candidate, fit, rng)}" if fit.relevance < 1 else ""
    return [covered, lacking, standing + tail]


def join(names: list[str], last: str = "and") -> str:
    """ "A", "A and B", "A, B and C", "A, B, C and two more"; commas keep capitalised names from running together."""
    if len(names) > MOST_NAMES:
        more = len(names) - MOST_NAMES + 1
        names = [*names[: MOST_NAMES - 1], f"{_MORE[min(more, 9)]} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _covered(fit: Fit, rng: Random) -> str:
    if not fit.strong:
        return ""
    # Best first, and never simply the job's own order: a list copied from the prompt is no reason.
    best = sorted(fit.strong, key=skill_credit)[::-1]
    names = [skill.name for skill in best]
    if len(names) <= 2:
        names[0] = skill_text(best[0])
    return rng.choice(_STRONG).format(join(names))


def _lacking(candidate: Candidate, fit: Fit, rng: Random) -> str:
    weakest = sorted(fit.thin, key=skill_credit, reverse=True)[::-1]
    thin = [skill_text(weakest[0])] if len(weakest) == 1 else [skill.name for skill in weakest]
    prose = " ; ".join([candidate.title, candidate.headline, candidate.summary])
    prose = " ; ".join([prose, *(f"{role.title} ; {role.text}" for role in candidate.roles)])
    named = {entry: name for entry in fit.missing for name in entry.split(" or ") if mentions(name, prose)}
    absent = [entry.split(" or ")[0] for entry in reversed(fit.missing) if entry not in named]
    parts = [rng.choice(_THIN).format(join(thin))] if thin else []
    parts += [rng.choice(_MISSING).format(join(absent, "or"))] if absent else []
    parts += [rng.choice(_UNLISTED).format(join(list(named.values())))] if named and len(parts) < 2 else []
    return ", ".join(parts)


def _years(job: Job, candidate: Candidate, fit: Fit, rng: Random) -> str:
    inside = _OPEN if job.max_years is None else _INSIDE
    wording = inside if fit.years == 1 else _BELOW if candidate.years < job.min_years else _ABOVE
    shown = range_text(job).removesuffix(" years")
    return rng.choice(wording).format(years=years_text(candidate.years), range=shown)


def _relevance(candidate: Candidate, fit: Fit, rng: Random) -> str:
    titles = [candidate.title, *(role.title for role in candidate.roles)]
    if fit.evidence[0] in titles:
        wording = _RELATED if fit.relevance == 1 else _PARTLY if fit.relevance > 0 else _UNRELATED
        return rng.choice(wording).format(fit.evidence[0])
    name = fit.evidence[0]
    role = next(role for role in candidate.roles if mentions(name, role.text))
    only = "" if fit.relevance == 1 else "only "
    # The company parts skill and title: "Nurse at Kestrel" as it stands there would be a copy.
    return f"{only}used {name} for {role.company} as {role.title}"


def _dumps(answer: dict[str, object]) -> str:
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
