"""What a shortlist prompt shows, as typed records: the fit is computed from these and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mlx_grpo.tasks.shortlist.text import label, neutralise

Decision = Literal["shortlist", "reject"]
Form = Literal["compact", "full"]
Order = Literal["reasons_first", "decision_first"]
LEVELS = ("beginner", "intermediate", "advanced", "expert")


def _clean(record: object, labels: tuple[str, ...] = (), texts: tuple[str, ...] = ()) -> None:
    """Make the named fields safe in place: a record that exists is a record that can be shown."""
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
    """How long it was used; None where the profile does not say."""

    def __post_init__(self) -> None:
        _clean(self, labels=("name",))


@dataclass(frozen=True, slots=True)
class Role:
    """One job a candidate held."""

    title: str
    company: str
    months: int
    text: str = ""
    """full: what was done. compact: the job's skills that the description names, "SQL, Spark"."""

    def __post_init__(self) -> None:
        _clean(self, labels=("title", "company"), texts=("text",))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile as one prompt shows it; `id` is a handle that is not shown."""

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
    """A job as one prompt shows it; `id` and `field` are handles that are not shown."""

    title: str
    required: tuple[str, ...]
    """Skill names; "Pinecone or Qdrant" is one requirement that either of them meets."""
    nice: tuple[str, ...] = ()
    min_years: int = 0
    max_years: int | None = None
    """None: no upper bound."""
    text: str = ""
    id: str = field(default="", compare=False)
    field: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _clean(self, labels=("title", "required", "nice"), texts=("text",))
        if not self.required:
            raise ValueError(f"job {self.title!r} requires no skill: there is nothing to rank by")

    @property
    def skill_names(self) -> tuple[str, ...]:
        """Every name in `required` and `nice`, alternatives one by one."""
        return tuple(name for entry in self.required + self.nice for name in entry.split(" or "))


@dataclass(frozen=True, slots=True)
class Fit:
    """The gold answer for one job and one candidate, with the parts its reasons are made of."""

    score: float
    """0 to 1, two decimals; 0 for a profile that cannot be true."""
    skills: float
    """Mean credit of the required skills, 0 to 1, with the bonus for nice-to-haves."""
    years: float
    """1 inside the range, less outside it."""
    relevance: float
    """1 related work, 0.5 partly, 0 unrelated."""
    evidence: tuple[str, ...]
    """What the relevance rests on: a title, or the job's skills that the work names."""
    strong: tuple[Skill, ...]
    """The candidate's skills that meet a requirement with a credit of at least one half."""
    thin: tuple[Skill, ...]
    """Those that meet one with less."""
    missing: tuple[str, ...]
    """Requirements that no listed skill meets."""
    impossible: tuple[str, ...]
    """Claims that cannot be true, each as a phrase made of what the prompt shows."""

    @property
    def decision(self) -> Decision:
        """Shortlist from a score of one half."""
        return "shortlist" if self.score >= 0.5 else "reject"
