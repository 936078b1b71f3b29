"""The facts that reasons are confirmed against: what a job asks for and what a profile states, in canonical wording.

A row carries them in its column `facts`, as JSON (docs/guide/data.md); `read_facts` makes a typed record of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from reward.names import fold

SCHEMA = 2
LEVELS = ("beginner", "intermediate", "advanced", "expert")
# More impossible claims than this decide nothing further, and an answer has to end.
MOST_CLAIMS = 2
DEGREES = {1.0: "related", 0.5: "partly related", 0.0: "unrelated"}
REMEDY = (
    "write the rows with `mlx-grpo data build` or `mlx-grpo data synthetic`, "
    "or set reward.rubric to published, or to null and name reward.functions"
)


class Skill(NamedTuple):
    """A skill that the profile lists; a level or months that it leaves out is None."""

    name: str
    level: str | None
    months: float | None

    @property
    def parts(self) -> tuple[str, ...]:
        """Return what the profile states of the skill: the level, the months, both or neither."""
        months = [] if self.months is None else [count(self.months, "month")]
        return (*([self.level] if self.level else []), *months)

    @property
    def fact(self) -> str:
        """Return "Excel: advanced, 7 months", or as much of it as the profile states."""
        return f"{self.name}: {', '.join(self.parts) or 'listed'}"


class Requirement(NamedTuple):
    """A skill that the job asks for, under any of its names, and the candidate's best skill that meets it."""

    names: tuple[str, ...]
    best: Skill | None

    @property
    def fact(self) -> str:
        """Return the best skill with level and months, or "Pinecone or Qdrant: missing"."""
        return f"{' or '.join(self.names)}: missing" if self.best is None else self.best.fact


class Claim(NamedTuple):
    """A claim that the rule calls impossible: of a "skill", "role" (by its company), "jobs" or "expert"."""

    kind: str
    name: str
    months: tuple[float, ...]

    def fact(self, years: float) -> str:
        """Return "Kafka: 150 months in 6 years, impossible", or the wording of another kind."""
        *others, last = (count(months, "month") for months in self.months)
        if self.kind == "expert":
            return f"expert in {self.name} after {last}, impossible"
        listed = f"jobs of {', '.join(other.split()[0] for other in others)} and {last}"
        words = {"jobs": listed, "role": f"{last} at {self.name}", "skill": f"{self.name}: {last}"}[self.kind]
        return f"{words} in {count(years, 'year')}, impossible"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one job and one candidate; the dictionaries are by folded name."""

    requirements: tuple[Requirement, ...]
    asked: dict[str, tuple[Requirement, ...]]
    """Requirements and nice-to-haves, under each of their names."""
    skills: dict[str, tuple[Skill, ...]]
    """More than one where spellings of a name differ."""
    years: float
    low: float
    high: float | None
    """None for no upper end of the job's range."""
    titles: dict[str, tuple[str, float]]
    """Each title as written, and its own degree."""
    companies: frozenset[str]
    work_skills: dict[str, str]
    work: float
    impossible: tuple[Claim, ...]

    @property
    def side(self) -> str:
        """Return where the years lie: "above", "inside" or "below" the job's range."""
        if self.years < self.low:
            return "below"
        return "above" if self.high is not None and self.years > self.high else "inside"

    @property
    def asks_years(self) -> bool:
        """Return False where any number of years will do: "0+"."""
        return self.low > 0 or self.high is not None

    @property
    def years_fact(self) -> str:
        """Return "9 years, above 4-6" or "7 years, inside 5+"."""
        span = f"{self.low:g}+" if self.high is None else f"{self.low:g}-{self.high:g}"
        return f"{count(self.years, 'year')}, {self.side} {span}"

    @property
    def work_fact(self) -> str:
        """Return "Accountant: related work" or "work with SQL and Spark: related"; "" if nothing shows the degree."""
        for title, degree in self.titles.values():
            if degree == self.work:
                return f"{title}: {DEGREES[degree]} work"
        names = list(self.work_skills.values())[:2]
        shown = names and skills_degree(len(names)) == self.work
        return f"work with {' and '.join(names)}: {DEGREES[self.work]}" if shown else ""

    def decisive(self) -> dict[str, int]:
        """Return the decisive facts in order, each with the number of parts that state it in full.

        In order: the requirements, the years unless any number will do, the work, and the first impossible claims. Left
        out is what no clause can state: a skill with neither level nor months, and work that nothing shows.
        """
        asked = {one.fact: len(one.best.parts) if one.best else 1 for one in self.requirements}
        years = self.years_fact if self.asks_years else ""
        others = (years, self.work_fact, *(claim.fact(self.years) for claim in self.impossible[:MOST_CLAIMS]))
        return {fact: parts for fact, parts in (asked | dict.fromkeys(others, 1)).items() if fact and parts}


