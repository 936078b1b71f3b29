"""The contents of a shortlist prompt as typed records; the fit is computed from these and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mlx_grpo.tasks.shortlist.text import label, neutralise

Decision = Literal["shortlist", "reject"]
Form = Literal["compact", "full"]
LEVELS = ("beginner", "intermediate", "advanced", "expert")


def _clean(record: object, labels: tuple[str, ...] = (), texts: tuple[str, ...] = ()) -> None:
    """Make the named fields safe in place, so that every record is safe to put into a prompt."""
    for name in labels:
        value = getattr(record, name)
        cleaned = label(value) if isinstance(value, str) else tuple(label(item) for item in value)
        object.__setattr__(record, name, cleaned)
    for name in texts:
        object.__setattr__(record, name, neutralise(getattr(record, name)))


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill a candidate claims."""

    name: str
    level: str
    """One of LEVELS."""
    months: int | None = None
    """Months of use; None where the profile gives none."""

    def __post_init__(self) -> None:
        _clean(self, labels=("name",))


@dataclass(frozen=True, slots=True)
class Role:
    """One job a candidate held."""

    title: str
    company: str
    months: int
    text: str = ""
    """full: the description. compact: the job's skills that the description names, "SQL, Spark"."""

    def __post_init__(self) -> None:
        _clean(self, labels=("title", "company"), texts=("text",))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile as one prompt contains it; `id` is not part of the prompt."""

    title: str
    years: float
    """Years of experience, one decimal."""
    skills: tuple[Skill, ...]
    roles: tuple[Role, ...]
    """The latest first."""
    headline: str = ""
    summary: str = ""
    id: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _clean(self, labels=("title",), texts=("headline", "summary"))
        object.__setattr__(self, "years", round(float(self.years), 1))


@dataclass(frozen=True, slots=True)
class Job:
    """A job as one prompt contains it; `id` and `field` are not part of the prompt."""

    title: str
    required: tuple[str, ...]
    """Skill names; "Pinecone or Qdrant" is one requirement that either of them meets."""
    nice: tuple[str, ...] = ()
    min_years: int = 0
    max_years: int | None = None
    """None for no upper bound."""
    text: str = ""
    id: str = field(default="", compare=False)
    field: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _clean(self, labels=("title", "required", "nice"), texts=("text",))
        if not self.required:
            raise ValueError(f"job {self.title!r} requires no skill: there is nothing to rank by")

    @property
    def skill_names(self) -> tuple[str, ...]:
        """Return every name in `required` and `nice`, alternatives one by one."""
        return tuple(name for entry in self.required + self.nice for name in entry.split(" or "))


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a profile that contradicts its years."""

    kind: Literal["skill", "expert", "role", "jobs"]
    """skill: too many months. expert: after too few. role: one job too long. jobs: all of them together."""
    name: str
    """The skill, or the company of the role; "" for jobs."""
    months: tuple[int, ...]
    """One number, or one for each of the jobs."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The gold label of one job and one candidate, with the parts that its reasons are made of."""

    score: float
    """0 to 1, two decimals; 0 for a profile that cannot be true."""
    skills: float
    """Mean credit of the required skills, 0 to 1, with the bonus for nice-to-haves."""
    years: float
    """1 inside the range, less outside it."""
    relevance: float
    """1 related work, 0.5 partly, 0 unrelated."""
    evidence: tuple[str, ...]
    """The evidence of the relevance: a title, or the job's skills that the work names."""
    best: tuple[Skill | None, ...]
    """For each requirement the skill that meets it with the most credit, or None."""
    impossible: tuple[Claim, ...]
    """Claims that cannot be true."""

    @property
    def decision(self) -> Decision:
        """Return "shortlist" from a score of one half."""
        return "shortlist" if self.score >= 0.5 else "reject"
