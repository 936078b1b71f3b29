"""Read a user's candidate pool (JSON list or JSONL, in the Redrob schema) as records, and report every fault.

Read per candidate: `candidate_id`, `profile.current_title`, `profile.years_of_experience`, `skills[].name`,
`.proficiency`, `.duration_months`, `career_history[].title`, `.company`, `.duration_months`, and where present
`profile.headline`, `profile.summary`, `career_history[].description`, `.start_date`, `.end_date`, `.is_current`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.records import LEVELS, Candidate, Role, Skill
from mlx_grpo.tasks.shortlist.text import label

MAX_YEARS = 80
_MISSING = object()


@dataclass(slots=True)
class _Reader:
    """Reads fields of one candidate and collects their faults, so that one pass reports all of them."""

    where: str
    problems: list[str] = field(default_factory=list)

    def fault(self, name: str, reason: str) -> None:
        self.problems.append(f"{self.where}: {name} {reason}")

    def record(self, parent: dict[str, Any], key: str, name: str) -> dict[str, Any]:
        value = parent.get(key, _MISSING)
        if isinstance(value, dict):
            return value
        self.fault(name, "is missing" if value is _MISSING else f"is {_show(value)}: must be an object")
        return {}

    def items(self, parent: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        value = parent.get(key, _MISSING)
        if not isinstance(value, list):
            self.fault(key, "is missing" if value is _MISSING else f"is {_show(value)}: must be a list")
            return
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield f"{key}[{index}]", item
            else:
                self.fault(f"{key}[{index}]", f"is {_show(item)}: must be an object")

    def name(self, parent: dict[str, Any], key: str, name: str) -> str:
        value = parent.get(key, _MISSING)
        if value is _MISSING:
            self.fault(name, "is missing")
        elif not isinstance(value, str):
            self.fault(name, f"is {_show(value)}: must be text")
        elif not label(value):
            self.fault(name, f"is {_show(value)}: must hold a word")
        else:
            return value
        return ""

    def prose(self, parent: dict[str, Any], key: str, name: str) -> str:
        value = parent.get(key)
        if value is None or isinstance(value, str):
            return value or ""
        self.fault(name, f"is {_show(value)}: must be text")
        return ""

    def months(self, parent: dict[str, Any], key: str, name: str, optional: bool = False) -> int | None:
        value = parent.get(key, _MISSING)
        if optional and (value is _MISSING or value is None):
            return None
        if value is _MISSING:
            self.fault(name, "is missing")
        elif not isinstance(value, int) or isinstance(value, bool):
            self.fault(name, f"is {_show(value)}: must be a whole number of months")
        elif not 0 <= value <= MAX_YEARS * 12:
            self.fault(name, f"is {_show(value)}: must be between 0 and {MAX_YEARS * 12} months")
        else:
            return value
        return 0

    def years(self, parent: dict[str, Any], key: str, name: str) -> float:
        value = parent.get(key, _MISSING)
        if value is _MISSING:
            self.fault(name, "is missing")
        elif not isinstance(value, int | float) or isinstance(value, bool):
            self.fault(name, f"is {_show(value)}: must be a number of years")
        elif not 0 <= value <= MAX_YEARS:  # NaN fails this too
            self.fault(name, f"is {_show(value)}: must be between 0 and {MAX_YEARS} years")
        else:
            return float(value)
        return 0.0

    def day(self, parent: dict[str, Any], key: str, name: str) -> date | None:
        value = parent.get(key)
        if value is None:
            return None
        try:
            return date.fromisoformat(value)
        except (TypeError, ValueError):
            self.fault(name, f"is {_show(value)}: must be a date like 2024-03-08")
            return None


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

    Of a JSONL file, only one line and the ids so far are in memory. Raises UserError where the file cannot be read.
    """
    seen: dict[str, str] = {}
    for where, value, fault in _entries(path):
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
    if not isinstance(value, dict):
        return None, [f"{where}: is {_show(value)}: must be an object"]
    name = value.get("candidate_id")
    read = _Reader(f"{where} ({name})" if isinstance(name, str) else where)
    identity = read.name(value, "candidate_id", "candidate_id")
    if not identity.isprintable():
        read.fault("candidate_id", f"is {_show(identity)}: must be printable")
    profile = read.record(value, "profile", "profile")
    has_profile = isinstance(value.get("profile"), dict)
    title = read.name(profile, "current_title", "profile.current_title") if has_profile else ""
    years = read.years(profile, "years_of_experience", "profile.years_of_experience") if has_profile else 0.0
    headline = read.prose(profile, "headline", "profile.headline")
    summary = read.prose(profile, "summary", "profile.summary")
    skills = tuple(_skill(read, at, item) for at, item in read.items(value, "skills"))
    dated = [_role(read, at, item) for at, item in read.items(value, "career_history")]
    if read.problems:
        return None, read.problems
    # The latest job first; a file without dates is assumed to be in that order already.
    roles = tuple(role for _, role in sorted(dated, key=lambda pair: pair[0], reverse=True))
    return Candidate(title, years, skills, roles, headline, summary, identity), []


def _skill(read: _Reader, at: str, item: dict[str, Any]) -> Skill:
    name = read.name(item, "name", f"{at}.name")
    level = item.get("proficiency", _MISSING)
    if level not in LEVELS:
        reason = "is missing" if level is _MISSING else f"is {_show(level)}: must be one of {', '.join(LEVELS)}"
        read.fault(f"{at}.proficiency", reason)
        level = LEVELS[0]
    return Skill(name, level, read.months(item, "duration_months", f"{at}.duration_months", optional=True))


def _role(read: _Reader, at: str, item: dict[str, Any]) -> tuple[tuple[bool, date], Role]:
    start = read.day(item, "start_date", f"{at}.start_date")
    end = read.day(item, "end_date", f"{at}.end_date")
    if start and end and end < start:
        read.fault(f"{at}.end_date", f"is {end}, before start_date {start}")
    role = Role(
        read.name(item, "title", f"{at}.title"),
        read.name(item, "company", f"{at}.company"),
        read.months(item, "duration_months", f"{at}.duration_months") or 0,
        read.prose(item, "description", f"{at}.description"),
    )
    return (item.get("is_current") is True, start or date.min), role


def _entries(path: Path) -> Iterator[tuple[str, Any, str]]:
    """Yield each entry's place and value, or the fault of a line that is no JSON."""
    try:
        # As `read_text` would: skip a byte order mark, and accept all three line endings.
        with path.open(encoding="utf-8-sig") as file:
            head = next((line for line in file if line.strip()), "")
            file.seek(0)
            if head.lstrip().startswith("[") or path.suffix == ".json":
                yield from _listed(path, file.read())
            else:
                yield from _lines(path, file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _listed(path: Path, text: str) -> Iterator[tuple[str, Any, str]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(values, list):
        raise UserError(
            f"{path}: is one JSON {type(values).__name__}: expected a list, or JSONL in a file named *.jsonl"
        )
    yield from ((f"{path.name}[{index}]", value, "") for index, value in enumerate(values))


def _lines(path: Path, file: Iterable[str]) -> Iterator[tuple[str, Any, str]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            value, fault = json.loads(line), ""
        except (ValueError, RecursionError) as error:  # ValueError: also an integer of more digits than Python reads
            value, fault = None, f"{where}: not valid JSON: {error}"
        yield where, value, fault


def _show(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:  # json reads a little deeper than it writes
        return "nested without end"
    text = text if len(text) <= 40 else text[:37] + "..."
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair can't be printed