def skills_degree(number: int) -> float:
    """Return the degree of work that names so many of the job's skills: two or more are related, one partly."""
    return min(number, 2) / 2


def count(number: float, unit: str) -> str:
    """Return "1 year" or "6.9 years"."""
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def read_facts(facts: object) -> Facts:
    """Make the record of a row's `facts`; raise ValueError where they are not in the schema."""
    if not isinstance(facts, Mapping):
        raise ValueError(f"facts is {type(facts).__name__}: strict confirms reasons against them; {REMEDY}")
    if facts.get("version") != SCHEMA:
        raise ValueError(f"facts.version = {facts.get('version')!r}: strict reads {SCHEMA}; {REMEDY}")
    try:
        return _read(facts)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"facts: not in the schema ({type(error).__name__}: {error}); {REMEDY}") from None


def _read(facts: Mapping[str, Any]) -> Facts:
    listed = {name: _skill(name, **entry) for name, entry in facts["skills"].items()}
    required = [_requirement(entry, listed) for entry in facts["requirements"]]
    nice = [_requirement(entry, listed) for entry in facts.get("nice", ())]
    low, high = facts["range"]
    return Facts(
        requirements=tuple(required),
        asked=_by_name([(name, entry) for entry in required + nice for name in entry.names]),
        skills=_by_name(list(listed.items())),
        years=_number(facts["years"]),
        low=_number(low),
        high=None if high is None else _number(high),
        titles={fold(title): (title, _degree(degree)) for title, degree in facts["titles"].items()},
        companies=frozenset(fold(company) for _, company, _ in facts["roles"]),
        work_skills={fold(name): name for name in facts["work_skills"]},
        work=_degree(facts["work"]),
        impossible=tuple(_claim(**entry) for entry in facts["impossible"]),
    )


def _by_name(items: list[tuple[str, Any]]) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for name, item in items:
        found[fold(name)] = (*found.get(fold(name), ()), item)
    return found


def _skill(name: str, level: str | None, months: float | None) -> Skill:
    if level is not None and level not in LEVELS:
        raise ValueError(f"skills.{name}.level = {level!r}")
    return Skill(name, level, None if months is None else _number(months))


def _requirement(entry: Mapping[str, Any], listed: Mapping[str, Skill]) -> Requirement:
    return Requirement(tuple(entry["any"]), None if entry["best"] is None else listed[entry["best"]])


def _claim(kind: str, months: float | list[float], name: str = "") -> Claim:
    numbers = tuple(map(_number, months if isinstance(months, list) else [months]))
    if kind not in ("skill", "role", "jobs", "expert") or len(numbers) < (2 if kind == "jobs" else 1):
        raise ValueError(f"impossible: {kind!r} of {months!r}")
    return Claim(kind, name, numbers)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _degree(value: Any) -> float:
    if _number(value) not in DEGREES:
        raise ValueError(f"{value!r} is none of 1, 0.5, 0")
    return float(value)
