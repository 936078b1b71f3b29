"""Read a user's job description as a Job: title, years and skills, by rules and without a model.

A job is given as prose (text, Markdown or HTML), or as the job.yaml that `mlx-grpo data job` wrote and a person
corrected. What is doubtful becomes nice to have, or is left out and listed under `doubts`; it is never required.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.job_file import is_job_file, read_job_file, write_job_file
from mlx_grpo.tasks.shortlist.pool import stream_pool
from mlx_grpo.tasks.shortlist.posting.asks import Ask, Asks, Tier, read_asks
from mlx_grpo.tasks.shortlist.posting.names import names_of
from mlx_grpo.tasks.shortlist.posting.sections import parts_of
from mlx_grpo.tasks.shortlist.posting.text import MAX_CHARACTERS, Line, lines_of, read_text
from mlx_grpo.tasks.shortlist.posting.title import Title, read_title
from mlx_grpo.tasks.shortlist.posting.years import Years, read_years
from mlx_grpo.tasks.shortlist.records import Job
from mlx_grpo.tasks.shortlist.text import label, neutralise
from mlx_grpo.tasks.shortlist.vocabulary import VOCABULARY

MAX_REQUIRED = 8
MAX_NICE = 4
# The tiers that are required, the first that names any skill, and those that are nice to have beside them.
_CHOICES: tuple[tuple[tuple[Tier, ...], tuple[Tier, ...]], ...] = (
    (("required",), ("asked",)),
    (("asked", "hinted"), ("prose", "duties")),
    (("prose",), ("duties",)),
    (("duties",), ()),
)
LONGEST_NAME = 4
"""Words from which the name of a skill is doubtful is one more."""


@dataclass(frozen=True, slots=True)
class JobReading:
    """A job as it was read, the line behind each skill, and what is doubtful about it."""

    title: str | None
    min_years: int
    max_years: int | None
    required: tuple[str, ...]
    """Skill names; "Pinecone or Qdrant" is one requirement that either of them meets."""
    nice: tuple[str, ...]
    sources: dict[str, str]
    """The line of the text that each entry of `required` and `nice` comes from."""
    doubts: tuple[str, ...]
    text: str
    """The whole description on one line, for the full form of the prompts."""
    id: str

    def as_dict(self) -> dict[str, Any]:
        """Return what `mlx-grpo data job --json` prints."""
        return {
            "title": self.title,
            "min_years": self.min_years,
            "max_years": self.max_years,
            "required": list(self.required),
            "nice": list(self.nice),
            "sources": self.sources,
            "doubts": list(self.doubts),
        }

    def lines(self) -> list[str]:
        """Return the job as lines to print, each skill with the line that it was read from."""
        years = f"{self.min_years}+" if self.max_years is None else f"{self.min_years}-{self.max_years}"
        entries = [("required", name) for name in self.required] + [("nice", name) for name in self.nice]
        width = min(40, max((len(name) for _, name in entries), default=0))
        rows = [f"{kind:<9} {name:<{width}}  < {_shortened(self.sources.get(name, ''))}" for kind, name in entries]
        return [f"job       {self.title or '(no title)'}, {years} years", *(row.rstrip(" <") for row in rows)]

    def write(self, path: Path, source: str) -> None:
        """Write the job as a job.yaml; raise UserError where it exists already or can't be written."""
        write_job_file(
            path,
            source=source,
            title=self.title,
            years=(self.min_years, self.max_years),
            required=self.required,
            nice=self.nice,
            text=self.text,
            doubts=self.doubts,
        )

    def job(self, path: Path) -> Job:
        """Return the job to rank for; raise UserError where the title or all skills are missing."""
        problems = []
        if not self.title:
            problems.append(f"{path}: no title found: begin the file with a line like `Job Description: Data Engineer`")
        if not self.required:
            problems.append(
                f"{path}: none of the skill names of the pool and the bundled lists stands in the text as a "
                "requirement: add a line like `Required: Python, SQL`"
            )
        if problems or self.title is None:
            raise UserError(*problems)
        return Job(self.title, self.required, self.nice, self.min_years, self.max_years, text=self.text, id=self.id)


def read_job(path: Path, pool_skills: Iterable[str], known_skills: Iterable[str] = ()) -> Job:
    """Read the job that a file asks for; skills are spelled as in the pool.

    Raises UserError where the file cannot be read, or holds no title or no known skill.
    """
    return read_description(path, pool_skills, known_skills).job(path)


def read_description(path: Path, pool_skills: Iterable[str] = (), known_skills: Iterable[str] = ()) -> JobReading:
    """Read a job's text or job.yaml, with all doubts; skills are spelled as in the pool.

    Raises UserError where the file cannot be read.
    """
    if is_job_file(path):
        return _from_job_file(path)
    names = names_of(tuple(pool_skills), (*known_skills, *VOCABULARY.skill_names))
    text, is_cut = read_text(path)
    lines = lines_of(text)
    parts = parts_of(lines, lambda text: any(mention.name.sort == "sure" for mention in names.find(text)))
    found = read_title(parts)
    title = neutralise(found.text) if found else ""
    asks = read_asks([part for part in parts if found is None or part is not found.part], names)
    years, skill_years = read_years(parts, names, title)
    required, nice, doubts = _selected(asks)
    doubts += [f"only the first {MAX_CHARACTERS} characters are read; give the text of one job"] if is_cut else []
    return JobReading(
        title or None,
        years.low if years else 0,
        years.high if years else None,
        tuple(map(_entry, required)),
        tuple(map(_entry, nice)),
        {_entry(ask): ask.line for ask in [*required, *nice]},
        (
            *_missing(found, years, required),
            *_about_years(years, skill_years),
            *doubts,
            *_left_out(asks, required + nice),
        ),
        _prose(lines),
        path.stem,
    )


