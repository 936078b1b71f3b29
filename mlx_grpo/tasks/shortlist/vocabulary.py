"""The words of made-up jobs and candidates, and the skill names that are known without a pool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_grpo.json_files import read_json


@dataclass(frozen=True, slots=True)
class Field:
    """One line of work."""

    titles: list[str]
    skills: list[str]
    duties: list[str]
    """Sentences for a career; `{a}` takes a skill."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The contents of vocabulary.json."""

    fields: dict[str, Field]
    companies: list[str]
    first_names: list[str]
    last_names: list[str]
    places: list[tuple[str, str]]
    headlines: list[str]
    summaries: list[str]
    job_texts: list[str]
    general_skills: list[str]

    @property
    def skill_names(self) -> list[str]:
        """Return every known skill name once, in file order."""
        names = [name for field in self.fields.values() for name in field.skills] + self.general_skills
        return list(dict.fromkeys(names))


def _load() -> Vocabulary:
    loaded = read_json(Path(__file__).with_name("vocabulary.json"))
    loaded["fields"] = {name: Field(**field) for name, field in loaded["fields"].items()}
    return Vocabulary(**loaded)


VOCABULARY = _load()
