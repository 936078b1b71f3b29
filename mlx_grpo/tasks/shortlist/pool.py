"""Read a user's candidate pool in the Redrob schema as records, and report every fault.

The models name all that is read of a candidate; other fields are ignored. A value is read generously where it can only
mean one thing ("Advanced", 24.0 months, 2021-03, an end date of "Present"), and is a fault otherwise.
"""

from __future__ import annotations

import json
import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, PlainValidator, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.pool_files import read_entries
from mlx_grpo.tasks.shortlist.records import LEVELS, Candidate, Role, Skill
from mlx_grpo.tasks.shortlist.text import label

MAX_YEARS = 80
UNNAMED_COMPANY = "unnamed company"
"""An empty company is valid in the schema, and a prompt needs a name."""
OPEN_ENDS = ("present", "current", "now", "ongoing")
_REASONS = {"model_type": "must be an object", "list_type": "must be a list"}


def _fault(reason: str) -> PydanticCustomError:
    return PydanticCustomError("value", reason)


def _absent(value: Any) -> bool:
    return value is None or value != value  # NaN, which Python writes for pandas' missing values


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _fault("must be text")
    return value


def _name(value: Any) -> str:
    if not label(_text(value)):
        raise _fault("must hold a word")
    return _text(value)


def _identity(value: Any) -> str:
    if not _name(value).isprintable():
        raise _fault("must be printable")
    return _text(value)


def _company(value: Any) -> str:
    return _text(value) if label(_text(value)) else UNNAMED_COMPANY


def _prose(value: Any) -> str:
    return "" if _absent(value) else _text(value)


def _level(value: Any) -> str:
    level = label(value).lower() if isinstance(value, str) else ""
    if level not in LEVELS:
        raise _fault(f"must be one of {', '.join(LEVELS)}")
    return level


def _months(value: Any) -> int:
    # JSON Schema's integers include 24.0, which pandas writes for every number of a column with one null.
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool):
        raise _fault("must be a whole number of months")
    if not 0 <= value <= MAX_YEARS * 12:
        raise _fault(f"must be between 0 and {MAX_YEARS * 12} months")
    return int(value)


def _months_or_none(value: Any) -> int | None:
    return None if _absent(value) else _months(value)


