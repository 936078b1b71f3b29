"""The facts that reasons are confirmed against: what a prompt's job asks for, and what its profile states.

A row carries them in its column `facts`, as JSON (docs/data.md). `read_facts` makes a typed record of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from reward.names import fold

SCHEMA = 2
LEVELS = ("beginner", "intermediate", "advanced", "expert")
REMEDY = (
    "write the rows with `mlx-grpo data build` or `mlx-grpo data synthetic`, "
    "or set reward.rubric to published, or to null and name reward.functions"
)
DEGREES = {1.0: "related", 0.5: "partly related", 0.0: "unrelated"}


class Skill(NamedTuple):
    """A skill that the profile lists; a level or months that it leaves out is None."""

    name: str
    level: str | None
    months: float | None

    @property
    def parts(self) -> tuple[str, ...]:
        """Return what the profile states of the skill: "level", "months", both or neither."""
        return tuple(part for part in ("level", "months") if getattr(self, part) is not None)


class Requirement(NamedTuple):
    """A skill that the job asks for, under any of its names, and the candidate's best skill that meets it."""

    names: tuple[str, ...]
    best: Skill | None


class Claim(NamedTuple):
    """A claim that the rule calls impossible: of a "skill", "role" (named by its company), "jobs" or "expert"."""

    kind: str
    name: str
    months: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one job and one candidate; keys of the dictionaries are folded names."""

    requirements: tuple[Requirement, ...]
    nice: tuple[Requirement, ...]
    skills: dict[str, tuple[Skill, ...]]
    years: float
    low: float
    high: float | None
    titles: dict[str, float]
    title_names: tuple[str, ...]
    companies: frozenset[str]
    work_skills: dict[str, str]
    work: float
    impossible: tuple[Claim, ...]

    @property
    def range_text(self) -> str:
        """Return the job's years: "4-6" or "5+"."""
        return f"{self.low:g}+" if self.high is None else f"{self.low:g}-{self.high:g}"

    def asking(self, name: str) -> list[Requirement]:
        """Return the requirements and nice-to-haves that a folded name meets."""
        return [asked for asked in self.requirements + self.nice if name in map(fold, asked.names)]


def read_facts(facts: object) -> Facts:
    """Make the record of a row's `facts`; raise ValueError where they are not in the schema."""
    if not isinstance(facts, Mapping):
        raise ValueError(f"facts is {type(facts).__name__}: it must be an object; {REMEDY}")
    if facts.get("version") != SCHEMA:
        raise ValueError(f"facts.version = {facts.get('version')!r}: this rubric reads {SCHEMA}; {REMEDY}")
    try:
        return _read(facts)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"facts: not in the schema ({type(error).__name__}: {error}); {REMEDY}") from None


def _read(facts: Mapping[str, Any]) -> Facts:
    listed = {name: _skill(name, **entry) for name, entry in facts["skills"].items()}
    skills: dict[str, tuple[Skill, ...]] = {}
    for skill in listed.values():
        skills[fold(skill.name)] = (*skills.get(fold(skill.name), ()), skill)
    low, high = facts["range"]
    return Facts(
        requirements=tuple(_requirement(entry, listed) for entry in facts["requirements"]),
        nice=tuple(_requirement(entry, listed) for entry in facts.get("nice", ())),
        skills=skills,
        years=_number(facts["years"]),
        low=_number(low),
        high=None if high is None else _number(high),
        titles={fold(title): _degree(degree) for title, degree in facts["titles"].items()},
        title_names=tuple(facts["titles"]),
        companies=frozenset(fold(company) for _, company, _ in facts["roles"]),
        work_skills={fold(name): name for name in facts["work_skills"]},
        work=_degree(facts["work"]),
        impossible=tuple(_claim(**entry) for entry in facts["impossible"]),
    )


def _skill(name: str, level: str | None, months: float | None) -> Skill:
    if level is not None and level not in LEVELS:
        raise ValueError(f"skills.{name}.level = {level!r}")
    return Skill(name, level, None if months is None else _number(months))


def _requirement(entry: Mapping[str, Any], listed: Mapping[str, Skill]) -> Requirement:
    return Requirement(tuple(entry["any"]), None if entry["best"] is None else listed[entry["best"]])


def _claim(kind: str, months: float | list[float], name: str = "") -> Claim:
    if kind not in ("skill", "role", "jobs", "expert"):
        raise ValueError(f"impossible.kind = {kind!r}")
    return Claim(kind, name, tuple(map(_number, months if isinstance(months, list) else [months])))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _degree(value: Any) -> float:
    if _number(value) not in DEGREES:
        raise ValueError(f"{value!r} is none of 1, 0.5, 0")
    return float(value)
