"""Cut a job or a profile down to a token budget without changing its fit.

Parts are dropped in a fixed order, each only if the fit, with all its parts, stays what it was. A text of 200 kB has
thousands of sentences and each try costs a tokenization, so the number to keep is searched for, from short texts on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

from mlx_grpo.tasks.shortlist.fit import fit
from mlx_grpo.tasks.shortlist.records import Candidate, Job, Role
from mlx_grpo.tasks.shortlist.text import fold, mentions, sentences

COMPACT_OTHER_SKILLS = 1
COMPACT_NAMED_SKILLS = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Cuts:
    """What one step may drop from a candidate."""

    parts: list[Any]
    """The first to drop first."""
    without: Callable[[set[Any]], Candidate]
    """Returns the candidate without these parts."""


Step = Callable[[Job, Candidate], _Cuts]


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

    def keeping(kept: int) -> Job:
        chosen = sorted(order[len(parts) - kept :])
        return replace(job, text=" ".join(parts[i] for i in chosen))

    return job if fits(job) else keeping(_most(len(parts), lambda kept: fits(keeping(kept))))


def condense(job: Job, candidate: Candidate, fits: Callable[[Candidate], bool]) -> tuple[Candidate, tuple[str, ...]]:
    """Cut the candidate until `fits` returns True or nothing is left to cut; return it and the cuts in words.

    Whole sentences, skills and jobs are dropped, the least informative first. The fit does not change. Where no cut is
    left and the result still does not fit, the caller reports it.
    """
    done = []
    fits = lru_cache(maxsize=8)(fits)  # each step begins with the candidate that the last one ended with
    for name, step in _STEPS:
        candidate, count = _cut(job, candidate, step, fits)
        if count:
            done.append(f"{count} " + name.format(s="" if count == 1 else "s"))
    return candidate, tuple(done)


def _cut(job: Job, candidate: Candidate, step: Step, enough: Callable[[Candidate], bool]) -> tuple[Candidate, int]:
    """Drop a step's parts until the candidate is small enough; return it and their number."""
    cuts = step(job, candidate)
    if not cuts.parts or enough(candidate):
        return candidate, 0
    gold = fit(job, candidate)
    free = _free(cuts.parts, lambda dropped: fit(job, cuts.without(set(dropped))) == gold)

    def keeping(kept: int) -> Candidate:
        return cuts.without(set(free[: len(free) - kept]))

    kept = _most(len(free), lambda kept: enough(keeping(kept)))
    return keeping(kept), len(free) - kept


def _free(parts: list[Any], allowed: Callable[[list[Any]], bool]) -> list[Any]:
    """Return the parts that may be dropped together: in order, each that may join those before it."""
    free: list[Any] = []
    waiting = [parts]
    while waiting:
        some = waiting.pop()
        if allowed(free + some):
            free += some
        elif len(some) > 1:
            waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
    return free


def _most(bound: int, test: Callable[[int], bool]) -> int:
    """Return the greatest number below `bound` at which `test` is True, given that it is False from there on, or 0."""
    low, high = 0, 0
    while high < bound and test(high):
        low, high = high, 2 * high + 1
    high = min(high, bound)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if test(middle) else (low, middle)
    return low


def _named(job: Job, role: Role) -> list[str]:
    names = {fold(name): name for name in job.skill_names if mentions(name, role.text)}
    return list(names.values())[:COMPACT_NAMED_SKILLS]


def _summary_sentences(job: Job, candidate: Candidate) -> _Cuts:
    parts = sentences(candidate.summary)
    return _Cuts(_from_last(parts), lambda dropped: replace(candidate, summary=" ".join(_rest(parts, dropped))))


def _role_sentences(job: Job, candidate: Candidate) -> _Cuts:
    texts = [sentences(role.text) for role in candidate.roles]

    def without(dropped: set[Any]) -> Candidate:
        roles = list(candidate.roles)
        for at in {at for at, _ in dropped}:
            kept = [part for i, part in enumerate(texts[at]) if (at, i) not in dropped]
            roles[at] = replace(roles[at], text=" ".join(kept))
        return replace(candidate, roles=tuple(roles))

    return _Cuts([(at, i) for at in _from_last(texts) for i in _from_last(texts[at])], without)


def _other_skills(job: Job, candidate: Candidate) -> _Cuts:
    asked = {fold(name) for name in job.skill_names}
    others = [at for at in _from_last(candidate.skills) if fold(candidate.skills[at].name) not in asked]
    return _Cuts(others, lambda dropped: replace(candidate, skills=tuple(_rest(candidate.skills, dropped))))


def _older_roles(job: Job, candidate: Candidate) -> _Cuts:
    roles = candidate.roles
    # Without the latest job a profile says nothing about today: it goes last, and only if the fit needs an older one.
    needs_older = fit(job, replace(candidate, roles=roles[:1])) != fit(job, candidate)
    parts = _from_last(roles) if needs_older else _from_last(roles)[:-1]
    return _Cuts(parts, lambda dropped: replace(candidate, roles=tuple(_rest(roles, dropped))))


def _second_names(job: Job, candidate: Candidate) -> _Cuts:
    def without(dropped: set[Any]) -> Candidate:
        roles = list(candidate.roles)
        for at in dropped:
            roles[at] = replace(roles[at], text=roles[at].text.split(", ")[0])
        return replace(candidate, roles=tuple(roles))

    return _Cuts([at for at, role in enumerate(candidate.roles) if ", " in role.text], without)


def _headline(job: Job, candidate: Candidate) -> _Cuts:
    headline = [0] if candidate.headline else []
    return _Cuts(headline, lambda dropped: replace(candidate, headline="" if dropped else candidate.headline))


def _from_last(items: Sequence[Any]) -> list[int]:
    return list(reversed(range(len(items))))


def _rest(items: Sequence[T], dropped: set[int]) -> list[T]:
    return [item for at, item in enumerate(items) if at not in dropped]


_STEPS: tuple[tuple[str, Step], ...] = (
    ("sentence{s} of summary", _summary_sentences),
    ("sentence{s} of career text", _role_sentences),
    ("other skill{s}", _other_skills),
    ("headline{s}", _headline),
    ("older job{s}", _older_roles),
)