def _years(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _fault("must be a number of years")
    if not 0 <= value <= MAX_YEARS:  # NaN fails this too
        raise _fault(f"must be between 0 and {MAX_YEARS} years")
    return float(value)


def _day(value: Any) -> date | None:
    """Return the date, a month's first day; None where there is none."""
    if _absent(value) or value == "":
        return None
    try:
        return datetime.fromisoformat(f"{value}-01" if re.fullmatch(r"\d{4}-\d\d", value) else value).date()
    except (TypeError, ValueError):
        raise _fault("must be a date like 2024-03-08") from None


def _last_day(value: Any) -> date | None:
    """Return the date, a month's last day, or the last of all dates for "Present"; None where there is none."""
    if isinstance(value, str) and value.strip().lower() in OPEN_ENDS:
        return date.max
    day = _day(value)
    return day.replace(day=monthrange(day.year, day.month)[1]) if day and len(value) == len("2024-03") else day


Name = Annotated[str, PlainValidator(_name)]
Prose = Annotated[str, PlainValidator(_prose)]


class _Profile(BaseModel):
    current_title: Name
    years_of_experience: Annotated[float, PlainValidator(_years)]
    headline: Prose = ""
    summary: Prose = ""


class _Skill(BaseModel):
    name: Name
    proficiency: Annotated[str, PlainValidator(_level)]
    duration_months: Annotated[int | None, PlainValidator(_months_or_none)] = None


class _Job(BaseModel):
    start_date: Annotated[date | None, PlainValidator(_day)] = None
    end_date: Annotated[date | None, PlainValidator(_last_day)] = None
    title: Name
    company: Annotated[str, PlainValidator(_company)]
    duration_months: Annotated[int, PlainValidator(_months)]
    description: Prose = ""
    is_current: Any = None

    @property
    def recency(self) -> tuple[bool, date]:
        return self.is_current is True or self.end_date == date.max, self.start_date or date.min

    @field_validator("end_date")
    @classmethod
    def _is_after_start(cls, end: date | None, info: ValidationInfo) -> date | None:
        start = info.data.get("start_date")
        if start and end and end < start:
            raise PydanticCustomError("order", f"is {end}, before start_date {start}")
        return end


class _Person(BaseModel):
    candidate_id: Annotated[str, PlainValidator(_identity)]
    profile: _Profile
    skills: list[_Skill]
    career_history: list[_Job]

    def record(self) -> Candidate:
        skills = tuple(Skill(skill.name, skill.proficiency, skill.duration_months) for skill in self.skills)
        # The latest job first; a file without dates is assumed to be in that order already.
        jobs = sorted(self.career_history, key=lambda job: job.recency, reverse=True)
        roles = tuple(Role(job.title, job.company, job.duration_months, job.description) for job in jobs)
        who = self.profile
        title, years = who.current_title, who.years_of_experience
        return Candidate(title, years, skills, roles, who.headline, who.summary, self.candidate_id)


class Entry(NamedTuple):
    """One entry of a pool: its record, or its faults."""

    candidate_id: str
    """As in the file; "" where it has none."""
    candidate: Candidate | None
    problems: list[str]


def load_pool(path: Path) -> tuple[list[Candidate], list[str]]:
    """Return the good candidates in file order, and one line for each fault of the others: file, place, field, reason.

    A place is a list index, `pool.json[3]`, or a line, `pool.jsonl:17`, both as an editor or `jq` counts them.
    Raises UserError where the file cannot be read at all.
    """
    candidates: list[Candidate] = []
    problems: list[str] = []
    for entry in stream_pool(path):
        problems += entry.problems
        if entry.candidate is not None:
            candidates.append(entry.candidate)
    if not candidates and not problems:
        raise UserError(f"{path}: holds no candidate: expected a JSON list or one JSON object per line")
    return candidates, problems


def stream_pool(path: Path) -> Iterator[Entry]:
    """Yield every entry in file order.

    Of JSON lines, only one line and the ids so far are in memory. Raises UserError where the file cannot be read.
    """
    seen: dict[str, str] = {}
    for where, value, fault in read_entries(path):
        candidate, faults = (None, [fault]) if fault else read_candidate(where, value)
        if candidate is not None and candidate.id in seen:
            faults.append(
                f"{where}: candidate_id {candidate.id!r} stands already at {seen[candidate.id]}: ids must differ"
            )
        name = value.get("candidate_id") if isinstance(value, dict) else None
        yield Entry(name if isinstance(name, str) else "", None if faults else candidate, faults)
        if candidate is not None and not faults:
            seen[candidate.id] = where


def read_candidate(where: str, value: Any) -> tuple[Candidate | None, list[str]]:
    """Read one candidate of the Redrob schema; return its record, or None, and its faults."""
    try:
        return _Person.model_validate(value).record(), []
    except ValidationError as error:
        name = value.get("candidate_id") if isinstance(value, dict) else None
        place = f"{where} ({name})" if isinstance(name, str) and name.isprintable() else where
        return None, [f"{place}: {_describe(detail)}" for detail in error.errors(include_url=False)]


def _describe(detail: ErrorDetails) -> str:
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    if detail["type"] == "missing":
        return f"{name} is missing"
    reason = _REASONS.get(detail["type"], detail["msg"])
    if detail["type"] == "order":
        return f"{name} {reason}"
    return f"{name} is {_show(detail['input'])}: {reason}".lstrip()


def _show(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:  # json reads a little deeper than it writes
        return "nested without end"
    text = text if len(text) <= 40 else text[:37] + "..."
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair can't be printed