def pool_skills(path: Path) -> list[str]:
    """Return the names of skills in a pool's file, the most frequent first.

    Raises UserError where the file cannot be read.
    """
    skills: Counter[str] = Counter()
    for entry in stream_pool(path):
        if entry.candidate is not None:
            skills.update(skill.name for skill in entry.candidate.skills)
    return [name for name, _ in skills.most_common()]


def _from_job_file(path: Path) -> JobReading:
    read = read_job_file(path)
    required, nice = tuple(map(label, read.required)), tuple(map(label, read.nice))
    return JobReading(
        neutralise(read.title) or None,
        read.min_years,
        read.max_years,
        required,
        nice,
        dict.fromkeys([*required, *nice], path.name),
        tuple(_long_names([*required, *nice])),
        neutralise(read.text),
        path.stem,
    )


def _entry(ask: Ask) -> str:
    return " or ".join(label(name) for name in ask.names)


def _selected(asks: Asks) -> tuple[list[Ask], list[Ask], list[str]]:
    """Select the required and the nice-to-have entries, and say what is doubtful about the selection.

    Prose counts as a requirement only where no section of requirements names a skill.
    """
    doubts = []
    # The first choice that names a skill, else the last.
    tiers, weaker = next((choice for choice in _CHOICES if _of_tiers(asks.found, choice[0])), _CHOICES[-1])
    required = _of_tiers(asks.found, tiers)
    nice = _of_tiers(asks.found, ("nice",)) + _of_tiers(asks.found, weaker)
    if required and tiers[0] in ("prose", "duties"):
        doubts.append(
            "no line says what is required: the skills are those that the text names; correct them in job.yaml"
        )
    required, dropped = _most_named(required, asks.counts, MAX_REQUIRED)
    doubts += _too_many(f"{MAX_REQUIRED} required skills: the least named", dropped)
    taken = {name for ask in required for name in ask.names}
    nice = [ask for ask in _distinct(nice) if taken.isdisjoint(ask.names)]
    nice, dropped = nice[:MAX_NICE], nice[MAX_NICE:]
    doubts += _too_many(f"{MAX_NICE} nice-to-have skills: the last", dropped)
    return required, nice, doubts + _long_names([name for ask in required + nice for name in ask.names])


def _of_tiers(found: list[Ask], tiers: tuple[Tier, ...]) -> list[Ask]:
    return _distinct([ask for ask in found if ask.tier in tiers])


def _distinct(asks: list[Ask]) -> list[Ask]:
    """Return the asks without those that name a skill again."""
    taken: set[str] = set()
    kept = []
    for ask in asks:
        if taken.isdisjoint(ask.names):
            kept.append(ask)
            taken.update(ask.names)
    return kept


def _most_named(asks: list[Ask], counts: dict[str, int], most: int) -> tuple[list[Ask], list[Ask]]:
    """Return the asks that the text names most often, in its order, and the others."""
    ranked = sorted(asks, key=lambda ask: -sum(counts.get(name, 0) for name in ask.names))
    kept = set(map(id, ranked[:most]))
    return [ask for ask in asks if id(ask) in kept], [ask for ask in asks if id(ask) not in kept]


def _missing(title: Title | None, years: Years | None, required: list[Ask]) -> list[str]:
    doubts = []
    if title is None:
        doubts.append("no title found: add a line like `Job Title: Data Engineer`")
    elif title.doubtful:
        doubts.append(f"the title is the first line, which names no occupation: {_shortened(title.text)!r}")
    if years is None:
        doubts.append("no years of experience found: read as 0+")
    if len(required) < 2:
        doubts.append(f"{len(required) or 'no'} required skill found: add a line like `Required: Python, SQL`")
    return doubts


def _about_years(years: Years | None, of_skills: list[Years]) -> list[str]:
    more = [one for one in of_skills if years is None or one.low > years.low]
    listed = ", ".join(f"{one.skill} {one.low}" for one in more[:5])
    return [f"the years of single skills are not read as the job's: {listed}"] if more else []


def _too_many(kept: str, dropped: list[Ask]) -> list[str]:
    left = ", ".join(map(_entry, dropped[:10]))
    return [f"more than {kept} are left out: {left}"] if dropped else []


def _long_names(names: Iterable[str]) -> list[str]:
    singles = [one for name in names for one in name.split(" or ")]
    return [
        f"a skill name of more than {LONGEST_NAME} words: {name!r}"
        for name in dict.fromkeys(singles)
        if len(name.split()) > LONGEST_NAME
    ]


def _left_out(asks: Asks, kept: list[Ask]) -> list[str]:
    taken = {name for ask in kept for name in ask.names}
    doubts = []
    ordinary = [name for name in dict.fromkeys(asks.ordinary) if name not in taken]
    if ordinary:
        doubts.append(f"left out, as the text seems to use them as ordinary words: {', '.join(ordinary[:10])}")
    unknown = [name for name in dict.fromkeys(asks.unknown) if name not in taken]
    if unknown:
        doubts.append(f"left out, as no list knows them as skills: {', '.join(map(_shortened, unknown[:10]))}")
    return doubts


def _shortened(text: str, most: int = 90) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _prose(lines: list[Line]) -> str:
    texts = [neutralise(line.text) for line in lines]
    return " ".join(text if text[-1] in ".!?:;," else text + "." for text in texts if text)
