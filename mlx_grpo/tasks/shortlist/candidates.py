"""Made-up candidates of five kinds for one job, in the Redrob schema, drawn until their fit matches their kind.

strong: most required skills in depth. partial: some of them, either label. near_miss: right at first sight, and one
thing short of the shortlist. stuffed: every keyword, and no depth or unrelated work. impossible: a strong profile
with one claim that contradicts its years.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from random import Random
from typing import Any

from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.pool import read_candidate
from mlx_grpo.tasks.shortlist.records import Candidate, Job
from mlx_grpo.tasks.shortlist.vocabulary import VOCABULARY

Raw = dict[str, Any]
TODAY = date(2026, 6, 1)

# Scores next to one half are left out: their label depends on rounding, and there is nothing to learn from it.
_BANDS = {
    "strong": (0.66, 1.0),
    "partial_yes": (0.54, 0.72),
    "partial_no": (0.12, 0.46),
    "near_miss": (0.33, 0.46),
    "stuffed": (0.0, 0.42),
    "impossible": (0.0, 0.0),
}
# For each kind the chance that a required skill is deep, fair, thin or absent.
_DEPTHS = {
    "strong": (0.62, 0.25, 0.08, 0.05),
    "partial_yes": (0.45, 0.25, 0.1, 0.2),
    "partial_no": (0.15, 0.25, 0.25, 0.35),
    "near_miss": (0.25, 0.35, 0.3, 0.1),
    "stuffed": (0.0, 0.0, 1.0, 0.0),
    "impossible": (0.55, 0.3, 0.1, 0.05),
}
_LEVELS = {
    "deep": (("advanced", "expert"), (20, 72)),
    "fair": (("intermediate", "advanced"), (12, 36)),
    "thin": (("beginner", "beginner", "intermediate", "advanced"), (1, 8)),
}


def draw(job: Job, kind: str, identity: str, rng: Random) -> tuple[Raw, Candidate]:
    """Draw one candidate of a kind for a job; return the raw profile and its record.

    Raises RuntimeError where no score of a thousand draws lies in the kind's band: the vocabulary or the rule changed.
    """
    low, high = _BANDS[kind]
    for _ in range(1000):
        raw = _profile(job, kind, identity, rng)
        candidate, faults = read_candidate(identity, raw)
        if candidate is None:
            raise RuntimeError("the generator wrote a bad candidate: " + "; ".join(faults))
        if low <= fit(job, candidate).score <= high:
            return raw, candidate
    raise RuntimeError(f"no {kind} candidate for {job.title} in 1000 draws")


def _profile(job: Job, kind: str, identity: str, rng: Random) -> Raw:
    years = _years(job, kind, rng)
    deceit = rng.random() < 0.5
    home = _home_field(job, kind, deceit, rng)
    # A stuffed profile is either shallow in its own field or deep on paper behind unrelated work.
    depths = _DEPTHS["strong" if kind == "stuffed" and home != job.field else kind]
    skills = _skills(job, depths, years, rng)
    for name in rng.sample(VOCABULARY.fields[home].skills, 2):
        if len(skills) < 5 and all(name != skill["name"] for skill in skills) and rng.random() < 0.6:
            skills.append(_skill(name, rng.choice(("deep", "fair", "thin")), years, rng))
    if not skills:
        skills.append(_skill(rng.choice(VOCABULARY.fields[home].skills), "fair", years, rng))
    rng.shuffle(skills)
    known = [s["name"] for s in skills if s["duration_months"] > 6 and s["name"] in VOCABULARY.fields[home].skills]
    raw = _assemble(identity, years, skills, _career(home, years, known, rng), known, rng)
    return _contradict(raw, rng) if kind == "impossible" else raw


def _years(job: Job, kind: str, rng: Random) -> float:
    low, high = job.min_years, job.max_years or job.min_years + 5
    if kind == "near_miss" and rng.random() < 0.6:
        return float(max(1, rng.randint(low // 2, max(low - 1, 1))))
    inside = rng.random() < (0.85 if kind in ("strong", "impossible") else 0.6)
    years = rng.randint(max(low, 1), high) if inside else rng.randint(1, high + 5)
    return years + 0.5 if years < 10 and rng.random() < 0.15 else float(years)


def _home_field(job: Job, kind: str, deceit: bool, rng: Random) -> str:
    chance = {"stuffed": 1.0 if deceit else 0.0, "near_miss": 0.2, "partial_no": 0.3}.get(kind, 0.0)
    if rng.random() >= chance:
        return job.field
    return rng.choice([name for name in VOCABULARY.fields if name != job.field])


def _skills(job: Job, depths: tuple[float, ...], years: float, rng: Random) -> list[Raw]:
    picked = [(name, rng.choices(("deep", "fair", "thin", "absent"), depths)[0]) for name in job.required]
    picked += [(name, rng.choice(("deep", "fair", "thin", "absent", "absent"))) for name in job.nice]
    return [_skill(name, depth, years, rng) for name, depth in picked if depth != "absent"]


def _skill(name: str, depth: str, years: float, rng: Random) -> Raw:
    levels, (low, high) = _LEVELS[depth]
    level = rng.choice(levels)
    most = max(low, min(high, int(years * 12) + 12))
    months = rng.randint(low, most)
    months = max(months, 3) if level == "expert" else months
    return {"name": name, "proficiency": level, "endorsements": rng.randint(0, 60), "duration_months": months}


def _career(home: str, years: float, known: list[str], rng: Random) -> list[Raw]:
    total = max(3, int(years * 12) - rng.randint(0, 3))
    count = min(rng.choice((1, 2, 2, 3)), max(1, total // 10))
    cuts = sorted(rng.sample(range(1, total), count - 1))
    spans = [right - left for left, right in zip([0, *cuts], [*cuts, total], strict=True)]
    titles = VOCABULARY.fields[home].titles
    career, end = [], TODAY
    for index, months in enumerate(spans):
        start = _months_before(end, months)
        career.append(
            {
                "company": rng.choice(VOCABULARY.companies),
                "title": rng.choice(titles),
                "start_date": start.isoformat(),
                "end_date": None if index == 0 else end.isoformat(),
                "duration_months": months,
                "is_current": index == 0,
                "industry": home,
                "company_size": "201-500",
                "description": _duties(home, known, rng),
            }
        )
        end = start
    return career


def _duties(home: str, known: list[str], rng: Random) -> str:
    chosen = rng.sample(VOCABULARY.fields[home].duties, 2)
    pool = known or VOCABULARY.fields[home].skills[-1:]
    return " ".join(duty.format(a=rng.choice(pool)) for duty in chosen)


def _months_before(day: date, months: int) -> date:
    at = day.year * 12 + day.month - 1 - months
    return date(at // 12, at % 12 + 1, 1)


def _assemble(identity: str, years: float, skills: list[Raw], career: list[Raw], known: list[str], rng: Random) -> Raw:
    title = career[0]["title"]
    words = known or [skills[0]["name"]]
    fill = {"title": title, "a": rng.choice(words), "b": rng.choice(words)}
    place, country = rng.choice(VOCABULARY.places)
    return {
        "candidate_id": identity,
        "profile": {
            "anonymized_name": f"{rng.choice(VOCABULARY.first_names)} {rng.choice(VOCABULARY.last_names)}",
            "headline": rng.choice(VOCABULARY.headlines).format(**fill),
            "summary": " ".join(text.format(**fill) for text in rng.sample(VOCABULARY.summaries, 3)),
            "location": place,
            "country": country,
            "years_of_experience": years,
            "current_title": title,
            "current_company": career[0]["company"],
            "current_company_size": "201-500",
            "current_industry": career[0]["industry"],
        },
        "career_history": career,
        "education": [],
        "skills": skills,
    }


def _contradict(raw: Raw, rng: Random) -> Raw:
    """Change one claim of the profile so that it contradicts the years by a clear margin."""
    career = int(raw["profile"]["years_of_experience"] * 12)
    skill, role = rng.choice(raw["skills"]), raw["career_history"][0]
    ways: tuple[Callable[[], None], ...] = (
        lambda: skill.update(duration_months=career + 36 + rng.randint(24, 90)),
        lambda: skill.update(proficiency="expert", duration_months=rng.randint(0, 2)),
        lambda: role.update(duration_months=career + rng.randint(18, 80)),
    )
    rng.choice(ways)()
    return raw
