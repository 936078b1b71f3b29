"""Cut a job or a profile down to a token budget without touching what its fit depends on.

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
    """The profile as the compact form shows it: no prose, the latest job, few skills the job does not ask for.

    A role's description is replaced by the first job skills it names. The fit is that of the whole profile:
    an older job or another skill stays where the fit needs it.
    """
    roles = tuple(replace(role, text=", ".join(_named(job, role))) for role in profile.roles)
    view = replace(profile, headline="", summary="", roles=roles)
    view, _ = _cut(job, view, _older_roles, lambda shown: len(shown.roles) <= 1)
    asked = {fold(name) for name in job.skill_names}
    few = COMPACT_OTHER_SKILLS
    view, _ = _cut(job, view, _other_skills, lambda shown: sum(fold(s.name) not in asked for s in shown.skills) <= few)
    return _cut(job, view, _second_names, lambda shown: False)[0]


def condense_job(job: Job, fits: Callable[[Job], bool]) -> Job:
    """The job with as much of its text as fits, in whole sentences; those that name a job skill go last."""
    parts = sentences(job.text)
    telling = [any(mentions(name, part) for name in job.skill_names) for part in parts]
    order = [i for i in reversed(range(len(parts))) if not telling[i]] + [
        i for i in reversed(range(len(parts))) if telling[i]
    ]
    dropped: set[int] = set()
    while not fits(job) and len(dropped) < len(parts):
        dropped.add(order[len(dropped)])
        job = replace(job, text=" ".join(part for i, part in enumerate(parts) if i not in dropped))
    return job


def condense(job: Job, candidate: Candidate, fits: Callable[[Candidate], bool]) -> tuple[Candidate, tuple[str, ...]]:
    """The candidate cut until `fits` says yes or nothing is left to cut, and what was cut in words.

    Whole sentences, skills and jobs go, the least telling first. The fit of the result equals the fit of
    `candidate`; where even the last cut is not enough, the result still does not fit and the caller says so.
    """
    done = []
    for name, cuts in _STEPS:
        candidate, count = _cut(job, candidate, cuts, fits)
        if count:
            done.append(f"{count} " + name.format(s="" if count == 1 else "s"))
    return candidate, tuple(done)


def _cut(job: Job, shown: Candidate, cuts: Cuts, enough: Callable[[Candidate], bool]) -> tuple[Candidate, int]:
    gold, count = fit(job, shown), 0
    while not enough(shown):
        smaller = next((option for option in cuts(job, shown) if fit(job, option) == gold), None)
        if smaller is None:
            break
        shown, count = smaller, count + 1
    return shown, count


def _named(job: Job, role: Role) -> list[str]:
    names = {fold(name): name for name in job.skill_names if mentions(name, role.text)}
    return list(names.values())[:COMPACT_NAMED_SKILLS]


def _role_sentences(job: Job, shown: Candidate) -> Iterator[Candidate]:
    for at in reversed(range(len(shown.roles))):
        parts = sentences(shown.roles[at].text)
        for drop in reversed(range(len(parts))):
            role = replace(shown.roles[at], text=" ".join(parts[:drop] + parts[drop + 1 :]))
            yield replace(shown, roles=(*shown.roles[:at], role, *shown.roles[at + 1 :]))


def _summary_sentences(job: Job, shown: Candidate) -> Iterator[Candidate]:
    parts = sentences(shown.summary)
    if parts:
        yield replace(shown, summary=" ".join(parts[:-1]))


def _other_skills(job: Job, shown: Candidate) -> Iterator[Candidate]:
    asked = {fold(name) for name in job.skill_names}
    for drop in reversed(range(len(shown.skills))):
        if fold(shown.skills[drop].name) not in asked:
            yield replace(shown, skills=shown.skills[:drop] + shown.skills[drop + 1 :])


def _older_roles(job: Job, shown: Candidate) -> Iterator[Candidate]:
    # The latest job is the last to go: without it a profile says nothing about today.
    for drop in reversed(range(1, len(shown.roles))):
        yield replace(shown, roles=shown.roles[:drop] + shown.roles[drop + 1 :])
    if len(shown.roles) > 1:
        yield replace(shown, roles=shown.roles[1:])


def _second_names(job: Job, shown: Candidate) -> Iterator[Candidate]:
    for at, role in enumerate(shown.roles):
        if ", " in role.text:
            first = replace(role, text=role.text.split(", ")[0])
            yield replace(shown, roles=(*shown.roles[:at], first, *shown.roles[at + 1 :]))


def _headline(job: Job, shown: Candidate) -> Iterator[Candidate]:
    if shown.headline:
        yield replace(shown, headline="")


_STEPS: tuple[tuple[str, Cuts], ...] = (
    ("sentence{s} of summary", _summary_sentences),
    ("sentence{s} of career text", _role_sentences),
    ("other skill{s}", _other_skills),
    ("headline{s}", _headline),
    ("older job{s}", _older_roles),
)
