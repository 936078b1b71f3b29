"""Cut a job or a profile down to a token budget without changing its fit.

Each cut is tried on a copy and taken only where the fit, with all its parts, stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.records import Candidate, Job, Role
from mlx_grpo.tasks.shortlist.text import fold, mentions, sentences

COMPACT_OTHER_SKILLS = 1
COMPACT_NAMED_SKILLS = 2

Cuts = Callable[[Job, Candidate], Iterator[Candidate]]


def compact_view(job: Job, profile: Candidate) -> Candidate:
    """Return the profile as the compact form contains it: no prose, the latest job, few skills beside the job's.

    A role's description is replaced by the first job skills it names. The fit is that of the whole profile: an older
    job or another skill is kept where the fit needs it.
    """
    roles = tuple(replace(role, text=", ".join(_named(job, role))) for role in profile.roles)
    view = replace(profile, headline="", summary="", roles=roles)
    view, _ = _cut(job, view, _older_roles, lambda smaller: len(smaller.roles) <= 1)
    asked = {fold(name) for name in job.skill_names}

    def has_few_others(smaller: Candidate) -> bool:
        return sum(fold(skill.name) not in asked for skill in smaller.skills) <= COMPACT_OTHER_SKILLS

    view, _ = _cut(job, view, _other_skills, has_few_others)
    return _cut(job, view, _second_names, lambda smaller: False)[0]


def condense_job(job: Job, fits: Callable[[Job], bool]) -> Job:
    """Return the job with as much of its text as fits, in whole sentences.

    Sentences that name a job skill are dropped last.
    """
    parts = sentences(job.text)
    names_skill = [any(mentions(name, part) for name in job.skill_names) for part in parts]
    # From the last sentence to the first, and those that name a skill after the others.
    order = sorted(range(len(parts)), key=lambda i: (names_skill[i], -i))
    dropped: set[int] = set()
    while not fits(job) and len(dropped) < len(parts):
        dropped.add(order[len(dropped)])
        job = replace(job, text=" ".join(part for i, part in enumerate(parts) if i not in dropped))
    return job


def condense(job: Job, candidate: Candidate, fits: Callable[[Candidate], bool]) -> tuple[Candidate, tuple[str, ...]]:
    """Cut the candidate until `fits` returns True or nothing is left to cut; return it and the cuts in words.

    Whole sentences, skills and jobs are dropped, the least informative first. The fit does not change. Where no cut is
    left and the result still does not fit, the caller reports it.
    """
    done = []
    for name, cuts in _STEPS:
        candidate, count = _cut(job, candidate, cuts, fits)
        if count:
            done.append(f"{count} " + name.format(s="" if count == 1 else "s"))
    return candidate, tuple(done)


def _cut(job: Job, candidate: Candidate, cuts: Cuts, enough: Callable[[Candidate], bool]) -> tuple[Candidate, int]:
    gold = fit(job, candidate)
    count = 0
    while not enough(candidate):
        smaller = next((option for option in cuts(job, candidate) if fit(job, option) == gold), None)
        if smaller is None:
            break
        candidate = smaller
        count += 1
    return candidate, count


def _named(job: Job, role: Role) -> list[str]:
    names = {fold(name): name for name in job.skill_names if mentions(name, role.text)}
    return list(names.values())[:COMPACT_NAMED_SKILLS]


def _role_sentences(job: Job, candidate: Candidate) -> Iterator[Candidate]:
    for at in reversed(range(len(candidate.roles))):
        parts = sentences(candidate.roles[at].text)
        for drop in reversed(range(len(parts))):
            role = replace(candidate.roles[at], text=" ".join(parts[:drop] + parts[drop + 1 :]))
            yield replace(candidate, roles=(*candidate.roles[:at], role, *candidate.roles[at + 1 :]))


def _summary_sentences(job: Job, candidate: Candidate) -> Iterator[Candidate]:
    parts = sentences(candidate.summary)
    if parts:
        yield replace(candidate, summary=" ".join(parts[:-1]))


def _other_skills(job: Job, candidate: Candidate) -> Iterator[Candidate]:
    asked = {fold(name) for name in job.skill_names}
    for drop in reversed(range(len(candidate.skills))):
        if fold(candidate.skills[drop].name) not in asked:
            yield replace(candidate, skills=candidate.skills[:drop] + candidate.skills[drop + 1 :])


def _older_roles(job: Job, candidate: Candidate) -> Iterator[Candidate]:
    # The latest job is dropped last: without it a profile says nothing about today.
    for drop in reversed(range(1, len(candidate.roles))):
        yield replace(candidate, roles=candidate.roles[:drop] + candidate.roles[drop + 1 :])
    if len(candidate.roles) > 1:
        yield replace(candidate, roles=candidate.roles[1:])


def _second_names(job: Job, candidate: Candidate) -> Iterator[Candidate]:
    for at, role in enumerate(candidate.roles):
        if ", " in role.text:
            first = replace(role, text=role.text.split(", ")[0])
            yield replace(candidate, roles=(*candidate.roles[:at], first, *candidate.roles[at + 1 :]))


def _headline(job: Job, candidate: Candidate) -> Iterator[Candidate]:
    if candidate.headline:
        yield replace(candidate, headline="")


_STEPS: tuple[tuple[str, Cuts], ...] = (
    ("sentence{s} of summary", _summary_sentences),
    ("sentence{s} of career text", _role_sentences),
    ("other skill{s}", _other_skills),
    ("headline{s}", _headline),
    ("older job{s}", _older_roles),
)
